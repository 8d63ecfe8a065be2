"""SIGKILL in the middle of 16 writers, again and again, on one file, and on one etcd that is killed with them.

The child says `start` of a write before it asks for it and `done` when it was acknowledged, through a pipe that
outlives it. Afterwards: every acknowledged write is there; no half of one is; revisions never repeat or go back.
`SAMPAN_SOAK=N` runs N rounds in place of the bounded share.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from sampan.store import etcd, sqlite
from sampan.store.types import Entry, Event, Store
from tests.store.real_etcd import Etcd

_ROUNDS = int(os.environ.get("SAMPAN_SOAK", "0")) or 25
pytestmark = pytest.mark.timeout(60 + 5 * _ROUNDS)

_CHILD = """
import asyncio, os, random, sys, zlib
from sampan.store import etcd, sqlite

async def open_store(where):
    if where.startswith("http"):
        return await etcd.open_store([where])
    return await sqlite.open_store(where, keep_history=3000)

def value(key):
    body = random.randbytes(random.choice((10, 500, 3000, 20000)))
    body = key.encode() + b" " + body
    return zlib.crc32(body).to_bytes(4, "big") + body

async def writer(store, me, round):
    mine = {e.key: e for e in (await store.list(f"/w{me:02}/")).entries}
    n = 0
    while True:
        n += 1
        verb = random.choice("ccuuud") if mine else "c"
        key = f"/w{me:02}/{round}-{n}" if verb == "c" else random.choice(list(mine))
        data = b"" if verb == "d" else value(key)
        os.write(1, f"start {verb} {key} {zlib.crc32(data)}\\n".encode())
        if verb == "c":
            entry = mine[key] = await store.create(key, data)
        elif verb == "u":
            entry = mine[key] = await store.update(key, data, mine[key].revision)
        else:
            entry = await store.delete(key, mine.pop(key).revision)
        os.write(1, f"done {verb} {key} {zlib.crc32(entry.value)} {entry.revision}\\n".encode())

async def main():
    store = await open_store(sys.argv[1])
    os.write(1, f"open {store.revision()}\\n".encode())
    await asyncio.gather(*(writer(store, i, sys.argv[2]) for i in range(16)))

asyncio.run(main())
"""


class SqliteFile:
    """Dies with its process."""

    rounds = _ROUNDS
    first = 0

    def __init__(self, directory: Path) -> None:
        self.where = str(directory / "s.db")

    async def start(self) -> None:
        pass

    async def kill(self) -> None:
        pass

    async def open(self) -> Store:
        return await sqlite.open_store(self.where, keep_history=3000)


class EtcdBeside:
    """Killed with those who write to it, in the middle of what they have asked for."""

    rounds = max(_ROUNDS // 4, 5)
    first = 1

    def __init__(self, directory: Path) -> None:
        self._etcd = Etcd(directory / "etcd")
        self.where = self._etcd.endpoint

    async def start(self) -> None:
        await self._etcd.start()

    async def kill(self) -> None:
        await self._etcd.kill()

    async def open(self) -> Store:
        return await etcd.open_store([self.where])


@pytest.mark.parametrize(
    "kind",
    [
        SqliteFile,
        pytest.param(
            EtcdBeside, marks=pytest.mark.skipif(not shutil.which("etcd"), reason="etcd is not installed")
        ),
    ],
)
async def test_nothing_acknowledged_is_lost(kind: type[SqliteFile | EtcdBeside], tmp_path: Path) -> None:
    driver = kind(tmp_path)
    expected: dict[str, tuple[int, int]] = {}  # key: (revision, checksum), of all acknowledged writes
    last_revision, acknowledged = driver.first, 0
    await driver.start()
    for number in range(driver.rounds):
        output = tmp_path / "output"
        with output.open("wb") as out:
            command = [sys.executable, "-c", _CHILD, driver.where, str(number)]
            child = subprocess.Popen(command, stdout=out)
            try:
                while not output.stat().st_size:
                    assert child.poll() is None
                    time.sleep(0.002)  # a kill before the store is open would prove nothing
                time.sleep(random.uniform(0.0, 0.5))
            finally:
                child.send_signal(signal.SIGKILL)
                await driver.kill()
                child.wait()
        await driver.start()
        pending: dict[str, tuple[str, int]] = {}  # by writer: what it had asked for, (verb key, checksum)
        seen: set[int] = set()
        for line in output.read_text().splitlines():
            word, *rest = line.split()
            if word == "open":
                assert int(rest[0]) == last_revision
                continue
            verb, key, checksum = rest[0], rest[1], int(rest[2])
            writer = key.split("/")[1]
            if word == "start":
                pending[writer] = (f"{verb} {key}", checksum)
                continue
            del pending[writer]
            revision = int(rest[3])
            assert revision > last_revision
            assert revision not in seen
            seen.add(revision)
            acknowledged += 1
            if verb == "d":
                del expected[key]
            else:
                expected[key] = (revision, checksum)
        store = await driver.open()
        assert store.revision() >= max(seen, default=last_revision)
        await _compare(store, expected, pending)
        await _read_history(store, last_revision)
        last_revision = store.revision()
        await store.close()
    await driver.kill()
    assert acknowledged > 20 * driver.rounds


async def _compare(
    store: Store, expected: dict[str, tuple[int, int]], pending: dict[str, tuple[str, int]]
) -> None:
    """What is there is what was acknowledged, but for a write that was under way: it is there wholly or not at all."""
    unsure = {asked.split()[1]: (asked[0], checksum) for asked, checksum in pending.values()}
    present = {e.key: e for e in (await store.list("/")).entries}
    for key in expected.keys() | present.keys():
        entry, known = present.get(key), expected.get(key)
        if entry is not None:
            _whole(entry)
        if entry is not None and known == (entry.revision, zlib.crc32(entry.value)):
            continue
        assert key in unsure, f"{key}: {known} was acknowledged, {entry} is there"
        verb, checksum = unsure[key]
        if entry is None:
            assert verb == "d" or known is None
            expected.pop(key, None)
        else:
            assert verb in "cu"
            assert zlib.crc32(entry.value) == checksum
            assert known is None or entry.revision > known[0]
            expected[key] = (entry.revision, checksum)


def _whole(entry: Entry) -> None:
    assert zlib.crc32(entry.value[4:]).to_bytes(4, "big") == entry.value[:4]
    assert entry.value[4:].startswith(entry.key.encode() + b" ")


async def _read_history(store: Store, after: int) -> None:
    """Every revision of the round, where it is still kept, once and in order."""
    after = max(after, store.revision() - 3000)
    found: list[Event] = []
    watch = store.watch("/", after)
    while after + len(found) < store.revision():
        found += await anext(watch)
    assert [e.entry.revision for e in found] == list(range(after + 1, store.revision() + 1))
