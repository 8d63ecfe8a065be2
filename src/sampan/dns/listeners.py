"""Where questions come in: sockets for UDP and TCP at the addresses of the cluster's DNS.

Fair to every pod: for each address there are many UDP sockets, and the kernel puts a packet in one by its source's last
bits (SO_REUSEPORT with a filter of ours). The pods of a node have consecutive addresses, so whoever floods fills a queue that at
most few others share. A socket is read some packets at a time, then it is the next one's turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from sampan.dns.answering import Answering

PORT = 53
QUEUES = 64
"""UDP sockets an address; a power of two."""
_BATCH = 16
_PACKET = 4096
_IP_FREEBIND = 15
_SO_ATTACH_REUSEPORT_CBPF = 51
_SKF_NET_OFF = 0x100000000 - 0x100000
_SOURCE_END = {socket.AF_INET: 15, socket.AF_INET6: 23}
"""Where the last byte of the source's address is in the IP header."""
_LOAD_BYTE, _AND, _RETURN_A = 0x30, 0x54, 0x16
CONNECTIONS, CONNECTIONS_PER_SOURCE = 512, 32
_BACKLOG = 128
IDLE_SECONDS = 10.0
_UNSENT = 1 << 20
"""Bytes of answers that wait for a connection's peer; with more, nothing is read from it until it has taken them."""

Bind = Callable[[int, int, str, int], socket.socket]
"""From family, type, address and port to a bound socket of the network that pods are in."""


def bound_socket(family: int, kind: int, address: str, port: int) -> socket.socket:
    """In the network of the calling thread; the address need not be there yet. Raises OSError."""
    sock = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
        sock.setblocking(False)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def open_all(addresses: Sequence[str], bind: Bind, port: int = PORT) -> list[socket.socket]:
    """The sockets for questions; what comes waits in them until somebody reads. Raises OSError."""
    found = []
    for address in addresses:
        family = family_of(address)
        for _ in range(QUEUES):
            found.append(sock := bind(family, socket.SOCK_DGRAM, address, port))
        _spread(sock)
        found.append(sock := bind(family, socket.SOCK_STREAM, address, port))
        sock.listen(_BACKLOG)
    return found


def _spread(sock: socket.socket) -> None:
    """Have the kernel choose among an address' sockets by the source."""
    instructions = (
        (_LOAD_BYTE, _SKF_NET_OFF + _SOURCE_END[sock.family]),
        (_AND, QUEUES - 1),
        (_RETURN_A, 0),
    )
    code = b"".join(struct.pack("=HBBI", operation, 0, 0, value) for operation, value in instructions)
    held = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(instructions), ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


class Listeners:
    """Reads, has answered, and sends. `close` ends all."""

    def __init__(self, answering: Answering, bind: Bind = bound_socket) -> None:
        self._answering = answering
        self._bind = bind
        self._udp: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._connections: Counter[str] = Counter()

    async def start(self, addresses: Sequence[str], port: int = PORT) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        for sock in open_all(addresses, self._bind, port):
            if sock.type == socket.SOCK_DGRAM:
                self._udp.append(sock)
                loop.add_reader(sock.fileno(), self._reader(sock))
                continue
            self._servers.append(
                await loop.create_server(lambda: _Connection(self._answering, self._connections), sock=sock)
            )

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._udp:
            loop.remove_reader(sock.fileno())
            sock.close()
        for server in self._servers:
            server.close()

    def _reader(self, sock: socket.socket) -> Callable[[], None]:
        answering = self._answering
        kept_get, receive, send = answering.kept.get, sock.recvfrom, sock.sendto

        def read() -> None:
            peer: tuple[str, int]
            for _ in range(_BATCH):
                try:
                    data, peer = receive(_PACKET)
                except OSError:  # nothing more to read, or an ICMP message about what was sent
                    return
                kept = kept_get(data[2:])
                try:
                    if kept is not None:
                        kept.count += 1
                        send(data[:2] + kept.next(), peer)
                    else:
                        answering.answer(data, peer[0], partial(_send, sock, peer))
                except OSError:  # the peer's queue is full or it has gone: it will ask again
                    pass

        return read


def _send(sock: socket.socket, peer: tuple[str, int], reply: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendto(reply, peer)


class _Connection(asyncio.Protocol):
    """Questions by TCP, each with its length before it; answers in the order in which they are there."""

    def __init__(self, answering: Answering, connections: Counter[str]) -> None:
        self._answering = answering
        self._connections = connections
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._source = ""
        self._counted = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are none by name
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._source = peer[0] if peer else ""
        if (
            self._connections[self._source] >= CONNECTIONS_PER_SOURCE
            or self._connections.total() >= CONNECTIONS
        ):
            transport.abort()
            return
        self._connections[self._source] += 1
        self._counted = True
        transport.set_write_buffer_limits(_UNSENT)
        self._rest()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        assert self._transport is not None
        self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._rest()
        buffer = self._buffer + data
        at = 0
        while len(buffer) - at >= 2:
            size = buffer[at] << 8 | buffer[at + 1]
            if len(buffer) - at - 2 < size:
                break
            self._answering.answer(buffer[at + 2 : at + 2 + size], self._source, self._send, tcp=True)
            at += 2 + size
        self._buffer = buffer[at:]

    def eof_received(self) -> bool:
        return True  # It may wait for answers yet; the timer ends it.

    def _send(self, reply: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(reply).to_bytes(2, "big") + reply)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._counted:
            self._connections[self._source] -= 1
            if not self._connections[self._source]:
                del self._connections[self._source]
