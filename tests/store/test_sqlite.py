"""The SQLite driver: the contract, and what only a driver with a file can do wrong."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sampan.store.sqlite import open_store
from sampan.store.types import Compacted, Store, StoreDamaged, StoreError, StoreLocked
from tests.store.contract import StoreContract, events


class TestSqlite(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        self.path = tmp_path / "state" / "store.db"
        self.opened: list[Store] = [await open_store(self.path)]
        yield self.opened[0]
        for store in self.opened:
            await store.close()

    async def reopen(self, store: Store) -> Store:
        await store.close()
        self.opened.append(await open_store(self.path))
        return self.opened[-1]

    async def test_the_file_is_for_its_owner_alone(self, store: Store) -> None:
        await store.create("/secret", b"x")
        for file in self.path.parent.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file
        assert self.path.parent.stat().st_mode & 0o077 == 0

    async def test_a_second_opener_is_told_who_holds_it(self, store: Store) -> None:
        with pytest.raises(StoreLocked, match=str(os.getpid())):
            await open_store(self.path)
        assert (await store.create("/a", b"")).revision == 1


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"store\.db cannot be opened"):
        await open_store(tmp_path / "file" / "store.db")


async def test_history_is_bounded_by_itself(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "s.db", keep_history=200)
    entry = await store.create("/a", b"0")
    for i in range(1200):
        entry = await store.update("/a", b"%d" % i, entry.revision)
    with pytest.raises(Compacted) as e:
        await anext(store.watch("/", 0))
    assert 201 <= 1201 - e.value.oldest <= 200 + 500
    watch = store.watch("/", e.value.oldest)
    assert len(await events(watch, 1201 - e.value.oldest)) == 1201 - e.value.oldest
    await store.close()
    store = await open_store(tmp_path / "s.db", keep_history=200)
    with pytest.raises(Compacted):
        await store.list("/", revision=e.value.oldest - 1)
    assert (await store.list("/", revision=e.value.oldest)).entries[0].created == 1
    await store.close()


async def test_the_writes_under_way_at_closing_are_kept(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "s.db")
    writes = [asyncio.ensure_future(store.create(f"/{i}", b"")) for i in range(700)]
    await asyncio.sleep(0)
    await store.close()
    assert [(await w).revision for w in writes] == list(range(1, 701))
    store = await open_store(tmp_path / "s.db")
    assert await store.count("/") == 700
    await store.close()


async def test_a_log_torn_by_a_power_cut_leaves_a_whole_prefix(tmp_path: Path) -> None:
    """What follows the last whole commit in the write-ahead log is dropped, wherever the cut falls."""
    store = await open_store(tmp_path / "s.db")
    states: list[dict[str, bytes]] = [{}]
    for i in range(60):
        writes = [store.create(f"/{i}-{n}", os.urandom(random.choice((20, 3000, 9000)))) for n in range(3)]
        for entry in await asyncio.gather(*writes):
            states.append({**states[-1], entry.key: entry.value})
    data, wal = ((tmp_path / name).read_bytes() for name in ("s.db", "s.db-wal"))
    await store.close()
    revisions = set()
    for number in range(40):
        cut = len(wal) - number if number < 3 else random.randrange(len(wal))
        path = tmp_path / f"torn-{number}" / "s.db"
        path.parent.mkdir()
        path.write_bytes(data)
        tail = os.urandom(random.choice((0, 100, 5000)))
        path.with_name("s.db-wal").write_bytes(wal[:cut] + tail)
        store = await open_store(path)
        page = await store.list("/")
        assert {e.key: e.value for e in page.entries} == states[store.revision()]
        assert (await store.create("/next", b"")).revision == page.revision + 1
        revisions.add(page.revision)
        await store.close()
    assert max(revisions) == 180
    assert len(revisions) > 10
    assert all(r % 3 == 0 for r in revisions)  # what was committed together is there together


@pytest.mark.parametrize("what", ["garbage", "cut", "value", "foreign"])
async def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, what: str) -> None:
    path = tmp_path / "s.db"
    store = await open_store(path)
    await asyncio.gather(*(store.create(f"/{i:04}", b"value-%04d" % i + bytes(500)) for i in range(500)))
    await store.close()
    data = bytearray(path.read_bytes())
    if what == "garbage":
        data[:4096] = os.urandom(4096)
    elif what == "cut":
        del data[len(data) // 2 // 4096 * 4096 :]
    elif what == "value":
        at = data.index(b"value-0321")
        data[at : at + 5] = b"other"
    else:
        data[68:72] = b"\x00\x00\x00\x01"
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match="move") as e:
        await open_store(path)
    assert str(path) in str(e.value)
    path.unlink()
    store = await open_store(path)  # the lock was let go
    await store.close()


_FULL = """
import asyncio, json, os, sys
from sampan.store.sqlite import open_store
from sampan.store.types import StoreFull

async def main():
    place = sys.argv[1]
    ballast = place + "/ballast"
    with open(ballast, "wb") as f:
        f.write(bytes(1 << 20))
    store = await open_store(place + "/s.db")
    acknowledged, full = [], 0
    for i in range(2000):
        try:
            await store.create(f"/{i}", os.urandom(4000))
            acknowledged.append(i)
        except StoreFull:
            full += 1
            if full == 3:
                break
    before = store.revision()
    readable = sum([await store.get(f"/{i}") is not None for i in acknowledged])
    count = await store.count("/")
    os.unlink(ballast)
    after = (await store.create("/again", b"x" * 4000)).revision
    await store.close()
    store = await open_store(place + "/s.db")
    print(json.dumps([len(acknowledged), full, before, readable, count, after, await store.count("/")]))
    await store.close()

asyncio.run(main())
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_refuses_writes_and_is_got_over(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=4m t-store "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable, _FULL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    acknowledged, full, before, readable, count, after, reopened = json.loads(done.stdout)
    assert acknowledged > 50
    assert full == 3
    assert before == acknowledged == readable == count
    assert after == before + 1
    assert reopened == acknowledged + 1
