"""Watches over HTTP: from a request's parameters to the stream that is written to.

Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/watch.go` and the start semantics of `storage/cacher`: without a
resourceVersion, or with "0", the present state comes first as ADDED events; with one, what changed since; with
`sendInitialEvents` the state and then a bookmark that says that it is complete.

A watcher that has caught up costs no task: the cache writes to its stream. One that has much to catch up with has a task
for as long as that takes, which goes at the peer's pace; what changes meanwhile is read from the cache's history.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial

from sampan.api.errors import StatusError
from sampan.apiserver import list_options
from sampan.apiserver.events import (
    Change,
    ChangeType,
    Selection,
    bookmark_object,
    framed_event,
)
from sampan.apiserver.list_options import ListOptions
from sampan.apiserver.records import Record, to_json
from sampan.apiserver.rendering import Rendering
from sampan.apiserver.turns import batches
from sampan.apiserver.watchcache import WatchCache
from sampan.transport.types import Answer, Request, Stream, StreamingResponse

log = logging.getLogger(__name__)

MOST_BUFFERED = 16 * 2**20
"""Bytes that a watcher may leave untaken before it is cut off."""
_TIMEOUT_SECONDS = 1800.0
"""Least time that a watch goes on which says nothing of it; twice as much at most."""
_AT_ONCE = 200
"""Most changes that are written in the call itself, and ..."""
_AT_ONCE_BYTES = 512 * 1024
"""... most bytes of them; also what is written ahead of the peer while it catches up."""
_STEP = 20

Changes = Sequence[tuple[ChangeType, Change]]
Missed = Sequence[Change | Record]
"""Changes, or the objects of the state at the beginning."""


def _size(missed: Change | Record) -> int:
    return len((missed.record if isinstance(missed, Change) else missed).data)


def _is_little(missed: Missed) -> bool:
    return len(missed) <= _AT_ONCE and sum(map(_size, missed)) <= _AT_ONCE_BYTES


class StreamWatcher:
    """One watch over HTTP. Lives from the moment the answer's head is written until the stream ends."""

    def __init__(
        self,
        cache: WatchCache,
        selection: Selection,
        rendering: Rendering,
        *,
        revision: int | None,
        bookmarks: bool,
        initial_events: bool,
        timeout: float,
    ) -> None:
        self.bookmarks = bookmarks
        self._cache = cache
        self._selection = selection
        self._first = rendering
        """That of the next event; Tables say only once what their columns are."""
        self._rendering = rendering.following
        self._revision = revision
        self._initial_events = initial_events
        self._timeout = timeout
        self._position = 0
        """The revision of what was told last."""
        self._stream: Stream | None = None
        self._leave: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._catching_up: asyncio.Task[None] | None = None

    def start(self, stream: Stream) -> None:
        """The head is out: catch up, and from then on be told."""
        self._stream = stream
        stream.on_closed(self._closed)
        if self._stream is None:
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._timeout, self.end)
        shelf = self._cache.shelf(self._selection.resource)
        position = shelf.revision
        missed: Missed
        try:
            if self._revision is None:
                missed = shelf.within(self._selection)
            else:
                missed = self._cache.missed(self._selection, self._revision)
        except StatusError as e:
            self._fail(e)
            return
        if not _is_little(missed):
            self._catching_up = loop.create_task(
                self._catch_up(stream, missed, position), name="watch-catch-up"
            )
            return
        self._write(stream, missed)
        self._go_on()

    async def _catch_up(self, stream: Stream, missed: Missed, position: int) -> None:
        """Write what was missed up to `position`, then what was missed meanwhile, until little is left."""
        cache = self._cache
        shelf = cache.shelf(self._selection.resource)
        try:
            while not _is_little(missed):
                for part in batches(missed, _AT_ONCE, _size, _AT_ONCE_BYTES):
                    await cache.turns.each(part, _STEP, partial(self._write, stream), _size)
                    await stream.drain()
                missed = cache.missed(self._selection, position)
                position = shelf.revision
            self._catching_up = None
            self._write(stream, missed)
            self._go_on()
        except StatusError as e:
            self._fail(e)
        except ConnectionError:
            stream.abort()
        except Exception:
            log.exception("a watch failed while it caught up")
            stream.abort()

    def _go_on(self) -> None:
        """Nothing is missed any more."""
        self._position = self._cache.revision
        if self._initial_events and self.bookmarks:
            self._bookmark(initial_end=True)
        if self._stream is not None:
            self._leave = self._cache.join(self._selection, self._rendering, self)

    def _write(self, stream: Stream, missed: Missed) -> None:
        classify = self._selection.classify
        changes = [m if isinstance(m, Change) else Change("ADDED", m, None) for m in missed]
        told = [(t, c) for c in changes if (t := classify(c)) is not None]
        if told:
            stream.write_framed(self._framed(told))

    def _framed(self, changes: Changes) -> bytes:
        frames = []
        for type_, change in changes:
            frames.append(framed_event(type_, self._first.item(change.shown(type_))))
            self._first = self._rendering
        return b"".join(frames)

    def deliver(self, changes: Changes, framed: bytes) -> None:
        stream = self._stream
        if stream is None:
            return
        if self._first is not self._rendering:
            framed = self._framed(changes)
        stream.write_framed(framed)
        self._position = changes[-1][1].record.revision
        if stream.buffered > MOST_BUFFERED:
            log.info("a watch of %s takes no events; connection cut", self._selection.resource.plural)
            stream.abort()

    def bookmark(self, revision: int) -> None:
        # What this one was told may be ahead of what all were; it never goes back.
        self._position = max(self._position, revision)
        self._bookmark()

    def _bookmark(self, *, initial_end: bool = False) -> None:
        if self._stream is None:
            return
        rendering, revision = self._rendering, self._position
        obj = bookmark_object(rendering.resource, revision, initial_end=initial_end)
        if rendering.form == "metadata":
            obj.update(kind="PartialObjectMetadata", apiVersion="meta.k8s.io/v1")
        elif rendering.form == "table":
            row = {"cells": [], "object": obj}
            obj = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": str(revision)},
                "columnDefinitions": None,
                "rows": [row],
            }
        self._stream.write_framed(framed_event("BOOKMARK", to_json(obj)))

    def _fail(self, error: StatusError) -> None:
        """Upstream tells in the stream what it finds only after the watch has begun."""
        stream = self._stream
        if stream is not None:
            stream.write_framed(framed_event("ERROR", to_json(error.status())))
            stream.close()

    def end(self) -> None:
        """The time is up, or the server is closing."""
        stream = self._stream
        if stream is None:
            return
        if self.bookmarks and self._leave is not None:
            self.bookmark(self._cache.told)
        stream.close()

    def cut(self) -> None:
        if self._stream is not None:
            self._stream.abort()

    def _closed(self) -> None:
        self._stream = None
        if self._leave is not None:
            self._leave()
            self._leave = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task, self._catching_up = self._catching_up, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()


def watch(
    cache: WatchCache, request: Request, selection: Selection, rendering: Rendering, options: ListOptions
) -> Answer:
    """The answer to a watch request. Raises StatusError for a revision that cannot be watched from."""
    revision = list_options.parse_revision(options.resource_version)
    if revision > cache.revision:
        raise list_options.too_large(revision, cache.revision)
    send_initial = options.send_initial_events
    if send_initial is None:
        send_initial = revision == 0
    timeout = options.timeout_seconds or _TIMEOUT_SECONDS * random.uniform(1, 2)
    watcher = StreamWatcher(
        cache,
        selection,
        rendering,
        revision=None if send_initial else revision or cache.revision,
        bookmarks=options.bookmarks,
        initial_events=send_initial,
        timeout=max(0.0, timeout),
    )
    if "upgrade" in request.headers:
        from sampan.apiserver import watchsockets

        if watchsockets.is_websocket(request):
            return watchsockets.answer(request, watcher.start)
    return StreamingResponse(watcher.start, content_type="application/json")
