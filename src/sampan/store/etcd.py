"""The driver for etcd 3.4 and later: writes are transactions on a key's revision, reads come from a view fed by a watch.

One watch over all keys feeds the view in memory (`follower`); it answers `get`, `list` and `count` of newest values
without a round trip. A write is acknowledged only when the watch has brought its revision, so that whoever reads from
this store after an acknowledged write through it sees it. Of writes through other processes a read may be late by the
time an event takes; a reader who needs them awaits `catch_up` first, after which reads are linearizable.

Revisions are etcd's own: an empty etcd is at 1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal

from sampan.store import messages
from sampan.store.compaction import Compactor
from sampan.store.follower import Follower, Pending, entry_of
from sampan.store.leases import Leases
from sampan.store.members import LeaseNotFound, Members, OutOfRange, Tls
from sampan.store.types import (
    Compacted,
    Conflict,
    Entry,
    Event,
    FutureRevision,
    KeyExists,
    Page,
    StoreDamaged,
    StoreError,
    Watch,
)
from sampan.store.view import View
from sampan.store.writes import Change

log = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds that a request to one member, or a write's way back through the watch, may take."""
_PAGE = 500


async def open_store(
    endpoints: Sequence[str],
    *,
    tls: Tls | None = None,
    timeout: float = TIMEOUT,
    shared: bool = True,
    patience: float = 0.0,
) -> EtcdStore:
    """Open the store kept by the etcd at `endpoints` (`http://host:port` or `https://`), members of one cluster.

    `shared`: others may write to it at the same time. Raises StoreError where for `patience` seconds none answers,
    naming each.
    """
    store = EtcdStore(Members(endpoints, tls, timeout), timeout, shared)
    deadline = asyncio.get_running_loop().time() + patience
    try:
        while True:
            try:
                await store._start()
            except StoreError:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                await asyncio.sleep(0.02)  # it is being started; there is nothing to wait for but an answer
            else:
                store._members.patience = timeout / 2  # etcd may be started anew, or change its leader
                return store
    except BaseException:
        await store.close()
        raise


