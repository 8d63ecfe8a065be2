"""The SQLite file: one append-only log of writes, of which each key's last row is its newest value.

Every method blocks and belongs to the one thread that opened the file. The connection holds the file alone
(`locking_mode=EXCLUSIVE`: no shared memory, fewer system calls), and a flock beside it tells other processes so at
once. A row is one revision; `previous` is the revision it replaces, so that history needs no second index.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sampan.store.types import Compacted, Entry, Event, StoreDamaged, StoreError, StoreFull, StoreLocked
from sampan.store.writes import Change

_APPLICATION_ID = 0x53414D50  # "SAMP"
_FORMAT = 2
"""Of the file, and of what its keys mean: 1 had objects under other keys."""
_ROWS = 32
"""Most rows in one INSERT. One statement for a batch, for every call into SQLite gives up the interpreter lock."""
_COMPACT_STRIDE = 500
"""How many revisions are forgotten at once, inside a transaction that is being written anyway."""
_CHECKPOINT_PAGES = 2000

_SCHEMA = f"""
BEGIN;
CREATE TABLE log (
    revision INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    created INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    value BLOB
);
CREATE TABLE kept (oldest INTEGER NOT NULL);
INSERT INTO kept VALUES (0);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT};
COMMIT;
"""
_INSERT = "INSERT INTO log (revision, key, created, previous, deleted, checksum, value) VALUES "
_NEWEST = """
SELECT revision, key, created, checksum, value FROM log
WHERE deleted = 0 AND revision NOT IN (SELECT previous FROM log)
"""
_HISTORY = """
SELECT l.revision, l.key, l.created, l.deleted, l.checksum, l.value, p.revision, p.created, p.checksum, p.value
FROM log l LEFT JOIN log p ON p.revision = l.previous
WHERE l.revision > ? AND l.revision <= ? AND l.key >= ? AND l.key < ?
ORDER BY l.revision
"""
_FORGET_REPLACED = """
DELETE FROM log WHERE revision IN
    (SELECT previous FROM log WHERE revision > ? AND revision <= ? AND previous > 0)
