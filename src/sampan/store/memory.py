"""A driver that keeps nothing beyond its process: for tests, and for anyone who wants a cluster without a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from sampan.store.types import Compacted, Entry, Event, FutureRevision, Page, StoreError, Watch
from sampan.store.view import View
from sampan.store.writes import Change, Write, decide


class MemoryStore:
    """A `Store` in memory. The whole history is kept until `compact`."""

    shared = False
    self_keeping = False

    def __init__(self) -> None:
        self._history: list[Change] = []
        self._view = View(self._read_history, {}, 0, 0)
        self._closed = False

    async def create(self, key: str, value: bytes, *, ttl: int = 0) -> Entry:
        return await self._write("create", key, value, None)

    async def update(self, key: str, value: bytes, expected: int, *, ttl: int = 0) -> Entry:
        return await self._write("update", key, value, expected)

    async def delete(self, key: str, expected: int | None = None) -> Entry:
        return await self._write("delete", key, b"", expected)

    async def get(self, key: str) -> Entry | None:
        self._check_open()
        return self._view.entries.get(key)

    async def list(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> Page:
        self._check_open()
        return await self._view.list(prefix, revision, after, limit)

    async def count(self, prefix: str) -> int:
        self._check_open()
        return self._view.count(prefix)

    def revision(self) -> int:
        return self._view.revision

    async def catch_up(self) -> int:
        self._check_open()
        return self._view.revision

    def watch(self, prefix: str, after: int) -> Watch:
        self._check_open()
        return self._view.watch(prefix, after)

    def subscribe(self, callback: Callable[[Sequence[Event]], None]) -> Callable[[], None]:
        self._check_open()
        return self._view.subscribe(callback)

    async def compact(self, revision: int) -> None:
        self._check_open()
        if revision > self._view.revision:
            raise FutureRevision(self._view.revision)
        if revision > self._view.oldest:
            self._history = [c for c in self._history if c.event.entry.revision > revision]
            self._view.oldest = revision

    def trouble(self) -> str:
        return "the store is closed" if self._closed else ""

    async def failed(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        self._closed = True
        self._view.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    def _write(
        self, verb: Literal["create", "update", "delete"], key: str, value: bytes, expected: int | None
    ) -> asyncio.Future[Entry]:
        self._check_open()
        write = Write(verb, key, value, expected, asyncio.get_running_loop().create_future())
        changes = decide((write,), self._view.entries, self._view.revision)
        self._history += changes
        self._view.apply(changes)
        write.resolve()
        return write.done

    async def _read_history(self, prefix: str, after: int, upto: int) -> Sequence[Change]:
        if after < self._view.oldest:
            raise Compacted(self._view.oldest)
        first = after - self._view.revision + len(self._history)
        changes = self._history[first : first + upto - after]
        return [c for c in changes if c.event.entry.key.startswith(prefix)]