class EtcdStore:
    """A `Store` in etcd; made by `open_store`. All methods belong to the thread of the loop that opened it.

    A write whose connection breaks raises MayHaveHappened; it is never sent twice.
    """

    self_keeping = True

    def __init__(self, members: Members, timeout: float, shared: bool) -> None:
        self.shared = shared
        self._members = members
        self._timeout = timeout
        self._view = View(self._history, {}, 0, 0)
        self._follower = Follower(members, self._view, 0, timeout)
        self._leases = Leases(members)
        self._tasks: list[asyncio.Task[None]] = []
        self._writing: set[asyncio.Task[Any]] = set()
        self._asking: asyncio.Task[int] | None = None
        self._next_asking: asyncio.Task[int] | None = None
        self._closed: StoreError | None = None
        self._stopped: asyncio.Future[None] | None = None

    async def create(self, key: str, value: bytes, *, ttl: int = 0) -> Entry:
        written, present = await self._put(key, value, 0, ttl)
        if written is None:
            if present is None:
                raise StoreDamaged(f"etcd refused to create {key}, which it says is not there")
            raise KeyExists(present)
        return written

    async def update(self, key: str, value: bytes, expected: int, *, ttl: int = 0) -> Entry:
        if expected <= 0:  # no value has such a revision, but to etcd 0 says that there is no key
            await self.catch_up()
            raise Conflict(key, self._view.entries.get(key))
        written, present = await self._put(key, value, expected, ttl)
        if written is None:
            raise Conflict(key, present)
        return written

    async def delete(self, key: str, expected: int | None = None) -> Entry:
        raw = key.encode()
        if expected is not None and expected <= 0:
            await self.catch_up()
            raise Conflict(key, self._view.entries.get(key))
        comparison: Literal["=", ">"] = ">" if expected is None else "="
        written, present = await self._transact(
            key, raw, comparison, expected or 0, messages.delete(raw), b""
        )
        if written is None:
            raise Conflict(key, present)
        return written

    async def get(self, key: str) -> Entry | None:
        self._check_open()
        return self._view.entries.get(key)

    async def list(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> Page:
        self._check_open()
        if revision > self._view.revision:
            await self.catch_up()  # it may have been written through another server
        return await self._view.list(prefix, revision, after, limit)

    async def count(self, prefix: str) -> int:
        self._check_open()
        return self._view.count(prefix)

    def revision(self) -> int:
        """The newest that this store has seen; see `catch_up` for etcd's own."""
        return self._view.revision

    @property
    def member(self) -> str:
        """The endpoint that is asked first at present."""
        return self._members.first

    async def catch_up(self) -> int:
        """As the contract says: a quorum read of etcd's revision, which all who ask meanwhile share."""
        self._check_open()
        # A question under way may be older than ours; the next one is for all who come until it is asked.
        if self._next_asking is None:
            self._next_asking = asyncio.create_task(self._ask(self._asking))
        revision = await asyncio.shield(self._next_asking)
        await self._follower.until_seen(revision)
        return revision

    def watch(self, prefix: str, after: int) -> Watch:
        self._check_open()
        return self._view.watch(prefix, after)

    def subscribe(self, callback: Callable[[Sequence[Event]], None]) -> Callable[[], None]:
        self._check_open()
        return self._view.subscribe(callback)

    async def compact(self, revision: int) -> None:
        self._check_open()
        if revision > self._view.revision:
            await self.catch_up()
        if revision > self._view.revision:
            raise FutureRevision(self._view.revision)
        if revision <= self._view.oldest:
            return
        try:
            await self._members.call("KV/Compact", messages.compaction_request(revision))
        except OutOfRange:  # another server was first
            revision = await self._find_oldest()
        self._view.oldest = max(self._view.oldest, revision)

    def trouble(self) -> str:
        if self._closed is not None:
            return str(self._closed)
        return self._follower.trouble

    async def failed(self) -> None:
        """Returns never; raises StoreError once the store cannot go on, and must be opened anew."""
        await self._follower.failed()

    async def close(self) -> None:
        """As the contract says; waits for the writes under way. May be called again."""
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
            self._closed = StoreError(f"the store in etcd at {self._members.names} is closed")
            self._view.close()
            try:
                if self._writing:
                    await asyncio.wait(tuple(self._writing))
                for task in self._tasks:
                    task.cancel()
                if self._tasks:
                    await asyncio.wait(self._tasks)
                self._follower.give_up(self._closed)
                await self._members.close()
            finally:
                self._stopped.set_result(None)
        await asyncio.shield(self._stopped)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed
        if self._follower.failure is not None:
            raise self._follower.failure

    async def _start(self) -> None:
        """Read all keys at one revision, and follow from there."""
        entries: dict[str, Entry] = {}
        cluster = revision = 0
        key = b"\0"
        while True:
            request = messages.range_request(key, b"\0", limit=_PAGE, revision=revision)
            answer = messages.range_answer(await self._members.call("KV/Range", request))
            if not revision:
                cluster, revision = answer.cluster, answer.revision
            for kv in answer.kvs:
                entries[kv.key] = entry_of(kv)
            if not answer.more:
                break
            key = answer.kvs[-1].key.encode() + b"\0"
        self._view = View(self._history, entries, revision, await self._find_oldest())
        self._follower = Follower(self._members, self._view, cluster, self._timeout)
        loop = asyncio.get_running_loop()
        compactor = Compactor(self._members, self.compact)
        self._tasks = [
            loop.create_task(self._follower.run(), name="etcd watch"),
            loop.create_task(compactor.run(), name="etcd compaction"),
        ]

    async def _find_oldest(self) -> int:
        """The oldest revision that can be read; 0 where none was ever forgotten."""
        try:
            await self._members.call("KV/Range", messages.range_request(b"\0", revision=1))
        except OutOfRange:
            # Only a watch tells the number.
            try:
                async with aclosing(self._follower.changes(0)) as batches:
                    async for _ in batches:
                        break
            except Compacted as e:
                return e.oldest
        return 0

    async def _put(
        self, key: str, value: bytes, revision: int, ttl: int
    ) -> tuple[Entry | None, Entry | None]:
        """Write a key that has this revision, as `_transact`."""
        raw = key.encode()
        lease = await self._leases.lease(ttl) if ttl else 0
        try:
            return await self._transact(key, raw, "=", revision, messages.put(raw, value, lease), value)
        except LeaseNotFound:
            # Somebody has taken it away. Nothing was written.
            self._leases.forget(ttl)
            lease = await self._leases.lease(ttl)
            return await self._transact(key, raw, "=", revision, messages.put(raw, value, lease), value)

    async def _transact(
        self,
        key: str,
        raw: bytes,
        comparison: Literal["=", ">"],
        revision: int,
        operation: bytes,
        value: bytes,
    ) -> tuple[Entry | None, Entry | None]:
        """Do `operation` if the key's revision in etcd compares so: what was written, None where nothing was done, and
        then what is there."""
        self._check_open()
        task = asyncio.current_task()
        assert task is not None
        pending = Pending(key, value)
        self._writing.add(task)
        self._follower.expect(pending)
        try:
            request = messages.txn_if_revision(raw, comparison, revision, (operation,))
            answer = messages.txn_answer(await self._members.call("KV/Txn", request, again=False))
            if answer.succeeded:
                return await self._follower.written(pending, answer.revision), None
            # Whoever was refused can read why.
            await self._follower.until_seen(answer.revision)
            return None, entry_of(answer.present) if answer.present else None
        finally:
            self._follower.forget(pending)
            self._writing.discard(task)

    async def _ask(self, before: asyncio.Task[int] | None) -> int:
        if before is not None and not before.done():
            await asyncio.wait((before,))
        self._asking, self._next_asking = self._next_asking, None
        request = messages.range_request(b"\0", count_only=True)
        return messages.range_answer(await self._members.call("KV/Range", request)).revision

    async def _history(self, prefix: str, after: int, upto: int) -> Sequence[Change]:
        self._check_open()
        return await self._follower.history(prefix, after, upto)
