"""What the proxy wants of the kernel, as plain values, and the seam to whoever makes it so."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": socket.IPPROTO_SCTP}
_NAMES = {number: name for name, number in PROTOCOLS.items()}


@dataclass(frozen=True, slots=True, order=True)
class Frontend:
    """An address that a Service is reached at."""

    address: str
    protocol: str
    port: int

    def key(self) -> bytes:
        """As the key of a map: each part padded to four bytes."""
        return socket.inet_aton(self.address) + struct.pack("!BxxxHxx", PROTOCOLS[self.protocol], self.port)

    @classmethod
    def from_key(cls, key: bytes) -> Frontend:
        number, port = struct.unpack_from("!BxxxH", key, 4)
        return cls(socket.inet_ntoa(key[:4]), _NAMES.get(number, str(number)), port)

    def __str__(self) -> str:
        return f"{self.address}:{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where a connection is sent."""

    address: str
    port: int

    def data(self) -> bytes:
        return socket.inet_aton(self.address) + struct.pack("!Hxx", self.port)

    @classmethod
    def from_data(cls, data: bytes) -> Backend:
        return cls(socket.inet_ntoa(data[:4]), struct.unpack_from("!H", data, 4)[0])

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """What is behind a frontend. `affinity` is the seconds a client keeps its backend, 0 for none; `keep_source` is
    whether the client's address must reach the backend (policy Local); `name` is for people (`ns/service:port`).

    `inside` are the backends for who asks from a pod or a node of the cluster, where these are others than for everybody
    else (policy Local does not hold for them); None: the same. `sources` are the networks that may connect, () for all.
    Without backends a connection is rejected, or dropped where `drop` says that other nodes have some.
    """

    name: str
    backends: tuple[Backend, ...]
    affinity: int = 0
    keep_source: bool = False
    inside: tuple[Backend, ...] | None = None
    sources: tuple[str, ...] = ()
    drop: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One element added to a set or map, or taken out. `data` is None for sets."""

    verb: Literal["add", "delete"]
    set: str
    key: bytes
    data: bytes | None = None
    comment: str = ""


Elements = dict[str, dict[bytes, bytes | None]]
"""Set name -> key -> data (None in a set): the content of our table."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the fixed part of the table depends on."""

    node_address: str
    pod_range: str
    service_ranges: tuple[str, ...]
    """Where Services have their addresses; none overlaps with another."""
    affinities: tuple[int, ...] = field(default=())
    """The time-outs of session affinity in use, sorted."""


class Table(Protocol):
    """The kernel's table of ours, or a fake of it."""

    def prepare(self, layout: Layout) -> None:
        """Make the fixed part as `layout` wants it; elements that are there stay. Raises OSError."""

    def read(self) -> Elements:
        """What is in the sets and maps that we fill."""

    def apply(self, operations: Sequence[Operation]) -> None:
        """All in one transaction, or none. Raises OSError."""


State = Mapping[Frontend, Target]
"""The whole desired state of a node's Services."""
