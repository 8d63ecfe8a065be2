"""Deletion: at once, gracefully, or held by finalizers; of one object or of a collection.

Upstream: `k8s.io/apiserver/pkg/registry/rest/delete.go`, `generic/registry/store.go`, the pod strategy's
`CheckGracefulDelete` and the namespace registry's `Delete`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sampan.api import errors, priority_classes
from sampan.api.errors import (
    FieldError,
    Object,
    StatusError,
    bad_request,
    forbidden_field,
    invalid_value,
    not_supported,
)
from sampan.api.objects import deep_copy, format_time, now, parse_time
from sampan.api.resources import (
    JOBS,
    NAMESPACES,
    PODS,
    PRIORITYCLASSES,
    REPLICATIONCONTROLLERS,
    SERVICEACCOUNTS,
    SERVICES,
    Resource,
    hub,
)
from sampan.apiserver import preparation
from sampan.apiserver.events import Selection
from sampan.apiserver.list_options import flag
from sampan.apiserver.preparation import Writing
from sampan.apiserver.records import Record
from sampan.apiserver.registry import Conflict, Registry, modified
from sampan.apiserver.types import Attributes

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
DEFINITION = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_POLICIES = ("Foreground", "Background", "Orphan")
_BREAKING = "ignoreStoreReadErrorWithClusterBreakingPotential"
_ORPHANING = {r.key_stem for r in (JOBS, REPLICATIONCONTROLLERS)}
"""Kinds from before garbage collection: a deletion that names no propagation policy orphans their pods."""
_JOB_ORPHANS = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)
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
    """The options of a request: its body, or else its query. Raises StatusError with all that are wrong."""
    given = body or _from_query(params)
    if given.get("kind") not in (None, "", "DeleteOptions"):
        raise bad_request(f"the body of a deletion is a DeleteOptions, not a {given['kind']}")
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
    preconditions = given.get("preconditions") or {}
    dry_run = [*(given.get("dryRun") or ()), *filter(None, params.get("dryRun", ()))]
    if set(dry_run) - {"All"}:
        problems.append(not_supported("dryRun", dry_run, ("All",)))
    if given.get(_BREAKING):
        # It is for objects that the store cannot give back; ours always can, or the server does not start.
        problems.append(forbidden_field(_BREAKING, "not supported by sampan"))
    if problems:
        raise errors.invalid("DeleteOptions", "", problems, "meta.k8s.io")
    grace = given.get("gracePeriodSeconds")
    return DeleteOptions(
        1 if grace is not None and grace < 0 else grace,
        policy,
        preconditions.get("uid") or "",
        preconditions.get("resourceVersion") or "",
        bool(dry_run),
    )


def _from_query(params: dict[str, list[str]]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if params.get("gracePeriodSeconds", [""])[0]:
        text = params["gracePeriodSeconds"][0]
        digits = text.removeprefix("-")
        if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
            raise bad_request(f"gracePeriodSeconds: {errors.show(text)} is not a whole number")
        given["gracePeriodSeconds"] = int(text)
    if params.get("propagationPolicy", [""])[0]:
        given["propagationPolicy"] = params["propagationPolicy"][0]
    for name in ("orphanDependents", _BREAKING):
        if name in params:
            given[name] = flag(params, name)
    return given


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
        self,
        resource: Resource,
        selection: Selection,
        options: DeleteOptions,
        writing: Writing,
        limit: int = 0,
    ) -> Sequence[Record]:
        """Delete every object of a selection, with a `limit` the first ones; one that goes by itself meanwhile is no
        error."""
        gone: list[Record] = []
        selected = self._registry.cache.shelf(resource).select(selection)
        for record in selected[:limit] if limit else selected:
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
        policy = options.propagation_policy
        if not policy and row.key_stem in _ORPHANING:
            policy = _default_policy(row, metadata, writing)
        finalizers = _finalizers(metadata.get("finalizers") or [], policy)
        held = bool(finalizers)
        if row is NAMESPACES:
            held = held or bool((new.get("spec") or {}).get("finalizers"))
        grace = _grace(row, new, options)
        deleting = "deletionTimestamp" in metadata
        if deleting:
            before = metadata.get("deletionGracePeriodSeconds") or 0
            if not before:
                # Its time was up already; only what holds it kept it.
                grace = 0
            elif grace >= before or options.grace_period_seconds is None:
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


def _default_policy(row: Resource, metadata: Object, writing: Writing) -> str:
    """What becomes of the dependents of one of the kinds that leave theirs behind, where nobody says anything else."""
    if row is JOBS:
        writing.warnings.append(_JOB_ORPHANS)
    return "" if {FOREGROUND, ORPHAN} & set(metadata.get("finalizers") or ()) else "Orphan"


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
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({uid}). "
            "The object might have been deleted and then recreated"
        )
    elif options.resource_version and options.resource_version != str(record.revision):
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
            f"ResourceVersion in record ({record.revision}). The object might have been modified"
        )
    if why:
        # Upstream names the kind here, not the resource.
        raise errors.conflict(row.kind, record.name, why, row.group)


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
