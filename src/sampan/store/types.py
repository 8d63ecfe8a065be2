"""The storage contract: a revisioned key-value store. Everything a driver must promise is on this page.

One sequence of revisions covers all keys: every successful write takes the next one, and they never repeat or go
back, not even over a crash. (Keys that go by themselves may go several at one revision.) A write is acknowledged (its coroutine returns) only when it is durable. Reads and
watches see writes in revision order and never one that is not durable. Keys are text such as
`/registry/pods/default/web`; values are bytes that the store never looks into.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class StoreError(Exception):
    """Base of everything a driver raises."""


class KeyExists(StoreError):
    """`create` of a key that is there; carries the present entry."""

    def __init__(self, present: Entry) -> None:
        super().__init__(f"key exists: {present.key}")
        self.present = present


class Conflict(StoreError):
    """`update` or `delete` whose expected revision is not the key's; `present` is None where the key is gone."""

    def __init__(self, key: str, present: Entry | None) -> None:
        super().__init__(f"key changed: {key}")
        self.present = present


class Compacted(StoreError):
    """The revision asked for is older than what is kept; `oldest` is the oldest that can still be read."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revision compacted; the oldest kept is {oldest}")
        self.oldest = oldest


class FutureRevision(StoreError):
    """The revision asked for has not been written yet; `current` is the newest."""

    def __init__(self, current: int) -> None:
        super().__init__(f"revision is in the future; the newest is {current}")
        self.current = current


class StoreLocked(StoreError):
    """Another process holds this store."""


class StoreDamaged(StoreError):
    """The data on disk cannot be trusted; the message says what was found and what to do."""


class StoreFull(StoreError):
    """A write failed for want of space and had no effect; reads go on, and writes work again once there is room."""


class ValueTooLarge(StoreError):
    """A value that the store does not take, whatever room there is. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value at a revision. `created` is the revision that created it, `revision` the last that wrote it."""

    key: str
    value: bytes
    revision: int
    created: int


@dataclass(frozen=True, slots=True)
class Event:
    """One write as a watcher sees it. On a delete `entry` holds the last value under the delete's revision."""

    deleted: bool
    entry: Entry
    previous: bytes | None
    """The value before, None on a create."""


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a prefix at one revision, in key order. `remaining` counts what follows; 0 on the last page."""

    revision: int
    entries: Sequence[Entry]
    remaining: int


class Watch(Protocol):
    """Batches of events, one `anext` each; see `Store.watch`."""

    def __aiter__(self) -> AsyncIterator[Sequence[Event]]: ...

    async def __anext__(self) -> Sequence[Event]: ...

    async def aclose(self) -> None: ...


class Store(Protocol):
    """What every driver implements and `tests/store/contract.py` proves."""

    @property
    def shared(self) -> bool:
        """Whether other processes may write to it at the same time, so that a read that must be the newest awaits
        `catch_up` first."""

    @property
    def self_keeping(self) -> bool:
        """Whether the driver forgets old history and removes keys whose time is up by itself; else `compact` and
        `delete` are the caller's to call."""

    async def create(self, key: str, value: bytes, *, ttl: int = 0) -> Entry:
        """Write a new key, which need not be kept for longer than `ttl` seconds (0: for ever). Raises KeyExists."""

    async def update(self, key: str, value: bytes, expected: int, *, ttl: int = 0) -> Entry:
        """Replace a value whose revision is `expected`; `ttl` counts anew. Raises Conflict."""

    async def delete(self, key: str, expected: int | None = None) -> Entry:
        """Remove a key (at revision `expected`, if given); the entry returned bears the delete's revision and the
        last value. Raises Conflict, with `present=None` where there is no such key."""

    async def get(self, key: str) -> Entry | None:
        """The newest durable value, or None."""

    async def list(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> Page:
        """Entries whose key starts with `prefix` and is greater than `after`, as of `revision` (0: the newest).
        `limit` 0 means all. Raises Compacted, FutureRevision."""

    async def count(self, prefix: str) -> int:
        """How many keys a prefix has now."""

    def revision(self) -> int:
        """The newest durable revision that this process knows; 0 (etcd: 1) for an empty new store."""

    async def catch_up(self) -> int:
        """Wait until everything that was acknowledged to anybody before the call can be read here; returns
        `revision()` or less."""

    def watch(self, prefix: str, after: int) -> Watch:
        """Every write under `prefix` with a revision greater than `after`, in order and without gaps, in batches
        (what was committed together comes together). Raises Compacted at the first step if `after` is older than what is kept, and
        later if the reader fell behind it. Ends when the store is closed. Closing the iterator (`aclose`) frees the watch."""

    def subscribe(self, callback: Callable[[Sequence[Event]], None]) -> Callable[[], None]:
        """Have `callback` told, in the loop's thread, of every write to any key after the present `revision()`: in
        order, without gaps, each once, in batches. A write is told before its coroutine returns and before any read
        shows it to others, so that a cache kept by `callback` is never behind what has been acknowledged. To start a
        cache: subscribe, then list, and pass over events up to the list's revision. The callback must be quick and
        must not raise: that does no harm to the write or to others, but whoever did it has a hole in what it knows,
        is told nothing more and must start anew. Calling what is returned ends it; closing the store ends it
        silently."""

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`; newest values stay. Reads below it raise Compacted."""

    def trouble(self) -> str:
        """Why it cannot be written to, or followed, just now; "" where it can as far as is known."""

    async def failed(self) -> None:
        """Returns never; raises StoreError once the store cannot go on and must be opened anew."""

    async def close(self) -> None:
        """Finish what is under way and let go of the files. Later calls raise StoreError."""
