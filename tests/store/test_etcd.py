"""The etcd driver on a real etcd: the contract, and what only a driver over a network can do wrong."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sampan.store import messages
from sampan.store.etcd import EtcdStore, open_store
from sampan.store.members import Members
from sampan.store.types import Conflict, Entry, Event, Store, StoreError, StoreFull
from tests.store.contract import StoreContract, events
from tests.store.real_etcd import Etcd, free_port

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[Etcd]:
    server = Etcd(tmp_path / "etcd")
    await server.start()
    yield server
    await server.kill()


class TestEtcd(StoreContract):
    first = 1

    @pytest.fixture
    async def store(self, etcd: Etcd) -> AsyncIterator[Store]:
        self.endpoint = etcd.endpoint
        self.opened: list[Store] = [await open_store([etcd.endpoint])]
        yield self.opened[0]
        for store in self.opened:
            await store.close()

    async def reopen(self, store: Store) -> Store:
        await store.close()
        self.opened.append(await open_store([self.endpoint]))
        return self.opened[-1]


async def test_kill_9_under_8_writers_loses_nothing_acknowledged(etcd: Etcd) -> None:
    store = await open_store([etcd.endpoint], timeout=5)
    told: list[Event] = []
    store.subscribe(told.extend)
    acknowledged: dict[str, Entry] = {}
    enough, killed, again = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def write(n: int) -> None:
        i = after_restart = 0
        while after_restart < 20:
            i += 1
            try:
                entry = await store.create(f"/w/{n}/{i}", b"%d" % i)
            except StoreError:
                assert killed.is_set()
                await again.wait()
                continue
            acknowledged[entry.key] = entry
            after_restart += again.is_set()
            if len(acknowledged) >= 200:
                enough.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for n in range(8):
            group.create_task(write(n))
        await enough.wait()
        killed.set()
        await etcd.kill()
        await etcd.start()
        again.set()
    assert await store.catch_up() == store.revision()
    revisions = [e.entry.revision for e in told]
    assert revisions == list(range(2, store.revision() + 1))  # nothing lost, nothing told twice
    assert len({e.revision for e in acknowledged.values()}) == len(acknowledged)
    await store.close()
    store = await open_store([etcd.endpoint])
    present = {e.key: e for e in (await store.list("/w/")).entries}
    assert present.items() >= acknowledged.items()
    await store.close()


async def test_two_servers_on_one_etcd_see_each_other(etcd: Etcd) -> None:
    one, two = await open_store([etcd.endpoint]), await open_store([etcd.endpoint])
    entry = await one.create("/registry/a", b"1")
    watch = two.watch("/registry/", 1)
    assert await events(watch, 1) == [Event(False, entry, None)]
    newer = await two.update("/registry/a", b"2", entry.revision)
    with pytest.raises(Conflict) as e:
        await one.update("/registry/a", b"3", entry.revision)
    assert e.value.present == newer
    assert await one.get("/registry/a") == newer  # a refused writer can read why
    for i in range(20):
        newest = await two.create(f"/registry/b{i}", b"")
        assert await one.catch_up() == newest.revision
        assert await one.get(newest.key) == newest
    assert (await two.list("/", revision=newest.revision)).revision == newest.revision
    await one.close()
    await two.close()


async def test_every_endpoint_is_tried_and_named(etcd: Etcd) -> None:
    dead = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(StoreError) as e:
        await open_store(dead)
    assert all(endpoint in str(e.value) for endpoint in dead)
    store = await open_store([*dead, etcd.endpoint])
    assert (await store.create("/a", b"")).revision == 2
    await store.close()


async def test_more_keys_than_a_page_are_read_at_the_start(etcd: Etcd) -> None:
    store = await open_store([etcd.endpoint])
    await asyncio.gather(*(store.create(f"/k/{i}", b"") for i in range(1100)))
    await store.close()
    store = await open_store([etcd.endpoint])
    assert await store.count("/k/") == 1100
    await store.close()


async def test_a_full_etcd_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    server = Etcd(tmp_path / "etcd", "--quota-backend-bytes=1000000")
    await server.start()
    store: EtcdStore = await open_store([server.endpoint])

    async def fill() -> None:
        for i in range(500):  # the quota is looked at when etcd's own batch is over
            await store.create(f"/{i}", bytes(200_000))

    with pytest.raises(StoreFull, match="NOSPACE"):
        await fill()
    assert await store.get("/0") is not None
    await store.close()
    await server.kill()


async def test_keys_written_together_by_others_come_together(etcd: Etcd) -> None:
    store = await open_store([etcd.endpoint])
    watch = store.watch("/", 1)
    members = Members([etcd.endpoint], None, 5)
    await members.call("KV/Txn", messages.txn([messages.put(b"/a", b"1"), messages.put(b"/b", b"2")]))
    await members.close()
    assert list(await asyncio.wait_for(anext(watch), 10)) == [
        Event(False, Entry("/a", b"1", 2, 2), None),
        Event(False, Entry("/b", b"2", 2, 2), None),
    ]
    await store.delete("/a", 2)
    assert [e.key for e in (await store.list("/", revision=2)).entries] == ["/a", "/b"]
    assert [e.key for e in (await store.list("/")).entries] == ["/b"]
    await store.close()
