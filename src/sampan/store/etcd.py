"""The driver for etcd 3.4 and later: writes are transactions on a key's revision, reads come from a view fed by a watch.

One watch over all keys feeds the view in memory; it answers `get`, `list` and `count` of newest values without a round
trip. A write is acknowledged only when the watch has brought its revision, so that whoever reads from this store after
an acknowledged write through it sees it. Of writes through other processes a read may be late by the time an event
takes; a reader who needs them awaits `catch_up` first, after which reads are linearizable.

An empty etcd is at revision 1 and the contract's empty store at 0: revisions here are etcd's less one. The view counts
on one key a revision, and refuses an etcd in which others write in larger transactions.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from sampan.store.gateway import Gateway, OutOfRange, Tls, decode, encode
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
"""Seconds that a request, or a write's way back through the watch, may take."""
_OFFSET = 1
"""etcd's revision less ours."""
_PAGE = 500
_ALL = {"key": encode(b"\0"), "range_end": encode(b"\0")}
_RETRY_FIRST, _RETRY_MOST = 0.05, 1.0


async def open_store(
    endpoints: Sequence[str], *, tls: Tls | None = None, timeout: float = TIMEOUT
) -> EtcdStore:
    """Open the store kept by the etcd at `endpoints` (`http://host:port` or `https://`), members of one cluster.

    Raises StoreError where none answers, naming each.
    """
    store = EtcdStore(Gateway(endpoints, tls, timeout), timeout)
    try:
        await store._start()
    except BaseException:
        await store.close()
        raise
    return store


