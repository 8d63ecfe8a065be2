"""Node ports: one bitmap in the store says which are taken, whichever server took them.

It is written by compare-and-swap. Changes that wait while a write is under way are made together by the next one, so
that many Services at a time cost few writes.

Upstream: `pkg/registry/core/service/{portallocator,allocator/storage}` and the RangeAllocation of `pkg/apis/core`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sampan.apiserver.allocation.types import Exhausted, Taken, band
from sampan.apiserver.records import from_json, to_json
from sampan.store.types import Conflict, Entry, KeyExists, Store

log = logging.getLogger(__name__)

KEY = "/registry/ranges/servicenodeports"
T = TypeVar("T")


class Ports:
    """The taken ports of a range, as a bitmap that can be changed."""

    def __init__(self, first: int, last: int, bits: int = 0) -> None:
        self.first = first
        self.last = last
        self.bits = bits

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last and bool(self.bits >> (port - self.first) & 1)

    def __iter__(self) -> Iterator[int]:
        bits = self.bits
        while bits:
            lowest = bits & -bits
            yield self.first + lowest.bit_length() - 1
            bits ^= lowest

    def take(self, port: int) -> None:
        """Raises Taken."""
        if not self.first <= port <= self.last:
            valid = f"{self.first}-{self.last}"
            raise Taken(f"provided port is not in the valid range. The range of valid ports is {valid}")
        if port in self:
            raise Taken("provided port is already allocated")
        self.bits |= 1 << (port - self.first)

    def take_next(self) -> int:
        """Take any free port; the low end is left to those who ask for one by number. Raises Exhausted."""
        size = self.last - self.first + 1
        middle = band(size, 32, 128)
        for first, end in ((middle, size), (0, middle)):
            free = ~self.bits & ((1 << end) - (1 << first))
            if free:
                start = random.randrange(first, end)
                above = free >> start << start
                number = ((above or free) & -(above or free)).bit_length() - 1
                self.bits |= 1 << number
                return self.first + number
        raise Exhausted("range is full")

    def free(self, port: int) -> None:
        if port in self:
            self.bits ^= 1 << (port - self.first)


class NodePorts:
    """The node ports of the cluster: `first` to `last`, both included."""

    def __init__(self, store: Store, first: int, last: int) -> None:
        self._store = store
        self._first = first
        self._last = last
        self._waiting: list[tuple[Callable[[Ports], Any], asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._known: tuple[int, int] | None = None
        """Revision and bitmap that the store held when last heard of; revision 0 where it held none."""

    async def read(self) -> Ports | None:
        """What is taken now, as a copy of the caller's own; None where nothing was ever stored."""
        entry = await self._store.get(KEY)
        return Ports(self._first, self._last, self._seen(entry)[1]) if entry is not None else None

    def none(self) -> Ports:
        """The range with nothing taken."""
        return Ports(self._first, self._last)

    async def change(self, change: Callable[[Ports], T]) -> T:
        """Have `change` alter the ports, and return its result once that is stored. It may be called several times;
        if it raises, nothing is altered and the exception is the caller's. Raises StoreError."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="node ports")
        return await future

    async def close(self) -> None:
        """Wait for the write under way."""
        while self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await self._write_together(batch)
                except Exception as e:
                    self._known = None
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(e)
        finally:
            self._writer = None

    async def _write_together(self, batch: list[tuple[Callable[[Ports], Any], asyncio.Future[Any]]]) -> None:
        fresh = False
        while True:
            if self._known is None:
                self._known = self._seen(await self._store.get(KEY))
                fresh = True
            revision, before = self._known
            ports = Ports(self._first, self._last, before)
            outcomes = []
            doubtful = False
            for change, future in batch:
                if not future.done():
                    bits = ports.bits
                    outcomes.append((future, _try(change, ports)))
                    doubtful = doubtful or ports.bits == bits
            if doubtful and not fresh:
                # Refused, or without effect, on what we knew: another server may have taken or freed it since.
                self._known = None
                continue
            if ports.bits != before or not revision:
                try:
                    if revision:
                        entry = await self._store.update(KEY, encode(ports), revision)
                    else:
                        entry = await self._store.create(KEY, encode(ports))
                except (Conflict, KeyExists) as e:
                    self._known, fresh = self._seen(e.present), True
                    continue
                self._known = entry.revision, ports.bits
            break
        for future, outcome in outcomes:
            if future.done():
                continue  # cancelled meanwhile: what it took is left to the repair
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _seen(self, entry: Entry | None) -> tuple[int, int]:
        return (entry.revision, decode(entry.value, self._first, self._last)) if entry is not None else (0, 0)


def _try(change: Callable[[Ports], Any], ports: Ports) -> Any:
    before = ports.bits
    try:
        return change(ports)
    except Exception as e:
        ports.bits = before
        return e


def encode(ports: Ports) -> bytes:
    """The RangeAllocation that holds the bitmap: its bits are a big-endian number."""
    raw = ports.bits.to_bytes((ports.bits.bit_length() + 7) // 8, "big")
    return to_json(
        {
            "kind": "RangeAllocation",
            "apiVersion": "v1",
            "metadata": {},
            "range": f"{ports.first}-{ports.last}",
            "data": base64.b64encode(raw).decode(),
        }
    )


def decode(value: bytes, first: int, last: int) -> int:
    """The bitmap of a RangeAllocation, for the range from `first` to `last`. A stored range that is another one (the
    server's settings changed) is moved over; what lies outside is dropped."""
    stored = from_json(value)
    bits = int.from_bytes(base64.b64decode(stored["data"]), "big")
    start = int(stored["range"].partition("-")[0])
    shift = start - first
    bits = bits << shift if shift >= 0 else bits >> -shift
    return bits & ((1 << (last - first + 1)) - 1)
