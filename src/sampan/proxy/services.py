"""From API objects to targets: what a Service and its EndpointSlices mean on one node.

Rules as upstream's proxy has them (`pkg/proxy/topology.go`): ready endpoints; if there is none, those that still serve
while they end; policy Local keeps to the node's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sampan.api.errors import Object
from sampan.proxy.types import Backend, Frontend, Target

DEFAULT_AFFINITY = 10800


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port of an EndpointSlice."""

    backend: Backend
    ready: bool
    serving: bool
    terminating: bool
    node: str


def targets(
    service: Object, slices: Iterable[Object], node_name: str, node_address: str
) -> dict[Frontend, Target]:
    """Every frontend of a Service on this node. None for a headless or external one."""
    spec = service.get("spec") or {}
    cluster_ip = spec.get("clusterIP", "")
    if spec.get("type") == "ExternalName" or cluster_ip in ("", "None") or ":" in cluster_ip:
        return {}
    meta = service["metadata"]
    all_slices = [s for s in slices if s.get("addressType") == "IPv4"]
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity = config.get("timeoutSeconds") or DEFAULT_AFFINITY
    internal_local = spec.get("internalTrafficPolicy") == "Local"
    external_local = spec.get("externalTrafficPolicy") == "Local"
    outside = [*(spec.get("externalIPs") or ()), *_ingress_addresses(service)]
    found: dict[Frontend, Target] = {}
    for port in spec.get("ports") or ():
        endpoints = list(_endpoints(all_slices, port.get("name", "")))
        name = f"{meta['namespace']}/{meta['name']}" + (f":{port['name']}" if port.get("name") else "")
        protocol = port.get("protocol", "TCP")
        inside = Target(name, _usable(endpoints, node_name if internal_local else ""), affinity)
        found[Frontend(cluster_ip, protocol, port["port"])] = inside
        if not outside and not port.get("nodePort"):
            continue
        reached = Target(
            name, _usable(endpoints, node_name if external_local else ""), affinity, external_local
        )
        for address in outside:
            found[Frontend(address, protocol, port["port"])] = reached
        if port.get("nodePort") and spec.get("type") in ("NodePort", "LoadBalancer"):
            found[Frontend(node_address, protocol, port["nodePort"])] = reached
    return found


def _ingress_addresses(service: Object) -> list[str]:
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [
        i["ip"] for i in ingress if i.get("ip") and i.get("ipMode", "VIP") == "VIP" and ":" not in i["ip"]
    ]


def _endpoints(slices: Sequence[Object], port_name: str) -> Iterable[Endpoint]:
    for one in slices:
        number = next(
            (p.get("port") for p in one.get("ports") or () if (p.get("name") or "") == port_name), None
        )
        if number is None:
            continue
        for endpoint in one.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            ready = conditions.get("ready") is not False
            serving = conditions.get("serving")
            yield Endpoint(
                Backend(endpoint["addresses"][0], number),
                ready,
                ready if serving is None else bool(serving),
                bool(conditions.get("terminating")),
                endpoint.get("nodeName") or "",
            )


def _usable(endpoints: Sequence[Endpoint], only_node: str) -> tuple[Backend, ...]:
    here = [e for e in endpoints if not only_node or e.node == only_node]
    chosen = [e for e in here if e.ready] or [e for e in here if e.serving and e.terminating]
    return tuple(dict.fromkeys(e.backend for e in chosen))
