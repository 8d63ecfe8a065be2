"""The rules of a node in words, as the kernel has them: for each address of a Service who is behind it, and how many connections
each got.

The kernel's counters here meet the first packet of each connection only: translation is decided once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sampan.network import nftables
from sampan.network.netlink import Netlink
from sampan.network.nftables import Element, Family
from sampan.proxy import skeleton
from sampan.proxy.elements import said_by
from sampan.proxy.types import Backend, Frontend, unpacked

Contents = Mapping[tuple[Family, str], Sequence[Element]]
_NOT_ELEMENTS = ("spread", skeleton.AFFINITIES, "hairpin")


@dataclass(slots=True)
class _Rule:
    """What the kernel has for one frontend."""

    name: str = ""
    said: int | None = None
    said_inside: int | None = None
    slots: dict[bool, Counter[Backend]] = field(default_factory=lambda: {False: Counter(), True: Counter()})
    """By whether it is for pods and the node: how many slots each backend has."""
    connections: dict[bool, Counter[Backend]] = field(
        default_factory=lambda: {False: Counter(), True: Counter()}
    )
    affinity: int = 0
    remembered: int = 0
    sources: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    """`dropped` or `rejected`: how often."""


def read(netlink: Netlink) -> Contents:
    """What the tables of a network namespace hold."""
    found: dict[tuple[Family, str], Sequence[Element]] = {}
    for family in Family.IP, Family.IP6:
        if nftables.has_table(netlink, family, skeleton.TABLE):
            for name in nftables.set_names(netlink, family, skeleton.TABLE):
                if name not in _NOT_ELEMENTS:
                    found[family, name] = list(nftables.read_elements(netlink, family, skeleton.TABLE, name))
    return found


def explain(contents: Contents, service: str = "") -> str:
    """The rules of a Service (`namespace/name`), or of all; "" where there are none."""
    rules = _rules(contents)
    chosen = sorted(
        (rule.name, frontend)
        for frontend, rule in rules.items()
        if not service or rule.name == service or rule.name.startswith(f"{service}:")
    )
    lines: list[str] = []
    last = ""
    for name, frontend in chosen:
        if name != last:
            lines += [name]
            last = name
        lines += [f"  {frontend}", *(f"    {line}" for line in _of(rules[frontend]))]
    return "\n".join(lines)


def _rules(contents: Contents) -> dict[Frontend, _Rule]:
    rules: dict[Frontend, _Rule] = {}

    def of(key: bytes, element: Element) -> _Rule:
        rule = rules.setdefault(Frontend.from_key(key), _Rule())
        rule.name = rule.name or element.comment
        return rule

    for (family, name), elements in contents.items():
        size = 4 if family == Family.IP else 16
        for e in elements:
            match name.partition("-"):
                case "endpoints", _, _:
                    inside = bool(said_by(e.key[-4:]) & skeleton.INSIDE_SLOT)
                    rule, backend = of(e.key[:-4], e), Backend.from_data(e.data or b"")
                    rule.slots[inside][backend] += 1
                    rule.connections[inside][backend] += e.packets
                case "services", _, "inside":
                    of(e.key, e).said_inside = said_by(e.data or b"")
                case "services", _, _:
                    of(e.key, e).said = said_by(e.data or b"")
                case "affinity", _, "":
                    of(e.key, e).affinity = said_by(e.data or b"")
                case ("dropped" | "rejected") as how, _, _:
                    of(e.key, e).refused[how] = e.packets
                case "sources", _, length:
                    of(e.key[:-size], e).sources.append(f"{unpacked(e.key[-size:])}/{length}")
                case "clients", _, _:
                    of(e.key[size:], e).remembered += 1
    return rules


def _of(rule: _Rule) -> Iterator[str]:
    flags = rule.said or 0
    yield from _backends(
        rule, inside=False, whose="pods and the node excepted, " if flags & skeleton.INSIDE else ""
    )
    if flags & skeleton.INSIDE:
        yield from _backends(rule, inside=True, whose="from pods and the node ")
    for how, times in rule.refused.items():
        where = "on this node, though elsewhere" if how == "dropped" else "anywhere"
        yield f"without backends {where}: {how} ({_times(times, 'packet')})"
    if rule.affinity:
        yield f"a client keeps its backend for {rule.affinity} s ({_times(rule.remembered, 'client')} remembered)"
    if flags & skeleton.RESTRICTED:
        yield f"only from {', '.join(sorted(rule.sources)) or 'nowhere'}; others are dropped"
    if flags & skeleton.KEEP_SOURCE:
        yield "the client's address is kept"


def _backends(rule: _Rule, *, inside: bool, whose: str) -> Iterator[str]:
    slots, connections = rule.slots[inside], rule.connections[inside]
    total = sum(slots.values())
    if not total:
        return
    yield f"{whose}to one of {_times(len(slots), 'backend')} ({_times(sum(connections.values()), 'connection')}):"
    width = max(len(str(b)) for b in slots)
    for backend in sorted(slots):
        share = f"{slots[backend] / total:6.1%}"
        yield f"  {backend!s:<{width}} {share}  {_times(connections[backend], 'connection')}"


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
