"""EndpointSlices, which have no spec."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.strategy.types import Strategy, same

_PARTS = ("endpoints", "ports", "addressType")


def _changed(new: Object, old: Object) -> bool:
    labels = (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {})
    return labels or any(not same(new.get(p), old.get(p)) for p in _PARTS)


STRATEGIES: dict[str, Strategy] = {"endpointslices.discovery.k8s.io": Strategy(generation=_changed)}
