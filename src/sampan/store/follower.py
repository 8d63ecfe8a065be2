"""The watch that feeds a view from etcd, over as many connections as it takes, and those who wait for what it brings.

The watch covers all keys, so that every revision of etcd comes by: one that is missing is noticed. It needs no values
before, which the view has; the history does, and asks for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sampan.store import messages
from sampan.store.members import Members
from sampan.store.types import Compacted, Entry, Event, StoreDamaged, StoreError
from sampan.store.view import View
from sampan.store.writes import Change

log = logging.getLogger(__name__)
T = TypeVar("T")
_RETRY_FIRST, _RETRY_MOST = 0.05, 1.0


@dataclass(slots=True, eq=False)
class Pending:
    """A write under way: what the watch has brought for its key since it was asked for."""

    key: str
    value: bytes
    brought: dict[int, Entry] = field(default_factory=dict)
    """By revision."""
    revision: int = 0
    done: asyncio.Future[Entry] | None = None


class Follower:
    """Feeds `view` with what happens in etcd. `cluster` is etcd's own name for itself."""

    def __init__(self, members: Members, view: View, cluster: int, timeout: float) -> None:
        self._members = members
        self._view = view
        self._cluster = cluster
        self._timeout = timeout
        self.failure: StoreError | None = None
        """Why the view will never be right again."""
        self.trouble = ""
        """Why nothing comes from etcd at present."""
        self._failing: asyncio.Future[None] | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._pending: dict[str, list[Pending]] = {}
        self._late = asyncio.Event()
        """Somebody waited in vain for what etcd said it had."""

    # ---- who waits for the watch

    def expect(self, pending: Pending) -> None:
        """To be called before the write is asked for."""
        self._pending.setdefault(pending.key, []).append(pending)

    def forget(self, pending: Pending) -> None:
        others = [p for p in self._pending.pop(pending.key) if p is not pending]
        if others:
            self._pending[pending.key] = others

    async def written(self, pending: Pending, revision: int) -> Entry:
        """The entry that a write has made, once the view has it. Raises StoreError."""
        entry = pending.brought.get(revision)
        if entry is not None:
            return entry
        pending.revision = revision
        pending.done = asyncio.get_running_loop().create_future()
        return await self._in_time(pending.done, revision)

    async def until_seen(self, revision: int) -> None:
        """Return once the view has a revision. Raises StoreError."""
        if self._view.revision >= revision:
            return
        seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, seen))
        await self._in_time(seen, revision)

    async def _in_time(self, future: asyncio.Future[T], revision: int) -> T:
        if self.failure is not None:
            raise self.failure
        timer = asyncio.get_running_loop().call_later(self._timeout, self._is_late, future, revision)
        try:
            return await future
        finally:
            timer.cancel()

    def _is_late(self, future: asyncio.Future[T], revision: int) -> None:
        self._late.set()
        _fail(future, StoreError(f"the watch of etcd at {self._members.names} is behind revision {revision}"))

    # ---- following

    async def run(self) -> None:
        """Feed the view until cancelled, or until it cannot go on (`failure`)."""
        wait = _RETRY_FIRST
        while True:
            began = self._view.revision
            try:
                await self._feed()
            except (Compacted, StoreDamaged) as e:
                self.give_up(e)
                return
            except StoreError as e:
                self.trouble = str(e)
                log.warning("%s; taking it up after revision %d", e, self._view.revision)
            except Exception as e:
                log.exception("the follower of etcd failed")
                self.give_up(StoreDamaged(f"the follower of etcd failed ({e!r}); start again"))
                return
            wait = _RETRY_FIRST if self._view.revision > began else min(2 * wait, _RETRY_MOST)
            await asyncio.sleep(wait)
            try:
                request = messages.range_request(b"\0", count_only=True)
                answer = messages.range_answer(await self._members.call("KV/Range", request))
            except StoreError:
                continue
            if answer.cluster != self._cluster or answer.revision < self._view.revision:
                self.give_up(
                    StoreDamaged(f"the etcd at {self._members.names} is another, or went back in time")
                )
                return

    async def failed(self) -> None:
        """Returns never; raises `failure` when there is one."""
        if self.failure is None:
            self._failing = asyncio.get_running_loop().create_future()
            await self._failing
        assert self.failure is not None
        raise self.failure

    def give_up(self, error: StoreError) -> None:
        """Refuse everything from now on, and tell those who wait."""
        if self.failure is None:
            self.failure = error
        self.trouble = str(self.failure)
        self._view.close()
        waiting, self._waiting = self._waiting, []
        for _, seen in waiting:
            _fail(seen, error)
        for writes in self._pending.values():
            for write in writes:
                _fail(write.done, error)
        if self._failing is not None and not self._failing.done():
            self._failing.set_result(None)

    async def _feed(self) -> None:
        """Apply what one watch brings. Raises StoreError when it ends, or hangs."""
        loop = asyncio.get_running_loop()
        self._late.clear()
        reading, late = loop.create_task(self._read()), loop.create_task(self._late.wait())
        try:
            await asyncio.wait((reading, late), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                self._members.put_last()
                raise StoreError(f"the watch of etcd at {self._members.names} hangs")
            await reading
        finally:
            reading.cancel()
            late.cancel()
            await asyncio.gather(reading, late, return_exceptions=True)
        raise StoreError(f"etcd at {self._members.names} ended the watch")

    async def _read(self) -> None:
        async with aclosing(self.changes(self._view.revision)) as batches:
            async for events in batches:
                self._apply(events)

    def _apply(self, events: Sequence[messages.WatchEvent]) -> None:
        view = self._view
        position = view.revision
        changes: list[Change] = []
        fresh: dict[str, Entry | None] = {}
        for deleted, kv, _ in events:
            key, revision = kv.key, kv.revision
            if revision != position + 1 and (revision != position or not changes):
                raise StoreDamaged(
                    f"etcd's revision {revision} came where {position + 1} was due; start again"
                )
            position = revision
            before = fresh[key] if key in fresh else view.entries.get(key)
            writes = self._pending.get(key, ())
            if deleted:
                if before is None:
                    raise StoreDamaged(f"etcd tells of a delete of {key}, which was not there; start again")
                entry = Entry(key, before.value, revision, before.created)
                fresh[key] = None
            else:
                value = kv.value
                for write in writes:
                    if write.value == value:
                        value = write.value  # whoever knows the writer's bytes will know these
                entry = Entry(key, value, revision, kv.created)
                fresh[key] = entry
            for write in writes:
                write.brought[revision] = entry
            changes.append(Change(Event(deleted, entry, before.value if before else None), before))
        view.apply(changes)
        for change in changes:
            entry = change.event.entry
            for write in self._pending.get(entry.key, ()):
                if write.done is not None and write.revision == entry.revision and not write.done.done():
                    write.done.set_result(entry)
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for revision, seen in waiting:
                if revision > position:
                    self._waiting.append((revision, seen))
                elif not seen.done():
                    seen.set_result(None)

    # ---- reading the watch

    async def changes(
        self, after: int, *, previous: bool = False
    ) -> AsyncGenerator[Sequence[messages.WatchEvent], None]:
        """Every event after a revision, whole revisions at a time. Raises Compacted, and StoreError on a lost
        connection."""
        request = messages.watch_request(*messages.ALL, after + 1, previous=previous)
        parts: list[messages.WatchEvent] = []
        async with aclosing(self._members.stream("Watch/Watch", request)) as stream:
            async for batch in stream:
                if not previous:  # etcd has said that it watches
                    self.trouble = ""
                whole = 0
                for data in batch:
                    answer = messages.watch_answer(data)
                    if answer.canceled:
                        if answer.compacted:
                            self._view.oldest = max(self._view.oldest, answer.compacted)
                            raise Compacted(answer.compacted)
                        raise StoreError(f"etcd ended the watch: {answer.reason or 'no reason given'}")
                    parts += answer.events
                    if not answer.fragment:
                        whole = len(parts)
                if whole:
                    yield parts[:whole]
                    del parts[:whole]

    async def history(self, prefix: str, after: int, upto: int) -> Sequence[Change]:
        """The changes under `prefix` with `after` < revision <= `upto`, which etcd has. Raises Compacted, StoreError."""
        if after < self._view.oldest:
            raise Compacted(self._view.oldest)
        found: list[Change] = []
        try:
            async with (
                asyncio.timeout(self._timeout),
                aclosing(self.changes(after, previous=True)) as batches,
            ):
                async for events in batches:
                    # Every revision has its event, so that the last one wanted is sure to come.
                    for event in events:
                        if event.kv.revision > upto:
                            return found
                        if event.kv.key.startswith(prefix):
                            found.append(_change(event))
                    if events[-1].kv.revision >= upto:
                        break
        except TimeoutError as e:
            raise StoreError(f"etcd at {self._members.names} does not send its history in time") from e
        return found


def entry_of(kv: messages.KeyValue) -> Entry:
    return Entry(kv.key, kv.value, kv.revision, kv.created)


def _change(event: messages.WatchEvent) -> Change:
    before = entry_of(event.before) if event.before is not None else None
    if event.deleted:
        if before is None:
            raise StoreDamaged("etcd tells of a delete without the value before")
        entry = Entry(before.key, before.value, event.kv.revision, before.created)
        return Change(Event(True, entry, before.value), before)
    return Change(Event(False, entry_of(event.kv), before.value if before else None), before)


def _fail(future: asyncio.Future[Any] | None, error: StoreError) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
