"""The kernel's memory of UDP: entries that lead a client's packets where its first one was led, for as long as it goes on."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sampan.network.netlink import NETLINK_NETFILTER, Message, Netlink, NetlinkError, attr, attributes, nest
from sampan.network.nftables import Family

_SUBSYSTEM = 1
_GET, _DELETE = 1, 2
_ORIGINAL, _REPLY, _ID, _FILTER = 1, 2, 12, 25
_IP, _PROTO, _NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 1, 2, 3
_FILTER_ORIGINAL = 1
_BY_DESTINATION, _BY_NUMBER, _BY_DESTINATION_PORT = 1 << 1, 1 << 3, 1 << 5
_ADDRESSES = {Family.IP: (1, 2), Family.IP6: (3, 4)}
"""Attributes of source and destination."""


class Entry(NamedTuple):
    """One connection: where the client sent to, who answers (address and port), and what the kernel knows the entry by."""

    to: tuple[str, int]
    answers: tuple[str, int]
    family: Family
    original: bytes
    id: bytes


class UdpEntries:
    """Those of the network namespace that the process is in."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def find(self, family: Family, address: str = "", port: int = 0) -> Iterator[Entry]:
        """The entries of one family, those whose clients sent to an address, a port, or both: the kernel filters. Raises
        OSError."""
        flags, addresses = _BY_NUMBER, b""
        proto = attr(_NUMBER, bytes([socket.IPPROTO_UDP]))
        # Of IPv6 the kernel's own filter tells every address but the one that is asked for (a comparison the wrong way round).
        if address and family == Family.IP:
            flags |= _BY_DESTINATION
            addresses = attr(_ADDRESSES[family][1], socket.inet_pton(family, address))
        if port:
            flags |= _BY_DESTINATION_PORT
            proto += attr(_DESTINATION_PORT, struct.pack("!H", port))
        # The kernel wants both parts of a tuple.
        parts = nest(_IP, addresses) + nest(_PROTO, proto)
        asked = nest(_ORIGINAL, parts) + nest(_FILTER, attr(_FILTER_ORIGINAL, flags))
        for _, body in self._netlink.dump(_message(_GET, family, asked)):
            entry = _entry(family, dict(attributes(body[4:])))
            if entry is not None and address in ("", entry.to[0]):
                yield entry

    def delete(self, entry: Entry) -> bool:
        """Whether it was still there. Raises OSError."""
        body = attr(_ORIGINAL | 0x8000, entry.original) + attr(_ID, entry.id)
        try:
            self._netlink.request([_message(_DELETE, entry.family, body)])
        except NetlinkError as e:
            if e.errno == errno.ENOENT:
                return False
            raise
        return True


def _entry(family: Family, found: Mapping[int, bytes]) -> Entry | None:
    source, destination = _ADDRESSES[family]
    original, reply = found.get(_ORIGINAL, b""), found.get(_REPLY, b"")
    asked, answered = dict(attributes(original)), dict(attributes(reply))
    to, by = dict(attributes(asked.get(_PROTO, b""))), dict(attributes(answered.get(_PROTO, b"")))
    if to.get(_NUMBER) != bytes([socket.IPPROTO_UDP]):
        return None
    theirs = socket.inet_ntop(family, dict(attributes(asked[_IP]))[destination])
    ours = socket.inet_ntop(family, dict(attributes(answered[_IP]))[source])
    return Entry(
        (theirs, int.from_bytes(to[_DESTINATION_PORT])),
        (ours, int.from_bytes(by[_SOURCE_PORT])),
        family,
        original,
        found[_ID],
    )


def _message(kind: int, family: Family, body: bytes) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, 0, struct.pack("=BBH", family, 0, 0) + body)
