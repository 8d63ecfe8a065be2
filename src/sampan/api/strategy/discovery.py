"""EndpointSlices, which have no spec."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.strategy.types import Strategy, same

_PARTS = ("endpoints", "ports", "addressType")


def _changed(new: Object, old: Object) -> bool:
    labels = (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {})
    return labels or any(not same(new.get(p), old.get(p)) for p in _PARTS)


def _drop_topology(endpoint_slice: Object) -> None:
    """A field of v1beta1 that v1 shows but does not take."""
    for endpoint in endpoint_slice.get("endpoints") or ():
        endpoint.pop("deprecatedTopology", None)


def _update(new: Object, old: Object, subresource: str) -> None:
    if not same(new.get("endpoints"), old.get("endpoints")):
        _drop_topology(new)


STRATEGIES: dict[str, Strategy] = {
    "endpointslices.discovery.k8s.io": Strategy(generation=_changed, create=_drop_topology, update=_update)
}
