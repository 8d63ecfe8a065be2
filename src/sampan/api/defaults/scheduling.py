"""Defaults of PriorityClasses."""

from __future__ import annotations

from sampan.api.errors import Object


def priority_class(obj: Object) -> None:
    if not obj.get("preemptionPolicy"):
        obj["preemptionPolicy"] = "PreemptLowerPriority"
    if obj.get("globalDefault") is False:
        del obj["globalDefault"]
    if obj.get("value") is None:
        obj["value"] = 0
