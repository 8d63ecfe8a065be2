"""The kernel's tables: what `content` says becomes messages of nf_tables, and is read back.

The fixed part of each table decides in this order about a packet that is forwarded, which is after the translation of Service
addresses: what belongs to a connection that is there passes, then what a pod sends to itself; then the pod that sends, then the
one that receives is asked for its chain. What the node itself sends or gets is not forwarded, hence always passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from sampan.network import nftables
from sampan.network import nftables_expressions as expressions
from sampan.network.netlink import NETLINK_NETFILTER, Message, Netlink
from sampan.network.nftables import SUBSYSTEM, Element, Family, Hook, Type
from sampan.networkpolicy.content import SELF, Chain, Content, Item, Match, Value
from sampan.networkpolicy.types import DIRECTIONS, Direction

TABLE = "sampan-policy"
FAMILIES = (Family.IP, Family.IP6)
_ADDRESS = {Family.IP: Type.IPV4_ADDR, Family.IP6: Type.IPV6_ADDR}
_SOURCE = {Family.IP: 12, Family.IP6: 8}
_DESTINATION = {Family.IP: 16, Family.IP6: 24}
"""Where the header has the addresses."""


_Parts = Sequence[tuple[str, bytes]]
"""A rule as it is read."""


class NfTables:
    """Our tables in the network namespace that the process is in. `own` is told who makes our transactions, by netlink port,
    for whoever watches for foreign ones."""

    def __init__(self, own: Callable[[int], None] = lambda port: None) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)
        self._made: set[Family] = set()
        """The families whose fixed part is there for certain."""
        self._found: set[Family] = set()
        """The families whose fixed part is there, who knows how."""
        own(self._netlink.port)

    def close(self) -> None:
        self._netlink.close()

    def read(self) -> Content:
        self._made.clear()
        self._found = {f for f in FAMILIES if nftables.has_table(self._netlink, f, TABLE)}
        return {item: value for family in sorted(self._found) for item, value in self._read(family)}

    def apply(self, before: Content, after: Content) -> None:
        families = {item.family for item in (*before, *after)} | self._found
        messages: list[Message] = []
        for family in sorted(families):
            if family not in self._made:
                messages += _fixed_part(family)
            messages += _changes(
                family,
                {item: value for item, value in before.items() if item.family is family},
                {item: value for item, value in after.items() if item.family is family},
            )
        if messages:
            self._netlink.transaction(SUBSYSTEM, messages)
            self._made |= families
            self._found.clear()

    def rebuild(self, content: Content) -> None:
        self._made.clear()
        families = {item.family for item in content}
        messages: list[Message] = []
        for family in FAMILIES:
            if nftables.has_table(self._netlink, family, TABLE):
                messages.append(nftables.delete_table(family, TABLE))
            if family in families:
                own = {item: value for item, value in content.items() if item.family is family}
                messages += [*_fixed_part(family), *_changes(family, {}, own)]
        if messages:
            self._netlink.transaction(SUBSYSTEM, messages)
        self._made |= families
        self._found.clear()

    def _read(self, family: Family) -> Iterator[tuple[Item, Value]]:
        rules: dict[str, list[_Parts]] = {
            name: [] for name in nftables.chain_names(self._netlink, family, TABLE)
        }
        for chain, parts in nftables.read_rules(self._netlink, family, TABLE):
            rules[chain].append(parts)
        for chain, found in rules.items():
            if chain not in _fixed_chains():
                yield Item("chain", family, chain), _as_made(found)
        for name in nftables.set_names(self._netlink, family, TABLE):
            fixed = name in _fixed_sets(family)
            if not fixed:
                yield Item("set", family, name), ""
            if fixed or name.partition("-")[0] in ("pods", "block", "ports", "named"):
                elements = list(nftables.read_elements(self._netlink, family, TABLE, name))
                if name.startswith("block-"):
                    elements = _paired(elements, _ADDRESS[family].size)
                for e in elements:
                    key = e.key + (e.key_end or b"")
                    yield Item("element", family, name, key), e.goto or e.data


def _fixed_chains() -> tuple[str, ...]:
    return ("forward", *(f"check-{direction}" for direction in DIRECTIONS))


def _fixed_sets(family: Family) -> dict[str, Message]:
    address = [_ADDRESS[family]]
    made = {SELF: nftables.set_(family, TABLE, SELF, address * 2)}
    for name in DIRECTIONS:
        made[name] = nftables.set_(family, TABLE, name, address, data=Type.MARK)
        chains = f"{name}-chains"
        made[chains] = nftables.set_(family, TABLE, chains, [Type.MARK], verdicts=True)
    return made


def _fixed_part(family: Family) -> list[Message]:
    """Makes what is missing, and its rules anew: at no moment is one not there."""
    made = [
        nftables.table(family, TABLE),
        nftables.chain(family, TABLE, "forward", type="filter", hook=Hook.FORWARD, priority=0),
    ]
    made += [nftables.chain(family, TABLE, f"check-{direction}") for direction in DIRECTIONS]
    made += [nftables.flush_chain(family, TABLE, name) for name in _fixed_chains()]
    made += _fixed_sets(family).values()
    twice = [_source(family, 0), _destination(family, _ADDRESS[family].size // 4)]
    rules = [
        ("forward", [*expressions.established(), expressions.decide(nftables.ACCEPT)]),
        ("forward", [*twice, expressions.lookup(SELF, 0), expressions.decide(nftables.ACCEPT)]),
    ]
    owns: tuple[tuple[Direction, bytes], ...] = (
        ("egress", _source(family, 0)),
        ("ingress", _destination(family, 0)),
    )
    for direction, own in owns:
        number = [own, expressions.lookup(direction, 0, 0), expressions.set_mark(0)]
        chain = [expressions.mark(0), expressions.lookup(f"{direction}-chains", 0, verdicts=True)]
        rules += [
            ("forward", [*number, expressions.decide(nftables.JUMP, f"check-{direction}")]),
            (f"check-{direction}", chain),
            (f"check-{direction}", [expressions.decide(nftables.DROP)]),
        ]
    return [*made, *(nftables.rule(family, TABLE, chain, parts) for chain, parts in rules)]


def _source(family: Family, register: int) -> bytes:
    size = _ADDRESS[family].size
    return expressions.payload(expressions.NETWORK_HEADER, _SOURCE[family], size, register)


def _destination(family: Family, register: int) -> bytes:
    size = _ADDRESS[family].size
    return expressions.payload(expressions.NETWORK_HEADER, _DESTINATION[family], size, register)


def _changes(family: Family, before: Content, after: Content) -> list[Message]:
    """In the order that the kernel takes them: what others refer to comes first and goes last."""
    out: list[Message] = []
    for item, value in _of("set", after):
        if item not in before:
            out.append(_set(family, item.name, str(value)))
    for item, value in _of("chain", after):
        if item not in before or before[item] != value:
            out += _chain(family, item.name, value if isinstance(value, tuple) else ())
    gone_sets = {item.name for item in before if item.kind == "set" and item not in after}
    gone = [i for i, v in _of("element", before) if i.name not in gone_sets and after.get(i, ...) != v]
    for name, several in _by_set(gone):
        elements = [e for item in several for e in _elements(item, None)]
        out += nftables.delete_elements(family, TABLE, name, elements)
    come = [item for item, value in _of("element", after) if before.get(item, ...) != value]
    for name, several in _by_set(come):
        elements = [e for item in several for e in _elements(item, after[item])]
        out += nftables.add_elements(family, TABLE, name, elements)
    out += [nftables.delete_chain(family, TABLE, i.name) for i, _ in _of("chain", before) if i not in after]
    out += [nftables.delete_set(family, TABLE, name) for name in sorted(gone_sets)]
    return out


def _of(kind: str, content: Content) -> list[tuple[Item, Value]]:
    return [(item, value) for item, value in content.items() if item.kind == kind]


def _by_set(items: Iterable[Item]) -> Iterator[tuple[str, list[Item]]]:
    """Together, so that they travel in few messages."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.name, []).append(item)
    yield from found.items()


