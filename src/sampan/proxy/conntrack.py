"""Connections of the past: UDP entries that would catch a client's packets for ever.

An entry whose destination is a frontend and whose answers come from somebody who is none of its backends is deleted: a
backend that is gone, or the node itself, from before there was anybody (upstream: `pkg/proxy/conntrack/cleanup.go`). A
frontend without backends keeps its entries, as upstream has it: there is nobody else to send the client to.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sampan.network.netlink import NETLINK_NETFILTER, Message, Netlink, NetlinkError, attr, attributes, nest
from sampan.network.nftables import Family
from sampan.proxy.types import PROTOCOLS, Backend, Frontend, packed, unpacked

log = logging.getLogger(__name__)
_SUBSYSTEM = 1
_GET, _DELETE = 1, 2
_ORIGINAL, _REPLY, _ID, _FILTER = 1, 2, 12, 25
_IP, _PROTO, _NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 1, 2, 3
_FILTER_ORIGINAL = 1
_BY_DESTINATION, _BY_NUMBER, _BY_DESTINATION_PORT = 1 << 1, 1 << 3, 1 << 5
_ADDRESSES = {Family.IP: (1, 2), Family.IP6: (3, 4)}
"""Attributes of source and destination."""


class Entry(NamedTuple):
    """One connection: whom the client sent to, who answers, and what the kernel knows the entry by."""

    frontend: Frontend
    answers: Backend
    family: Family
    original: bytes
    id: bytes


class Conntrack:
    """The connection tracking of the network namespace that the process is in."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def clean(self, talking: Mapping[Frontend, frozenset[Backend]]) -> int:
        """Delete the entries of UDP frontends that lead to nobody of `talking`; how many it was. One dump a family, which
        the kernel filters: by the frontend where there is one, by protocol otherwise. A failure is logged only."""
        deleted = 0
        for family in Family.IP, Family.IP6:
            wanted = {f: b for f, b in talking.items() if f.family == family and f.protocol == "UDP" and b}
            if not wanted:
                continue
            only = next(iter(wanted)) if len(wanted) == 1 else None
            try:
                stale = [e for e in self.entries(family, only) if e.answers not in wanted.get(e.frontend, {e.answers})]  # fmt: skip
                deleted += sum(map(self._delete, stale))
            except OSError as e:
                log.warning("UDP clients may keep a backend that is gone: connection tracking: %s", e)
        return deleted

    def entries(self, family: Family, frontend: Frontend | None = None) -> Iterator[Entry]:
        """The UDP entries of one family, or those whose clients sent to one frontend. Raises OSError."""
        proto = attr(_NUMBER, bytes([PROTOCOLS["UDP"]]))
        flags, address = _BY_NUMBER, b""
        if frontend is not None:
            flags |= _BY_DESTINATION | _BY_DESTINATION_PORT
            address = attr(_ADDRESSES[family][1], packed(frontend.address))
            proto += attr(_DESTINATION_PORT, struct.pack("!H", frontend.port))
        # The kernel wants both parts of a tuple.
        parts = nest(_IP, address) + nest(_PROTO, proto)
        asked = nest(_ORIGINAL, parts) + nest(_FILTER, attr(_FILTER_ORIGINAL, flags))
        for _, body in self._netlink.dump(_message(_GET, family, asked)):
            found = dict(attributes(body[4:]))
            entry = _entry(family, found)
            if entry is not None:
                yield entry

    def _delete(self, entry: Entry) -> bool:
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
    return Entry(
        Frontend(
            unpacked(dict(attributes(asked[_IP]))[destination]), "UDP", int.from_bytes(to[_DESTINATION_PORT])
        ),
        Backend(
            unpacked(dict(attributes(answered[_IP]))[source]), int.from_bytes(by[_SOURCE_PORT])
        ),
        family,
        original,
        found[_ID],
    )  # fmt: skip


def _message(kind: int, family: Family, body: bytes) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, 0, struct.pack("=BBH", family, 0, 0) + body)
