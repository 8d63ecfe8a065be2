"""What the node's tables hold, as one plain value that two states are compared by, and how policies become it.

For each family there is a table of the same shape:

    map ingress, egress          address of a pod here -> the number of a chain
    map ingress-chains, ...      number -> the chain
    chain ingress-HASH, ...      what one combination of policies lets pass: a rule each of peers and ports, then drop
    set pods-HASH                the addresses of the pods that one selection means
    set block-HASH               the addresses of ipBlocks, as ranges
    set ports-HASH               protocol and ports, as ranges
    set named-HASH               address, protocol and port of every pod that has a port of one name
    set self                     address twice, of pods here that policies select

A chain's or set's name is made from what it says, so it never changes, and the same thing is there once whoever uses it.
See docs/decisions/network-policy.md.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sampan.network.nftables import Family
from sampan.networkpolicy.types import Block, Direction, NamedPort, Network, PodSelection, Policy, Ports

PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": socket.IPPROTO_SCTP}
_NAMES = {number: name for name, number in PROTOCOLS.items()}
SELF = "self"


class Item(NamedTuple):
    """What can be there or not. `name` is that of the set or chain, `key` that of the element in it."""

    kind: Literal["set", "chain", "element"]
    family: Family
    name: str
    key: bytes = b""


@dataclass(frozen=True, slots=True)
class Match:
    """One rule of a chain: the names of the sets that must all hold what a packet has; "" for any. `comment` names the policy."""

    peers: str = ""
    ports: str = ""
    named: str = ""
    comment: str = field(default="", compare=False)


Chain = tuple[Match, ...]
"""Its last rule, to drop what none of these let pass, goes without saying."""

Value = Chain | str | bytes | None
"""Of a chain: its rules. Of a set: what it is for, in words. Of an element: the number in a map of addresses, the chain's name
in a map of numbers, otherwise None."""

Content = dict[Item, Value]
Source = PodSelection | tuple[Block, ...] | tuple[Ports, ...] | NamedPort
"""What a set is filled from."""


def family_of(address: str) -> Family:
    return Family.IP6 if ":" in address else Family.IP


def packed(address: str) -> bytes:
    return socket.inet_pton(family_of(address), address)


def service_key(protocol: str, port: int) -> bytes:
    return struct.pack("!BxxxHxx", PROTOCOLS[protocol], port)


def number_of(chain: str) -> bytes:
    """The packet's mark that leads to a chain."""
    return bytes.fromhex(chain.rpartition("-")[2][:8])


def render(
    family: Family, direction: Direction, policies: Sequence[Policy], salt: int = 0
) -> tuple[str, Chain, dict[str, Source]]:
    """The chain for pods that `policies` (in order) select: its name, its rules and the sets these use. Another `salt` gives it
    another name."""
    sources: dict[str, Source] = {}
    matches: dict[Match, None] = {}
    for policy in policies:
        for rule in policy.rules(direction) or ():
            peers = [""] if rule.peers is None else []
            for peer in rule.peers or ():
                if isinstance(peer, PodSelection):
                    peers.append(_named("pods", str(peer), peer, sources))
            blocks = tuple(b for b in rule.peers or () if isinstance(b, Block) and _has(b, family))
            if blocks:
                peers.append(_named("block", repr(blocks), blocks, sources))
            ports = [("", "")] if rule.ports is None else []
            ranges = tuple(p for p in rule.ports or () if isinstance(p, Ports))
            if ranges:
                ports.append((_named("ports", repr(ranges), ranges, sources), ""))
            for port in rule.ports or ():
                if isinstance(port, NamedPort):
                    ports.append(("", _named("named", f"{port.name}/{port.protocol}", port, sources)))
            for who in peers:
                for numbers, named in ports:
                    matches.setdefault(Match(who, numbers, named, policy.key))
    chain = tuple(matches)
    # A rule whose peers are all of the other family needs nothing: what is unused is no part of this chain, nor of its name.
    used = {name for match in chain for name in (match.peers, match.ports, match.named)}
    sources = {name: source for name, source in sources.items() if name in used}
    # Which policies these are belongs to it: people find them in the comments.
    rules = [(m.peers, m.ports, m.named, m.comment) for m in chain]
    return f"{direction}-{_hash(repr((rules, [p.key for p in policies], salt)))}", chain, sources


