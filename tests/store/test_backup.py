"""Backups: consistent, checked, and put into stores under revisions that nobody has seen."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from sampan.store import backup, check, etcd, sqlite
from sampan.store.backup import Backup
from sampan.store.members import Members
from sampan.store.types import Compacted, Entry, StoreDamaged, StoreError
from tests.store.real_etcd import Etcd, three_members

needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")
SOME = Backup(70, [Entry(f"/registry/k/{i:03}", b"value %d" % i, 10 + i, 10 + i) for i in range(60)])


def values(entries: object) -> dict[str, bytes]:
    return {e.key: e.value for e in entries}  # type: ignore[attr-defined]


def test_a_backup_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "b"
    backup.save(SOME, file)
    assert backup.load(file) == SOME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    backup.save(Backup(71, []), file)  # over the one before
    assert backup.load(file) == Backup(71, [])
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_damage_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "b"
    backup.save(SOME, file)
    whole = file.read_bytes()
    with pytest.raises(StoreError, match="there is no backup"):
        backup.load(tmp_path / "none")
    place = whole.index(b"value 33")
    file.write_bytes(whole[:place] + b"Value" + whole[place + 5 :])
    with pytest.raises(StoreDamaged, match=r"/registry/k/033 is not what was written"):
        backup.load(file)
    for broken in (whole[: len(whole) // 2], whole[:100], b"", b"something else" * 100):
        file.write_bytes(broken)
        with pytest.raises(StoreDamaged):
            backup.load(file)
    file.write_bytes(whole)
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM entry WHERE key = '/registry/k/001'")
    connection.close()
    with pytest.raises(StoreDamaged, match="59 values are left of 60"):
        backup.load(file)


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        backup.save(SOME, tmp_path / "nowhere" / "b")


async def test_a_backup_under_writers_is_of_one_revision(tmp_path: Path) -> None:
    store = await sqlite.open_store(tmp_path / "s")
    stop = asyncio.Event()

    async def write(n: int) -> None:
        pair = [await store.create(f"/p/{n}/{side}", b"0") for side in "ab"]
        count = 0
        while not stop.is_set():
            count += 1
            for i in (0, 1):  # the first is never behind the second, and one ahead at most
                pair[i] = await store.update(pair[i].key, b"%d" % count, pair[i].revision)

    async with asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(write(n))
        for _ in range(20):
            await store.update("/tick", b"", (await store.create("/tick", b"")).revision)
            await store.delete("/tick")
            taken = await backup.take(store)
            assert max(e.revision for e in taken.entries) <= taken.revision
            found = {k: int(v) for k, v in values(taken.entries).items() if k.startswith("/p/")}
            for n in {k.split("/")[2] for k in found}:
                assert found[f"/p/{n}/a"] - found.get(f"/p/{n}/b", 0) in (0, 1)
        stop.set()
    await store.close()


async def test_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    last = backup.write_sqlite(path, SOME.entries, 5000)
    with pytest.raises(StoreError, match="there already"):
        backup.write_sqlite(path, SOME.entries, 5000)
    store = await sqlite.open_store(path)
    assert store.revision() == last
    page = await store.list("/")
    assert values(page.entries) == values(SOME.entries)
    assert all(5000 < e.revision <= last for e in page.entries)
    for revision in (1, 70, 5000, last - 1):
        with pytest.raises(Compacted):
            await store.list("/", revision=revision)
        with pytest.raises(Compacted):
            await anext(store.watch("/", revision))
    assert (await store.create("/new", b"")).revision == last + 1
    await store.close()
    assert check.check_sqlite(path)[0] == []


@needs_etcd
async def test_into_an_etcd_that_has_other_things(tmp_path: Path) -> None:
    server = Etcd(tmp_path / "etcd")
    await server.start()
    store = await etcd.open_store([server.endpoint])
    members = Members([server.endpoint], None, 5)
    await store.create("/registry/k/001", b"newer")
    await store.create("/registry/later", b"must go")
    last = await backup.write_etcd(
        store, members, SOME.entries, 3000, lambda key: 60 if key.endswith("9") else 0
    )
    assert values((await store.list("/")).entries) == values(SOME.entries)
    assert all(3000 < e.revision <= last for e in (await store.list("/")).entries)
    fresh = await etcd.open_store([server.endpoint])
    with pytest.raises(Compacted):
        await fresh.list("/", revision=last - 1)
    assert (await fresh.create("/new", b"")).revision == last + 1
    for one in (store, fresh):
        await one.close()
    await members.close()
    assert await check.check_members([server.endpoint], None) == []
    await server.kill()


# ---- looking for damage


async def test_a_file_with_several_faults(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert check.check_sqlite(path) == ([f"there is no file {path}"], [])
    backup.write_sqlite(path, SOME.entries, 0)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE log SET value = x'00' WHERE key IN ('/registry/k/003', '/registry/k/050')")
        connection.execute("UPDATE log SET key = '/registry/k/010' WHERE key = '/registry/k/011'")
    connection.close()
    problems, entries = check.check_sqlite(path)
    assert problems == [
        f"{path}: the value of /registry/k/003 at revision 4 is not what was written",
        f"{path}: two newest values of /registry/k/010",
        f"{path}: the value of /registry/k/050 at revision 51 is not what was written",
    ]
    assert len(entries) == 57
    path.write_bytes(b"x" * 5000)
    assert check.check_sqlite(path) == ([f"{path}: file is not a database"], [])


@needs_etcd
async def test_members_that_are_not_there(tmp_path: Path) -> None:
    async with three_members(tmp_path) as members:
        endpoints = [m.endpoint for m in members]
        assert await check.check_members(endpoints, None) == []
        await members[0].kill()
        (problem,) = await check.check_members(endpoints, None, timeout=1)
        assert members[0].endpoint in problem