def _set(family: Family, name: str, comment: str) -> Message:
    address = _ADDRESS[family]
    key, ranges = {
        "pods": ([address], False),
        "block": ([address], True),
        "ports": ([Type.INET_PROTO, Type.INET_SERVICE], True),
        "named": ([address, Type.INET_PROTO, Type.INET_SERVICE], False),
    }[name.partition("-")[0]]
    return nftables.set_(family, TABLE, name, key, ranges=ranges, comment=comment)


def _chain(family: Family, name: str, matches: Chain) -> list[Message]:
    ingress = name.startswith("ingress")
    out = [nftables.chain(family, TABLE, name), nftables.flush_chain(family, TABLE, name)]
    for match in matches:
        parts = []
        if match.peers:
            parts += [
                _source(family, 0) if ingress else _destination(family, 0),
                expressions.lookup(match.peers, 0),
            ]
        if match.ports:
            parts += [*_service(0), expressions.lookup(match.ports, 0)]
        if match.named:
            parts += [_destination(family, 0), *_service(_ADDRESS[family].size // 4)]
            parts.append(expressions.lookup(match.named, 0))
        parts.append(expressions.decide(nftables.RETURN))
        out.append(nftables.rule(family, TABLE, name, parts, comment=match.comment))
    return [*out, nftables.rule(family, TABLE, name, [expressions.decide(nftables.DROP)])]


def _service(register: int) -> list[bytes]:
    """Protocol and destination port, which all three protocols have in the same place."""
    return [
        expressions.protocol(register),
        expressions.payload(expressions.TRANSPORT_HEADER, 2, 2, register + 1),
    ]


def _as_made(rules: Sequence[_Parts]) -> Chain | None:
    """A chain that was read as the value it was made from; None where somebody else had a hand in it."""
    matches = [_match(parts) for parts in rules]
    if not matches or None in matches or expressions.decided(rules[-1]) != nftables.DROP:
        return None
    if any(expressions.decided(parts) != nftables.RETURN for parts in rules[:-1]):
        return None
    return tuple(m for m in matches[:-1] if m is not None)


def _match(parts: _Parts) -> Match | None:
    names = {"peers": "", "ports": "", "named": ""}
    for name in expressions.looked_up(parts):
        kind = name.partition("-")[0]
        field = "peers" if kind in ("pods", "block") else kind
        if field not in names:
            return None
        names[field] = name
    return Match(**names)


def _elements(item: Item, value: Value) -> list[Element]:
    """As the kernel has them: a range of one field is two."""
    size = len(item.key) // 2
    if item.name.startswith("block-"):
        first, last = item.key[:size], item.key[size:]
        behind = int.from_bytes(last) + 1
        elements = [Element(first)]
        if behind >> 8 * size == 0:
            elements.append(Element(behind.to_bytes(size), interval_end=True))
        return elements
    if item.name.startswith("ports-"):
        return [Element(item.key[:size], key_end=item.key[size:])]
    if isinstance(value, str):
        return [Element(item.key, goto=value)]
    return [Element(item.key, data=value if isinstance(value, bytes) else None)]


def _paired(elements: Iterable[Element], size: int) -> list[Element]:
    """Each range in one, with its last key."""
    out: list[Element] = []
    ends = sorted((e.key, not e.interval_end) for e in elements)
    for at, (key, begins) in enumerate(ends):
        if begins:
            behind = int.from_bytes(ends[at + 1][0]) if at + 1 < len(ends) else 1 << 8 * size
            out.append(Element(key, key_end=(behind - 1).to_bytes(size)))
    return out
