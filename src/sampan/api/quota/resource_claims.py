"""ResourceClaims: their number, and the devices that they may get of each DeviceClass."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.errors import Object
from sampan.api.pod_resources import Amounts
from sampan.api.quota.evaluator import Evaluator
from sampan.api.resources import RESOURCECLAIMS

_CLASS = ".deviceclass.resource.k8s.io/devices"
_MOST = 32
"""Devices that one claim can get; what a request for all devices counts as."""


class ResourceClaims(Evaluator):
    counts_only = False

    def __init__(self) -> None:
        super().__init__(RESOURCECLAIMS)

    def named(self, names: Iterable[str]) -> list[str]:
        return [n for n in names if n in self.names or n.endswith(_CLASS)]

    def usage(self, obj: Object) -> Amounts:
        devices: dict[str, int] = {}
        for request in ((obj.get("spec") or {}).get("devices") or {}).get("requests") or ():
            alternatives: dict[str, int] = {}
            for one in (
                (request["exactly"],) if request.get("exactly") else request.get("firstAvailable") or ()
            ):
                name = str(one.get("deviceClassName") or "") + _CLASS
                count = _MOST if one.get("allocationMode") == "All" else int(one.get("count") or 1)
                alternatives[name] = max(count, alternatives.get(name, 0))
            for name, count in alternatives.items():
                devices[name] = devices.get(name, 0) + count
        return {self.count: "1", **{name: str(count) for name, count in devices.items()}}
