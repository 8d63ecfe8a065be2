"""The fixed part of the table: chains that never change while Services come and go.

A connection's first packet is looked up in `services`, which says among how many backends to choose; the chain for
that number draws a slot, and `endpoints` says which backend has the slot. Both are data maps: changing an element
costs the kernel the same however many there are, where a chain and a jump for each Service would have it walk the
graph of jumps (0.08 ms at 10 Services, 6 ms at 10,000).

The packet's mark carries the number of backends, then the slot, within the hook; bit 14 of the connection's mark says
that its source is to be masqueraded.
"""

from __future__ import annotations

from sampan.proxy.types import Layout

TABLE = "sampan"
COUNT_MARK = 0x53000000
"""A mark with this in its upper byte holds a number of slots below."""
MASQUERADE = 0x4000
EXACT = 128
"""Up to this many backends each gets one slot."""
LARGE = (1024, 8192, 65536)
"""Numbers of slots for more backends than that: at least eight a backend, so that none gets a share that is more than
an eighth too large."""
SLOT_COUNTS = (*range(1, EXACT + 1), *LARGE)

_FRONTEND = "ip daddr . meta l4proto . th dport"
_FRONTEND_TYPE = "ipv4_addr . inet_proto . inet_service"
_CLIENT = "ip saddr . ip daddr . meta l4proto . th dport"


def affinity_set(seconds: int) -> str:
    return f"affinity-services-{seconds}"


def fixed_sets(layout: Layout) -> list[str]:
    """The sets and maps that the proxy fills."""
    return ["services", "endpoints", "hairpin", "keep-source", *map(affinity_set, layout.affinities)]


def render(layout: Layout) -> str:
    """The script for `nft -f`. Sets and maps that are there keep their elements; chains are made anew."""
    out = [f"table ip {TABLE} {{"]
    out += [
        f"  map services {{ type {_FRONTEND_TYPE} : mark; }}",
        f"  map endpoints {{ type {_FRONTEND_TYPE} . mark : ipv4_addr . inet_service; }}",
        "  set hairpin { type ipv4_addr . ipv4_addr; }",
        f"  set keep-source {{ type {_FRONTEND_TYPE}; }}",
    ]
    for seconds in layout.affinities:
        out += [
            f"  set {affinity_set(seconds)} {{ type {_FRONTEND_TYPE}; }}",
            f"  map affinity-{seconds} {{ type ipv4_addr . {_FRONTEND_TYPE} : mark; size 65536; flags dynamic,timeout; timeout {seconds}s; }}",
        ]
    out += _chain("apply", [
        *(f"{_FRONTEND} @{affinity_set(s)} update @affinity-{s} {{ {_CLIENT} : meta mark }}" for s in layout.affinities),
        f"dnat ip to {_FRONTEND} . meta mark map @endpoints",
    ])  # fmt: skip
    for seconds in layout.affinities:
        out += _chain(
            f"remembered-{seconds}", [f"meta mark set {_CLIENT} map @affinity-{seconds} goto apply"]
        )
    for count in SLOT_COUNTS:
        draw = "0" if count == 1 else f"numgen random mod {count}"
        out += _chain(f"spread-{count}", [f"meta mark set {draw} goto apply"])
    jumps = ", ".join(f"{COUNT_MARK | count & 0xFFFFFF:#x} : goto spread-{count}" for count in SLOT_COUNTS)
    out += _chain("services", [
        "meta l4proto != { tcp, udp, sctp } return",
        f"ip saddr != {layout.pod_range} {_FRONTEND} != @keep-source ct mark set ct mark | {MASQUERADE:#x}",
        f"ip daddr {layout.node_address} {_FRONTEND} != @keep-source ct mark set ct mark | {MASQUERADE:#x}",
        *(f"{_FRONTEND} @{affinity_set(s)} {_CLIENT} @affinity-{s} goto remembered-{s}" for s in layout.affinities),
        f"meta mark set {_FRONTEND} map @services",
        f"meta mark vmap {{ {jumps} }}",
    ])  # fmt: skip
    out += _chain("prerouting", ["type nat hook prerouting priority dstnat;", "goto services"])
    out += _chain("output", ["type nat hook output priority -100;", "goto services"])
    out += _chain("postrouting", [
        "type nat hook postrouting priority srcnat;",
        f"ct status dnat ct mark & {MASQUERADE:#x} == {MASQUERADE:#x} masquerade fully-random",
        "ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random",
    ])  # fmt: skip
    # What still has a Service address here belongs to no Service, or to one without endpoints.
    ranges = ", ".join(layout.service_ranges)
    reject = [
        f"ip daddr {{ {ranges} }} meta l4proto tcp reject with tcp reset",
        f"ip daddr {{ {ranges} }} reject",
    ]
    out += _chain("unserved-forward", ["type filter hook forward priority filter;", *reject])
    # Yet not one that is the node's own: the cluster's DNS answers at each node's loopback.
    own = "fib daddr type local accept"
    out += _chain("unserved-output", ["type filter hook output priority filter;", own, *reject])
    return "\n".join([*out, "}", ""])


def chains(layout: Layout) -> list[str]:
    """All chains of the fixed part, those first that others jump to last."""
    return [
        "prerouting", "output", "postrouting", "unserved-forward", "unserved-output", "services",
        *(f"remembered-{s}" for s in layout.affinities), *(f"spread-{c}" for c in SLOT_COUNTS), "apply",
    ]  # fmt: skip


def _chain(name: str, rules: list[str]) -> list[str]:
    return [f"  chain {name} {{", *(f"    {rule}" for rule in rules), "  }"]
