"""A store whose values are changed on their way in and out (encryption at rest), over any other store.

What is above sees plain values and the same revisions; what is below sees transformed ones. Keys that the transformer does
not concern itself with pass untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sampan.store.types import (
    Compacted,
    Conflict,
    Entry,
    Event,
    KeyExists,
    Page,
    Store,
    StoreDamaged,
    Watch,
)


class Transformer(Protocol):
    """Turns values into what is stored and back. Both may raise StoreDamaged."""

    def concerns(self, key: str) -> bool:
        """Whether values of this key may be stored transformed."""

    def seal(self, key: str, value: bytes) -> bytes:
        """What is stored for a value."""

    def open(self, key: str, stored: bytes) -> tuple[bytes, bool]:
        """The value of what is stored, and whether a write of today would store it in another way."""


class TransformedStore:
    """Implements `Store`. `stale` holds the keys whose stored form a rewrite would change."""

    def __init__(self, below: Store, transformer: Transformer) -> None:
        self._below = below
        self._transformer = transformer
        self._sealed: dict[int, tuple[bytes, bytes]] = {}
        """Values that are being written: what is stored and what was given, by the identity of the former. Events of our
        own writes then carry the very bytes that were given, which spares decoding them."""
        self.stale: set[str] = set()

    @property
    def shared(self) -> bool:
        return self._below.shared

    @property
    def self_keeping(self) -> bool:
        return self._below.self_keeping

    # -- writes

    async def create(self, key: str, value: bytes, *, ttl: int = 0) -> Entry:
        if not self._transformer.concerns(key):
            return await self._below.create(key, value, ttl=ttl)
        stored = self._seal(key, value)
        try:
            return self._entry(await self._below.create(key, stored, ttl=ttl))
        except KeyExists as e:
            raise KeyExists(self._entry(e.present)) from None
        finally:
            del self._sealed[id(stored)]

    async def update(self, key: str, value: bytes, expected: int, *, ttl: int = 0) -> Entry:
        if not self._transformer.concerns(key):
            return await self._below.update(key, value, expected, ttl=ttl)
        stored = self._seal(key, value)
        try:
            return self._entry(await self._below.update(key, stored, expected, ttl=ttl))
        except Conflict as e:
            raise self._conflict(key, e) from None
        finally:
            del self._sealed[id(stored)]

    async def delete(self, key: str, expected: int | None = None) -> Entry:
        try:
            return self._entry(await self._below.delete(key, expected))
        except Conflict as e:
            raise self._conflict(key, e) from None

    def _seal(self, key: str, value: bytes) -> bytes:
        stored = self._transformer.seal(key, value)
        self._sealed[id(stored)] = stored, value
        return stored

    def _conflict(self, key: str, found: Conflict) -> Conflict:
        return Conflict(key, self._entry(found.present) if found.present is not None else None)

    # -- reads

    async def get(self, key: str) -> Entry | None:
        entry = await self._below.get(key)
        return self._entry(entry) if entry is not None else None

    async def list(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> Page:
        page = await self._below.list(prefix, revision=revision, after=after, limit=limit)
        try:
            entries = [self._entry(e) for e in page.entries]
        except StoreDamaged:
            present = self._below.revision()
            if not 0 < revision < present:
                raise
            # The past may have been sealed by a key that is no longer given; what is there now must open.
            raise Compacted(present) from None
        if not revision:
            for before, entry in zip(page.entries, entries, strict=True):
                self._note(entry.key, before.value)
        return Page(page.revision, entries, page.remaining)

    async def count(self, prefix: str) -> int:
        return await self._below.count(prefix)

    def revision(self) -> int:
        return self._below.revision()

    async def catch_up(self) -> int:
        return await self._below.catch_up()

    def watch(self, prefix: str, after: int) -> Watch:
        return _TransformedWatch(self._below.watch(prefix, after), self._events)

    def subscribe(self, callback: Callable[[Sequence[Event]], None]) -> Callable[[], None]:
        def tell(events: Sequence[Event]) -> None:
            for event in events:
                key = event.entry.key
                if event.deleted:
                    self.stale.discard(key)
                else:
                    self._note(key, event.entry.value)
            callback(self._events(events))

        return self._below.subscribe(tell)

    async def compact(self, revision: int) -> None:
        await self._below.compact(revision)

    def trouble(self) -> str:
        return self._below.trouble()

    async def failed(self) -> None:
        await self._below.failed()

    async def close(self) -> None:
        await self._below.close()

    # -- values

    def _entry(self, entry: Entry) -> Entry:
        if not self._transformer.concerns(entry.key):
            return entry
        return Entry(entry.key, self._open(entry.key, entry.value), entry.revision, entry.created)

    def _open(self, key: str, stored: bytes) -> bytes:
        ours = self._sealed.get(id(stored))
        return ours[1] if ours is not None else self._transformer.open(key, stored)[0]

    def _note(self, key: str, stored: bytes) -> None:
        """Keep in mind whether this key would be stored in another way today."""
        if not self._transformer.concerns(key):
            return
        if id(stored) in self._sealed or not self._transformer.open(key, stored)[1]:
            self.stale.discard(key)
        else:
            self.stale.add(key)

    def _events(self, events: Sequence[Event]) -> Sequence[Event]:
        if not any(self._transformer.concerns(e.entry.key) for e in events):
            return events
        return [
            Event(
                e.deleted,
                self._entry(e.entry),
                self._open(e.entry.key, e.previous)
                if e.previous is not None and self._transformer.concerns(e.entry.key)
                else e.previous,
            )
            for e in events
        ]


class _TransformedWatch:
    def __init__(self, below: Watch, change: Callable[[Sequence[Event]], Sequence[Event]]) -> None:
        self._below = below
        self._change = change

    def __aiter__(self) -> _TransformedWatch:
        return self

    async def __anext__(self) -> Sequence[Event]:
        return self._change(await anext(self._below.__aiter__()))

    async def aclose(self) -> None:
        await self._below.aclose()
