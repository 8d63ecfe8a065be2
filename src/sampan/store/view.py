"""The durable state in memory: newest values in key order, the latest changes, and who is told of new ones.

A driver calls `apply` in the loop's thread with what has just become durable; reads, watches and subscriptions are
answered from here. History older than the latest changes comes from the driver (`ReadHistory`).
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from sampan.store.types import Compacted, Entry, Event, FutureRevision, Page
from sampan.store.writes import Change

log = logging.getLogger(__name__)

Subscriber = Callable[[Sequence[Event]], None]
ReadHistory = Callable[[str, int, int], Awaitable[Sequence[Change]]]
"""(prefix, after, upto): the changes under `prefix` with `after` < revision <= `upto`, in order. Raises Compacted."""

RECENT = 1024
"""How many changes are kept in memory at least; twice as many at most."""
_STRIDE = 1000
"""How many revisions of older history are asked for at once."""
_AFTER_ANY_KEY = "\U0010ffff"


class View:
    """All methods belong to the loop's thread. `entries` may be read by a writer thread while no `apply` is due."""

    def __init__(
        self, read_history: ReadHistory, entries: dict[str, Entry], revision: int, oldest: int
    ) -> None:
        self.entries = entries
        self.revision = revision
        self.oldest = oldest
        """The oldest revision that can still be read; 0 while nothing was ever forgotten."""
        self._read_history = read_history
        self._keys = sorted(entries)
        self._recent: list[Change] = []
        self._recent_after = revision
        """All changes after this revision are in `_recent`."""
        self._subscribers: list[Subscriber] = []
        self._waiting: set[ViewWatch] = set()
        self._closed = False

    def apply(self, changes: Sequence[Change]) -> None:
        """Take up changes that are durable now and tell subscribers, then watches."""
        if not changes:
            return
        entries, keys = self.entries, self._keys
        for event, before in changes:
            key = event.entry.key
            if event.deleted:
                del entries[key]
                del keys[bisect_left(keys, key)]
            else:
                entries[key] = event.entry
                if before is None:
                    insort(keys, key)
        self._recent.extend(changes)
        if len(self._recent) > 2 * RECENT:
            self._forget_some()
        self.revision = changes[-1].event.entry.revision
        events = [change.event for change in changes]
        for subscriber in self._subscribers:
            try:
                subscriber(events)
            except Exception:  # whatever it is, the write is durable and others must be told of it
                log.exception("a subscriber to the store failed and is told nothing more")
                self._unsubscribe(subscriber)
        for watch in tuple(self._waiting):
            watch.notice(events, self.revision)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        # Replaced, not changed: a subscriber may come or go while others are being told.
        self._subscribers = [*self._subscribers, callback]

        return lambda: self._unsubscribe(callback)

    def _unsubscribe(self, callback: Subscriber) -> None:
        self._subscribers = [s for s in self._subscribers if s is not callback]

    def count(self, prefix: str) -> int:
        first, end = self._span(prefix)
        return end - first

    async def list(self, prefix: str, revision: int, after: str, limit: int) -> Page:
        if revision == 0 or revision == self.revision:
            return self._page(prefix, after, limit)
        if revision > self.revision:
            raise FutureRevision(self.revision)
        if revision < self.oldest:
            raise Compacted(self.oldest)
        # The newest values with every later change undone.
        then: dict[str, Entry | None] = {}
        position = revision
        while position < self._recent_after:
            upto = min(position + _STRIDE, self._recent_after)
            _undo(then, await self._read_history(prefix, position, upto))
            position = upto
        _undo(then, [c for c in self._later(position) if c.event.entry.key.startswith(prefix)])
        return self._page_then(prefix, then, revision, after, limit)

    def watch(self, prefix: str, after: int) -> ViewWatch:
        return ViewWatch(self, prefix, after)

    def close(self) -> None:
        """End all watches."""
        self._closed = True
        self._subscribers = []
        for watch in tuple(self._waiting):
            watch.wake()

    def _later(self, after: int) -> Sequence[Change]:
        """The changes after a revision not older than `_recent_after`."""
        return self._recent[bisect_right(self._recent, after, key=_revision) :]

    def _forget_some(self) -> None:
        """Whole revisions: a place in the sequence is a revision."""
        cut = len(self._recent) - RECENT
        last = _revision(self._recent[cut - 1])
        while cut < len(self._recent) and _revision(self._recent[cut]) == last:
            cut += 1
        del self._recent[:cut]
        self._recent_after = last

    def _span(self, prefix: str, after: str = "") -> tuple[int, int]:
        first = bisect_left(self._keys, prefix)
        end = bisect_left(self._keys, prefix + _AFTER_ANY_KEY, first)
        return (bisect_right(self._keys, after, first, end) if after else first), end

    def _page(self, prefix: str, after: str, limit: int) -> Page:
        first, end = self._span(prefix, after)
        stop = min(first + limit, end) if limit else end
        return Page(self.revision, [self.entries[k] for k in self._keys[first:stop]], end - stop)

    def _page_then(
        self, prefix: str, then: dict[str, Entry | None], revision: int, after: str, limit: int
    ) -> Page:
        first, end = self._span(prefix, after)
        entries, keys = self.entries, self._keys
        found: list[Entry] = []
        place = first
        total = end - first
        # Between the keys that have changed since, whole stretches are as they are now.
        for key in sorted(k for k in then if k > after):
            before = then[key]
            total += (before is not None) - (key in entries)
            at = bisect_left(keys, key, place, end)
            if limit and len(found) + at - place >= limit:
                continue  # only to be counted
            found += map(entries.__getitem__, keys[place:at])
            place = at
            if before is not None:
                found.append(before)
            if at < end and keys[at] == key:
                place += 1
        stop = min(end, place + limit - len(found)) if limit else end
        found += map(entries.__getitem__, keys[place:stop])
        return Page(revision, found, total - len(found))


