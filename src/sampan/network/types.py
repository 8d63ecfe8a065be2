"""The seam between the node agent and the pod network, in the shape of CNI's ADD and DEL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class NetworkError(Exception):
    """A pod could not be joined to the network; the message goes into the pod's event."""


@dataclass(frozen=True, slots=True)
class PodAddresses:
    """The addresses of a pod, primary first, without prefix length."""

    ips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the node that leads to one of a pod (CRI's PortMapping). `host_ip` is the node's address that it is for, ""
    for all of them."""

    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


class PodNetwork(Protocol):
    """Joins pods' network namespaces to the node's network. Both calls may be repeated with the same result."""

    async def attach(self, sandbox_id: str, netns: str) -> PodAddresses:
        """Give the namespace at path `netns` loopback, an `eth0` with a free address of the node's pod range, and
        routes. The address stays taken (over our restarts too) until `detach`. Raises NetworkError."""

    async def detach(self, sandbox_id: str, netns: str) -> None:
        """Take the interface away and free the address; nothing happens where there is none."""

    async def addresses(self, sandbox_id: str) -> PodAddresses | None:
        """What `attach` gave, or None."""
