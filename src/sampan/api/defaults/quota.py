"""Defaults of LimitRanges. A ResourceQuota has none."""

from __future__ import annotations

from sampan.api.errors import Object


def limit_range(obj: Object) -> None:
    """A container's default limit is the maximum, its default request the default limit, or else the minimum."""
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        default = {**(item.get("max") or {}), **(item.get("default") or {})}
        request = {**(item.get("min") or {}), **default, **(item.get("defaultRequest") or {})}
        if default:
            item["default"] = default
        if request:
            item["defaultRequest"] = request
