"""DeviceClasses, ResourceClaims and ResourceSlices. ResourceClaimTemplates have no generation."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.errors import Object
from sampan.api.strategy.types import Strategy, spec_changed


def _device(given: Object) -> tuple[object, ...]:
    return given.get("driver"), given.get("pool"), given.get("device")


def _allocated(claim: Object) -> set[tuple[object, ...]]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    results: Iterable[Object] = (allocation.get("devices") or {}).get("results") or ()
    return {_device(r) for r in results}


def _claim_status_update(new: Object, old: Object) -> None:
    """What was told of a device goes with its allocation."""
    status = new.get("status") or {}
    gone = _allocated(old) - _allocated(new)
    if status.get("devices") and gone:
        status["devices"] = [d for d in status["devices"] if _device(d) not in gone]
        if not status["devices"]:
            del status["devices"]


STRATEGIES: dict[str, Strategy] = {
    "deviceclasses.resource.k8s.io": Strategy(generation=spec_changed),
    "resourceslices.resource.k8s.io": Strategy(generation=spec_changed),
    "resourceclaims.resource.k8s.io": Strategy(first_status=lambda _: {}, status_update=_claim_status_update),
}
