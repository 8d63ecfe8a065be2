"""What only some Services need of the chains: one pair for each time-out of session affinity, one set and rule for each prefix
length of networks that may connect. Both are few whatever Services there are.

They are made by netlink, not by `nft`: a new time-out costs no program that reads the whole rule set, and nft 1.0.6 fails
at an IPv6 client as the key of a map that packets write to.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator

from sampan.network import nftables, nftables_expressions
from sampan.network.netlink import Message
from sampan.network.nftables import GOTO, JUMP, Family, Type
from sampan.network.nftables_expressions import NETWORK_HEADER, TRANSPORT_HEADER
from sampan.proxy import skeleton

REMEMBERED = 65536
"""Clients that are remembered for each time-out; beyond that, new ones are served but not remembered."""


def affinity_chain(seconds: int) -> str:
    return f"affinity-{seconds}"


def remember_chain(seconds: int) -> str:
    return f"remember-{seconds}"


def clients_map(seconds: int) -> str:
    """Who is remembered: (client, frontend) -> slot."""
    return f"clients-{seconds}"


def of_affinity(family: Family, seconds: int) -> list[Message]:
    """The chains for one time-out, made anew in whatever state they are; who is remembered stays."""
    table, clients = skeleton.TABLE, clients_map(seconds)
    chain, remember = affinity_chain(seconds), remember_chain(seconds)
    address = _address(family)
    client, frontend = _client(family), _frontend(family)
    slot = sum(part.size for part in _client_key(family)) // 4
    e = nftables_expressions

    def rule(where: str, *expressions: bytes) -> Message:
        return nftables.rule(family, table, where, expressions)

    return [
        nftables.set_(
            family, table, clients, _client_key(family), data=Type.MARK, timeout=seconds, size=REMEMBERED
        ),
        nftables.chain(family, table, chain),
        nftables.chain(family, table, remember),
        nftables.flush_chain(family, table, chain),
        nftables.flush_chain(family, table, remember),
        # The update only makes the time begin anew for one who is remembered.
        rule(remember, *client, e.mark(slot), e.write(clients, 0, e.UPDATE, data=slot)),
        rule(remember, e.decide(GOTO, "apply")),
        rule(chain, *client, e.lookup(clients, 0, slot), e.set_mark(slot), e.decide(JUMP, remember)),
        # Comes back where there is no such slot any more: that is forgotten, and another drawn.
        rule(chain, *client, e.mark(slot), e.write(clients, 0, e.DELETE, data=slot)),
        rule(chain, *frontend, e.lookup("services", 0, address.size // 4 + 2), e.set_mark(address.size // 4 + 2)),
        rule(chain, e.decide(JUMP, "draw")),
        rule(chain, e.decide(GOTO, remember)),
        *nftables.add_elements(
            family, table, skeleton.AFFINITIES, [nftables.Element(struct.pack("=I", seconds), goto=chain)]
        ),
    ]  # fmt: skip


def without_affinity(family: Family, seconds: int) -> list[Message]:
    """Take away what `of_affinity` made."""
    table, chain, remember = skeleton.TABLE, affinity_chain(seconds), remember_chain(seconds)
    element = nftables.Element(struct.pack("=I", seconds))
    return [
        *nftables.delete_elements(family, table, skeleton.AFFINITIES, [element]),
        nftables.flush_chain(family, table, chain),
        nftables.flush_chain(family, table, remember),
        nftables.delete_chain(family, table, chain),
        nftables.delete_chain(family, table, remember),
        nftables.delete_set(family, table, clients_map(seconds)),
    ]


def of_sources(family: Family, lengths: Iterable[int]) -> list[Message]:
    """The chain that says whether a client may connect, made anew."""
    e, table, chain = nftables_expressions, skeleton.TABLE, skeleton.RESTRICTED_CHAIN
    address = _address(family)
    source = address.size // 4 + 2
    messages = [nftables.flush_chain(family, table, chain)]
    for length in lengths:
        name = skeleton.sources_set(length)
        mask = ipaddress.ip_network(f"{'0.0.0.0' if family == Family.IP else '::'}/{length}").netmask.packed
        allowed = [
            *_frontend(family),
            e.payload(NETWORK_HEADER, *_source(family), source),
            e.masked(source, mask),
            e.lookup(name, 0),
            e.decide(GOTO, "serve"),
        ]
        messages += [
            nftables.set_(family, table, name, (*_frontend_key(family), address)),
            nftables.rule(family, table, chain, allowed),
        ]
    return [*messages, nftables.rule(family, table, chain, [e.decide(nftables.DROP)])]


def _address(family: Family) -> Type:
    return Type.IPV4_ADDR if family == Family.IP else Type.IPV6_ADDR


def _frontend_key(family: Family) -> tuple[Type, ...]:
    return (_address(family), Type.INET_PROTO, Type.INET_SERVICE)


def _client_key(family: Family) -> tuple[Type, ...]:
    return (_address(family), *_frontend_key(family))


def _source(family: Family) -> tuple[int, int]:
    """Offset and length in the header."""
    return (12, 4) if family == Family.IP else (8, 16)


def _frontend(family: Family, register: int = 0) -> Iterator[bytes]:
    """Load the frontend that a packet is sent to."""
    offset, length = (16, 4) if family == Family.IP else (24, 16)
    yield nftables_expressions.payload(NETWORK_HEADER, offset, length, register)
    yield nftables_expressions.protocol(register + length // 4)
    yield nftables_expressions.payload(TRANSPORT_HEADER, 2, 2, register + length // 4 + 1)


def _client(family: Family) -> list[bytes]:
    """Load the client and the frontend."""
    offset, length = _source(family)
    return [
        nftables_expressions.payload(NETWORK_HEADER, offset, length, 0),
        *_frontend(family, length // 4),
    ]
