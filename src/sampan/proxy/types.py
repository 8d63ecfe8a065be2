"""What the proxy wants of the kernel, as plain values, and the seam to whoever makes it so."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from sampan.network.nftables import Family

PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": socket.IPPROTO_SCTP}
_NAMES = {number: name for name, number in PROTOCOLS.items()}


@dataclass(frozen=True, slots=True, order=True)
class Frontend:
    """An address that a Service is reached at."""

    address: str
    protocol: str
    port: int

    @property
    def family(self) -> Family:
        return family_of(self.address)

    def key(self) -> bytes:
        """As the key of a map: each part padded to four bytes."""
        return packed(self.address) + struct.pack("!BxxxHxx", PROTOCOLS[self.protocol], self.port)

    @classmethod
    def from_key(cls, key: bytes) -> Frontend:
        address, (number, port) = key[:-8], struct.unpack("!BxxxHxx", key[-8:])
        return cls(unpacked(address), _NAMES.get(number, str(number)), port)

    def __str__(self) -> str:
        return f"{_bracketed(self.address)}:{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where a connection is sent."""

    address: str
    port: int

    def data(self) -> bytes:
        return packed(self.address) + struct.pack("!Hxx", self.port)

    @classmethod
    def from_data(cls, data: bytes) -> Backend:
        return cls(unpacked(data[:-4]), struct.unpack_from("!H", data, len(data) - 4)[0])

    def __str__(self) -> str:
        return f"{_bracketed(self.address)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """What is behind a frontend. `affinity` is the seconds a client keeps its backend, 0 for none; `keep_source` is
    whether the client's address must reach the backend (policy Local); `name` is for people (`ns/service:port`).

    `inside` are the backends for who asks from a pod or a node of the cluster, where these are others than for everybody
    else (policy Local does not hold for them); None: the same. `sources` are the networks that may connect, () for all.
    Without backends a connection is rejected, or dropped where `drop` says that other nodes have some. `lingering` are those
    that get no new connections but still serve: who talks to them by UDP goes on doing so.
    """

    name: str
    backends: tuple[Backend, ...]
    affinity: int = 0
    keep_source: bool = False
    inside: tuple[Backend, ...] | None = None
    sources: tuple[str, ...] = ()
    drop: bool = False
    lingering: tuple[Backend, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One element added to a set or map, or taken out. `data` is None for sets."""

    verb: Literal["add", "delete"]
    family: Family
    set: str
    key: bytes
    data: bytes | None = None
    comment: str = ""


Elements = dict[tuple[Family, str], dict[bytes, bytes | None]]
"""(Family, set name) -> key -> data (None in a set): the content of our tables."""


@dataclass(frozen=True)
class Layout:
    """What the part of the tables depends on that is the same for all Services. There is a table for each family that pods
    have addresses of."""

    node_addresses: tuple[str, ...]
    pod_ranges: tuple[str, ...]
    """Of the whole cluster."""
    service_ranges: tuple[str, ...]
    """Where Services have their addresses; none overlaps with another."""
    own_pod_ranges: tuple[str, ...] = ()
    """This node's part of `pod_ranges`, () where that is not known."""
    affinities: tuple[int, ...] = ()
    """The time-outs of session affinity in use, sorted."""
    source_lengths: tuple[tuple[Family, int], ...] = ()
    """The prefix lengths of the networks in use that may connect, sorted."""
    sctp: bool = True
    """Whether the kernel can translate SCTP."""

    @cached_property
    def families(self) -> tuple[Family, ...]:
        return tuple(dict.fromkeys(map(family_of, self.pod_ranges)))


class Table(Protocol):
    """The kernel's tables of ours, or a fake of them."""

    def prepare(self, layout: Layout) -> None:
        """Make what all Services share as `layout` wants it; elements that are there stay. Does little where only time-outs
        or lengths are new. Raises OSError, which says what is missing where the kernel or this machine lacks something."""

    def distrust(self) -> None:
        """Somebody else changed the tables: the next `prepare` makes everything anew."""

    def read(self) -> Elements:
        """What is in the sets and maps that we fill."""

    def apply(self, operations: Sequence[Operation]) -> None:
        """All in one transaction, or none. Raises OSError."""


def family_of(address: str) -> Family:
    """Of an address or a network."""
    return Family.IP6 if ":" in address else Family.IP


def packed(address: str) -> bytes:
    return socket.inet_pton(family_of(address), address)


def unpacked(address: bytes) -> str:
    return socket.inet_ntop(Family.IP if len(address) == 4 else Family.IP6, address)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
