"""The tables of HorizontalPodAutoscalers and Scales. Rows of autoscalers are made of the stored form, autoscaling/v2."""

from __future__ import annotations

from typing import Any

from sampan.api.conversion.autoscaling import to_v2
from sampan.api.errors import Object
from sampan.api.tables.cells import AGE, NAME, NONE, UNKNOWN, Column, age, integer, name, section

COLUMNS = (
    NAME,
    Column("Reference", description="What it scales."),
    Column("Targets", description="Each metric: what it is and what it should be."),
    Column("MinPods", description="The fewest pods that it scales to."),
    Column("MaxPods", description="The most pods that it scales to."),
    Column("Replicas", description="How many pods there are."),
    AGE,
)
SCALE_COLUMNS = (
    NAME,
    integer("Desired", "How many pods there are to be."),
    integer("Available", "How many pods there are."),
    AGE,
)
_MOST = 2
"""Metrics that are shown; of more, only the number."""
_SOURCES = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def row(autoscaler: Object, now: float) -> list[Any]:
    if autoscaler.get("apiVersion") == "autoscaling/v1":
        autoscaler = to_v2(autoscaler)
    spec, status = section(autoscaler, "spec"), section(autoscaler, "status")
    target = spec.get("scaleTargetRef") or {}
    least = spec.get("minReplicas")
    return [
        name(autoscaler),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _metrics(spec.get("metrics") or [], status.get("currentMetrics") or []),
        "<unset>" if least is None else str(least),
        spec.get("maxReplicas") or 0,
        status.get("currentReplicas") or 0,
        age(autoscaler, now),
    ]


def _metrics(specs: list[Object], statuses: list[Object]) -> str:
    if not specs:
        return NONE
    texts = [_metric(s, statuses[i] if i < len(statuses) else {}) for i, s in enumerate(specs[:_MOST])]
    more = len(specs) - _MOST
    return ", ".join(texts) + (f" + {more} more..." if more > 0 else "")


def _metric(spec: Object, status: Object) -> str:
    key = _SOURCES.get(spec.get("type") or "")
    if key is None:
        return "<unknown type>"
    source = spec.get(key) or {}
    target, current = source.get("target") or {}, (status.get(key) or {}).get("current") or {}
    prefix = f"{source.get('name', '')}: " if "esource" in key else ""
    if target.get("averageValue") is not None:
        suffix = " (avg)" if key in ("external", "object") else ""
        return f"{prefix}{current.get('averageValue') or UNKNOWN}/{target['averageValue']}{suffix}"
    if prefix:
        return f"{prefix}{_percent(current, UNKNOWN)}/{_percent(target, '<auto>')}"
    return f"{current.get('value') or UNKNOWN}/{target.get('value') or '0'}"


def _percent(value: Object, absent: str) -> str:
    share = value.get("averageUtilization")
    return absent if share is None else f"{share}%"


def scale_row(scale: Object, now: float) -> list[Any]:
    replicas = section(scale, "spec").get("replicas", 0), section(scale, "status").get("replicas", 0)
    return [name(scale), *replicas, age(scale, now)]
