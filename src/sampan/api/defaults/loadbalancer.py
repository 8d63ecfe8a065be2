"""Defaults of loadbalancer.sampan.io."""

from __future__ import annotations

from sampan.api.errors import Object


def ip_address_pool(obj: Object) -> None:
    spec = obj.get("spec") or {}
    if spec.get("autoAssign") is None:
        spec["autoAssign"] = True
    if spec.get("avoidBuggyIPs") is None:
        spec["avoidBuggyIPs"] = False
