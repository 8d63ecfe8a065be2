"""Pools of addresses, and which of a pool's addresses is the next free one."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sampan.api import address_ranges
from sampan.api.address_ranges import Address, AddressRange
from sampan.api.errors import Object
from sampan.loadbalancer.requests import FAMILIES

_MOST = 2**63 - 1
"""What a count in a status can be."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What an IPAddressPool says. `namespaces` is empty for all; of several pools that of the lowest `priority` comes
    first, 0 last."""

    name: str
    ranges: tuple[AddressRange, ...]
    auto_assign: bool = True
    avoid_buggy: bool = False
    namespaces: frozenset[str] = frozenset()
    priority: int = 0

    @classmethod
    def of(cls, obj: Object, reserved: Iterable[AddressRange] = ()) -> Pool:
        """What an object says, without the addresses that are `reserved`. Raises ValueError."""
        spec = obj["spec"]
        allocation = spec.get("serviceAllocation") or {}
        ranges = [address_ranges.parse(text) for text in spec.get("addresses") or ()]
        for taken in reserved:
            ranges = [left for one in ranges for left in one.without(taken)]
        return cls(
            obj["metadata"]["name"],
            tuple(ranges),
            spec.get("autoAssign") is not False,
            bool(spec.get("avoidBuggyIPs")),
            frozenset(allocation.get("namespaces") or ()),
            allocation.get("priority") or 0,
        )

    def __contains__(self, address: Address) -> bool:
        if self.avoid_buggy and _is_buggy(address):
            return False
        return any(address in r for r in self.ranges)

    def serves(self, namespace: str) -> bool:
        return not self.namespaces or namespace in self.namespaces

    def capacity(self, family: str) -> int:
        """How many addresses of a family it has."""
        found = 0
        for one in self.ranges:
            if FAMILIES[one.version] == family:
                found += one.size
                if self.avoid_buggy and one.version == 4:
                    found -= _buggy_up_to(int(one.last)) - _buggy_up_to(int(one.first) - 1)
        return min(found, _MOST)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(map(str, self.ranges))})"


def _is_buggy(address: Address) -> bool:
    return address.version == 4 and int(address) % 256 in (0, 255)


def _buggy_up_to(number: int) -> int:
    """How many of 0 to `number` end with .0 or .255."""
    whole, rest = divmod(number + 1, 256)
    return 2 * whole + (rest > 0)


class FreeAddresses:
    """The free addresses of one pool, lowest first. Taking the next one costs the same however many are in use: what lies
    before `_next` and is free has been given back, and is in a heap."""

    def __init__(self, pool: Pool, in_use: Callable[[Address], bool]) -> None:
        self._pool = pool
        self._in_use = in_use
        self._next = [int(r.first) for r in pool.ranges]
        self._returned: list[list[int]] = [[] for _ in pool.ranges]

    def first(self, family: str) -> Address | None:
        """It stays free until it is in use."""
        for i, one in enumerate(self._pool.ranges):
            if FAMILIES[one.version] == family:
                for number in self._candidates(i):
                    address = one.first + (number - int(one.first))
                    if address in self._pool and not self._in_use(address):
                        return address
        return None

    def returned(self, address: Address) -> None:
        """An address of the pool is free again."""
        for i, one in enumerate(self._pool.ranges):
            if address in one and int(address) < self._next[i]:
                heapq.heappush(self._returned[i], int(address))

    def _candidates(self, i: int) -> Iterator[int]:
        """What may be free: whoever asks for the one after knows that it was not."""
        returned = self._returned[i]
        while returned:
            yield returned[0]
            heapq.heappop(returned)
        while self._next[i] <= int(self._pool.ranges[i].last):
            yield self._next[i]
            self._next[i] += 1