class ViewWatch(AsyncIterator[Sequence[Event]]):
    """A place in the sequence of revisions. It holds no events of its own: one that falls behind reads history."""

    def __init__(self, view: View, prefix: str, after: int) -> None:
        self._view = view
        self._prefix = prefix
        self._position = after
        self._closed = False
        self._refused = Compacted(view.oldest) if after < view.oldest else None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> ViewWatch:
        return self

    async def __anext__(self) -> Sequence[Event]:
        view = self._view
        if self._refused is not None:
            raise self._refused
        while not (self._closed or view._closed):
            if self._position >= view.revision:
                await self._wait()
                continue
            changes: Iterable[Change]
            if self._position >= view._recent_after:
                upto, changes = view.revision, view._later(self._position)
            else:
                upto = min(self._position + _STRIDE, view._recent_after)
                changes = await view._read_history(self._prefix, self._position, upto)
            self._position = upto
            prefix = self._prefix
            if events := [c.event for c in changes if c.event.entry.key.startswith(prefix)]:
                return events
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._closed = True
        self.wake()

    def notice(self, events: Sequence[Event], revision: int) -> None:
        """Wake up for events under the prefix; step over others."""
        prefix = self._prefix
        if any(e.entry.key.startswith(prefix) and e.entry.revision > self._position for e in events):
            self.wake()
        elif self._waiter is not None and not self._waiter.done():
            self._position = max(self._position, revision)

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        self._view._waiting.add(self)
        try:
            await self._waiter
        finally:
            self._view._waiting.discard(self)
            self._waiter = None


def _revision(change: Change) -> int:
    return change.event.entry.revision


def _undo(then: dict[str, Entry | None], changes: Iterable[Change]) -> None:
    """Note what each key held before its first change; changes must come in order."""
    for event, before in changes:
        then.setdefault(event.entry.key, before)
