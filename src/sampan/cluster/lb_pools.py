"""The addresses for load balancers that `sampan up` is told of with `--lb-pool`: ranges, or `none` for no load balancer.

Unless told otherwise a cluster has some of its bridge's subnet, beyond the nodes': this machine reaches them as it reaches
the nodes, without a route.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sampan.api import address_ranges
from sampan.api.address_ranges import AddressRange
from sampan.cluster.errors import ClusterError

if TYPE_CHECKING:
    from sampan.cluster.config import ClusterConfig
    from sampan.cluster.wishes import Wishes

NONE = "none"
_FIRST, _LAST = 200, 250
"""Places in the subnet of the nodes, which have the first ones."""
_NODES = 30
"""Places at its beginning that nodes and the bridge may have."""
_FLAG = "--lb-pool"


def problems(wishes: Wishes) -> list[str]:
    """What is wrong with what was given, taken by itself."""
    given = _split(wishes.lb_pool or ())
    if NONE in given:
        return [f"{_FLAG} {NONE} goes with no other {_FLAG}"] if len(given) > 1 else []
    out: list[str] = []
    found: list[AddressRange] = []
    for text in given:
        try:
            one = address_ranges.parse(text)
        except ValueError as e:
            out.append(f"{_FLAG} {text!r}: {e}; or `{_FLAG} {NONE}` for no load balancer")
            continue
        out += [f"{_FLAG} {text} overlaps {_FLAG} {other}" for other in found if one.overlaps(other)]
        found.append(one)
    return out


def wished(wishes: Wishes) -> dict[str, tuple[str, ...]]:
    """The ranges, if something was said about them."""
    return {} if wishes.lb_pool is None else {"lb_pool": _split(wishes.lb_pool)}


def ranges(config: ClusterConfig) -> tuple[str, ...]:
    """What the cluster has; () if it is to have no load balancer."""
    if config.lb_pool == (NONE,):
        return ()
    if config.lb_pool:
        return config.lb_pool
    subnets = map(ipaddress.ip_network, config.node_subnets)
    return tuple(f"{s[_FIRST]}-{s[_LAST]}" for s in subnets)


def reserved(config: ClusterConfig) -> tuple[AddressRange, ...]:
    """What is never given, whatever a pool says: the addresses that the nodes and the bridge have or may get."""
    return tuple(map(_nodes, config.node_subnets))


def check(config: ClusterConfig, others: Sequence[ClusterConfig]) -> None:
    """Refuse ranges whose addresses are somebody else's. Raises ClusterError with all of them."""
    out = []
    for text in ranges(config) if config.lb_pool else ():
        one = address_ranges.parse(text)
        taken = [
            *((f"the Service range {c}", _network(c)) for c in config.service_cidrs),
            *((f"the pod range {c}", _network(c)) for c in config.pod_cidrs),
            *((f"the nodes' addresses {_nodes(s)}", _nodes(s)) for s in config.node_subnets),
            *((f"{r} of cluster {o.name!r}", r) for o in others for r in _ranges_of(o)),
        ]
        out += [f"{_FLAG} {text} overlaps {what}" for what, theirs in taken if one.overlaps(theirs)]
    if out:
        raise ClusterError("; ".join(out))


def _split(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def _network(cidr: str) -> AddressRange:
    network = ipaddress.ip_network(cidr)
    return AddressRange(network[0], network[-1])


def _nodes(subnet: str) -> AddressRange:
    network = ipaddress.ip_network(subnet)
    return AddressRange(network[0], network[_NODES])


def _ranges_of(other: ClusterConfig) -> list[AddressRange]:
    return [
        *map(_network, (*other.service_cidrs, *other.pod_cidrs, *other.node_subnets)),
        *(address_ranges.parse(text) for text in ranges(other)),
    ]
