"""The embedded driver: a SQLite file, one writer thread, group commit.

The loop gathers writes while the thread commits the batch before; what waits together shares one fsync. The thread
decides and writes a batch, then hands it back with one wake-up of the loop, which updates the view in memory, tells
subscribers and watches, and only then answers the writers. One batch is under way at a time, so that the thread may
read the view's entries: the loop changes them only between batches.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from sampan.store.database import Database
from sampan.store.types import Entry, Event, FutureRevision, Page, StoreDamaged, StoreError, StoreFull, Watch
from sampan.store.view import View
from sampan.store.writes import Change, Write, decide

log = logging.getLogger(__name__)

T = TypeVar("T")
KEEP_HISTORY = 10_000
"""Revisions of history that automatic compaction leaves unless told otherwise."""
_BATCH = 512
"""Most writes in one transaction: bounds how long a write waits for others."""


async def open_store(path: str | Path, *, keep_history: int = KEEP_HISTORY) -> SqliteStore:
    """Open the store file `path`, made with its directory (mode 0700) where missing.

    Raises StoreLocked, StoreDamaged, StoreFull, and StoreError where the file cannot be made or written.
    """
    store = SqliteStore(Path(path), keep_history)
    await store._start()
    return store


class SqliteStore:
    """A `Store` on one file; made by `open_store`. All methods belong to the thread of the loop that opened it."""

    shared = False
    self_keeping = False

    def __init__(self, path: Path, keep_history: int) -> None:
        self._path = path
        self._keep = keep_history
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._database: Database
        self._view: View
        self._pending: list[Write] = []
        self._busy = False
        self._flush_due = False
        self._refusal: StoreError | None = None
        """Why writes are refused from now on: closed, or damaged."""
        self._stopped = asyncio.Event()

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
        await self._in_thread(self._database.compact, revision)
        self._view.oldest = max(self._view.oldest, revision)

    def trouble(self) -> str:
        return str(self._refusal) if self._refusal is not None else ""

    async def failed(self) -> None:
        await self._loop.create_future()  # a damaged file refuses writes and goes on being read

    async def close(self) -> None:
        """As the contract says; waits for the writes under way. May be called again."""
        if not self._closing:
            self._flush()
            self._refusal = StoreError(f"the store {self._path} is closed")
            self._view.close()
            if not self._busy:
                self._jobs.put(None)
        await self._stopped.wait()

    @property
    def _closing(self) -> bool:
        return self._refusal is not None and not isinstance(self._refusal, StoreDamaged)

    def _check_open(self) -> None:
        if self._closing and self._refusal is not None:
            raise self._refusal

    async def _start(self) -> None:
        self._thread.start()
        try:
            await self._in_thread(self._open)
        except BaseException:
            self._jobs.put(None)
            raise
        database = self._database
        self._view = View(self._history, database.newest, database.revision, database.oldest)

    def _open(self) -> None:
        """In the thread."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = Database(self._path, self._keep)
        except OSError as e:
            raise StoreError(f"{self._path} cannot be opened: {e.strerror or e}") from e

    def _write(
        self, verb: Literal["create", "update", "delete"], key: str, value: bytes, expected: int | None
    ) -> asyncio.Future[Entry]:
        if self._refusal is not None:
            raise self._refusal
        write = Write(verb, key, value, expected, self._loop.create_future())
        self._pending.append(write)
        if not self._busy and not self._flush_due:
            # Not at once: whoever else runs in this turn of the loop may have something to write too.
            self._flush_due = True
            self._loop.call_soon(self._flush)
        return write.done

    def _flush(self) -> None:
        self._flush_due = False
        if self._busy or not self._pending:
            return
        batch, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
        self._busy = True
        self._jobs.put(partial(self._commit, batch))

    def _commit(self, batch: builtins.list[Write]) -> None:
        """In the thread: decide a batch and make it durable."""
        changes: builtins.list[Change] = []
        failure: StoreError | None = None
        try:
            changes = decide(batch, self._view.entries, self._view.revision)
            if changes:
                self._database.append(changes)
        except StoreError as e:
            failure = e
        except Exception as e:  # whatever it is: those who wait must be told, and no further write trusted
            log.exception("the store's writer failed")
            failure = StoreDamaged(f"the writer of {self._path} failed ({e!r}); start again")
        self._loop.call_soon_threadsafe(self._committed, batch, changes, self._database.oldest, failure)

    def _committed(
        self,
        batch: builtins.list[Write],
        changes: builtins.list[Change],
        oldest: int,
        failure: StoreError | None,
    ) -> None:
        self._busy = False
        if failure is None:
            self._view.oldest = max(self._view.oldest, oldest)
            self._view.apply(changes)
        elif not isinstance(failure, StoreFull) and self._refusal is None:
            # What the failed commit left on disk is unknown until the file is read anew.
            self._refusal = failure
        for write in batch:
            write.resolve(failure)
        if isinstance(self._refusal, StoreDamaged):
            for write in self._pending:
                write.resolve(self._refusal)
            self._pending = []
        if self._closing:
            self._flush()
            if not self._busy:
                self._jobs.put(None)
        elif self._pending and not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)  # after those who have just been answered, and may write again

    async def _history(self, prefix: str, after: int, upto: int) -> Sequence[Change]:
        return await self._in_thread(self._database.history, prefix, after, upto)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        self._check_open()
        done: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            try:
                result = function(*arguments)
            except BaseException as e:
                self._loop.call_soon_threadsafe(_fail, done, e)
            else:
                self._loop.call_soon_threadsafe(_succeed, done, result)

        self._jobs.put(job)
        return await done

    def _work(self) -> None:
        """The thread: jobs in order until None."""
        while (job := self._jobs.get()) is not None:
            job()
        try:
            if hasattr(self, "_database"):
                self._database.close()
        except Exception as e:  # all is durable already; who waits for the end must not wait for ever
            log.warning("closing %s: %s", self._path, e)
        with contextlib.suppress(RuntimeError):  # the loop may be gone, and with it everyone who could wait
            self._loop.call_soon_threadsafe(self._stopped.set)


def _succeed(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