def words(source: Source) -> str:
    """What a set is for."""
    if isinstance(source, tuple):
        return ", ".join(map(_words, source))
    return f"{source.name}/{source.protocol}" if isinstance(source, NamedPort) else str(source)


def fixed_elements(family: Family, source: Source) -> list[bytes]:
    """The keys of a set that holds what policies say themselves; a range's first and last key one after the other."""
    if not isinstance(source, tuple):
        return []
    blocks = [part for part in source if isinstance(part, Block)]
    ranges = [part for part in source if isinstance(part, Ports)]
    size = 4 if family is Family.IP else 16
    keys = [first.to_bytes(size) + last.to_bytes(size) for first, last in _addresses(blocks)]
    for protocol in PROTOCOLS:
        several = _joined((p.first, p.last) for p in ranges if p.protocol == protocol)
        keys += [service_key(protocol, first) + service_key(protocol, last) for first, last in several]
    return keys


def _words(part: Block | Ports) -> str:
    if isinstance(part, Ports):
        return f"{part.protocol} {part.first}-{part.last}"
    return f"{part.cidr} except {', '.join(map(str, part.excepts))}" if part.excepts else str(part.cidr)


def _has(block: Block, family: Family) -> bool:
    return (block.cidr.version == 4) is (family is Family.IP)


def _addresses(blocks: Iterable[Block]) -> list[tuple[int, int]]:
    """Without overlaps, in order."""
    found: list[tuple[int, int]] = []
    for block in blocks:
        first, last = _ends(block.cidr)
        for gone_first, gone_last in _joined(_ends(e) for e in block.excepts):
            if first < gone_first:
                found.append((first, gone_first - 1))
            first = gone_last + 1
        if first <= last:
            found.append((first, last))
    return _joined(found)


def _ends(network: Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, and one where several overlap or touch."""
    out: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1] + 1:
            out[-1] = out[-1][0], max(out[-1][1], last)
        else:
            out.append((first, last))
    return out


def _named(kind: str, text: str, source: Source, sources: dict[str, Source]) -> str:
    name = f"{kind}-{_hash(text)}"
    sources[name] = source
    return name


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(present: Content, wanted: Content) -> tuple[Content, Content]:
    """What of `present` has to go and what of `wanted` has to come. What a set is for is only a comment."""

    def differs(item: Item, other: Content, value: Value) -> bool:
        return item not in other or (item.kind != "set" and other[item] != value)

    gone = {item: value for item, value in present.items() if differs(item, wanted, value)}
    come = {item: value for item, value in wanted.items() if differs(item, present, value)}
    return gone, come


def show(content: Content) -> str:
    """One line an item, sorted: for people and tests."""
    return "\n".join(sorted(_line(item, value) for item, value in content.items()))


def _line(item: Item, value: Value) -> str:
    where = f"{item.family.name.lower()} {item.name}"
    if item.kind == "set":
        return f"{where}: {value!r}"
    if item.kind == "chain":
        assert isinstance(value, tuple)
        rules = (" ".join(filter(None, (m.peers, m.ports, m.named))) or "all" for m in value)
        return f"{where} {{ {'; '.join([*rules, 'drop'])} }}"
    key = _key(item)
    if isinstance(value, bytes):
        return f"{where} {key} : {value.hex()}"
    return f"{where} {key} : {value}" if isinstance(value, str) else f"{where} {key}"


def _key(item: Item) -> str:
    size = 4 if item.family is Family.IP else 16
    kind = item.name.partition("-")[0]
    if item.name.endswith("-chains"):
        return item.key.hex()
    if kind == "ports":
        number, first, last = struct.unpack("!BxxxHxx4xHxx", item.key)
        return f"{_NAMES[number]} {first}-{last}"
    text = str(ipaddress.ip_address(item.key[:size]))
    if kind == "block":
        text += f"-{ipaddress.ip_address(item.key[size:])}"
    if kind == "named":
        number, port = struct.unpack("!BxxxHxx", item.key[size:])
        text += f" {_NAMES[number]} {port}"
    return text
