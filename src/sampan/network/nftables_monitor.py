"""Who else changes the nf_tables of a network namespace: the kernel tells, and whoever keeps a table is told of changes to it
that are not its own.

Transactions of sockets that were named by `own` never reach the process: a filter in the kernel drops what they caused.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sampan.network.netlink import NETLINK_NETFILTER, attributes
from sampan.network.nftables import Family

_GROUP = 7
"""NFNLGRP_NFTABLES."""
_NEWGEN = 15
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_ATTACH_FILTER = 26
_RCVBUFFORCE = 33
_HEADER = struct.Struct("=IHHII")
_RECEIVE = 1 << 17
_BUFFER = 4 << 20
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_PORT_OFFSET = 12

Changed = Callable[[str], None]
"""Told of a change, and by whom (`nft (process 123)`)."""


class NftablesMonitor:
    """For the network namespace that the process is in when it is made. `run` tells; all is of one thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        self._own: list[int] = []
        self._expected: set[int] = set()
        self._watched: dict[tuple[int, str], Changed] = {}
        self._touched: dict[int, set[tuple[int, str]]] = {}
        self._foreign: dict[tuple[int, str], str] = {}
        self._wake = asyncio.Event()

    def watch(self, family: Family, table: str, changed: Changed) -> None:
        """Have `changed` called, by `run`, after a transaction of somebody else's that touched a table; once for several that
        came together. It is called as well when there were more changes than the kernel could tell."""
        self._watched[int(family), table] = changed

    def own(self, port: int) -> None:
        """What the netlink socket at `port` (`Netlink.port`) changes is nobody else's doing."""
        self._own.append(port)
        _attach(self._socket, self._own)

    @contextmanager
    def expecting(self, process: int) -> Iterator[None]:
        """Within, what a process (an `nft` that we started) changes is nobody else's doing; leave when it has ended."""
        self._expected.add(process)
        try:
            yield
        finally:
            # All that it changed was told before it ended.
            self._read()
            self._expected.discard(process)

    async def run(self) -> None:
        """Tell, until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket.fileno(), self._read)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                told, self._foreign = self._foreign, {}
                for at, who in told.items():
                    self._watched[at](who)
        finally:
            loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
                self._touched.clear()
                self._found(set(self._watched), "somebody")
                continue
            at = 0
            while at + _HEADER.size <= len(data):
                size, kind, _, _, port = _HEADER.unpack_from(data, at)
                if size < _HEADER.size:
                    break
                self._message(kind & 0xFF, port, data[at + _HEADER.size : at + size])
                at += (size + 3) & ~3

    def _message(self, kind: int, port: int, body: bytes) -> None:
        """A change, or the end of the transaction that it was part of."""
        found = dict(attributes(body[4:]))
        if kind != _NEWGEN:
            # The first attribute of whatever is changed is its table.
            at = (body[0], found.get(1, b"").rstrip(b"\0").decode(errors="replace"))
            if at in self._watched:
                self._touched.setdefault(port, set()).add(at)
            return
        touched = self._touched.pop(port, set())
        if touched and port not in self._expected:
            name = found.get(3, b"").rstrip(b"\0").decode(errors="replace")
            process = int.from_bytes(found.get(2, b""))
            self._found(touched, f"{name} (process {process})")

    def _found(self, tables: set[tuple[int, str]], who: str) -> None:
        for at in tables:
            self._foreign[at] = who
            self._wake.set()


def _attach(sock: socket.socket, ports: list[int]) -> None:
    """Have the kernel drop what comes from transactions of `ports`; all messages of a datagram are of one transaction."""
    steps = [(_LOAD, 0, 0, _PORT_OFFSET)]
    for left, port in enumerate(reversed(ports)):
        # The filter reads as if in network order, the kernel wrote in the machine's.
        value = int.from_bytes(struct.pack("=I", port), "big")
        steps.insert(1, (_EQUAL, left + 1, 0, value))
    steps += [(_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
