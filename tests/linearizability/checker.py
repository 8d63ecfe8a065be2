"""Whether a history of concurrent calls on one object could have happened one after the other.

The method is Wing and Gong's with the memory of Lowe and of the program porcupine: try the calls that may come next, one by
one, against a model; remember which sets of calls in which state led nowhere. Each object is checked by itself, which is
enough (linearizability is local).

The model of an object is the value that it holds, or None. Every write of a history writes a value of its own, so a value
stands for the write; which resource version it got is learned from every answer that shows both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["create", "update", "delete", "read"]
Outcome = Literal["done", "exists", "missing", "conflict", "unknown"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call on one object, begun and ended at points of one clock (`ended` is infinite where no answer came).

    `value` is what a create or update writes, or what a read showed (None: nothing was there). `expected` is the value
    whose resource version an update or delete named; None where it named none.
    """

    key: str
    kind: Kind
    began: float
    ended: float
    outcome: Outcome
    value: str | None = None
    expected: str | None = None

    def after(self, state: str | None) -> tuple[bool, str | None]:
        """Whether the call may answer as it did in `state`, and the state after it."""
        if self.kind == "read":
            return state == self.value, state
        if self.outcome == "exists":
            return state is not None, state
        if self.outcome == "missing":
            return state is None, state
        if self.outcome == "conflict":
            return state is not None and state != self.expected, state
        # Done, or perhaps done.
        if self.kind == "create":
            return state is None, self.value
        fits = state is not None and self.expected in (None, state)
        return fits, self.value if self.kind == "update" else None


def explain(history: Iterable[Call], versions: Mapping[str, int]) -> str:
    """Why the history is not linearizable, or "". `versions` has the resource version that each value was seen with:
    along the order found these never fall."""
    by_key: dict[str, list[Call]] = {}
    for call in history:
        by_key.setdefault(call.key, []).append(call)
    for key, calls in by_key.items():
        calls.sort(key=lambda c: c.began)
        # Writes without an answer that nobody saw the value of were most likely never done. An order that leaves them out
        # is as good as any, and far fewer orders are to be tried.
        if not _check([c for c in calls if not _unseen(c, versions)], versions):
            continue
        stuck = _check(calls, versions)
        if stuck:
            return f"{key}: no order explains these calls:\n" + "\n".join(map(str, stuck))
    return ""


def _unseen(call: Call, versions: Mapping[str, int]) -> bool:
    return call.outcome == "unknown" and call.value is not None and call.value not in versions


def _check(calls: list[Call], versions: Mapping[str, int]) -> list[Call]:
    """[] if there is an order; else the calls that stood open where the longest attempt ended."""
    needed = sum(1 for c in calls if c.outcome != "unknown")
    dead: set[tuple[int, int, str | None]] = set()
    deepest: tuple[int, list[Call]] = (-1, [])
    # A place in the search: calls already ordered (the first `low` and the bits of `mask` from there), how many of those
    # were answered, the state, and the calls still to be tried as the next one.
    stack: list[tuple[int, int, int, str | None, list[int]]] = [(0, 0, 0, None, _next(calls, 0, 0))]
    while stack:
        low, mask, answered, state, candidates = stack[-1]
        if answered == needed:
            return []
        if answered > deepest[0]:
            deepest = (answered, [calls[i] for i in _next(calls, low, mask)])
        if not candidates:
            dead.add((low, mask, state))
            stack.pop()
            continue
        i = candidates.pop()
        fits, after = calls[i].after(state)
        if not fits or (after != state and _falls(state, after, versions)):
            continue
        new_low, new_mask = _with(low, mask, i)
        if (new_low, new_mask, after) in dead:
            continue
        done = answered + (calls[i].outcome != "unknown")
        stack.append((new_low, new_mask, done, after, _next(calls, new_low, new_mask)))
    return deepest[1]


def _falls(before: str | None, after: str | None, versions: Mapping[str, int]) -> bool:
    old = versions.get(before or "")
    new = versions.get(after or "")
    return old is not None and new is not None and new <= old


def _next(calls: list[Call], low: int, mask: int) -> list[int]:
    """The calls not yet ordered that began before any other such call ended; unanswered ones are tried last."""
    first_end = math.inf
    found: list[int] = []
    i = low
    while i < len(calls) and calls[i].began <= first_end:
        if not mask >> (i - low) & 1:
            found.append(i)
            first_end = min(first_end, calls[i].ended)
        i += 1
    found = [i for i in found if calls[i].began <= first_end]
    return sorted(found, key=lambda i: (calls[i].outcome != "unknown", -calls[i].ended))


def _with(low: int, mask: int, i: int) -> tuple[int, int]:
    mask |= 1 << (i - low)
    while mask & 1:
        mask >>= 1
        low += 1
    return low, mask
