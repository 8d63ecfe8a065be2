"""Deletion: at once, gracefully, or held by finalizers; of one object or of a collection.

Upstream: `k8s.io/apiserver/pkg/registry/rest/delete.go`, `generic/registry/store.go`, the pod strategy's
`CheckGracefulDelete` and the namespace registry's `Delete`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sampan.api import errors, priority_classes
from sampan.api.errors import FieldError, Object, StatusError, bad_request, invalid_value, not_supported
from sampan.api.objects import deep_copy, format_time, now, parse_time
from sampan.api.resources import NAMESPACES, PODS, PRIORITYCLASSES, SERVICEACCOUNTS, SERVICES, Resource, hub
from sampan.apiserver import preparation
from sampan.apiserver.events import Selection
from sampan.apiserver.preparation import Writing
from sampan.apiserver.records import Record
from sampan.apiserver.registry import Conflict, Registry, modified
from sampan.apiserver.types import Attributes

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
DEFINITION = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_POLICIES = ("Background", "Foreground", "Orphan")
_SHOWN = {r.key_stem for r in (PODS, SERVICES, SERVICEACCOUNTS, NAMESPACES)}
"""Kinds whose deletion is answered with the object instead of a Status."""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    grace_period_seconds: int | None = None
    propagation_policy: str = ""
    """Background, Foreground, Orphan, or "" for what the object's finalizers say."""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


def options_from(body: Object | None, params: dict[str, list[str]]) -> DeleteOptions:
    """The options of a request: its body, or else its query. Raises StatusError for wrong ones."""
    if body:
        given: dict[str, Any] = body
    else:
        given = {}
        if "gracePeriodSeconds" in params:
            try:
                given["gracePeriodSeconds"] = int(params["gracePeriodSeconds"][0])
            except ValueError:
                raise bad_request("gracePeriodSeconds must be a number") from None
        if params.get("propagationPolicy", [""])[0]:
            given["propagationPolicy"] = params["propagationPolicy"][0]
        if "orphanDependents" in params:
            given["orphanDependents"] = params["orphanDependents"][0] in ("true", "1")
    problems: list[FieldError] = []
    policy = given.get("propagationPolicy") or ""
    orphan = given.get("orphanDependents")
    if policy and orphan is not None:
        problems.append(
            invalid_value(
                "propagationPolicy", policy, "orphanDependents and deletionPropagation cannot be both set"
            )
        )
    elif orphan is not None:
        policy = "Orphan" if orphan else "Background"
    if policy and policy not in _POLICIES:
        problems.append(not_supported("propagationPolicy", policy, (*_POLICIES, "nil")))
    grace = given.get("gracePeriodSeconds")
    if grace is not None and grace < 0:
        grace = 1
    preconditions = given.get("preconditions") or {}
    dry_run = [*(given.get("dryRun") or ()), *params.get("dryRun", ())]
    if dry_run and set(dry_run) - {"All"}:
        problems.append(not_supported("dryRun", dry_run, ("All",)))
    if problems:
        raise errors.invalid("DeleteOptions", "", problems, "meta.k8s.io")
    return DeleteOptions(
        grace,
        policy,
        preconditions.get("uid") or "",
        preconditions.get("resourceVersion") or "",
        bool(dry_run),
    )


