"""Defaults of HorizontalPodAutoscalers. Upstream: `pkg/apis/autoscaling/v2/defaults.go`."""

from __future__ import annotations

from sampan.api.conversion.autoscaling import ANNOTATIONS
from sampan.api.errors import Object

_UP = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": (("Pods", 4), ("Percent", 100)),
}
_DOWN = {"selectPolicy": "Max", "policies": (("Percent", 100),)}


def horizontal_pod_autoscaler(obj: Object) -> None:
    """The form of autoscaling/v2; what autoscaling/v1 carries in annotations is no annotation here."""
    annotations = (obj.get("metadata") or {}).get("annotations")
    if annotations and not annotations.keys().isdisjoint(ANNOTATIONS):
        kept = {k: v for k, v in annotations.items() if k not in ANNOTATIONS}
        obj["metadata"]["annotations"] = kept
        if not kept:
            del obj["metadata"]["annotations"]
    spec = obj.setdefault("spec", {})
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        for name, rules in (("scaleUp", _UP), ("scaleDown", _DOWN)):
            given = behavior[name] = behavior.get(name) or {}
            for key, value in rules.items():
                if given.get(key) is None:
                    given[key] = _policies(value) if isinstance(value, tuple) else value


def _policies(rules: tuple[tuple[str, int], ...]) -> list[Object]:
    return [{"type": type_, "value": value, "periodSeconds": 15} for type_, value in rules]
