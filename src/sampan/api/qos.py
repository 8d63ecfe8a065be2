"""The quality-of-service class of a Pod, from the resources of its containers."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api import quantity
from sampan.api.errors import Object

_COUNTED = ("cpu", "memory")


def of(pod: Object) -> str:
    """`Guaranteed`, `Burstable` or `BestEffort`."""
    spec = pod.get("spec") or {}
    requests: dict[str, object] = {}
    limits: dict[str, object] = {}
    guaranteed = True
    pod_level = spec.get("resources") or {}
    owners: Iterable[Object]
    if pod_level.get("requests") or pod_level.get("limits"):
        owners = (pod_level,)
    else:
        containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        owners = [c.get("resources") or {} for c in containers]
    for resources in owners:
        has = 0
        for name in _COUNTED:
            limit = (resources.get("limits") or {}).get(name)
            request = (resources.get("requests") or {}).get(name)
            if limit is not None and quantity.parse(limit) > 0:
                limits[name] = limit
                has += 1
            if request is not None and quantity.parse(request) > 0:
                requests[name] = request
                if limit is None or quantity.compare(request, limit) != 0:
                    guaranteed = False
        if has != len(_COUNTED):
            guaranteed = False
    if not requests and not limits:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
