"""Watches over HTTP: from a request's parameters to the stream that is written to.

Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/watch.go` and the start semantics of `storage/cacher`: without a
resourceVersion, or with "0", the present state comes first as ADDED events; with one, what changed since; with
`sendInitialEvents` the state and then a bookmark that says that it is complete.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from sampan.api.errors import StatusError, bad_request, invalid_value
from sampan.apiserver.events import (
    Change,
    ChangeType,
    Selection,
    bookmark_object,
    framed_event,
    initial,
)
from sampan.apiserver.negotiation import Rendering, not_acceptable
from sampan.apiserver.records import to_json
from sampan.apiserver.requestinfo import truthy
from sampan.apiserver.watchcache import WatchCache
from sampan.transport.types import Request, Stream, StreamingResponse

MOST_BUFFERED = 32 * 2**20
"""Bytes that a watcher may leave untaken before it is cut off."""
_TIMEOUT_SECONDS = 1800.0


def parse_revision(text: str) -> int:
    """A resourceVersion parameter; "" is 0. Raises StatusError 400."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise bad_request(f"invalid resource version: {text!r}")
    return int(text)


def too_large(asked: int, current: int) -> StatusError:
    """A revision that has not been reached; clients try again."""
    return StatusError(
        504,
        "Timeout",
        f"Too large resource version: {asked}, current: {current}",
        {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
    )


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
        self._rendering = rendering
        self._revision = revision
        self._initial_events = initial_events
        self._timeout = timeout
        self._stream: Stream | None = None
        self._leave: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, stream: Stream) -> None:
        """The head is out: catch up, and from then on be told."""
        self._stream = stream
        stream.on_closed(self._closed)
        if self._stream is None:
            return
        changes: Sequence[tuple[ChangeType, Change]]
        try:
            if self._revision is None:
                changes = initial(self._cache.shelf(self._selection.resource).select(self._selection))
            else:
                changes = self._cache.backlog(self._selection, self._revision)
        except StatusError as e:
            stream.write_framed(framed_event("ERROR", to_json(e.status())))
            stream.close()
            return
        rendering = self._rendering
        if changes:
            stream.write_framed(b"".join([c.framed(t, rendering) for t, c in changes]))
            for _, change in changes:
                change.forget_frames()
        if self._initial_events and self.bookmarks:
            self._bookmark(self._cache.revision, initial_end=True)
        self._leave = self._cache.join(self._selection, rendering, self)
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self.end)

    def deliver(self, changes: Sequence[tuple[ChangeType, Change]], framed: bytes) -> None:
        stream = self._stream
        if stream is None:
            return
        stream.write_framed(framed)
        if stream.buffered > MOST_BUFFERED:
            stream.abort()

    def bookmark(self, revision: int) -> None:
        self._bookmark(revision)

    def _bookmark(self, revision: int, *, initial_end: bool = False) -> None:
        if self._stream is None:
            return
        rendering = self._rendering
        obj = bookmark_object(rendering.resource, revision, initial_end=initial_end)
        if rendering.form == "metadata":
            obj.update(kind="PartialObjectMetadata", apiVersion="meta.k8s.io/v1")
        elif rendering.form == "table":
            row = {"cells": [], "object": obj}
            obj = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": str(revision)},
                "columnDefinitions": [],
                "rows": [row],
            }
        self._stream.write_framed(framed_event("BOOKMARK", to_json(obj)))

    def end(self) -> None:
        """The time is up, or the server is closing."""
        stream = self._stream
        if stream is None:
            return
        if self.bookmarks and self._leave is not None:
            self._bookmark(self._cache.revision)
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


def watch(
    cache: WatchCache, request: Request, selection: Selection, rendering: Rendering
) -> StreamingResponse:
    """The answer to a watch request. Raises StatusError for parameters that do not fit together."""
    if rendering.yaml:
        raise not_acceptable()
    param = request.param
    asked = param("resourceVersion")
    match = param("resourceVersionMatch")
    send_initial = param("sendInitialEvents")
    initial_events = truthy(send_initial)
    revision = parse_revision(asked)
    if match and not send_initial:
        raise _invalid("resourceVersionMatch", match, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")  # fmt: skip
    if send_initial and match != "NotOlderThan":
        raise _invalid("resourceVersionMatch", match, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")  # fmt: skip
    if revision > cache.revision:
        raise too_large(revision, cache.revision)
    start = revision or None
    if send_initial:
        start = None if initial_events else (revision or cache.revision)
    seconds = param("timeoutSeconds")
    timeout = float(seconds) if seconds.isdigit() and int(seconds) else 0.0
    watcher = StreamWatcher(
        cache,
        selection,
        rendering,
        revision=start,
        bookmarks=truthy(param("allowWatchBookmarks")),
        initial_events=initial_events,
        timeout=timeout or _TIMEOUT_SECONDS * random.uniform(1, 2),
    )
    return StreamingResponse(watcher.start, content_type="application/json")


def _invalid(field: str, value: str, why: str) -> StatusError:
    from sampan.api.errors import invalid

    return invalid("ListOptions", "", [invalid_value(field, value, why)], "meta.k8s.io")
