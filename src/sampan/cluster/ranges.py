"""The ranges of addresses of a cluster: the ones that it gets by its number, and what is wrong with given ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.cluster.config import ClusterConfig


def default(number: int) -> tuple[str, str, str]:
    """Service range, pod range and node subnet of the cluster with this number."""
    pods = 244 if number == 0 else 159 + number
    return f"10.{96 + number}.0.0/16", f"10.{pods}.0.0/16", f"172.29.{number}.0/24"


def is_network(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text)
    except ValueError:
        return False
    return True


def problems(flag: str, cidr: str, others: Sequence[ClusterConfig]) -> list[str]:
    if not is_network(cidr):
        return [f"{flag} {cidr!r} is not an IPv4 network such as 10.96.0.0/16"]
    network = ipaddress.ip_network(cidr)
    if network.prefixlen > 24:
        return [f"{flag} {cidr} is too small: at least a /24"]
    return [
        f"{flag} {cidr} overlaps {taken} of cluster {c.name!r}"
        for c in others
        for taken in (c.service_cidr, c.pod_cidr, c.node_subnet)
        if network.overlaps(ipaddress.ip_network(taken))
    ]
