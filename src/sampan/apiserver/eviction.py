"""`pods/eviction`: the deletion of a pod, if its PodDisruptionBudget can spare it.

Who is allowed a disruption takes it from the budget's status in the same write that sees it there, so that no two
evictions spend the same one. Upstream: `pkg/registry/core/pod/storage/eviction.go`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sampan.api import errors, selectors
from sampan.api.errors import Object, StatusError, bad_request
from sampan.api.objects import condition, condition_true, deep_copy, now
from sampan.api.resources import PODDISRUPTIONBUDGETS, PODS
from sampan.apiserver.deletion import DeleteOptions, Deletion, options_from
from sampan.apiserver.preparation import Writing, check_type
from sampan.apiserver.records import Record
from sampan.apiserver.registry import Conflict, Registry
from sampan.apiserver.types import Attributes

_DEFINITION = "io.k8s.api.policy.v1.Eviction"
_VIOLATION = "Cannot evict pod as it would violate the pod's disruption budget."
_SEVERAL = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
_CAUSE = "DisruptionBudget"
_MOST_UNCONFIRMED = 2000
"""Evictions that a budget's controller may not have seen yet."""
_ATTEMPTS = 20
_RETRY_AFTER = 10


class Evictions:
    """Evicts pods. One a server."""

    def __init__(self, registry: Registry, deletion: Deletion) -> None:
        self._registry = registry
        self._deletion = deletion

    async def evict(self, namespace: str, name: str, eviction: Object, writing: Writing) -> None:
        """Delete a pod. Raises StatusError: 429 where its budget does not allow that now."""
        if eviction.get("apiVersion") == "policy/v1beta1":
            eviction["apiVersion"] = "policy/v1"
        check_type(_DEFINITION, "policy/v1", "Eviction", eviction, writing)
        if (eviction["metadata"].get("name") or name) != name:
            raise bad_request("name in URL does not match name in Eviction object")
        given = eviction.get("deleteOptions")
        options = options_from(given, {}) if given else DeleteOptions()
        writing.dry_run = writing.dry_run or options.dry_run
        attributes = Attributes(
            writing.user, "CREATE", PODS, namespace, name, "eviction", eviction, None, writing.dry_run
        )
        await self._registry.admission.mutate(attributes)
        await self._registry.admission.validate(attributes)
        for _ in range(_ATTEMPTS):
            record = self._record(namespace, name)
            if not _beyond_budgets(record.obj):
                return await self._within_budget(record, options, writing)
            # A pod that is just starting may become ready in between, and then counts.
            over = _over(record.obj)
            try:
                return await self._delete(record, options, writing, unchanged=not over)
            except StatusError as e:
                if e.code != 409 or options.resource_version:
                    raise
        raise errors.conflict(PODS.plural, name, errors.MODIFIED)

    def _record(self, namespace: str, name: str) -> Record:
        record = self._registry.cache.record(PODS, namespace, name)
        if record is None:
            raise errors.not_found(PODS.plural, name)
        return record

    async def _within_budget(self, record: Record, options: DeleteOptions, writing: Writing) -> None:
        budgets = self._budgets(record.obj)
        if len(budgets) > 1:
            raise StatusError(500, "", _SEVERAL)
        if not budgets:
            return await self._delete(record, options, writing)
        (budget,) = budgets
        if not _spared(record.obj, budget):
            await self._spend(record, budget["metadata"]["name"], writing)
            return await self._delete(record, options, writing)
        try:
            return await self._delete(record, options, writing, unchanged=True)
        except StatusError as e:
            if e.code != 409 or options.resource_version:
                raise
            raise _still_processed(budget["metadata"]["name"]) from None

    def _budgets(self, pod: Object) -> Sequence[Object]:
        """The budgets of a pod. An empty selector selects every pod of the namespace, none selects none."""
        metadata = pod["metadata"]
        found = []
        for budget in self._registry.cache.list(PODDISRUPTIONBUDGETS, metadata["namespace"]):
            try:
                selector = selectors.from_object((budget.get("spec") or {}).get("selector"))
            except ValueError:
                continue
            if selector.matches(metadata.get("labels")):
                found.append(budget)
        return found

    async def _spend(self, record: Record, budget: str, writing: Writing) -> None:
        """Take one disruption from a budget. Raises StatusError where it has none."""

        def take(obj: Object) -> Object:
            status = obj.setdefault("status", {})
            _check(obj, status)
            status["disruptionsAllowed"] -= 1
            if not status["disruptionsAllowed"]:
                _set_allowed_condition(obj, status)
            status["disruptedPods"] = {**(status.get("disruptedPods") or {}), record.name: now()}
            return obj

        await self._registry.modify(PODDISRUPTIONBUDGETS, record.namespace, budget, take, writing)

    async def _delete(
        self, record: Record, options: DeleteOptions, writing: Writing, *, unchanged: bool = False
    ) -> None:
        """Say in the pod's status why it goes, and delete it; `unchanged`: only if it still is as in `record`."""
        asked = options.resource_version or (str(record.revision) if unchanged else "")
        uid = record.obj["metadata"]["uid"]
        meant = asked in ("", str(record.revision)) and options.uid in ("", uid)
        if meant and not writing.dry_run:
            try:
                record = await self._mark(record, writing)
            except Conflict:
                if asked:
                    raise errors.conflict(PODS.plural, record.name, errors.MODIFIED) from None
                record = await self._mark_newest(record, writing)
            asked = asked and str(record.revision)
        wanted = dataclasses.replace(options, resource_version=asked, uid=options.uid or uid)
        await self._deletion.delete(PODS, record.namespace, record.name, wanted, writing)

    async def _mark(self, record: Record, writing: Writing) -> Record:
        if condition_true(record.obj, "DisruptionTarget"):
            return record
        return await self._registry.put(PODS, record, _marked(deep_copy(record.obj)), writing)

    async def _mark_newest(self, record: Record, writing: Writing) -> Record:
        return await self._registry.modify(PODS, record.namespace, record.name, _marked, writing)