class EtcdStore:
    """A `Store` in etcd; made by `open_store`. All methods belong to the thread of the loop that opened it.

    A write whose connection breaks raises StoreError saying that it may have taken effect; it is never sent twice.
    """

    def __init__(self, gateway: Gateway, timeout: float) -> None:
        self._gateway = gateway
        self._timeout = timeout
        self._view = View(self._history, {}, 0, 0)
        self._cluster = ""
        self._refusal: StoreError | None = None
        """Why everything is refused from now on: closed, or history lost under the watch."""
        self._seen: list[tuple[int, asyncio.Future[None]]] = []
        """Who waits for the watch to bring a revision."""
        self._writing: set[asyncio.Task[Any]] = set()
        self._follower: asyncio.Task[None] | None = None
        self._stopped: asyncio.Future[None] | None = None

    async def create(self, key: str, value: bytes) -> Entry:
        put = {"request_put": {"key": encode(key), "value": encode(value)}}
        revision, _, present = await self._transact(key, "EQUAL", 0, put)
        if present is not None:
            raise KeyExists(present)
        return Entry(key, value, revision, revision)

    async def update(self, key: str, value: bytes, expected: int) -> Entry:
        put = {"request_put": {"key": encode(key), "value": encode(value), "prev_kv": True}}
        revision, before, present = await self._transact(key, "EQUAL", max(expected, 0) + _OFFSET, put)
        if before is None:
            raise Conflict(key, present)
        return Entry(key, value, revision, before.created)

    async def delete(self, key: str, expected: int | None = None) -> Entry:
        remove = {"request_delete_range": {"key": encode(key), "prev_kv": True}}
        compare = ("GREATER", 0) if expected is None else ("EQUAL", max(expected, 0) + _OFFSET)
        revision, before, present = await self._transact(key, *compare, remove)
        if before is None:
            raise Conflict(key, present)
        return Entry(key, before.value, revision, before.created)

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

    async def catch_up(self) -> int:
        """Ask etcd (a quorum read) for its revision, wait until it can be read here, and return it. Raises StoreError."""
        self._check_open()
        revision = _revision(await self._gateway.call("kv/range", {**_ALL, "count_only": True}))
        await self._until_seen(revision)
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
            await self._gateway.call("kv/compaction", {"revision": str(revision + _OFFSET)})
        except OutOfRange:  # another server was first
            revision = await self._find_oldest()
        self._view.oldest = max(self._view.oldest, revision)

    async def close(self) -> None:
        """As the contract says; waits for the writes under way. May be called again."""
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
            self._refusal = self._refusal or StoreError(
                f"the store in etcd at {self._gateway.endpoints} is closed"
            )
            self._view.close()
            try:
                if self._writing:
                    await asyncio.wait(tuple(self._writing))
                if self._follower is not None:
                    self._follower.cancel()
                    await asyncio.wait((self._follower,))
                self._fail_waiting(self._refusal)
                await self._gateway.close()
            finally:
                self._stopped.set_result(None)
        await asyncio.shield(self._stopped)

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    async def _start(self) -> None:
        """Read all keys at one revision, and follow from there."""
        request: dict[str, Any] = {**_ALL, "limit": str(_PAGE)}
        entries: dict[str, Entry] = {}
        revision = 0
        while True:
            answer = await self._gateway.call("kv/range", request)
            if not revision:
                self._cluster, revision = answer["header"]["cluster_id"], _revision(answer)
                request["revision"] = str(revision + _OFFSET)
            found = [_entry(kv) for kv in answer.get("kvs", ())]
            entries.update((e.key, e) for e in found)
            if not answer.get("more"):
                break
            request["key"] = encode(found[-1].key + "\0")
        self._view = View(self._history, entries, revision, await self._find_oldest())
        self._follower = asyncio.create_task(self._follow(), name="etcd watch")

    async def _find_oldest(self) -> int:
        """The oldest revision that can be read; 0 where none was ever forgotten."""
        try:
            await self._gateway.call("kv/range", {"key": encode(b"\0"), "revision": "1"})
        except OutOfRange:
            # Only a watch tells the number.
            try:
                async with aclosing(self._changes(0)) as batches:
                    async for _ in batches:
                        pass
            except Compacted as e:
                return e.oldest
        return 0

    async def _transact(
        self, key: str, result: str, mod_revision: int, operation: dict[str, Any]
    ) -> tuple[int, Entry | None, Entry | None]:
        """Do `operation` if the key's revision in etcd compares so: the revision, what was there before (where asked
        for), and what is there now where nothing was done."""
        self._check_open()
        task = asyncio.current_task()
        assert task is not None
        body = {
            "compare": [
                {"key": encode(key), "target": "MOD", "result": result, "mod_revision": str(mod_revision)}
            ],
            "success": [operation],
            "failure": [{"request_range": {"key": encode(key)}}],
        }
        self._writing.add(task)
        try:
            answer = await self._gateway.call("kv/txn", body, again=False)
            revision = _revision(answer)
            await self._until_seen(revision)
        finally:
            self._writing.discard(task)
        (response,) = answer["responses"]
        if not answer.get("succeeded"):
            present = response["response_range"].get("kvs")
            return revision, None, _entry(present[0]) if present else None
        if "response_put" in response:
            before = response["response_put"].get("prev_kv")
        else:
            before = response["response_delete_range"]["prev_kvs"][0]
        return revision, _entry(before) if before else None, None

    async def _until_seen(self, revision: int) -> None:
        if self._view.revision >= revision:
            return
        seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._seen.append((revision, seen))
        try:
            async with asyncio.timeout(self._timeout):
                await seen
        except TimeoutError as e:
            raise StoreError(
                f"the watch of etcd at {self._gateway.endpoints} is behind revision {revision}"
            ) from e

    async def _follow(self) -> None:
        """Feed the view until closed, over as many connections as it takes."""
        wait = _RETRY_FIRST
        while True:
            try:
                async with aclosing(self._changes(self._view.revision)) as batches:
                    async for changes in batches:
                        wait = _RETRY_FIRST
                        self._apply(changes)
            except (Compacted, StoreDamaged) as e:
                self._give_up(e)
                return
            except StoreError as e:
                log.warning("%s; taking it up after revision %d", e, self._view.revision)
            except Exception as e:
                log.exception("the follower of etcd failed")
                self._give_up(StoreDamaged(f"the follower of etcd failed ({e!r}); start again"))
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, _RETRY_MOST)
            try:
                answer = await self._gateway.call("kv/range", {**_ALL, "count_only": True})
            except StoreError:
                continue
            if answer["header"]["cluster_id"] != self._cluster or _revision(answer) < self._view.revision:
                self._give_up(
                    StoreDamaged(f"the etcd at {self._gateway.endpoints} is another, or went back in time")
                )
                return

    def _apply(self, changes: Sequence[Change]) -> None:
        view = self._view
        for position, change in enumerate(changes, view.revision + 1):
            if change.event.entry.revision != position:
                raise StoreDamaged(
                    f"etcd's revision {change.event.entry.revision + _OFFSET} came where {position + _OFFSET} was due: "
                    "another program writes several keys in one transaction; give Sampan an etcd of its own"
                )
        view.apply(changes)
        waiting, self._seen = self._seen, []
        for revision, seen in waiting:
            if revision > view.revision:
                self._seen.append((revision, seen))
            elif not seen.done():
                seen.set_result(None)

    def _give_up(self, error: StoreError) -> None:
        log.error("the store in etcd cannot go on: %s", error)
        self._refusal = self._refusal or error
        self._view.close()
        self._fail_waiting(error)

    def _fail_waiting(self, error: StoreError) -> None:
        waiting, self._seen = self._seen, []
        for _, seen in waiting:
            if not seen.done():
                seen.set_exception(error)

    async def _changes(self, after: int) -> AsyncGenerator[Sequence[Change], None]:
        """Every change after a revision, in batches, for ever. Raises Compacted, and StoreError on a lost connection."""
        request = {**_ALL, "start_revision": str(after + 1 + _OFFSET), "prev_kv": True, "fragment": True}
        async with aclosing(self._gateway.stream("watch", {"create_request": request})) as stream:
            async for results in stream:
                changes: builtins.list[Change] = []
                for result in results:
                    if result.get("canceled"):
                        if oldest := int(result.get("compact_revision", 0)):
                            self._view.oldest = max(self._view.oldest, oldest - _OFFSET)
                            raise Compacted(oldest - _OFFSET)
                        raise StoreError(
                            f"etcd ended the watch: {result.get('cancel_reason') or 'no reason given'}"
                        )
                    changes += [_change(event) for event in result.get("events", ())]
                if changes:
                    yield changes

    async def _history(self, prefix: str, after: int, upto: int) -> Sequence[Change]:
        self._check_open()
        if after < self._view.oldest:
            raise Compacted(self._view.oldest)
        found: builtins.list[Change] = []
        async with asyncio.timeout(self._timeout), aclosing(self._changes(after)) as batches:
            async for changes in batches:
                # Every revision has its change, so that the last one wanted is sure to come.
                for change in changes:
                    if change.event.entry.revision > upto:
                        return found
                    if change.event.entry.key.startswith(prefix):
                        found.append(change)
                if changes[-1].event.entry.revision >= upto:
                    break
        return found


def _revision(answer: dict[str, Any]) -> int:
    return int(answer["header"]["revision"]) - _OFFSET


def _entry(kv: dict[str, Any]) -> Entry:
    return Entry(
        decode(kv["key"]).decode(),
        decode(kv.get("value", "")),
        int(kv["mod_revision"]) - _OFFSET,
        int(kv["create_revision"]) - _OFFSET,
    )


def _change(event: dict[str, Any]) -> Change:
    kv = event["kv"]
    before = _entry(event["prev_kv"]) if "prev_kv" in event else None
    if event.get("type") == "DELETE":
        if before is None:
            raise StoreDamaged("etcd tells of a delete without the value before")
        entry = Entry(before.key, before.value, int(kv["mod_revision"]) - _OFFSET, before.created)
        return Change(Event(True, entry, before.value), before)
    return Change(Event(False, _entry(kv), before.value if before else None), before)
