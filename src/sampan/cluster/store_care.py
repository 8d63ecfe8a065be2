"""The store of a cluster as its keeper sees it: back it up, put a backup in its place, move it to another store, look for
damage.

A backup can be taken while the cluster runs. A SQLite file is then in its control plane's hands, which writes the backup
(`BackupSocket`); an etcd is asked directly. Whatever changes the store, or reads its file, needs the cluster stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.cluster import etcd_process, link, pki, storage
from sampan.cluster.config import ClusterConfig
from sampan.cluster.errors import ClusterError
from sampan.cluster.wishes import Wishes, with_store

if TYPE_CHECKING:
    from sampan.store.backup import Backup
    from sampan.store.types import Store

log = logging.getLogger(__name__)
Say = Callable[[str], None]
_AHEAD = 10_000
"""By how much revisions jump over what a store that is lost may have given out after the backup. No more than that, for an
etcd must be written to so many times."""
_SOCKET = "store.sock"


def backup(config: ClusterConfig, path: Path) -> tuple[int, int]:
    """Write a backup of a cluster that runs or not: (revision, number of entries). Raises ClusterError, StoreError."""
    from sampan.store import backup as backups

    path = path.absolute()
    if not path.parent.is_dir():
        raise ClusterError(f"{path}: the directory {path.parent} is not there")
    if config.store == storage.SQLITE and link.answers(config.run_directory):
        return _ask_for_backup(config, path)

    async def take() -> backups.Backup:
        async with _opened(config) as store:
            return await backups.take(store)

    taken = asyncio.run(take())
    backups.save(taken, path)
    return taken.revision, len(taken.entries)


def restore(config: ClusterConfig, path: Path, say: Say) -> tuple[int, int]:
    """Put a backup in the place of a stopped cluster's store: (the first revision from then on, number of entries). The
    SQLite file of before stays beside it. Raises ClusterError, StoreError; a backup that is damaged changes nothing."""
    from sampan.store import backup as backups

    _must_be_stopped(config)
    taken = backups.load(path)
    if config.store == storage.SQLITE:
        store = config.directory / "store"
        present = _revision_of(store)
        after = max(taken.revision + _AHEAD if present is None else taken.revision, present or 0)
        revision = _replace_sqlite(store, taken, after, "before-restore", say)
    else:
        revision = asyncio.run(_fill(config, taken, say))
    return revision, len(taken.entries)


def migrate(config: ClusterConfig, wishes: Wishes, say: Say) -> ClusterConfig:
    """Move a stopped cluster's objects to another, empty store, and have the cluster use it: its new configuration. What was
    in the old store stays there. Raises ClusterError, StoreError."""
    from sampan.store import backup as backups

    _must_be_stopped(config)
    target = with_store(config, wishes)
    if target.store == config.store:
        raise ClusterError(f"cluster {config.name} is on {config.store} already")
    if target.apiservers > 1 and target.store == storage.SQLITE:
        raise ClusterError(f"{target.apiservers} API servers cannot share a SQLite file")

    async def take() -> backups.Backup:
        async with _opened(config) as store:
            return await backups.take(store)

    taken = asyncio.run(take())
    say(f"{len(taken.entries)} objects at revision {taken.revision}")
    pki.ensure(target)
    if target.store == storage.SQLITE:
        _replace_sqlite(target.directory / "store", taken, taken.revision, "before-migration", say)
    else:
        if target.store == storage.ETCD:
            _set_aside(target.directory / "etcd", "before-migration", say)
        asyncio.run(_fill(target, taken, say, moving=True))
    target.save()
    return target


def check(config: ClusterConfig) -> list[str]:
    """Everything that is wrong with a cluster's store, one line each. Raises ClusterError, StoreError."""
    from sampan.apiserver import integrity
    from sampan.store import backup as backups
    from sampan.store import check as checks

    if config.store == storage.SQLITE:
        _must_be_stopped(config)
        problems, entries = checks.check_sqlite(config.directory / "store")
        return problems + integrity.problems(entries)

    async def look() -> list[str]:
        async with _etcd(config):
            endpoints, tls = storage.reach(config)
            found = await checks.check_members(endpoints, tls)
            async with _opened(config, started=True) as store:
                return found + integrity.problems((await backups.take(store)).entries)

    return asyncio.run(look())


# ---- stores


def _must_be_stopped(config: ClusterConfig) -> None:
    if link.answers(config.run_directory):
        raise ClusterError(f"cluster {config.name} runs: `sampan stop --name {config.name}` first")


