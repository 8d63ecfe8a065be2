"""Deployments and ReplicaSets."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.strategy.types import Strategy, empty_status, keep, spec_changed


def _deployment_changed(new: Object, old: Object) -> bool:
    """A rollback is told by annotations, so they count as well."""
    annotations = (new["metadata"].get("annotations") or {}) != (old["metadata"].get("annotations") or {})
    return annotations or spec_changed(new, old)


def _deployment_status_update(new: Object, old: Object) -> None:
    keep(new["metadata"], old["metadata"], "labels")


STRATEGIES: dict[str, Strategy] = {
    "deployments.apps": Strategy(
        generation=_deployment_changed,
        first_status=empty_status,
        status_update=_deployment_status_update,
    ),
    "replicasets.apps": Strategy(generation=spec_changed, first_status=lambda _: {"replicas": 0}),
}
