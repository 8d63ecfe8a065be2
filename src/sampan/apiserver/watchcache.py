"""The watch cache: everything stored, in memory, as bytes; and everybody who is told of changes.

The store calls `on_commit` in the loop's thread at each commit, before the writers are resumed: whoever has been told
that a write succeeded finds it here. Reads therefore never go to the store, except for the past.

`events` says how a change reaches those who watch.

Upstream: `k8s.io/apiserver/pkg/storage/cacher`.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter

from sampan.api.errors import Object, StatusError, gone
from sampan.api.resources import Resource, stored
from sampan.apiserver.events import Change, ChangeType, Delivery, Group, Selection, Watcher
from sampan.apiserver.looplag import LoopLag
from sampan.apiserver.records import ROOT, Record, key_of, opening, prefix_of, splice, split_key
from sampan.apiserver.rendering import Rendering
from sampan.apiserver.turns import SLICE_SECONDS, Turns
from sampan.apiserver.types import ChangeCallback
from sampan.store.types import Event, Store

log = logging.getLogger(__name__)

HISTORY_EVENTS = 4096
"""Most changes of one resource that a watch can start behind."""
HISTORY_BYTES = 8 * 2**20
"""Bytes of objects that the history of one resource may hold on to ..."""
HISTORY_LEAST = 256
"""... unless that would leave fewer changes than this."""
BOOKMARK_SECONDS = 60.0
_UNSHELVED = (ROOT + "ranges/", ROOT + "masterleases/")
"""What stands beside the objects: which node ports are taken (`allocation.node_ports`), which servers there are
(`endpoint_reconciler`)."""


def too_old(asked: int, oldest: int) -> StatusError:
    return gone(f"too old resource version: {asked} ({oldest})")


class Shelf:
    """The objects of one resource (under all its names), in key order, and their recent changes."""

    def __init__(self, resource: Resource, revision: int) -> None:
        self.resource = resource
        self.path = resource.storage_path
        self.opening = opening(resource)
        self.revision = revision
        """Of the last change here (or of the load)."""
        self.oldest = revision
        """A watch may start behind any revision from this one on."""
        self.keys: list[str] = []
        self.rows: list[Record] = []
        """The objects, each at the place of its key: a list copies a part of it in no time."""
        self.records: dict[str, Record] = {}
        self.history: deque[Change] = deque()
        self.history_bytes = 0
        self.groups: dict[tuple[object, ...], Group] = {}
        self.decoded_groups = 0
        """How many of the groups want decoded objects."""
        self.callbacks: list[ChangeCallback] = []
        self.received = self.sent = 0
        """Changes that were taken up, and events that watchers were told, for metrics."""

    def make(self, key: str, value: bytes, revision: int, obj: Object | None = None) -> Record:
        """The record of a stored value. `obj`, if given, is its decoded form, and is taken over."""
        namespace, name = split_key(key, self.resource.namespaced)
        labels = None
        if obj is not None:
            metadata = obj["metadata"]
            metadata["resourceVersion"] = str(revision)
            labels = metadata.get("labels") or {}
        data = splice(value, self.opening, revision)
        return Record(key, namespace, name, revision, data, len(self.opening), labels=labels, obj=obj)

    def span(self, namespace: str, after: str = "") -> tuple[int, int]:
        """Where the objects of a namespace ("" for all) stand in `keys` and `rows`; with `after`, those whose key is
        greater."""
        keys = self.keys
        start, end = 0, len(keys)
        if namespace:
            prefix = prefix_of(self.path, namespace)
            start = bisect_left(keys, prefix)
            # "0" follows "/": the first text that is greater than everything with the prefix
            end = bisect_left(keys, prefix[:-1] + "0", start)
        return (bisect_right(keys, after, start, end) if after else start), end

    def within(self, selection: Selection, after: str = "") -> list[Record]:
        """The objects that a selection must be held against, in key order: of one name, or of a namespace."""
        only = selection.only_name
        if only is not None and (selection.namespace or not self.resource.namespaced):
            record = self.records.get(key_of(self.path, selection.namespace, only))
            return [record] if record is not None and record.key > after else []
        start, end = self.span(selection.namespace, after)
        return self.rows[start:end]

    def select(self, selection: Selection) -> list[Record]:
        """The objects of a selection in key order, at once."""
        rows = self.within(selection)
        return rows if selection.everything else [r for r in rows if selection.matches(r)]

    def apply(self, event: Event, obj: Object | None) -> Change:
        entry = event.entry
        key = entry.key
        self.received += 1
        previous = self.records.get(key)
        if event.deleted:
            if previous is not None:
                at = bisect_left(self.keys, key)
                del self.records[key], self.keys[at], self.rows[at]
            change = Change("DELETED", self.make(key, entry.value, entry.revision), previous)
        else:
            wanted = self.decoded_groups or self.callbacks or (previous is not None and previous.decoded)
            record = self.make(key, entry.value, entry.revision, obj if wanted else None)
            self.records[key] = record
            at = bisect_left(self.keys, key)
            if previous is None:
                self.keys.insert(at, key)
                self.rows.insert(at, record)
            else:
                self.rows[at] = record
            change = Change("MODIFIED" if previous is not None else "ADDED", record, previous)
        self.revision = entry.revision
        self._remember(change)
        return change

    def _remember(self, change: Change) -> None:
        history = self.history
        history.append(change)
        self.history_bytes += len(change.record.data)
        while len(history) > HISTORY_EVENTS or (
            self.history_bytes > HISTORY_BYTES and len(history) > HISTORY_LEAST
        ):
            dropped = history.popleft()
            self.history_bytes -= len(dropped.record.data)
            self.oldest = dropped.record.revision

    def since(self, revision: int) -> list[Change]:
        """The changes after a revision, in order."""
        recent: list[Change] = []
        for change in reversed(self.history):
            if change.record.revision <= revision:
                break
            recent.append(change)
        recent.reverse()
        return recent


class WatchCache:
    """All shelves. Implements `sampan.apiserver.types.ReadCache`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shelves: dict[str, Shelf] = {}
        self._by_path: dict[str, Shelf] = {}
        self._handed: dict[int, tuple[bytes, Object]] = {}
        self._bookmarks: asyncio.Handle | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._early: list[Event] | None = []
        self.lag = LoopLag()
        self.turns = Turns(self.lag)
        self._outbox: deque[Delivery] = deque()
        self._posting = False
        self.revision = 0
        """The newest revision seen."""
        self.followed: asyncio.Future[None]
        """Done, with the error, once something kept the cache from taking up a change: its server has to start anew."""

    async def start(self) -> None:
        """Fill the cache from the store and follow it from then on."""
        self.followed = asyncio.get_running_loop().create_future()
        self._unsubscribe = self._store.subscribe(self._follow)
        page = await self._store.list(ROOT)
        self.revision = page.revision
        for resource in stored():
            shelf = self._shelves[resource.key_stem] = Shelf(resource, page.revision)
            self._by_path[shelf.path] = shelf
        for entry in page.entries:
            if (found := self._shelf_of(entry.key)) is None:
                if not entry.key.startswith(_UNSHELVED):
                    log.warning("not served, left alone in the store: %s", entry.key)
                continue
            found.records[entry.key] = found.make(entry.key, entry.value, entry.revision)
            found.keys.append(entry.key)
        for shelf in self._shelves.values():
            shelf.keys.sort()
            shelf.rows = [shelf.records[k] for k in shelf.keys]
        early, self._early = self._early or [], None
        self.on_commit([e for e in early if e.entry.revision > page.revision])
        self._schedule_bookmarks()

    def close(self) -> None:
        """End all watches and stop following the store."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._bookmarks is not None:
            self._bookmarks.cancel()
        for shelf in self._shelves.values():
            for group in list(shelf.groups.values()):
                for watcher in list(group.watchers):
                    watcher.end()

    # -- following the store

    def hand_over(self, value: bytes, obj: Object) -> None:
        """Offer the decoded form of a value that is about to be written, so that it need not be decoded again."""
        self._handed[id(value)] = (value, obj)

    def take_back(self, value: bytes) -> None:
        """The write is over, whether it succeeded or not."""
        self._handed.pop(id(value), None)

    def _follow(self, events: Sequence[Event]) -> None:
        """Take up changes. If that fails, nothing here can be relied on: all watches are cut off and `followed` ends."""
        try:
            self.on_commit(events)
        except Exception as e:
            if not self.followed.done():
                self.followed.set_exception(e)
            for shelf in self._shelves.values():
                for group in list(shelf.groups.values()):
                    group.cut()
            raise

    def on_commit(self, events: Sequence[Event]) -> None:
        """What has just become durable, in order."""
        if self._early is not None:
            self._early += events
            return
        self.lag.arm()
        before = self.revision
        touched: dict[Shelf, list[Change]] = {}
        for event in events:
            entry = event.entry
            self.revision = entry.revision
            shelf = self._shelf_of(entry.key)
            if shelf is None:
                continue
            handed = self._handed.get(id(entry.value))
            obj = handed[1] if handed is not None and handed[0] is entry.value else None
            change = shelf.apply(event, obj)
            touched.setdefault(shelf, []).append(change)
            for callback in shelf.callbacks:
                callback(
                    change.previous.obj if change.previous is not None else None,
                    change.record.obj if change.type != "DELETED" else None,
                )
        for shelf, changes in touched.items():
            for group in list(shelf.groups.values()):
                for delivery in group.deliveries(changes, before):
                    shelf.sent += len(delivery.changes) * len(group.watchers)
                    self._outbox.append(delivery)
            for change in changes:
                change.forget()
        if not self._posting:
            self._post()

    def _post(self) -> None:
        """Write what is due, a slice at a time, for with many watchers one commit is much to write. The further behind,
        the longer the slices: those who write must not outrun those who watch."""
        outbox = self._outbox
        until = perf_counter() + SLICE_SECONDS * (1 + len(outbox) // 8)
        while outbox:
            delivery = outbox[0]
            for watcher in delivery.watchers:
                delivery.group.deliver(watcher, delivery.changes, delivery.framed)
                if perf_counter() >= until:
                    self._posting = True
                    self.lag.arm()
                    asyncio.get_running_loop().call_soon(self._post)
                    return
            outbox.popleft()
        self._posting = False

    @property
    def told(self) -> int:
        """Every watcher over HTTP has been told of every change up to this revision; those in this process always of all."""
        return self._outbox[0].before if self._outbox else self.revision

    # -- reading

    def shelf(self, resource: Resource) -> Shelf:
        return self._shelves[resource.key_stem]

    def shelves(self) -> Iterable[Shelf]:
        return self._shelves.values()

    def record(self, resource: Resource, namespace: str, name: str) -> Record | None:
        shelf = self._shelves[resource.key_stem]
        return shelf.records.get(key_of(shelf.path, namespace, name))

    def _shelf_of(self, key: str) -> Shelf | None:
        """Where a key of the store belongs; None for one that is no object's."""
        if not key.startswith(ROOT):
            return None
        parts = key.split("/", 4)
        shelf = self._by_path.get(parts[2])
        if shelf is None and len(parts) > 3:
            shelf = self._by_path.get(f"{parts[2]}/{parts[3]}")
        return shelf

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        record = self.record(resource, namespace, name)
        return record.obj if record is not None else None

    def list(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        shelf = self.shelf(resource)
        start, end = shelf.span(namespace)
        return [r.obj for r in shelf.rows[start:end]]

    def on_change(self, resource: Resource, callback: ChangeCallback) -> None:
        self.shelf(resource).callbacks.append(callback)

    # -- watching

    def join(self, selection: Selection, rendering: Rendering | None, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` told of every change from now on; the result takes it off again."""
        shelf = self.shelf(selection.resource)
        key = (
            selection.resource.group,
            selection.namespace,
            selection.label_text,
            selection.field_text,
            rendering,
        )
        group = shelf.groups.get(key)
        if group is None:
            group = shelf.groups[key] = Group(key, selection, rendering)
            shelf.decoded_groups += rendering is None
        group.watchers[watcher] = None

        def leave() -> None:
            group.watchers.pop(watcher, None)
            if not group.watchers and shelf.groups.get(key) is group:
                del shelf.groups[key]
                shelf.decoded_groups -= rendering is None

        return leave

    def missed(self, selection: Selection, revision: int) -> Sequence[Change]:
        """What has changed since `revision`, whether selected or not. Raises StatusError 410 where that is no longer
        known."""
        shelf = self.shelf(selection.resource)
        if revision < shelf.oldest:
            raise too_old(revision, shelf.oldest)
        return shelf.since(revision)

    def backlog(self, selection: Selection, revision: int) -> Sequence[tuple[ChangeType, Change]]:
        """What a watch from `revision` has missed. Raises StatusError 410 where that is no longer known."""
        missed = self.missed(selection, revision)
        return [(t, c) for c in missed if (t := selection.classify(c)) is not None]

    def _schedule_bookmarks(self) -> None:
        self._bookmarks = asyncio.get_running_loop().call_later(BOOKMARK_SECONDS, self._send_bookmarks)

    def _send_bookmarks(self) -> None:
        """Tell all who want to know how far they are, a slice at a time."""
        groups = [g for shelf in self._shelves.values() for g in shelf.groups.values()]
        self._mark(iter([(g, w) for g in groups for w in g.watchers if w.bookmarks]))

    def _mark(self, due: Iterator[tuple[Group, Watcher]]) -> None:
        until = perf_counter() + SLICE_SECONDS
        told = self.told
        for group, watcher in due:
            watcher.bookmark(self.revision if group.rendering is None else told)
            if perf_counter() >= until:
                self.lag.arm()
                self._bookmarks = asyncio.get_running_loop().call_soon(self._mark, due)
                return
        self._schedule_bookmarks()
