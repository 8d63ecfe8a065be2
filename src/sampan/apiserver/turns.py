"""Long work in slices: whoever goes over many objects takes turns with the rest of the server.

All such work shares one `Turns`, so that in one round of the loop at most one slice is done, however many large lists are
under way; requests that are answered at once go in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import TypeVar

from sampan.apiserver.looplag import LoopLag

SLICE_SECONDS = 0.002
"""How long a slice holds the loop, give or take one step of the work."""

STEP_BYTES = 128 * 1024
"""Bytes of JSON that are decoded, searched or copied in well under a millisecond."""

T = TypeVar("T")


class Turns:
    """Who may hold the loop. Each slice is measured by `lag`."""

    def __init__(self, lag: LoopLag) -> None:
        self._lag = lag
        self._lock = asyncio.Lock()

    async def each(
        self,
        items: Sequence[T],
        step: int,
        work: Callable[[Sequence[T]], object],
        size: Callable[[T], int] | None = None,
    ) -> None:
        """Call `work` with up to `step` items at a time, in order, a slice at a time. `size` tells the bytes of an item
        where they count: of large ones fewer are taken."""
        await self.run(lambda: map(work, batches(items, step, size)))

    async def run(self, steps: Callable[[], Iterator[object]]) -> None:
        """Go through an iterator, whose every step must be short, a slice at a time."""
        left = steps()
        while True:
            async with self._lock:
                self._lag.arm()
                going = _slice(left, perf_counter() + SLICE_SECONDS)
                # Still ours, so that nobody takes his turn in this round; after the last slice too.
                await asyncio.sleep(0)
            if not going:
                return


def batches(
    items: Sequence[T], step: int, size: Callable[[T], int] | None = None, most: int = STEP_BYTES
) -> Iterator[Sequence[T]]:
    """The items in parts of up to `step`; with `size`, a part ends where its bytes reach `most`."""
    if size is None:
        yield from (items[i : i + step] for i in range(0, len(items), step))
        return
    start = weight = 0
    for i, item in enumerate(items, 1):
        weight += size(item)
        if i - start >= step or weight >= most:
            yield items[start:i]
            start, weight = i, 0
    if start < len(items):
        yield items[start:]


def _slice(left: Iterator[object], until: float) -> bool:
    """Steps until the time is over; False once there are no more."""
    return any(perf_counter() >= until for _ in left)
