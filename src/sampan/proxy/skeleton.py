"""The fixed part of a table: chains that never change while Services come and go. There is one table a family.

A connection's first packet is looked up in `services`, which says among how many backends to choose and what else there
is to know; the chain for that number draws a slot, and `endpoints` says which backend has the slot. Both are data maps:
changing an element costs the kernel the same however many there are, where a chain and a jump for each Service would have
it walk the graph of jumps (0.08 ms at 10 Services, 6 ms at 10,000).

The packet's mark carries what `services` said, then the slot, within the hook; bit 14 of the connection's mark says that
its source is to be masqueraded. What only some Services need (a time-out of session affinity, a prefix length of networks
that may connect) is in `classes`.
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.network.nftables import Family
from sampan.proxy.types import Layout, family_of

TABLE = "sampan"
COUNT = 0x1FFFF
"""The bits of a mark that hold a number of slots."""
KEEP_SOURCE, RESTRICTED, INSIDE, AFFINITY = 1 << 20, 1 << 21, 1 << 22, 1 << 23
"""What else a mark says: the client's address is kept; only some networks may connect; pods and the node have other
backends; a client is remembered."""
INSIDE_SLOT = 1 << 24
"""In a slot: it is one of those for pods and the node."""
MASQUERADE = 0x4000
EXACT = 128
"""Up to this many backends each gets one slot."""
LARGE = (1024, 8192, 65536)
"""Numbers of slots for more backends than that: at least eight a backend, so that none gets a share that is more than
an eighth too large."""
SLOT_COUNTS = (*range(1, EXACT + 1), *LARGE)

SETS = ("services", "services-inside", "endpoints", "affinity", "dropped", "rejected", "hairpin")
_BASE_CHAINS = (
    "prerouting", "output", "postrouting", "unserved-input", "unserved-forward", "unserved-output"
)  # fmt: skip
RESTRICTED_CHAIN = "restricted"
AFFINITIES = "affinities"
"""The map from a time-out to its chain."""


def sources_set(length: int) -> str:
    """The networks of one prefix length that may connect."""
    return f"sources-{length}"


def fixed_sets(layout: Layout) -> list[tuple[Family, str]]:
    """The sets and maps that the proxy fills."""
    fixed = [(family, name) for family in layout.families for name in SETS]
    return fixed + [(family, sources_set(length)) for family, length in layout.source_lengths]


def render(layout: Layout, family: Family) -> str:
    """The script for `nft -f`. Sets and maps that are there keep their elements; chains are made anew."""
    ip = "ip" if family == Family.IP else "ip6"
    address = f"{'ipv4' if family == Family.IP else 'ipv6'}_addr"
    key = f"{address} . inet_proto . inet_service"
    frontend = f"{ip} daddr . meta l4proto . th dport"
    masquerade = f"ct mark set ct mark | {MASQUERADE:#x}"
    pods = _any(_of(layout.pod_ranges, family))
    own_pods = _of(layout.own_pod_ranges, family)
    nodes = _of(layout.node_addresses, family)
    ranges = _of(layout.service_ranges, family)

    out = [f"table {ip} {TABLE} {{"]
    out += [
        f"  map services {{ type {key} : mark; }}",
        f"  map services-inside {{ type {key} : mark; }}",
        f"  map endpoints {{ type {key} . mark : {address} . inet_service; counter; }}",
        f"  map affinity {{ type {key} : mark; }}",
        f"  map {AFFINITIES} {{ type mark : verdict; }}",
        f"  set dropped {{ type {key}; counter; }}",
        f"  set rejected {{ type {key}; counter; }}",
        f"  set hairpin {{ type {address} . {address}; }}",
        "  map spread { type mark : verdict; }",
    ]
    for count in SLOT_COUNTS:
        out += _chain(f"spread-{count}", [f"meta mark set {'0' if count == 1 else f'numgen random mod {count}'}"])  # fmt: skip
    out += _chain("apply", [f"dnat {ip} to {frontend} . meta mark map @endpoints"])
    out += _chain("draw-inside", [
        f"meta mark set {frontend} map @services-inside",
        f"meta mark & {COUNT:#x} vmap @spread",
        f"meta mark set meta mark | {INSIDE_SLOT:#x}",
    ])  # fmt: skip
    out += _chain("draw", [
        f"{_says(INSIDE)} {ip} saddr {pods} goto draw-inside",
        f"{_says(INSIDE)} fib saddr type local goto draw-inside",
        f"meta mark & {COUNT:#x} vmap @spread",
    ])  # fmt: skip
    out += _chain("affinity", [
        f"meta mark set {frontend} map @affinity",
        f"meta mark vmap @{AFFINITIES}",
        # Not reached unless somebody took a chain away.
        f"meta mark set {frontend} map @services",
        "jump draw",
        "goto apply",
    ])  # fmt: skip
    out += _chain("serve", [f"{_says(AFFINITY)} goto affinity", "jump draw", "goto apply"])
    out.append(f"  chain {RESTRICTED_CHAIN} {{ }}")
    service = [f"{ip} saddr != {pods} meta mark & {KEEP_SOURCE:#x} == 0 {masquerade}"]
    if nodes:
        # The backend would answer a pod of another node directly, past this node, which translated.
        service += [f"{ip} daddr {_any(nodes)} meta mark & {KEEP_SOURCE:#x} == 0 {masquerade}"]
        others = f"{ip} saddr {pods} {ip} saddr != {_any(own_pods)}" if own_pods else f"{ip} saddr {pods}"
        service += [f"{ip} daddr {_any(nodes)} {_says(INSIDE)} {others} {masquerade}"]
    out += _chain("service", [
        *service,
        f"{_says(INSIDE)} fib saddr type local {masquerade}",
        f"{_says(RESTRICTED)} goto {RESTRICTED_CHAIN}",
        "goto serve",
    ])  # fmt: skip
    look_up = f"meta mark set {frontend} map @services goto service"
    out += _chain("prerouting", ["type nat hook prerouting priority dstnat;", look_up])
    out += _chain("output", ["type nat hook output priority -100;", look_up])
    out += _chain("postrouting", [
        "type nat hook postrouting priority srcnat;",
        f"ct status dnat ct mark & {MASQUERADE:#x} == {MASQUERADE:#x} masquerade fully-random",
        f"ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random",
    ])  # fmt: skip
    # What still has a Service address here belongs to no Service, or to one that has nobody for this client.
    unserved = [
        f"{frontend} @dropped drop",
        f"meta l4proto tcp {frontend} @rejected reject with tcp reset",
        f"{frontend} @rejected reject",
    ]
    if ranges:
        unserved += [
            # Yet not an address that is the node's own: the cluster's DNS answers at the loopback of each.
            "fib daddr type local return",
            f"{ip} daddr {_any(ranges)} meta l4proto tcp reject with tcp reset",
            f"{ip} daddr {_any(ranges)} reject",
        ]
    out += _chain("unserved", unserved)
    for hook in ("input", "forward", "output"):
        out += _chain(
            f"unserved-{hook}",
            [f"type filter hook {hook} priority filter;", "ct state established,related accept", "goto unserved"],
        )  # fmt: skip
    return "\n".join([*out, "}", *_spread(ip), ""])


def chains() -> list[str]:
    """All chains of the fixed part, those first that others jump to last."""
    return [
        *_BASE_CHAINS, "unserved", "service", RESTRICTED_CHAIN, "serve", "affinity", "draw", "draw-inside",
        *(f"spread-{c}" for c in SLOT_COUNTS), "apply",
    ]  # fmt: skip


def _spread(ip: str) -> list[str]:
    """The map from a number of slots to the chain that draws one; made anew in any case."""
    jumps = ", ".join(f"{count:#x} : jump spread-{count}" for count in SLOT_COUNTS)
    return [f"flush map {ip} {TABLE} spread", f"add element {ip} {TABLE} spread {{ {jumps} }}"]


def _says(bit: int) -> str:
    return f"meta mark & {bit:#x} == {bit:#x}"


def _of(networks: Iterable[str], family: Family) -> list[str]:
    return [n for n in networks if family_of(n) == family]


def _any(networks: list[str]) -> str:
    return networks[0] if len(networks) == 1 else f"{{ {', '.join(networks)} }}"


def _chain(name: str, rules: list[str]) -> list[str]:
    return [f"  chain {name} {{", *(f"    {rule}" for rule in rules), "  }"]
