"""HorizontalPodAutoscalers as `autoscaling/v1` has them; v2 is stored.

v1 knows one metric, the use of CPU. All else travels in annotations, so that nothing is lost on the way through a client
of v1. Upstream: `pkg/apis/autoscaling/v1/conversion.go`; the annotations hold what it writes there (metrics in the form
of v1's `MetricSpec`, the behavior with the names of its Go fields).
"""

from __future__ import annotations

from typing import Any

import msgspec

from sampan.api.errors import Object

_PREFIX = "autoscaling.alpha.kubernetes.io/"
METRICS = _PREFIX + "metrics"
CURRENT_METRICS = _PREFIX + "current-metrics"
CONDITIONS = _PREFIX + "conditions"
BEHAVIOR = _PREFIX + "behavior"
ANNOTATIONS = (METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR)

_SOURCES = {
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
    "External": "external",
    "ContainerResource": "containerResource",
}
_PLAIN = ("name", "container")
"""Fields that a source has under the same name in both versions."""


def from_v2(obj: Object) -> Object:
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    notes = {k: v for k, v in (metadata.get("annotations") or {}).items() if k not in ANNOTATIONS}
    metrics = list(spec.get("metrics") or ())
    its_own = next((i for i, m in enumerate(metrics) if _uses_cpu(m)), None)
    cpu = None if its_own is None else metrics.pop(its_own)
    others = [_metric_from_v2(m, "target") for m in metrics]
    if others:
        notes[METRICS] = _json(others)
    if status.get("currentMetrics"):
        notes[CURRENT_METRICS] = _json([_metric_from_v2(m, "current") for m in status["currentMetrics"]])
    if status.get("conditions"):
        notes[CONDITIONS] = _json(status["conditions"])
    if spec.get("behavior") is not None:
        notes[BEHAVIOR] = _json(_capitalized(spec["behavior"]))
    out = {**obj, "metadata": _annotated(metadata, notes)}
    out["spec"] = {k: v for k, v in spec.items() if k not in ("metrics", "behavior")}
    if cpu is not None:
        out["spec"]["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"]
    if "status" in obj:
        shown = {k: v for k, v in status.items() if k not in ("currentMetrics", "conditions")}
        out["status"] = {"currentReplicas": 0, "desiredReplicas": 0, **shown}
        for metric in status.get("currentMetrics") or ():
            if _uses_cpu(metric, "current"):
                share = metric["resource"]["current"]["averageUtilization"]
                out["status"]["currentCPUUtilizationPercentage"] = share
    return out


def to_v2(obj: Object) -> Object:
    metadata, spec, status = obj.get("metadata") or {}, obj.get("spec") or {}, obj.get("status") or {}
    notes = metadata.get("annotations") or {}
    kept = {k: v for k, v in notes.items() if k not in ANNOTATIONS}
    out = {**obj, "metadata": _annotated(metadata, kept)}
    out["spec"] = {k: v for k, v in spec.items() if k != "targetCPUUtilizationPercentage"}
    metrics: list[Object] = []
    if spec.get("targetCPUUtilizationPercentage") is not None:
        target = {"type": "Utilization", "averageUtilization": spec["targetCPUUtilizationPercentage"]}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    metrics += [_metric_to_v2(m, "target") for m in _read_list(notes.get(METRICS))]
    if metrics:
        out["spec"]["metrics"] = metrics
    behavior = _read(notes.get(BEHAVIOR))
    if isinstance(behavior, dict):
        out["spec"]["behavior"] = _uncapitalized(behavior)
    if "status" in obj or notes.get(CURRENT_METRICS) or notes.get(CONDITIONS):
        out["status"] = _status_to_v2(status, notes)
    return out


def _status_to_v2(status: Object, notes: Object) -> Object:
    out = {k: v for k, v in status.items() if k != "currentCPUUtilizationPercentage"}
    current = [_metric_to_v2(m, "current") for m in _read_list(notes.get(CURRENT_METRICS))]
    share = status.get("currentCPUUtilizationPercentage")
    if not current and share is not None:
        current = [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": share}}}
        ]
    if current:
        out["currentMetrics"] = current
    conditions = _read_list(notes.get(CONDITIONS))
    if conditions:
        out["conditions"] = conditions
    return out


