"""What a Service's endpoints are, computed from its pods. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sampan.api.errors import Object
from sampan.api.objects import condition_true
from sampan.controllers import pods as facts
from sampan.controllers.controller import deleting

ZONE_LABEL = "topology.kubernetes.io/zone"
FAMILIES = ("IPv4", "IPv6")


Groups = dict[tuple[str, str], tuple[list[Object], list[Object]]]
"""Ports and endpoints for each (address type, ports written as a text)."""


_FEW = 20
"""Pods that are not worth remembering."""


class Computed:
    """What the pods of one Service come to, remembered: of a thousand pods the one that changed is computed anew."""

    def __init__(self) -> None:
        self._service: Object | None = None
        self._known: dict[str, _Known] = {}

    def wanted(
        self, service: Object, pods: Iterable[Object], node_of: Callable[[str], Object | None]
    ) -> Groups:
        """The Service's endpoints. Objects that are the same as the last time are taken to be unchanged.

        Pods whose named target ports have different numbers fall into different groups. A pod on a node that is not
        known is left out, unless the Service wants addresses that are not ready.
        """
        before = self._known if service is self._service else {}
        self._service, self._known = service, {}
        found: Groups = {}
        for pod in pods:
            zone = _zone(node_of(pod["spec"].get("nodeName") or ""))
            uid = pod["metadata"]["uid"]
            known = before.get(uid)
            if known is None or known.pod is not pod or known.zone != zone:
                known = _Known(pod, zone, _parts(service, pod, zone))
            self._known[uid] = known
            for family, shape, ports, endpoint in known.parts:
                found.setdefault((family, shape), (ports, []))[1].append(endpoint)
        if len(self._known) <= _FEW:
            self._known = {}
        return found


@dataclass(frozen=True, slots=True)
class _Known:
    """One pod as it was, the zone of its node (None: the node is not known), and what came of it."""

    pod: Object
    zone: str | None
    parts: list[tuple[str, str, list[Object], Object]]


def _zone(node: Object | None) -> str | None:
    return None if node is None else (node["metadata"].get("labels") or {}).get(ZONE_LABEL) or ""


def _parts(service: Object, pod: Object, zone: str | None) -> list[tuple[str, str, list[Object], Object]]:
    """A pod's endpoint in each family, with its ports."""
    if not _has_endpoint(pod) or (zone is None and not service["spec"].get("publishNotReadyAddresses")):
        return []
    ports = ports_of(service, pod)
    shape = shape_of(ports)
    addresses = ((family, address_of(pod, family)) for family in address_types(service))
    return [(f, shape, ports, _endpoint(service, pod, zone or "", a)) for f, a in addresses if a]


def address_types(service: Object) -> list[str]:
    """The families that the Service has endpoints of. One of before there were families has that of its address, or,
    headless, both."""
    spec = service["spec"]
    if spec.get("ipFamilies"):
        return list(spec["ipFamilies"])
    address = spec.get("clusterIP") or "None"
    return list(FAMILIES) if address == "None" else ["IPv6" if ":" in address else "IPv4"]


def shape_of(ports: Iterable[Object]) -> str:
    """Ports as a text that is equal for equal ports, in whatever order they were given."""
    return json.dumps(sorted(json.dumps(p, sort_keys=True) for p in ports))


def _has_endpoint(pod: Object) -> bool:
    return not facts.finished(pod) and bool(_addresses(pod))


def _addresses(pod: Object) -> list[str]:
    status = pod.get("status") or {}
    several = [a["ip"] for a in status.get("podIPs") or () if a.get("ip")]
    return several or ([status["podIP"]] if status.get("podIP") else [])


def address_of(pod: Object, family: str) -> str:
    """The pod's address of a family, or ""."""
    return next((a for a in _addresses(pod) if (":" in a) == (family == "IPv6")), "")


def ports_of(service: Object, pod: Object) -> list[Object]:
    """The Service's ports as this pod has them; one that the pod does not name is left out."""
    ports: list[Object] = []
    for port in service["spec"].get("ports") or ():
        number = target_port(pod, port)
        if number is None:
            continue
        made: Object = {
            "name": port.get("name") or "",
            "protocol": port.get("protocol") or "TCP",
            "port": number,
        }
        if port.get("appProtocol"):
            made["appProtocol"] = port["appProtocol"]
        ports.append(made)
    return ports


def target_port(pod: Object, service_port: Object) -> int | None:
    """The number of a Service port's target in a pod; None if the pod names no such port."""
    target = service_port.get("targetPort")
    if target is None or target == 0 or target == "":
        return int(service_port["port"])
    if isinstance(target, int):
        return target
    protocol = service_port.get("protocol") or "TCP"
    spec = pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for port in container.get("ports") or ():
            if port.get("name") == target and (port.get("protocol") or "TCP") == protocol:
                return int(port["containerPort"])
    return None


def _endpoint(service: Object, pod: Object, zone: str, address: str) -> Object:
    meta, spec = pod["metadata"], pod["spec"]
    serving, terminating = condition_true(pod, "Ready"), deleting(pod)
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    made: Object = {
        "addresses": [address],
        "conditions": {
            "ready": publish or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
        },
    }
    if spec.get("nodeName"):
        made["nodeName"] = spec["nodeName"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        made["hostname"] = spec["hostname"]
    if zone:
        made["zone"] = zone
    hints = _hints(service, made)
    if hints:
        made["hints"] = hints
    return made


def _hints(service: Object, endpoint: Object) -> Object:
    """For whom an endpoint is near, where the Service prefers near ones. Upstream: `k8s.io/endpointslice/trafficdist`."""
    preference = service["spec"].get("trafficDistribution")
    hints: Object = {}
    if preference not in ("PreferClose", "PreferSameZone", "PreferSameNode"):
        return hints
    if not endpoint["conditions"]["ready"]:
        return hints
    if endpoint.get("zone"):
        hints["forZones"] = [{"name": endpoint["zone"]}]
    if preference == "PreferSameNode" and endpoint.get("nodeName"):
        hints["forNodes"] = [{"name": endpoint["nodeName"]}]
    return hints
