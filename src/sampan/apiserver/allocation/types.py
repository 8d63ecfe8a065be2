"""What allocation shares: why something cannot be had, and what a Service has."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from sampan.api.errors import Object
from sampan.api.service_fields import needs_cluster_ip, needs_health_check_node_port, type_of

NONE = "None"
"""The `clusterIP` of a headless Service."""


class Taken(Exception):
    """Why a wanted address or port cannot be had."""


class Exhausted(Exception):
    """No address or port is left."""


@dataclass(slots=True)
class Holding:
    """Addresses and node ports."""

    addresses: set[str] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)

    def __sub__(self, other: Holding) -> Holding:
        return Holding(self.addresses - other.addresses, self.ports - other.ports)

    def __bool__(self) -> bool:
        return bool(self.addresses or self.ports)


def holding(service: Object) -> Holding:
    """What a stored Service has."""
    return Holding(addresses_of(service), ports_of(service))


def headless(service: Object) -> bool:
    spec = service["spec"]
    return spec.get("clusterIP") == NONE or NONE in (spec.get("clusterIPs") or ())


def addresses_of(service: Object) -> set[str]:
    spec = service["spec"]
    given = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return {canonical(ip) for ip in given if ip and ip != NONE} if needs_cluster_ip(service) else set()


def canonical(ip: str) -> str:
    """An address as its IPAddress is named; what is none stays as it is."""
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError:
        return ip


def ports_of(service: Object) -> set[int]:
    spec = service["spec"]
    if type_of(service) not in ("NodePort", "LoadBalancer"):
        return set()
    ports = {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}
    if needs_health_check_node_port(service) and spec.get("healthCheckNodePort"):
        ports.add(spec["healthCheckNodePort"])
    return ports


def band(size: int, step: int, most: int) -> int:
    """How many places at the low end of a range are left to those who ask for one by name: a share of the whole, 16
    at least and `most` at most; none in a range too small for it."""
    return 0 if size <= 16 else min(max(16, size // step), most)