def _annotated(metadata: Object, notes: Object) -> Object:
    out = {k: v for k, v in metadata.items() if k != "annotations"}
    return {**out, "annotations": notes} if notes else out


def _uses_cpu(metric: Object, key: str = "target") -> bool:
    """Whether v1 has a field for a metric: the share of the CPU that was asked for."""
    source = metric.get("resource") or {}
    values = source.get(key) or {}
    return (
        metric.get("type") == "Resource"
        and source.get("name") == "cpu"
        and values.get("averageUtilization") is not None
        and (key == "current" or values.get("averageValue") is None)
    )


def _metric_from_v2(metric: Object, key: str) -> Object:
    """A metric's wanted (`target`) or present (`current`) values in v1's form, where a source has no parts."""
    kind = metric.get("type") or ""
    name = _SOURCES.get(kind, "")
    source = metric.get(name)
    if source is None:
        return metric
    values = source.get(key) or {}
    out: Object = {k: source[k] for k in _PLAIN if k in source}
    if "describedObject" in source:
        out["target"] = source["describedObject"]
    identifier = source.get("metric") or {}
    if "name" in identifier:
        out["metricName"] = identifier["name"]
    if "selector" in identifier:
        out["metricSelector" if kind == "External" else "selector"] = identifier["selector"]
    for theirs, ours in _value_names(kind, key).items():
        if theirs in values:
            out[ours] = values[theirs]
    return {"type": kind, name: out}


def _metric_to_v2(metric: Object, key: str) -> Object:
    kind = metric.get("type") or ""
    name = _SOURCES.get(kind, "")
    source = metric.get(name)
    if not isinstance(source, dict):
        return metric
    out: Object = {k: source[k] for k in _PLAIN if k in source}
    if "target" in source:
        out["describedObject"] = source["target"]
    if kind in ("Object", "Pods", "External"):
        selector = source.get("metricSelector" if kind == "External" else "selector")
        out["metric"] = {"name": source.get("metricName") or ""}
        if selector is not None:
            out["metric"]["selector"] = selector
    values: Object = {}
    for theirs, ours in _value_names(kind, key).items():
        # A value that is not meant is written as 0 by Go's encoder, which has no other way to leave it out.
        if source.get(ours) is not None and not (source[ours] == "0" and theirs == "value" and len(values)):
            values[theirs] = source[ours]
    if key == "target":
        values = {"type": _target_type(values), **values}
    out[key] = values
    return {"type": kind, name: out}


def _value_names(kind: str, key: str) -> dict[str, str]:
    """From v2's name of a value to v1's, in a source of this kind."""
    average = "averageValue" if kind == "Object" else f"{key}AverageValue"
    return {"averageUtilization": f"{key}AverageUtilization", "averageValue": average, "value": f"{key}Value"}


def _target_type(values: Object) -> str:
    if "averageUtilization" in values:
        return "Utilization"
    return "AverageValue" if "averageValue" in values else "Value"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _read(text: str | None) -> Any:
    """What an annotation holds; what cannot be read is nothing, as upstream has it."""
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:
        return None


def _read_list(text: str | None) -> list[Object]:
    found = _read(text)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _capitalized(value: Any) -> Any:
    if isinstance(value, dict):
        return {k[:1].upper() + k[1:]: _capitalized(v) for k, v in value.items()}
    return [_capitalized(v) for v in value] if isinstance(value, list) else value


def _uncapitalized(value: Any) -> Any:
    """The same back, without what Go writes for a field that is not set."""
    if isinstance(value, dict):
        return {k[:1].lower() + k[1:]: _uncapitalized(v) for k, v in value.items() if v is not None}
    return [_uncapitalized(v) for v in value] if isinstance(value, list) else value