@asynccontextmanager
async def _opened(config: ClusterConfig, *, started: bool = False) -> AsyncIterator[Store]:
    """A cluster's store; an etcd of its own is started for as long as it takes if it does not run."""
    async with contextlib.AsyncExitStack() as stack:
        if not started:
            await stack.enter_async_context(_etcd(config))
        store = await storage.open_store(config)
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def _etcd(config: ClusterConfig) -> AsyncIterator[None]:
    import tempfile

    if config.store != storage.ETCD or link.answers(config.run_directory):
        yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="sampan-etcd-") as directory,
        open(Path(directory, "log"), "wb") as said,
    ):
        process = await asyncio.create_subprocess_exec(
            etcd_process.program(),
            *etcd_process.command(config),
            cwd=directory,
            env=etcd_process.environment(),
            stdout=said,
            stderr=said,
        )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _fill(config: ClusterConfig, taken: Backup, say: Say, *, moving: bool = False) -> int:
    """Make the cluster's etcd hold what a backup has; `moving`: it must be empty, and the backup is the last word."""
    from sampan.api.resources import EVENTS
    from sampan.apiserver import expiry
    from sampan.apiserver.records import prefix_of
    from sampan.store import backup as backups
    from sampan.store.etcd import EtcdStore
    from sampan.store.members import Members

    events = prefix_of(EVENTS.storage_path)

    def ttl_of(key: str) -> int:
        return expiry.ttl(EVENTS) if key.startswith(events) else 0

    async with _opened(config) as store:
        assert isinstance(store, EtcdStore)
        if moving and (count := await store.count("/")):
            raise ClusterError(f"the etcd at {config.store} is not empty: {count} keys are in it")
        # An etcd that is further on never went back; one that is not has lost what it once had.
        lost = not moving and store.revision() < taken.revision
        after = taken.revision + (_AHEAD if lost else 0)
        endpoints, tls = storage.reach(config)
        members = Members(endpoints, tls, 10.0)
        try:
            return await backups.write_etcd(store, members, taken.entries, after, ttl_of, say)
        finally:
            await members.close()


def _replace_sqlite(store: Path, taken: Backup, after: int, reason: str, say: Say) -> int:
    from sampan.store import backup as backups

    fresh = store.with_name("store.fresh")
    for ending in ("", "-wal", "-shm", ".lock"):
        Path(f"{fresh}{ending}").unlink(missing_ok=True)
    revision = backups.write_sqlite(fresh, taken.entries, after)
    _set_aside(store, reason, say)
    fresh.rename(store)
    Path(f"{fresh}.lock").unlink(missing_ok=True)
    return revision


def _set_aside(path: Path, reason: str, say: Say) -> None:
    """Give what is there another name; what had that name is removed."""
    import shutil

    if not path.exists():
        return
    aside = path.with_name(f"{path.name}.{reason}")
    if aside.is_dir():
        shutil.rmtree(aside)
    for ending in ("-wal", "-shm", ""):
        old, new = Path(f"{path}{ending}"), Path(f"{aside}{ending}")
        new.unlink(missing_ok=True)
        if old.exists():
            old.rename(new)
    say(f"what was there is kept as {aside}")


def _revision_of(store: Path) -> int | None:
    """The last revision of a store file; None where it cannot be read."""
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            last = connection.execute("SELECT max(revision) FROM log").fetchone()[0] or 0
            oldest = connection.execute("SELECT oldest FROM kept").fetchone()[0]
    except (sqlite3.Error, TypeError):
        return None
    return int(max(last, oldest))


# ---- a backup of a SQLite file in use


class BackupSocket:
    """In the control plane: writes backups for whoever may open its socket, which is root."""

    def __init__(self, config: ClusterConfig, store: Store) -> None:
        self._path = config.run_directory / _SOCKET
        self._store = store

    async def run(self) -> None:
        """Until cancelled."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._serve, self._path)
        finally:
            os.umask(before)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from sampan.store import backup as backups
        from sampan.store.types import StoreError

        try:
            asked = json.loads(await reader.readline())
            taken = await backups.take(self._store)
            await asyncio.to_thread(backups.save, taken, Path(asked["backup"]))
            answer: dict[str, object] = {"revision": taken.revision, "entries": len(taken.entries)}
        except (StoreError, ValueError, KeyError, TypeError) as e:
            answer = {"error": str(e)}
        try:
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except OSError as e:
            log.info("whoever asked for a backup is gone: %s", e)
        finally:
            writer.close()


def _ask_for_backup(config: ClusterConfig, path: Path) -> tuple[int, int]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(str(config.run_directory / _SOCKET))
            sock.sendall(json.dumps({"backup": str(path)}).encode() + b"\n")
            line = sock.makefile("rb").readline()
        except OSError as e:
            raise ClusterError(f"the control plane of {config.name} does not answer: {e.strerror}") from e
    if not line:
        raise ClusterError(f"the control plane of {config.name} ended while it wrote the backup")
    answer = json.loads(line)
    if "error" in answer:
        raise ClusterError(answer["error"])
    return answer["revision"], answer["entries"]