def _marked(pod: Object) -> Object:
    status = pod.setdefault("status", {})
    made = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastProbeTime": None,
        "lastTransitionTime": now(),
    }
    kept = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionTarget"]
    status["conditions"] = [*kept, made]
    return pod


def _over(pod: Object) -> bool:
    """Whether a pod is at its end anyhow."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed") or bool(pod["metadata"].get("deletionTimestamp"))


def _beyond_budgets(pod: Object) -> bool:
    """Whether a pod serves nobody whom a budget could protect."""
    return _over(pod) or (pod.get("status") or {}).get("phase") == "Pending"


def _spared(pod: Object, budget: Object) -> bool:
    """Whether a pod does not count towards its budget, because it is not healthy."""
    if condition_true(pod, "Ready"):
        return False
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    wanted = status.get("desiredHealthy") or 0
    return wanted > 0 and (status.get("currentHealthy") or 0) >= wanted


def _check(budget: Object, status: Object) -> None:
    """Raises StatusError unless the budget allows one more disruption."""
    name = budget["metadata"]["name"]
    if (status.get("observedGeneration") or 0) < (budget["metadata"].get("generation") or 0):
        raise _still_processed(name)
    allowed = status.get("disruptionsAllowed") or 0
    if allowed < 0:
        raise _broken(name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or ()) > _MOST_UNCONFIRMED:
        raise _broken(name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller")
    if not allowed:
        raise errors.too_many_requests(_VIOLATION, 0, [_cause(_why_not(budget, status))])


def _broken(budget: str, why: str) -> StatusError:
    error = errors.forbidden("poddisruptionbudget", budget, why, "policy")
    cause = _cause(f"The disruption budget {budget} does not allow evicting pods currently: {why}")
    error.details = {**(error.details or {}), "causes": [cause]}
    return error


def _why_not(budget: Object, status: Object) -> str:
    name = budget["metadata"]["name"]
    no = f"The disruption budget {name} does not allow evicting pods currently"
    state = condition(budget, "DisruptionAllowed") or {}
    told = state.get("message") if state.get("status") == "False" else ""
    if told and state.get("reason") == "SyncFailed":
        return f"{no} because it failed sync: {told}"
    wanted, healthy = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
    if healthy <= wanted:
        return f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently"
    return f"{no} ({state.get('reason')}): {told}" if told else no


def _still_processed(budget: str) -> StatusError:
    why = f"The disruption budget {budget} is still being processed by the server."
    return errors.too_many_requests(_VIOLATION, _RETRY_AFTER, [_cause(why)])


def _cause(message: str) -> Object:
    return {"reason": _CAUSE, "message": message}


def _set_allowed_condition(budget: Object, status: Object) -> None:
    """Say that no disruption is allowed any more."""
    before = condition(budget, "DisruptionAllowed")
    made = {
        "type": "DisruptionAllowed",
        "status": "False",
        "observedGeneration": status.get("observedGeneration") or 0,
        "lastTransitionTime": now(),
        "reason": "InsufficientPods",
        "message": "",
    }
    if before is not None and before.get("status") == "False":
        made["lastTransitionTime"] = before.get("lastTransitionTime")
    kept = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionAllowed"]
    status["conditions"] = [*kept, made]
