"""Deployments, ReplicaSets, DaemonSets and StatefulSets. Upstream: `pkg/registry/apps/*/strategy.go`."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.strategy.types import Strategy, empty_status, keep, same, spec_changed

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
"""Counts the changes of a DaemonSet's template, for controllers from before ControllerRevisions."""


def _deployment_changed(new: Object, old: Object) -> bool:
    """A rollback is told by annotations, so they count as well."""
    annotations = (new["metadata"].get("annotations") or {}) != (old["metadata"].get("annotations") or {})
    return annotations or spec_changed(new, old)


def _deployment_status_update(new: Object, old: Object) -> None:
    keep(new["metadata"], old["metadata"], "labels")


def _daemon_set_create(obj: Object) -> None:
    _count_template(obj, max(_template_generation(obj), 1))


def _daemon_set_update(new: Object, old: Object, _: str) -> None:
    changed = not same((new.get("spec") or {}).get("template"), (old.get("spec") or {}).get("template"))
    _count_template(new, _template_generation(old) + (1 if changed else 0))


def _template_generation(obj: Object) -> int:
    text = (obj["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "")
    return int(text) if text.isdecimal() else 0


def _count_template(obj: Object, generation: int) -> None:
    if generation:
        obj["metadata"]["annotations"] = {
            **(obj["metadata"].get("annotations") or {}),
            TEMPLATE_GENERATION: str(generation),
        }


def _daemon_set_status(_: Object) -> Object:
    counts = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady")
    return dict.fromkeys(counts, 0)


STRATEGIES: dict[str, Strategy] = {
    "deployments.apps": Strategy(
        generation=_deployment_changed,
        first_status=empty_status,
        status_update=_deployment_status_update,
    ),
    "replicasets.apps": Strategy(generation=spec_changed, first_status=lambda _: {"replicas": 0}),
    "daemonsets.apps": Strategy(
        generation=spec_changed,
        first_status=_daemon_set_status,
        create=_daemon_set_create,
        update=_daemon_set_update,
    ),
    "statefulsets.apps": Strategy(
        generation=spec_changed, first_status=lambda _: {"availableReplicas": 0, "replicas": 0}
    ),
}
