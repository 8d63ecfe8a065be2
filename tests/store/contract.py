"""What every store driver must pass: subclass `StoreContract` and give it a `store` fixture (an empty store).

A driver that keeps its data overrides `reopen`, and the tests of durability run too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sampan.store.types import (
    Compacted,
    Conflict,
    Entry,
    Event,
    FutureRevision,
    KeyExists,
    Store,
    StoreError,
    Watch,
)


async def events(watch: Watch, count: int) -> list[Event]:
    """The next `count` events of a watch (batches must end there)."""
    found: list[Event] = []
    while len(found) < count:
        found += await asyncio.wait_for(anext(watch), 10)
    assert len(found) == count
    return found


class StoreContract:
    first = 0
    """The revision of a new store."""

    def revisions(self, count: int) -> list[int]:
        """The first `count` revisions of a store."""
        return list(range(self.first + 1, self.first + count + 1))

    async def reopen(self, store: Store) -> Store:
        pytest.skip("this driver keeps nothing")

    async def test_a_new_store_is_empty(self, store: Store) -> None:
        assert store.revision() == self.first
        assert await store.get("/a") is None
        assert await store.count("/") == 0
        page = await store.list("/")
        assert (page.revision, list(page.entries), page.remaining) == (self.first, [], 0)

    async def test_writes_take_consecutive_revisions(self, store: Store) -> None:
        n = self.first
        assert await store.create("/a", b"1") == Entry("/a", b"1", n + 1, n + 1)
        assert await store.create("/b", b"2") == Entry("/b", b"2", n + 2, n + 2)
        assert await store.update("/a", b"3", n + 1) == Entry("/a", b"3", n + 3, n + 1)
        assert await store.delete("/a", n + 3) == Entry("/a", b"3", n + 4, n + 1)
        assert await store.create("/a", b"") == Entry("/a", b"", n + 5, n + 5)
        assert store.revision() == n + 5
        assert await store.get("/a") == Entry("/a", b"", n + 5, n + 5)

    async def test_create_of_a_present_key_is_refused_with_it(self, store: Store) -> None:
        present = await store.create("/a", b"1")
        with pytest.raises(KeyExists) as e:
            await store.create("/a", b"2")
        assert e.value.present == present
        assert store.revision() == self.first + 1

    async def test_update_and_delete_are_held_to_the_revision(self, store: Store) -> None:
        present = await store.create("/a", b"1")
        for refused in (store.update("/a", b"2", 70), store.delete("/a", 70)):
            with pytest.raises(Conflict) as e:
                await refused
            assert e.value.present == present
        for refused in (store.update("/z", b"2", 1), store.delete("/z", 1), store.delete("/z")):
            with pytest.raises(Conflict) as e:
                await refused
            assert e.value.present is None
        for never in (0, -1):
            with pytest.raises(Conflict):
                await store.update("/a", b"2", never)
        assert (await store.delete("/a")).revision == present.revision + 1

    async def test_of_writers_that_race_one_wins(self, store: Store) -> None:
        present = await store.create("/n", b"")
        results = await asyncio.gather(
            *(store.update("/n", b"%d" % i, present.revision) for i in range(16)), return_exceptions=True
        )
        winners = [r for r in results if isinstance(r, Entry)]
        losers = [r for r in results if isinstance(r, Conflict)]
        assert len(winners) == 1
        assert len(losers) == 15
        assert await store.get("/n") == winners[0]

    async def test_lists_are_in_key_order_and_paged(self, store: Store) -> None:
        for key in ("/p/b", "/q/x", "/p/a", "/p/c", "/p", "/p/é", "/p/\U0001f600"):
            await store.create(key, key.encode())
        page = await store.list("/p/")
        assert [e.key for e in page.entries] == ["/p/a", "/p/b", "/p/c", "/p/é", "/p/\U0001f600"]
        assert await store.count("/p/") == 5
        first = await store.list("/p/", limit=2)
        assert [e.key for e in first.entries] == ["/p/a", "/p/b"]
        assert first.remaining == 3
        await store.delete("/p/c")
        await store.create("/p/bb", b"late")
        await store.create("/p/0", b"late")
        rest = await store.list("/p/", revision=first.revision, after="/p/b", limit=2)
        assert [e.key for e in rest.entries] == ["/p/c", "/p/é"]
        assert (rest.remaining, rest.revision) == (1, first.revision)
        last = await store.list("/p/", revision=first.revision, after="/p/é", limit=2)
        assert [e.key for e in last.entries] == ["/p/\U0001f600"]
        assert last.remaining == 0

    async def test_lists_at_every_revision(self, store: Store) -> None:
        states: list[list[Entry]] = []
        for i in range(30):
            present = await store.get(f"/k/{i % 7}")
            if present is None:
                await store.create(f"/k/{i % 7}", b"%d" % i)
            elif i % 3:
                await store.update(present.key, b"%d" % i, present.revision)
            else:
                await store.delete(present.key)
            states.append(list((await store.list("/k/")).entries))
        for revision, state in enumerate(states, self.first + 1):
            page = await store.list("/k/", revision=revision)
            assert list(page.entries) == state
            assert page.revision == revision
        with pytest.raises(FutureRevision) as e:
            await store.list("/k/", revision=self.first + 31)
        assert e.value.current == self.first + 30

    async def test_a_watch_tells_of_everything_after_its_revision(self, store: Store) -> None:
        n = self.first
        await store.create("/w/a", b"1")
        await store.create("/other", b"1")
        await store.update("/w/a", b"2", n + 1)
        watch = store.watch("/w/", n + 1)
        assert await events(watch, 1) == [Event(False, Entry("/w/a", b"2", n + 3, n + 1), b"1")]
        await store.delete("/w/a")
        await store.create("/other2", b"1")
        await store.create("/w/b", b"3")
        assert await events(watch, 2) == [
            Event(True, Entry("/w/a", b"2", n + 4, n + 1), b"2"),
            Event(False, Entry("/w/b", b"3", n + 6, n + 6), None),
        ]
        await watch.aclose()

    async def test_a_waiting_watch_wakes_up(self, store: Store) -> None:
        watch = store.watch("/w/", store.revision())
        waiting = asyncio.ensure_future(anext(watch))
        await store.create("/x", b"")
        entry = await store.create("/w/a", b"1")
        assert list(await asyncio.wait_for(waiting, 10)) == [Event(False, entry, None)]
        await watch.aclose()

    async def test_watches_see_concurrent_writes_in_order_without_gaps(self, store: Store) -> None:
        watches = [store.watch("/w/", self.first) for _ in range(3)]

        async def write(n: int) -> None:
            for i in range(50):
                await store.create(f"/w/{n}-{i}", b"")

        await asyncio.gather(*(write(n) for n in range(8)))
        for watch in watches:
            assert [e.entry.revision for e in await events(watch, 400)] == self.revisions(400)
            await watch.aclose()

    async def test_a_slow_watch_misses_nothing(self, store: Store) -> None:
        watch = store.watch("/w/", self.first)
        for batch in range(25):
            await asyncio.gather(*(store.create(f"/w/{batch}-{i}", b"") for i in range(100)))
        assert [e.entry.revision for e in await events(watch, 2500)] == self.revisions(2500)
        again = store.watch("/w/9-", self.first)
        assert len(await events(again, 100)) == 100
        await watch.aclose()
        await again.aclose()

    async def test_a_subscriber_is_told_before_the_writer(self, store: Store) -> None:
        await store.create("/before", b"")
        told: list[Event] = []
        unsubscribe = store.subscribe(told.extend)

        async def write(n: int) -> None:
            for i in range(20):
                entry = await store.create(f"/s/{n}-{i}", b"x")
                assert any(e.entry == entry for e in told)

        await asyncio.gather(*(write(n) for n in range(8)))
        assert [e.entry.revision for e in told] == self.revisions(161)[1:]
        unsubscribe()
        await store.create("/after", b"")
        assert len(told) == 160

    async def test_a_failing_subscriber_harms_nobody_and_is_told_no_more(self, store: Store) -> None:
        told: list[Event] = []
        seen: list[Event] = []

        def fail(batch: Sequence[Event]) -> None:
            seen.extend(batch)
            raise ValueError("broken")

        unsubscribe = store.subscribe(fail)
        store.subscribe(told.extend)
        await store.create("/a", b"")
        await store.create("/b", b"")
        assert [e.entry.key for e in told] == ["/a", "/b"]
        assert [e.entry.key for e in seen] == ["/a"], "never a sequence with a hole in it"
        unsubscribe()

    async def test_compaction_forgets_history_and_keeps_values(self, store: Store) -> None:
        n = self.first
        await store.create("/a", b"1")  # 1
        await store.update("/a", b"2", n + 1)  # 2
        await store.create("/b", b"1")  # 3
        await store.delete("/b")  # 4
        await store.update("/a", b"3", n + 2)  # 5
        watching = store.watch("/", n + 5)
        await store.compact(n + 4)
        for revision in (n + 1, n + 2, n + 3):
            with pytest.raises(Compacted) as e:
                await store.list("/", revision=revision)
            assert e.value.oldest == n + 4
            with pytest.raises(Compacted):
                await anext(store.watch("/", revision - 1))
        assert [e.value for e in (await store.list("/", revision=n + 4)).entries] == [b"2"]
        watch = store.watch("/", n + 4)
        assert await events(watch, 1) == [Event(False, Entry("/a", b"3", n + 5, n + 1), b"2")]
        await watch.aclose()
        await store.compact(n + 2)  # nothing left to forget
        with pytest.raises(FutureRevision):
            await store.compact(n + 6)
        await store.compact(n + 5)
        assert await store.get("/a") == Entry("/a", b"3", n + 5, n + 1)
        await store.create("/c", b"")
        assert (await events(watching, 1))[0].entry.key == "/c"
        await watching.aclose()

    async def test_closing_ends_watches_and_refuses_more(self, store: Store) -> None:
        watch = store.watch("/", store.revision())
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, 10)
        with pytest.raises(StoreError):
            await store.create("/a", b"")
        with pytest.raises(StoreError):
            await store.get("/a")
        await store.close()

    async def test_a_writer_that_gives_up_harms_nobody(self, store: Store) -> None:
        task = asyncio.ensure_future(store.create("/a", b"1"))
        await asyncio.sleep(0)
        task.cancel()
        await store.create("/b", b"2")
        assert await store.get("/b") is not None

    async def test_everything_survives_a_reopening(self, store: Store) -> None:
        n = self.first
        await store.create("/a", b"1")
        await store.update("/a", b"2", n + 1)
        await store.create("/b", b"\x00\xff")
        await store.delete("/b")
        store = await self.reopen(store)
        assert store.revision() == n + 4
        assert list((await store.list("/")).entries) == [Entry("/a", b"2", n + 2, n + 1)]
        assert [e.value for e in (await store.list("/", revision=n + 3)).entries] == [b"2", b"\x00\xff"]
        watch = store.watch("/", n + 1)
        assert await events(watch, 3) == [
            Event(False, Entry("/a", b"2", n + 2, n + 1), b"1"),
            Event(False, Entry("/b", b"\x00\xff", n + 3, n + 3), None),
            Event(True, Entry("/b", b"\x00\xff", n + 4, n + 3), b"\x00\xff"),
        ]
        await watch.aclose()
        assert (await store.create("/c", b"")).revision == n + 5

    async def test_revisions_go_on_after_compaction_took_the_last_row(self, store: Store) -> None:
        n = self.first
        await store.create("/a", b"1")
        await store.delete("/a")
        await store.compact(n + 2)
        store = await self.reopen(store)
        assert store.revision() == n + 2
        with pytest.raises(Compacted):
            await store.list("/", revision=n + 1)
        assert (await store.create("/a", b"1")).revision == n + 3
