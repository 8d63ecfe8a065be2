"""Which backend has which slot of a frontend, changed as little as can be when backends come and go."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from sampan.proxy.skeleton import EXACT, LARGE
from sampan.proxy.types import Backend


def slot_count(backends: int) -> int:
    """How many slots a frontend with so many backends has at least."""
    if backends <= EXACT:
        return backends
    return next((count for count in LARGE if count >= 8 * backends), LARGE[-1])


def assign(old: Sequence[Backend], backends: Sequence[Backend], *, sticky: bool) -> tuple[Backend, ...]:
    """The backends by slot. Backends that stay keep their slots as far as the number of slots allows.

    With `sticky` no backend that stays ever loses a slot (clients remember slots): a slot whose backend is gone goes
    to another backend, and the number of slots does not shrink.
    """
    wanted = list(dict.fromkeys(backends))
    if not wanted:
        return ()
    present = set(wanted)
    count = slot_count(len(wanted))
    if sticky:
        kept: list[Backend | None] = [b if b in present else None for b in old]
        newcomers = len(present - set(kept))
        missing = max(count - len(kept), newcomers - kept.count(None), 0)
        kept += [None] * missing
        return _fill(kept + [None] * (_served(len(kept)) - len(kept)), wanted)
    if count != len(wanted):
        return _fill(
            [b if b in present else None for b in old] if len(old) == count else [None] * count, wanted
        )
    seen: set[Backend | None] = {None}
    slots: list[Backend | None] = [None] * count
    for slot, backend in enumerate(old[:count]):
        if backend in present and backend not in seen:
            slots[slot] = backend
            seen.add(backend)
    return _fill(slots, wanted)


def _served(slots: int) -> int:
    """The smallest number of slots that there is a chain for."""
    return slots if slots <= EXACT else next((count for count in LARGE if count >= slots), LARGE[-1])


def _fill(slots: Sequence[Backend | None], wanted: Sequence[Backend]) -> tuple[Backend, ...]:
    """Give each empty slot to the backend that has the fewest."""
    held = dict.fromkeys(wanted, 0)
    for backend in slots:
        if backend is not None:
            held[backend] += 1
    heap = [(count, order, b) for order, (b, count) in enumerate(held.items())]
    heapq.heapify(heap)
    out: list[Backend] = []
    for backend in slots:
        if backend is None:
            count, order, backend = heap[0]
            heapq.heapreplace(heap, (count + 1, order, backend))
        out.append(backend)
    return tuple(out)
