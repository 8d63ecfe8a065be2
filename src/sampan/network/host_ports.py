"""Host ports: what comes to a port of the node goes to a port of one of its pods (CNI's `portmap`).

The desired state is a set of map elements, a pair of (map, key) and the data for it; `start` compares it with what the
kernel holds, and from then on each pod's mappings are one transaction. Nothing listens: packets are translated, also those
of the node itself and of other pods, but not those to loopback, as with NodePorts. The source stays as it is but where a
pod reaches itself.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sampan.network.types import NetworkError, PortMapping

log = logging.getLogger(__name__)
_PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": socket.IPPROTO_SCTP}


@dataclass(frozen=True, slots=True, order=True)
class Forward:
    """One element of a map: at this address ("" for every one of the node's) and port, to this pod."""

    address: str
    protocol: str
    port: int
    pod: str
    pod_port: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.pod).version

    def key(self) -> bytes:
        """As the key of a map: each part padded to four bytes."""
        address = ipaddress.ip_address(self.address).packed if self.address else b""
        return address + struct.pack("!BxxxHxx", _PROTOCOLS[self.protocol], self.port)

    def data(self) -> bytes:
        return ipaddress.ip_address(self.pod).packed + struct.pack("!Hxx", self.pod_port)

    @classmethod
    def of(cls, key: bytes, data: bytes) -> Forward:
        """From the element of a map."""
        names = {number: name for name, number in _PROTOCOLS.items()}
        number, port = struct.unpack("!BxxxHxx", key[-8:])
        (pod_port,) = struct.unpack("!Hxx", data[-4:])
        address = str(ipaddress.ip_address(key[:-8])) if key[:-8] else ""
        return cls(address, names[number], port, str(ipaddress.ip_address(data[:-4])), pod_port)

    def __str__(self) -> str:
        at = f"[{self.address}]" if ":" in self.address else self.address or "*"
        pod = f"[{self.pod}]" if self.family == 6 else self.pod
        return f"{at}:{self.port}/{self.protocol} -> {pod}:{self.pod_port}"


class Table(Protocol):
    """The kernel's table of ours, or a fake of it. Both calls raise OSError."""

    def read(self) -> set[Forward]:
        """What is in it; nothing where there is no table."""

    def apply(self, gone: Sequence[Forward], come: Sequence[Forward]) -> None:
        """Change it in one transaction for each family; it is made where it is missing. All that a pod has goes or comes
        together. What is to go must be there, and what is to come must not: else OSError with ENOENT or EEXIST."""


class HostPorts:
    """The host ports of a node's pods. Pods are known by their sandbox."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._lock = asyncio.Lock()
        self._doubtful = asyncio.Event()
        self._meddler = ""
        self._of: dict[str, set[Forward]] = {}
        self._owner: dict[tuple[str, str, int, int], str] = {}

    async def start(self, sandboxes: Mapping[str, tuple[Sequence[str], Sequence[PortMapping]]]) -> None:
        """Bring the table from whatever it holds to what these sandboxes (addresses, mappings) need. What fails is logged: the
        pods run already."""
        try:
            for sandbox, (ips, mappings) in sandboxes.items():
                self._claim(sandbox, set(_forwards(ips, mappings)))
            async with self._lock:
                await self._compare()
        except NetworkError as e:
            log.warning("%s", e)

    async def add(self, sandbox: str, ips: Sequence[str], mappings: Sequence[PortMapping]) -> None:
        """Forward a new pod's ports. Raises NetworkError, where a port is another pod's too."""
        come = set(_forwards(ips, mappings))
        if not come:
            return
        self._claim(sandbox, come)
        async with self._lock:
            try:
                await self._apply((), come)
            except NetworkError:
                self._forget(sandbox)
                raise

    async def remove(self, sandbox: str) -> None:
        """Forward a pod's ports no more; nothing happens where it has none. Raises NetworkError."""
        gone = self._forget(sandbox)
        if gone:
            async with self._lock:
                await self._apply(gone, ())

    def meddled(self, who: str) -> None:
        """Somebody else changed the table: `keep` puts back what is gone."""
        self._meddler = who
        self._doubtful.set()

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            await self._doubtful.wait()
            self._doubtful.clear()
            try:
                async with self._lock:
                    if await self._compare():
                        log.warning("the table of host ports was changed by %s: put right", self._meddler)
            except NetworkError as e:
                log.warning("%s", e)

    def _claim(self, sandbox: str, come: set[Forward]) -> None:
        taken = []
        for one in sorted(come):
            owner = self._owner.get(_place(one), sandbox)
            if owner != sandbox:
                other = next(f for f in self._of[owner] if _place(f) == _place(one))
                taken.append(f"host port {one.port}/{one.protocol} is in use: {other}")
        if taken:
            raise NetworkError("; ".join(taken))
        self._of[sandbox] = come
        self._owner.update({_place(one): sandbox for one in come})

    def _forget(self, sandbox: str) -> set[Forward]:
        gone = self._of.pop(sandbox, set())
        for one in gone:
            del self._owner[_place(one)]
        return gone

    async def _apply(
        self, gone: Sequence[Forward] | set[Forward], come: Sequence[Forward] | set[Forward]
    ) -> None:
        try:
            await asyncio.to_thread(self._table.apply, sorted(gone), sorted(come))
        except OSError as e:
            if e.errno not in (errno.ENOENT, errno.EEXIST):
                raise NetworkError(f"host ports cannot be forwarded: {e.strerror or e}") from e
            log.warning("the table of host ports was changed by somebody (%s): all of it is compared", e)
            await self._compare()

    async def _compare(self) -> bool:
        """Whether anything differed."""
        wanted = {one for found in self._of.values() for one in found}
        try:
            present = await asyncio.to_thread(self._table.read)
            # All that a pod has goes and comes together.
            differ = {one.pod for one in present ^ wanted}
            gone, come = (sorted(one for one in found if one.pod in differ) for found in (present, wanted))
            if differ:
                await asyncio.to_thread(self._table.apply, gone, come)
        except OSError as e:
            raise NetworkError(f"host ports cannot be forwarded: {e.strerror or e}") from e
        return bool(differ)


def _place(one: Forward) -> tuple[str, str, int, int]:
    return one.address, one.protocol, one.port, one.family


def _forwards(ips: Sequence[str], mappings: Sequence[PortMapping]) -> Iterator[Forward]:
    for ip in ips:
        version = ipaddress.ip_address(ip).version
        for one in mappings:
            address = ipaddress.ip_address(one.host_ip) if one.host_ip else None
            if address is None or address.version == version:
                at = "" if address is None or address.is_unspecified else str(address)
                yield Forward(at, one.protocol, one.host_port, ip, one.container_port)
