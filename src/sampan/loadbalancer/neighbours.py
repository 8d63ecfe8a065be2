"""ARP and neighbour discovery as bytes: who asks for an address, the answer, and the word nobody asked for.

RFC 826 and 5227 for IPv4, RFC 4861 for IPv6. Frames are Ethernet's.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from sampan.api.address_ranges import Address

ARP, IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ETHERNET_IPV4 = struct.pack("!HHBB", 1, 0x0800, 6, 4)
_REQUEST, _REPLY = 1, 2
_ICMPV6 = 58
_SOLICITATION, ADVERTISEMENT = 135, 136
_ALL_NODES = ipaddress.IPv6Address("ff02::1")
_SOLICITED, _OVERRIDE = 0x4000_0000, 0x2000_0000


@dataclass(frozen=True, slots=True)
class Question:
    """Somebody asks who has `target`. `source` is their address, None where they have none yet."""

    target: Address
    source: Address | None
    mac: bytes


def asked_by_arp(frame: bytes) -> Question | None:
    """The question in a frame; None for anything else."""
    if len(frame) < 42 or frame[14:20] != _ETHERNET_IPV4 or frame[20:22] != b"\0\1":
        return None
    source = ipaddress.IPv4Address(frame[28:32])
    return Question(
        ipaddress.IPv4Address(frame[38:42]), source if not source.is_unspecified else None, frame[22:28]
    )


def arp_answer(question: Question, mac: bytes) -> bytes:
    source = question.source or ipaddress.IPv4Address(0)
    return _arp(question.mac, _REPLY, mac, question.target, question.mac, source)


def gratuitous_arp(address: Address, mac: bytes) -> list[bytes]:
    """Everybody hears who has the address: in either form, for some systems heed only one of them."""
    return [
        _arp(_BROADCAST, _REQUEST, mac, address, b"\0" * 6, address),
        _arp(_BROADCAST, _REPLY, mac, address, _BROADCAST, address),
    ]


def _arp(to: bytes, operation: int, mac: bytes, address: Address, their_mac: bytes, theirs: Address) -> bytes:
    head = to + mac + struct.pack("!H", ARP) + _ETHERNET_IPV4 + struct.pack("!H", operation)
    return head + mac + address.packed + their_mac + theirs.packed


def asked_by_ndp(frame: bytes) -> Question | None:
    """The question in a frame; None for anything else."""
    if len(frame) < 78 or frame[20] != _ICMPV6 or frame[21] != 255 or frame[54] != _SOLICITATION:
        return None
    source = ipaddress.IPv6Address(frame[22:38])
    return Question(
        ipaddress.IPv6Address(frame[62:78]), source if not source.is_unspecified else None, frame[6:12]
    )


def ndp_answer(question: Question, mac: bytes) -> bytes:
    if question.source is None:  # It wants to use the address itself: all must hear that it cannot.
        return unsolicited_advertisement(question.target, mac)
    return _advertisement(question.mac, question.source, mac, question.target, _SOLICITED | _OVERRIDE)


def unsolicited_advertisement(address: Address, mac: bytes) -> bytes:
    """Everybody hears who has the address."""
    return _advertisement(b"\x33\x33\0\0\0\1", _ALL_NODES, mac, address, _OVERRIDE)


def solicited_node(address: Address) -> ipaddress.IPv6Address:
    """The group that questions about an address go to."""
    return ipaddress.IPv6Address(ipaddress.IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])


def _advertisement(to: bytes, destination: Address, mac: bytes, address: Address, flags: int) -> bytes:
    body = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, flags) + address.packed + b"\2\1" + mac
    pseudo = address.packed + destination.packed + struct.pack("!II", len(body), _ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 0x6000_0000, len(body), _ICMPV6, 255)
    return to + mac + struct.pack("!H", IPV6) + head + address.packed + destination.packed + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
