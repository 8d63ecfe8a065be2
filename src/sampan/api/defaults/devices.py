"""Defaults of resource.k8s.io."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.objects import now


def claim(obj: Object) -> None:
    _claim_spec(obj.setdefault("spec", {}))


def claim_template(obj: Object) -> None:
    _claim_spec(obj.setdefault("spec", {}).setdefault("spec", {}))


def _claim_spec(spec: Object) -> None:
    for request in (spec.get("devices") or {}).get("requests") or ():
        if request.get("exactly") is not None:
            _request(request["exactly"])
        for alternative in request.get("firstAvailable") or ():
            _request(alternative)


def _request(request: Object) -> None:
    if not request.get("allocationMode"):
        request["allocationMode"] = "ExactCount"
    if request["allocationMode"] == "ExactCount" and not request.get("count"):
        request["count"] = 1
    _tolerations(request)


def _tolerations(given: Object) -> None:
    for toleration in given.get("tolerations") or ():
        if not toleration.get("operator"):
            toleration["operator"] = "Equal"


def claim_with_status(obj: Object) -> None:
    claim(obj)
    allocation = (obj.get("status") or {}).get("allocation") or {}
    for result in (allocation.get("devices") or {}).get("results") or ():
        _tolerations(result)


def resource_slice(obj: Object) -> None:
    for device in (obj.get("spec") or {}).get("devices") or ():
        for taint in device.get("taints") or ():
            if not taint.get("timeAdded"):
                taint["timeAdded"] = now()
        for mapping in (device.get("nodeAllocatableResourceMappings") or {}).values():
            if mapping.get("allocationMultiplier") is None:
                mapping["allocationMultiplier"] = "1"
