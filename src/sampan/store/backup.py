"""Backups: every key at one revision, in a file of its own; and putting them into a store.

The file is a SQLite database with a checksum for each value. It holds values as they are in the store (sealed, where they
are sealed there), so that it is to be kept as safe as the store itself.

What is put into a store gets new revisions, greater than every one that was given out before, and the history before them
is forgotten: whoever watched must start anew, and no old state can pass for a newer one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sampan.store import messages
from sampan.store.database import Database
from sampan.store.etcd import EtcdStore
from sampan.store.members import Members
from sampan.store.types import Entry, Event, Page, Store, StoreDamaged, StoreError
from sampan.store.writes import Change

_APPLICATION_ID = 0x53414D42  # "SAMB"
_FORMAT = 1
_ROWS = 500
_WRITERS = 64
_BUMP = b"sampan_revision"
"""A key outside /registry that is written until etcd's revision is high enough."""
_SCHEMA = f"""
CREATE TABLE about (revision INTEGER NOT NULL, entries INTEGER NOT NULL);
CREATE TABLE entry (
    key TEXT PRIMARY KEY, revision INTEGER NOT NULL, created INTEGER NOT NULL, checksum INTEGER NOT NULL, value BLOB NOT NULL
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT};
"""
_ROOT = "/"


@dataclass(frozen=True, slots=True)
class Backup:
    """All keys of a store at `revision`."""

    revision: int
    entries: Sequence[Entry]


async def take(store: Store) -> Backup:
    """The store as it is now, all of one revision."""
    page: Page = await store.list(_ROOT)
    return Backup(page.revision, page.entries)


def save(backup: Backup, path: Path) -> None:
    """Write a backup's file (0600), whole or not at all. Raises StoreError. Blocks."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")
            connection.executescript(_SCHEMA)
            connection.execute("BEGIN")
            connection.execute("INSERT INTO about VALUES (?, ?)", (backup.revision, len(backup.entries)))
            connection.executemany(
                "INSERT INTO entry VALUES (?, ?, ?, ?, ?)",
                ((e.key, e.revision, e.created, zlib.crc32(e.value), e.value) for e in backup.entries),
            )
            connection.execute("COMMIT")
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except (OSError, sqlite3.Error) as e:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"the backup {path} cannot be written: {_words(e)}") from e


def load(path: Path) -> Backup:
    """Read a backup's file, every value of which is checked. Raises StoreDamaged, StoreError. Blocks."""
    if not path.is_file():
        raise StoreError(f"there is no backup {path}")
    entries: list[Entry] = []
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if owner != _APPLICATION_ID or version != _FORMAT:
                raise StoreDamaged(f"{path} is no backup of this version")
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise StoreDamaged(f"the backup {path} is damaged: {problem}")
            revision, count = connection.execute("SELECT revision, entries FROM about").fetchone()
            for key, written, created, checksum, value in connection.execute(
                "SELECT * FROM entry ORDER BY key"
            ):
                if zlib.crc32(value) != checksum:
                    raise StoreDamaged(
                        f"the backup {path} is damaged: the value of {key} is not what was written"
                    )
                entries.append(Entry(key, value, written, created))
    except (sqlite3.Error, TypeError) as e:
        raise StoreDamaged(f"the backup {path} is damaged: {e}") from e
    if len(entries) != count:
        raise StoreDamaged(f"the backup {path} is damaged: {len(entries)} values are left of {count}")
    return Backup(revision, entries)


def write_sqlite(path: Path, entries: Sequence[Entry], after: int) -> int:
    """Make a store file with these entries, at revisions greater than `after`; returns the last. Raises StoreError where
    the file is there already. Blocks."""
    if path.exists():
        raise StoreError(f"{path} is there already")
    revision = after
    database = Database(path, keep=len(entries) + 1)
    try:
        for start in range(0, len(entries), _ROWS):
            changes = []
            for entry in entries[start : start + _ROWS]:
                revision += 1
                changes.append(
                    Change(Event(False, Entry(entry.key, entry.value, revision, revision), None), None)
                )
            database.append(changes)
        database.compact(revision)
    finally:
        database.close()
    return revision


async def write_etcd(
    store: EtcdStore,
    members: Members,
    entries: Sequence[Entry],
    after: int,
    ttl_of: Callable[[str], int],
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """Make an etcd hold these entries and no others below `/`, at revisions greater than `after`; returns the last.
    `ttl_of` says for how many seconds a key is needed (0: for ever). Raises StoreError; what it has done until then stays."""
    await _raise_revision(members, after, say)
    await store.catch_up()
    wanted = {e.key for e in entries}
    present = {e.key for e in (await store.list(_ROOT)).entries}

    async def put(entry: Entry) -> None:
        ttl = ttl_of(entry.key)
        before = await store.get(entry.key)
        if before is None:
            await store.create(entry.key, entry.value, ttl=ttl)
        else:
            await store.update(entry.key, entry.value, before.revision, ttl=ttl)

    await _all([partial(put, entry) for entry in entries])
    await _all([partial(store.delete, key) for key in sorted(present - wanted)])
    revision = await store.catch_up()
    await store.compact(revision)
    return revision


async def _raise_revision(members: Members, after: int, say: Callable[[str], None]) -> None:
    """Write until etcd's revision is `after` at least: it counts its writes, and can be told no number."""
    answer = messages.range_answer(
        await members.call("KV/Range", messages.range_request(b"\0", count_only=True))
    )
    missing = after - answer.revision
    if missing <= 0:
        return
    if missing > 20_000:
        say(f"raising etcd's revision from {answer.revision} to {after}: {missing} writes")

    async def write() -> None:
        await members.call("KV/Txn", messages.txn([messages.put(_BUMP, b"")]))

    await _all([write] * missing)
    await members.call("KV/Txn", messages.txn([messages.delete(_BUMP)]))


async def _all(works: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Do all, some at a time."""
    left = iter(works)

    async def worker() -> None:
        for work in left:
            await work()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_WRITERS, len(works))):
                group.create_task(worker())
    except ExceptionGroup as e:
        raise e.exceptions[0] from None


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
