"""Netlink: messages to the kernel and its answers, the little that network and proxy need.

One socket belongs to the network namespace it was made in, whoever uses it later. Requests are answered by the
kernel within the system call, so they are made synchronously; what takes the kernel long (removing links) belongs in
a thread. See docs/decisions/netlink.md for why this is not pyroute2.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sampan.linux.syscalls import CLONE_NEWNET, setns

T = TypeVar("T")

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

F_REQUEST, F_MULTI, F_ACK = 0x1, 0x2, 0x4
F_DUMP = 0x300
F_REPLACE, F_EXCL, F_CREATE, F_APPEND = 0x100, 0x200, 0x400, 0x800

_ERROR, _DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SNDBUFFORCE = 32
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_RECEIVE = 1 << 20
NESTED = 0x8000


class NetlinkError(OSError):
    """The kernel refused a message; carries errno and, where the kernel gave one, its own words.

    `index` is the position in the batch of the message that was refused.
    """

    def __init__(self, code: int, words: str = "", index: int = 0) -> None:
        super().__init__(code, words or os.strerror(code))
        self.index = index


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its type, flags (beyond REQUEST) and the bytes behind the header."""

    type: int
    flags: int
    body: bytes


def attr(kind: int, value: bytes | int | str) -> bytes:
    """One attribute with its padding: an int is a native u32, a str ends with NUL."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    size = len(value) + 4
    return _ATTR.pack(size, kind) + value + b"\0" * (-size % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attr(kind | NESTED, b"".join(parts))


def attributes(data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data`, flags of their type removed."""
    view = memoryview(data)
    at = 0
    while at + 4 <= len(view):
        size, kind = _ATTR.unpack_from(view, at)
        if size < 4:
            return
        yield kind & 0x3FFF, bytes(view[at + 4 : at + size])
        at += (size + 3) & ~3


class Netlink:
    """A socket of one netlink family. Not for use by two threads at a time (a lock keeps them apart)."""

    def __init__(self, family: int, sock: socket.socket | None = None) -> None:
        self._socket = sock or _open(family)
        self._sequence = 0
        self._lock = threading.Lock()

    @classmethod
    def inside(cls, netns: str | int, family: int = NETLINK_ROUTE) -> Netlink:
        """A socket that belongs to the network namespace at a path (or open descriptor)."""
        return cls(family, in_namespace(netns, lambda: _open(family)))

    @property
    def port(self) -> int:
        """What the kernel knows the socket by; who is told of its changes sees it."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        self._socket.close()

    def request(self, messages: Sequence[Message], *, ignore: Iterable[int] = ()) -> None:
        """Send messages together and wait for every acknowledgement. Each takes effect by itself; raises the
        NetlinkError of the first one refused (unless its errno is in `ignore`) after all were answered."""
        ignored = set(ignore)
        with self._lock:
            first = self._sequence + 1
            self._sequence += len(messages)
            self._socket.send(
                b"".join(
                    _HEADER.pack(16 + len(m.body), m.type, m.flags | F_REQUEST | F_ACK, first + i, 0) + m.body
                    for i, m in enumerate(messages)
                )
            )
            failure: NetlinkError | None = None
            waiting = len(messages)
            while waiting:
                for kind, flags, sequence, body in self._receive():
                    if kind != _ERROR or sequence < first:
                        continue
                    waiting -= 1
                    problem = _problem(body, flags, sequence - first)
                    if problem is not None and problem.errno not in ignored and failure is None:
                        failure = problem
        if failure is not None:
            raise failure

    def transaction(self, subsystem: int, messages: Sequence[Message]) -> None:
        """Send nfnetlink messages as one batch that takes effect whole or not at all. Raises the NetlinkError of the
        first message refused."""
        frame = struct.pack("=BBH", 0, 0, socket.htons(subsystem))
        with self._lock:
            begin = self._sequence + 1
            last = begin + len(messages)
            self._sequence = last + 1
            parts = [_HEADER.pack(20, _BATCH_BEGIN, F_REQUEST, begin, 0), frame]
            for sequence, m in enumerate(messages, begin + 1):
                # Errors are told in any case; one acknowledgement tells that the whole batch was taken.
                flags = m.flags | F_REQUEST | (F_ACK if sequence == last else 0)
                parts += [_HEADER.pack(16 + len(m.body), m.type, flags, sequence, 0), m.body]
            parts += [_HEADER.pack(20, _BATCH_END, F_REQUEST, last + 1, 0), frame]
            data = b"".join(parts)
            if len(data) > 100_000:
                self._socket.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, 2 * len(data))
            self._socket.send(data)
            failure: NetlinkError | None = None
            while True:
                for kind, flags, sequence, body in self._receive():
                    if kind != _ERROR or sequence < begin:
                        continue
                    failure = failure or _problem(body, flags, sequence - begin - 1)
                    if sequence in (begin, last):
                        if failure is not None:
                            raise failure
                        return

    def get(self, message: Message) -> bytes:
        """The body of the one message that answers. Raises NetlinkError."""
        with self._lock:
            self._sequence += 1
            sequence = self._sequence
            self._socket.send(
                _HEADER.pack(16 + len(message.body), message.type, message.flags | F_REQUEST, sequence, 0)
                + message.body
            )
            while True:
                for kind, flags, answered, body in self._receive():
                    if answered != sequence:
                        continue
                    if kind == _ERROR:
                        raise _problem(body, flags, 0) or NetlinkError(errno.ENODATA)
                    return body

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """The (type, body) of every message that answers a dump request."""
        with self._lock:
            self._sequence += 1
            sequence = self._sequence
            self._socket.send(
                _HEADER.pack(
                    16 + len(message.body), message.type, message.flags | F_REQUEST | F_DUMP, sequence, 0
                )
                + message.body
            )
            found: list[tuple[int, bytes]] = []
            while True:
                for kind, flags, answered, body in self._receive():
                    if answered != sequence:
                        continue
                    if kind == _DONE:
                        return found
                    if kind == _ERROR:
                        problem = _problem(body, flags, 0)
                        if problem is not None:
                            raise problem
                        return found
                    found.append((kind, body))

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_RECEIVE)
        out = []
        at = 0
        while at + 16 <= len(data):
            size, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            if size < 16:
                break
            out.append((kind, flags, sequence, data[at + 16 : at + size]))
            at += (size + 3) & ~3
        return out


def in_namespace(netns: str | int, call: Callable[[], T]) -> T:
    """Run `call` in a network namespace (path or open descriptor), in a thread of its own that ends with it."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC) if isinstance(netns, str) else netns
            try:
                setns(fd, CLONE_NEWNET)
            finally:
                if isinstance(netns, str):
                    os.close(fd)
            result.append(call())
        except BaseException as e:
            failure.append(e)

    thread = threading.Thread(target=run, name="in-netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _open(family: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
    sock.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
    sock.bind((0, 0))
    return sock


def _problem(body: bytes, flags: int, index: int) -> NetlinkError | None:
    (code,) = struct.unpack_from("=i", body)
    if code == 0:
        return None
    words = ""
    if (
        flags & 0x200
    ):  # NLM_F_ACK_TLVS: attributes follow the header of the refused message (capped by CAP_ACK)
        for kind, value in attributes(body[20:]):
            if kind == 1:
                words = value.rstrip(b"\0").decode(errors="replace")
    return NetlinkError(-code, f"{words} ({errno.errorcode.get(-code, -code)})" if words else "", index)
