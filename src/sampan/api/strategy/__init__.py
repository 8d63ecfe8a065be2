"""What a write may touch: the parts of an object that belong to its user, to its status writer, and to the server.

The API server calls these after defaulting and before admission and validation. Both change the new object in place.
What is common to all kinds is here; what is a kind's own is in the `STRATEGIES` of its group's module. Upstream: the
`PrepareForCreate` and `PrepareForUpdate` of `pkg/registry/*/strategy.go`, and `rest.BeforeUpdate`.
"""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.api.strategy import (
    apps,
    autoscaling,
    batch,
    certificates,
    core,
    devices,
    discovery,
    flowcontrol,
    gateway,
    loadbalancer,
    networking,
    policy,
    quota,
    replication_controllers,
    scheduling,
    storage,
)
from sampan.api.strategy.types import Strategy, keep, same

__all__ = ["Strategy", "prepare_create", "prepare_update", "rename", "same"]

_STRATEGIES: dict[str, Strategy] = {
    **core.STRATEGIES,
    **apps.STRATEGIES,
    **autoscaling.STRATEGIES,
    **batch.STRATEGIES,
    **policy.STRATEGIES,
    **networking.STRATEGIES,
    **loadbalancer.STRATEGIES,
    **devices.STRATEGIES,
    **discovery.STRATEGIES,
    **certificates.STRATEGIES,
    **flowcontrol.STRATEGIES,
    **gateway.STRATEGIES,
    **quota.STRATEGIES,
    **replication_controllers.STRATEGIES,
    **scheduling.STRATEGIES,
    **storage.STRATEGIES,
}
"""By key stem. A kind that is not here has no generation; its status is as `Strategy` says."""

_PLAIN = Strategy()

_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
"""Metadata that an update may leave out, and gets back."""


def prepare_create(resource: Resource, obj: Object) -> None:
    """Drop from a new object what its creator may not set (status, generation), and give it its first status."""
    strategy = _STRATEGIES.get(resource.key_stem, _PLAIN)
    meta = obj.setdefault("metadata", {})
    meta.pop("generation", None)
    meta.pop("selfLink", None)
    if strategy.generation is not None:
        meta["generation"] = 1
    if _has_own_status(resource, strategy):
        if strategy.first_status is not None:
            obj["status"] = strategy.first_status(obj)
        else:
            obj.pop("status", None)
    if strategy.create is not None:
        strategy.create(obj)


def rename(resource: Resource, obj: Object, name: str) -> None:
    """Give a new object another name, also where its kind repeats it."""
    before = obj["metadata"]["name"]
    obj["metadata"]["name"] = name
    strategy = _STRATEGIES.get(resource.key_stem, _PLAIN)
    if strategy.renamed is not None:
        strategy.renamed(obj, before)


def prepare_update(resource: Resource, new: Object, old: Object, subresource: str = "") -> None:
    """Give a changed object back what this write may not touch, and count its generation.

    `subresource` is "" for the object itself, else the name of a face of it (`status`, `scale`, `finalize`, ...).
    """
    strategy = _STRATEGIES.get(resource.key_stem, _PLAIN)
    meta, before = new.setdefault("metadata", {}), old["metadata"]
    meta.pop("selfLink", None)
    for name in _SERVER_OWNED:
        if name in before and (name not in meta or name in ("creationTimestamp", "deletionTimestamp")):
            meta[name] = before[name]
    if "generation" in before:
        meta["generation"] = before["generation"]
    else:
        meta.pop("generation", None)

    if subresource == "status":
        keep(new, old, "spec")
        if strategy.status_update is not None:
            strategy.status_update(new, old)
        return
    if subresource in strategy.faces:
        strategy.faces[subresource](new, old)
        return
    if _has_own_status(resource, strategy) or strategy.status_kept:
        keep(new, old, "status")
    if strategy.update is not None:
        strategy.update(new, old, subresource)
        meta = new["metadata"]
    if strategy.generation is not None and strategy.generation(new, old):
        meta["generation"] = int(before.get("generation") or 0) + 1


def _has_own_status(resource: Resource, strategy: Strategy) -> bool:
    """Whether the status of this kind belongs to its status subresource from the first write on."""
    return not strategy.status_kept and resource.subresource("status") is not None