class Deletion:
    """The delete verbs of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions, writing: Writing
    ) -> tuple[Record, bool]:
        """Delete an object, or begin to. Returns its last state and whether it is gone."""
        row = hub(resource)
        writing.dry_run = writing.dry_run or options.dry_run
        while True:
            record = self._registry.cache.record(row, namespace, name)
            if record is None:
                raise errors.not_found(row.plural, name, row.group)
            _check_preconditions(row, record, options)
            if row is PRIORITYCLASSES and name in priority_classes.SYSTEM:
                why = "this is a system priority class and cannot be deleted"
                raise errors.forbidden(row.plural, name, why, row.group)
            attributes = Attributes(
                writing.user, "DELETE", resource, namespace, name, "", None, record.obj, writing.dry_run
            )
            await self._registry.admission.mutate(attributes)
            await self._registry.admission.validate(attributes)
            writing.warnings += attributes.warnings
            try:
                return await self._delete(row, record, options, writing)
            except Conflict:
                if options.resource_version:
                    raise modified(row, name) from None

    async def delete_collection(
        self, resource: Resource, selection: Selection, options: DeleteOptions, writing: Writing
    ) -> Sequence[Record]:
        """Delete every object of a selection; one that goes by itself meanwhile is no error."""
        gone: list[Record] = []
        for record in self._registry.cache.shelf(resource).select(selection):
            try:
                gone.append((await self.delete(resource, record.namespace, record.name, options, writing))[0])
            except StatusError as e:
                if e.code != 404:
                    raise
        return gone

    async def _delete(
        self, row: Resource, record: Record, options: DeleteOptions, writing: Writing
    ) -> tuple[Record, bool]:
        registry = self._registry
        old = record.obj
        new = deep_copy(old)
        metadata = new["metadata"]
        finalizers = _finalizers(metadata.get("finalizers") or [], options.propagation_policy)
        held = bool(finalizers)
        if row is NAMESPACES:
            held = held or bool((new.get("spec") or {}).get("finalizers"))
        grace = _grace(row, new, options)
        deleting = "deletionTimestamp" in metadata
        if deleting:
            before = metadata.get("deletionGracePeriodSeconds") or 0
            if grace >= before and before > 0:
                # Already on its way, and no sooner would be asked for.
                if finalizers == (metadata.get("finalizers") or []):
                    return record, False
                grace = before
        if not grace and not held:
            return await registry.remove(row, record, writing), True
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        _mark(row, metadata, grace, deleting)
        if row is NAMESPACES:
            new.setdefault("status", {})["phase"] = "Terminating"
        if preparation.same(new, old):
            return record, False
        return await registry.put(row, record, new, writing), False


def _mark(row: Resource, metadata: Object, grace: int, deleting: bool) -> None:
    """Note in the object that it is to go, and when."""
    if deleting:
        before = metadata.get("deletionGracePeriodSeconds") or 0
        if before > grace:
            asked = parse_time(metadata["deletionTimestamp"]) - before
            metadata["deletionTimestamp"] = format_time(asked + grace)
            metadata["deletionGracePeriodSeconds"] = grace
        return
    metadata["deletionTimestamp"] = format_time(parse_time(now()) + grace)
    if row is not NAMESPACES:
        metadata["deletionGracePeriodSeconds"] = grace
    if metadata.get("generation"):
        metadata["generation"] += 1


def _grace(row: Resource, obj: Object, options: DeleteOptions) -> int:
    """Seconds that an object's owner (the node agent, for pods) has to stop it. Only pods have any."""
    if row is not PODS:
        return 0
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    grace = options.grace_period_seconds
    if grace is None:
        given = spec.get("terminationGracePeriodSeconds")
        grace = 30 if given is None else int(given)
    return 1 if grace < 0 else grace


def _finalizers(present: Sequence[str], policy: str) -> list[str]:
    kept = list(present)
    if policy:
        kept = [f for f in kept if f not in (FOREGROUND, ORPHAN)]
    if policy == "Foreground":
        kept.append(FOREGROUND)
    elif policy == "Orphan":
        kept.append(ORPHAN)
    return kept


def _check_preconditions(row: Resource, record: Record, options: DeleteOptions) -> None:
    uid = record.obj["metadata"]["uid"]
    why = ""
    if options.uid and options.uid != uid:
        why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {uid}"
    elif options.resource_version and options.resource_version != str(record.revision):
        why = (
            f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
            f"ResourceVersion in object meta: {record.revision}"
        )
    if why:
        raise errors.conflict(row.plural, record.name, why, row.group)


def answer(resource: Resource, record: Record, gone: bool) -> Object | None:
    """The Status that answers a deletion, or None where the object itself does."""
    if not gone or resource.key_stem in _SHOWN:
        return None
    details: Object = {"name": record.name, "group": resource.group, "kind": resource.plural}
    details["uid"] = record.obj["metadata"]["uid"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {k: v for k, v in details.items() if v},
    }