"""
_FORGET_DELETED = "DELETE FROM log WHERE revision > ? AND revision <= ? AND deleted = 1"


class Database:
    """An open store file. `keep` is how many revisions of history automatic compaction leaves at least."""

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep
        self._lock = _lock(path)
        try:
            self._connection = self._open()
            self.oldest, self.revision, self.newest = self._load()
        except BaseException:
            os.close(self._lock)
            raise

    def append(self, changes: Sequence[Change]) -> None:
        """Make changes durable, all or none. Raises StoreFull (no effect) or StoreDamaged."""
        forget = self.revision + len(changes) - self._keep - self.oldest >= _COMPACT_STRIDE
        try:
            if len(changes) <= _ROWS and not forget:
                self._insert(changes)  # autocommit: the statement is the transaction
            else:
                self._connection.execute("BEGIN IMMEDIATE")
                for i in range(0, len(changes), _ROWS):
                    self._insert(changes[i : i + _ROWS])
                upto = self.oldest + _COMPACT_STRIDE
                if forget:
                    self._forget(upto)
                self._connection.execute("COMMIT")
                if forget:
                    self.oldest = upto
        except sqlite3.Error as e:
            self._give_up(e)
        self.revision = changes[-1].event.entry.revision

    def history(self, prefix: str, after: int, upto: int) -> list[Change]:
        """The changes under `prefix` with `after` < revision <= `upto`. Raises Compacted."""
        if after < self.oldest:
            raise Compacted(self.oldest)
        try:
            rows = self._connection.execute(_HISTORY, (after, upto, prefix, prefix + "\U0010ffff")).fetchall()
        except sqlite3.Error as e:
            self._give_up(e)
        return [self._change(*row) for row in rows]

    def compact(self, revision: int) -> None:
        """Forget history before `revision`."""
        try:
            while self.oldest < revision:
                upto = min(self.oldest + 20 * _COMPACT_STRIDE, revision)
                self._connection.execute("BEGIN IMMEDIATE")
                self._forget(upto)
                self._connection.execute("COMMIT")
                self.oldest = upto
        except sqlite3.Error as e:
            self._give_up(e)

    def close(self) -> None:
        try:
            self._connection.close()
        finally:
            os.close(self._lock)

    def _insert(self, changes: Sequence[Change]) -> None:
        values: list[object] = []
        for event, before in changes:
            entry = event.entry
            previous = before.revision if before else 0
            if event.deleted:
                values += (entry.revision, entry.key, entry.created, previous, 1, 0, None)
            else:
                checksum = zlib.crc32(entry.value)
                values += (entry.revision, entry.key, entry.created, previous, 0, checksum, entry.value)
        self._connection.execute(_INSERT + ",".join(("(?,?,?,?,?,?,?)",) * len(changes)), values)

    def _forget(self, upto: int) -> None:
        self._connection.execute(_FORGET_REPLACED, (self.oldest, upto))
        self._connection.execute(_FORGET_DELETED, (self.oldest, upto))
        self._connection.execute("UPDATE kept SET oldest = ?", (upto,))

    def _open(self) -> sqlite3.Connection:
        # Values may be secrets; the write-ahead log takes its mode from this file.
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, cached_statements=2 * _ROWS)
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.execute("PRAGMA cache_size = -2048")
            if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                connection.executescript(_SCHEMA)
                _sync_directory(self._path.parent)
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as e:
            if connection is not None:
                connection.close()
            raise self._failure(e) from e
        if owner != _APPLICATION_ID or version != _FORMAT:
            connection.close()
            raise StoreDamaged(
                f"{self._path} is not a store of this version (application {owner:#x}, format {version}); "
                "use the version that wrote it, or move the file away to start with an empty store"
            )
        return connection

    def _load(self) -> tuple[int, int, dict[str, Entry]]:
        """(oldest, revision, newest values), every row of which is checked."""
        try:
            problem = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise self._damage(problem)
            oldest = self._connection.execute("SELECT oldest FROM kept").fetchone()[0]
            last = self._connection.execute("SELECT max(revision) FROM log").fetchone()[0] or 0
            newest: dict[str, Entry] = {}
            for revision, key, created, checksum, value in self._connection.execute(_NEWEST):
                if key in newest:
                    raise self._damage(f"two newest values of {key}")
                newest[key] = self._entry(key, value, revision, created, checksum)
        except sqlite3.Error as e:
            raise self._failure(e) from e
        # Compaction may have taken the row of the last revision, when that was a delete.
        return oldest, max(oldest, last), newest

    def _change(
        self,
        revision: int,
        key: str,
        created: int,
        deleted: int,
        checksum: int,
        value: bytes | None,
        before_revision: int | None,
        before_created: int,
        before_checksum: int,
        before_value: bytes | None,
    ) -> Change:
        before = None
        if before_revision is not None:
            before = self._entry(key, before_value, before_revision, before_created, before_checksum)
        if deleted:
            if before is None:
                raise self._damage(f"the value that revision {revision} deleted is missing")
            return Change(Event(True, Entry(key, before.value, revision, created), before.value), before)
        entry = self._entry(key, value, revision, created, checksum)
        return Change(Event(False, entry, before.value if before else None), before)

    def _entry(self, key: str, value: bytes | None, revision: int, created: int, checksum: int) -> Entry:
        if value is None or zlib.crc32(value) != checksum:
            raise self._damage(f"the value of {key} at revision {revision} is not what was written")
        return Entry(key, value, revision, created)

    def _damage(self, what: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self._path} is damaged: {what}; stop the cluster and restore the file (with its -wal file) from a "
            "copy, or move both away to start with an empty store"
        )

    def _failure(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(f"no space left for {self._path}; nothing was written")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreLocked(f"{self._path} is in use by another process")
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return StoreError(f"{self._path} cannot be opened for writing: {error}")
        if code == sqlite3.SQLITE_IOERR:
            name = getattr(error, "sqlite_errorname", "")
            return StoreDamaged(
                f"reading or writing {self._path} failed ({error}, {name}); check the disk, then start again: what "
                "was acknowledged before is kept"
            )
        return self._damage(str(error))

    def _give_up(self, error: sqlite3.Error) -> NoReturn:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the first failure is the one to tell
                self._connection.execute("ROLLBACK")
        raise self._failure(error) from error


def _lock(path: Path) -> int:
    """Take the lock file beside `path` for as long as the descriptor returned is open. Raises StoreLocked."""
    name = path.with_name(path.name + ".lock")
    descriptor = os.open(name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise StoreLocked(f"{path} is in use by process {holder or '(unknown)'}") from e
    os.ftruncate(descriptor, 0)
    os.write(descriptor, b"%d\n" % os.getpid())
    return descriptor


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
