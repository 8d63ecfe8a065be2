"""Which plugins' refusals a change may undo."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.scheduler.cache import PodInfo
from sampan.scheduler.filters import (
    INTER_POD_AFFINITY,
    NODE_AFFINITY,
    NODE_PORTS,
    NODE_RESOURCES_FIT,
    NODE_UNSCHEDULABLE,
    POD_TOPOLOGY_SPREAD,
    TAINT_TOLERATION,
)

_ROOM = frozenset({NODE_RESOURCES_FIT, NODE_PORTS})
_COMPANY = frozenset({INTER_POD_AFFINITY, POD_TOPOLOGY_SPREAD})
_NONE: frozenset[str] = frozenset()


def of_node(old: Object | None, new: Object | None) -> frozenset[str] | None:
    """The plugins that a node's change concerns; None for all of them."""
    if old is None:
        return None
    if new is None:
        return frozenset({POD_TOPOLOGY_SPREAD})  # its part of the cluster may be gone, and the skew with it
    found: set[str] = set()
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if bool(before.get("unschedulable")) != bool(after.get("unschedulable")):
        found.add(NODE_UNSCHEDULABLE)
    if before.get("taints") != after.get("taints"):
        found |= {TAINT_TOLERATION, POD_TOPOLOGY_SPREAD}
    if old["metadata"].get("labels") != new["metadata"].get("labels"):
        found |= {NODE_AFFINITY, *_COMPANY}
    if (old.get("status") or {}).get("allocatable") != (new.get("status") or {}).get("allocatable"):
        found.add(NODE_RESOURCES_FIT)
    return frozenset(found)


def of_placed_pod(now: PodInfo | None, before: PodInfo | None) -> frozenset[str]:
    """The plugins that a change of the pods on nodes concerns: one that came, went, or is another now."""
    if now is None:
        return _ROOM | _COMPANY
    if before is None:
        return _COMPANY
    found = _COMPANY
    if now.requests != before.requests or now.ports != before.ports:
        found |= _ROOM
    return found
