"""Volumes and their claims, and storage.k8s.io."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.objects import now
from sampan.api.strategy.types import Strategy, spec_changed


def _pv_status(_: Object) -> Object:
    return {"phase": "Pending", "lastPhaseTransitionTime": now()}


def _pv_status_update(new: Object, old: Object) -> None:
    """Whoever changes the phase need not say when."""
    status, before = new.setdefault("status", {}), old.get("status") or {}
    moment = status.get("lastPhaseTransitionTime")
    if status.get("phase") != before.get("phase") and moment in (None, before.get("lastPhaseTransitionTime")):
        status["lastPhaseTransitionTime"] = now()


def _claim_sources(claim: Object) -> None:
    """`dataSource` and `dataSourceRef` say the same where the second is in the claim's own namespace."""
    spec = claim.setdefault("spec", {})
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif reference is not None and source is None and not reference.get("namespace"):
        spec["dataSource"] = {k: v for k, v in reference.items() if k != "namespace"}


def _driver_create(driver: Object) -> None:
    # The field's gate is closed by default.
    (driver.get("spec") or {}).pop("preventPodSchedulingIfMissing", None)


def _driver_update(new: Object, old: Object, _: str) -> None:
    """A driver counts its generations from its first change on."""
    _driver_create(new)
    if spec_changed(new, old):
        new["metadata"]["generation"] = int(old["metadata"].get("generation") or 0) + 1


STRATEGIES: dict[str, Strategy] = {
    "persistentvolumes": Strategy(first_status=_pv_status, status_update=_pv_status_update),
    "persistentvolumeclaims": Strategy(
        first_status=lambda _: {"phase": "Pending"},
        create=_claim_sources,
        update=lambda new, old, _: _claim_sources(new),
    ),
    "csidrivers.storage.k8s.io": Strategy(create=_driver_create, update=_driver_update),
    "volumeattachments.storage.k8s.io": Strategy(first_status=lambda _: {"attached": False}),
}
