"""A store that seals its values keeps the whole contract of the store below it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sampan.store.memory import MemoryStore
from sampan.store.sqlite import open_store
from sampan.store.transformed import TransformedStore
from sampan.store.types import Compacted, Store, StoreDamaged
from tests.store.contract import StoreContract


class Reversed:
    """Stores everything backwards behind a mark; `old` is a mark of before."""

    def concerns(self, key: str) -> bool:
        return True

    def seal(self, key: str, value: bytes) -> bytes:
        return b"new:" + value[::-1]

    def open(self, key: str, stored: bytes) -> tuple[bytes, bool]:
        mark, _, rest = stored.partition(b":")
        if mark == b"lost":
            raise StoreDamaged(key)
        return rest[::-1], mark == b"old"


class TestTransformedMemory(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = TransformedStore(MemoryStore(), Reversed())
        yield store
        await store.close()


async def test_what_is_below_is_sealed_and_what_was_given_comes_back_in_events() -> None:
    below = MemoryStore()
    store = TransformedStore(below, Reversed())
    told: list[bytes] = []
    store.subscribe(lambda events: told.extend(e.entry.value for e in events))
    value = b"a value of some length"
    await store.create("/a", value)
    entry = await below.get("/a")
    assert entry is not None
    assert entry.value == b"new:" + value[::-1]
    assert told[0] is value, "the very object, so that its decoded form is found again"
    await store.close()


async def test_what_another_key_sealed_is_stale_until_it_is_written_again() -> None:
    below = MemoryStore()
    entry = await below.create("/a", b"old:x")
    store = TransformedStore(below, Reversed())
    store.subscribe(lambda events: None)
    assert [e.value for e in (await store.list("/")).entries] == [b"x"]
    assert store.stale == {"/a"}
    await store.update("/a", b"x", entry.revision)
    assert store.stale == set()
    other = await below.create("/b", b"old:y")
    assert store.stale == {"/b"}
    await store.delete("/b", other.revision)
    assert store.stale == set()
    await store.close()


async def test_sqlite_holds_no_plain_value(tmp_path: Path) -> None:
    store = TransformedStore(await open_store(tmp_path / "store.db"), Reversed())
    await store.create("/a", b"plain text that nobody may read")
    await store.close()
    assert not any(b"plain text" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


async def test_a_past_that_no_key_opens_any_more_is_forgotten_and_a_present_is_damaged() -> None:
    below = MemoryStore()
    first = await below.create("/a", b"lost:x")
    store = TransformedStore(below, Reversed())
    with pytest.raises(StoreDamaged):
        await store.list("/")
    with pytest.raises(StoreDamaged):
        await store.list("/", revision=first.revision)
    second = await below.update("/a", b"new:y", first.revision)
    with pytest.raises(Compacted) as gone:
        await store.list("/", revision=first.revision)
    assert gone.value.oldest == second.revision
    assert [e.value for e in (await store.list("/")).entries] == [b"y"]
    await store.close()
