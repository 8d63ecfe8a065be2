"""The ranges of addresses of a cluster: the ones that it gets by its number, what is wrong with given ones, what is free.

Three ranges, each of one network a family. The IPv6 ones look like the IPv4 ones: 10.244.0.0/16 and fd00:10:244::/56.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.cluster.config import ClusterConfig
    from sampan.cluster.wishes import Wishes

FLAGS = {"service_cidr": "--service-cidr", "pod_cidr": "--pod-cidr", "node_subnet": "--node-subnet"}
"""By the field of the configuration for IPv4; that for IPv6 has a 6 behind it."""
FAMILIES = ("IPv4", "IPv4,IPv6")
IF_INET6 = Path("/proc/net/if_inet6")
DISABLE_IPV6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
_MOST_CLUSTERS = 60
_NODE_BITS = {4: 24, 6: 64}
_SMALLEST = {"service_cidr": 112, "node_subnet": 112, "pod_cidr": 64}
"""Prefix lengths of IPv6 ranges; of IPv4 it is 24."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the user gave, by field; and what is wrong with it, by itself."""

    cidrs: Mapping[str, str]
    dual: bool
    problems: tuple[str, ...]


def default(number: int) -> tuple[str, str, str]:
    """Service range, pod range and node subnet of the cluster with this number."""
    pods = 244 if number == 0 else 159 + number
    return f"10.{96 + number}.0.0/16", f"10.{pods}.0.0/16", f"172.29.{number}.0/24"


def default6(number: int) -> tuple[str, str, str]:
    pods = 244 if number == 0 else 159 + number
    return f"fd00:10:{96 + number}::/112", f"fd00:10:{pods}::/56", f"fd00:172:29:{number}::/64"


def defaults(number: int, *, dual: bool) -> dict[str, str]:
    """The same by field."""
    found = dict(zip(FLAGS, default(number), strict=True))
    if dual:
        found |= zip((f"{field}6" for field in FLAGS), default6(number), strict=True)
    return found


def flag_of(field: str) -> str:
    return FLAGS[field.removesuffix("6")]


def given(wishes: Wishes, nodes: int) -> Given:
    """The ranges that were asked for, each `A` or `A,B`, for this number of nodes."""
    cidrs: dict[str, str] = {}
    problems: list[str] = []
    for field, flag in FLAGS.items():
        for text in filter(None, getattr(wishes, field).split(",")):
            try:
                network = ipaddress.ip_network(text)
            except ValueError:
                problems.append(
                    f"{flag} {text!r} is not an IPv4 network such as 10.96.0.0/16, nor an IPv6 one such as fd00:10:96::/112"
                )
                continue
            key = field if network.version == 4 else f"{field}6"
            if key in cidrs:
                problems.append(f"{flag} {cidrs[key]},{text}: one network of each family, IPv4 and IPv6")
                continue
            cidrs[key] = text
            problems += _too_small(flag, field, network, nodes)
    families = wishes.ip_families.replace(" ", "")
    further = sorted({flag_of(f) for f in cidrs if f.endswith("6")})
    if families and families not in FAMILIES:
        problems.append(f"--ip-families {families!r}: allowed are {' and '.join(FAMILIES)}")
    elif families == "IPv4" and further:
        problems.append(f"{further[0]} has an IPv6 network, but --ip-families is IPv4 alone")
    dual = families == FAMILIES[1] or (not families and bool(further))
    if dual and (why := lacking_ipv6()):
        problems.append(f"a cluster of IPv4,IPv6: {why}")
    return Given(cidrs, dual, tuple(problems))


def _too_small(
    flag: str, field: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network, nodes: int
) -> Iterator[str]:
    most = 24 if network.version == 4 else _SMALLEST[field]
    if network.prefixlen > most:
        yield f"{flag} {network} is too small: at least a /{most}"
    elif field == "pod_cidr" and 2 ** (_NODE_BITS[network.version] - network.prefixlen) < nodes:
        bits = _NODE_BITS[network.version] - (nodes - 1).bit_length()
        yield f"{flag} {network} is too small for {nodes} nodes, a /{_NODE_BITS[network.version]} each: at least a /{bits}"


def lacking_ipv6() -> str:
    """Why this host can have no IPv6, and what to do; "" if it can."""
    if not IF_INET6.exists():
        return "this host has no IPv6: load the module `ipv6`, or start the kernel without ipv6.disable=1"
    if DISABLE_IPV6.read_text().strip() == "1":
        return "IPv6 is switched off on this host: `sysctl -w net.ipv6.conf.all.disable_ipv6=0`"
    return ""


def clashes(wanted: Mapping[str, str], others: Sequence[ClusterConfig], *, bridge: str = "") -> list[str]:
    """What the ranges, by field, overlap: each other, other clusters', this host's routes (but those by `bridge`); each with
    one that is free in its place."""
    from sampan.network import host

    routes = host.overlapping(list(wanted.values()), bridge=bridge)
    problems = []
    for position, (field, cidr) in enumerate(wanted.items()):
        flag = flag_of(field)
        network = ipaddress.ip_network(cidr)
        found = []
        if cidr in routes:
            found.append(f"the route {routes[cidr]} of this host")
        found += [f"{n} of cluster {c.name!r}" for c in others for n in _all(c) if _overlap(network, n)]
        before = list(wanted.items())[:position]
        found += [f"{flag_of(f)} {c}" for f, c in before if _overlap(network, c)]
        if found:
            free = _free(field, [c for f, c in wanted.items() if f != field], others)
            both = ",".join(free if f == field else wanted[f] for f in _pair(field) if f in wanted)
            advice = f"; free is: {flag} {both}" if free else ""
            problems += [f"{flag} {cidr} overlaps {what}{advice}" for what in found]
    return problems


def taken_since(config: ClusterConfig) -> list[str]:
    """What stands in the way of a cluster that is resumed: routes that this host did not have when it was made, and IPv6 that is
    gone."""
    from sampan.network import host

    routes = host.overlapping(_all(config), bridge=config.bridge)
    problems = [
        f"{cidr}, a range of this cluster, overlaps the route {route} of this host: remove that route, or delete the cluster"
        for cidr, route in routes.items()
    ]
    if "IPv6" in config.families and (why := lacking_ipv6()):
        problems.append(f"this cluster is one of IPv4,IPv6: {why}")
    return problems


def _pair(field: str) -> tuple[str, str]:
    first = field.removesuffix("6")
    return first, f"{first}6"


def _all(config: ClusterConfig) -> tuple[str, ...]:
    return (*config.service_cidrs, *config.pod_cidrs, *config.node_subnets)


def _overlap(one: ipaddress.IPv4Network | ipaddress.IPv6Network, other: str) -> bool:
    there = ipaddress.ip_network(other)
    return one.version == there.version and one.overlaps(there)


def _free(field: str, beside: Sequence[str], others: Sequence[ClusterConfig]) -> str:
    from sampan.network import host

    taken = [*beside, *(n for c in others for n in _all(c))]
    candidates = [defaults(number, dual=True)[field] for number in range(_MOST_CLUSTERS)]
    routed = host.overlapping(candidates)
    for candidate in candidates:
        network = ipaddress.ip_network(candidate)
        if candidate not in routed and not any(_overlap(network, t) for t in taken):
            return candidate
    return ""
