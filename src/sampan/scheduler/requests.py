"""What a pod asks of its node: amounts of resources, and ports of the node's own addresses.

Amounts are whole numbers: thousandths of a core for `cpu`, units (bytes) for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sampan.api import quantity
from sampan.api.errors import Object

Amounts = dict[str, int]

UNSTATED: Amounts = {"cpu": 100, "memory": 200 * 1024 * 1024}
"""What a container that asks for nothing counts as when nodes are compared (never when it is asked whether they fit)."""


def amounts(resources: Mapping[str, str] | None) -> Amounts:
    """A resource list as whole numbers."""
    return {
        name: quantity.milli(given) if name == "cpu" else quantity.value(given)
        for name, given in (resources or {}).items()
    }


def add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def subtract(total: Amounts, less: Amounts) -> None:
    for name, amount in less.items():
        left = total.get(name, 0) - amount
        if left:
            total[name] = left
        else:
            total.pop(name, None)


def _at_least(total: Amounts, floor: Amounts) -> None:
    for name, amount in floor.items():
        if amount > total.get(name, 0):
            total[name] = amount


def pod_requests(spec: Object, unstated: Amounts | None = None) -> Amounts:
    """What a pod needs at its greediest moment: all containers with the sidecars, or one init container with the
    sidecars that were started before it, and the overhead. `unstated` stands in for what a container leaves open."""
    total: Amounts = {}
    for container in spec["containers"]:
        add(total, _container(container, unstated))
    sidecars: Amounts = {}
    greediest: Amounts = {}
    for container in spec.get("initContainers") or ():
        asked = _container(container, unstated)
        if container.get("restartPolicy") == "Always":
            add(total, asked)
            add(sidecars, asked)
            _at_least(greediest, sidecars)
        else:
            add(asked, sidecars)
            _at_least(greediest, asked)
    _at_least(total, greediest)
    if spec.get("overhead"):
        add(total, amounts(spec["overhead"]))
    return total


def _container(container: Object, unstated: Amounts | None) -> Amounts:
    asked = amounts((container.get("resources") or {}).get("requests"))
    return {**unstated, **asked} if unstated else asked


class HostPort(NamedTuple):
    """A port of the node that a pod takes; `ip` "0.0.0.0" is every address."""

    protocol: str
    ip: str
    port: int

    def conflicts(self, other: HostPort) -> bool:
        return (
            self.port == other.port
            and self.protocol == other.protocol
            and (self.ip == other.ip or "0.0.0.0" in (self.ip, other.ip))
        )


def host_ports(spec: Object) -> tuple[HostPort, ...]:
    found = []
    sidecars = (c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always")
    for container in (*spec["containers"], *sidecars):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                ip = port.get("hostIP") or "0.0.0.0"
                found.append(HostPort(port.get("protocol") or "TCP", ip, port["hostPort"]))
    return tuple(found)
