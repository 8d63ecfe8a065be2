"""Events about objects, written in the background: the recorder that node agent, scheduler and controllers share.

As in client-go's `tools/record`: the same event told again raises `count` of the first one, many alike (but for the
message) become one "combined from similar events", and one object cannot flood the API: after a burst of 25 it
gets one event every five minutes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from sampan.api.errors import Object, StatusError
from sampan.api.objects import format_time
from sampan.api.resources import EVENTS
from sampan.client.types import STRATEGIC_MERGE_PATCH, Client, ConnectionLost

log = logging.getLogger(__name__)

CACHE_ENTRIES = 4096
QUEUE_ENTRIES = 1000
SIMILAR_MOST, SIMILAR_SECONDS = 10, 600.0
SPAM_BURST, SPAM_SECONDS = 25.0, 300.0
RETRIES, FIRST_PAUSE, MOST_PAUSE = 18, 0.1, 10.0
"""Upstream pauses 10 s after each of 12 failures; here a node and its API start at the same time, and what the node tells first
often meets nobody. The pauses double, and last two minutes together as well."""
MESSAGE_BYTES = 1024

EventType = Literal["Normal", "Warning"]
_ObjectKey = tuple[str, str, str, str, str]


def reference(obj: Object, field_path: str = "") -> Object:
    """An `ObjectReference` to `obj`, or to the part of it at `field_path` (`spec.containers{web}`)."""
    meta = obj["metadata"]
    out: Object = {
        "kind": obj.get("kind", ""),
        "namespace": meta.get("namespace", ""),
        "name": meta["name"],
        "uid": meta.get("uid", ""),
        "apiVersion": obj.get("apiVersion", ""),
        "resourceVersion": meta.get("resourceVersion", ""),
        "fieldPath": field_path,
    }
    return {k: v for k, v in out.items() if v}


@dataclass(slots=True)
class _Told:
    """One event as it came: about what, of which kind, and when."""

    regarding: Object
    type: EventType
    reason: str
    message: str
    when: float

    @property
    def object_key(self) -> _ObjectKey:
        r = self.regarding
        return (
            r.get("kind", ""),
            r.get("namespace", ""),
            r["name"],
            r.get("uid", ""),
            r.get("fieldPath", ""),
        )


@dataclass(slots=True)
class _Similar:
    """Different messages of otherwise equal events, within the window that the last one opened."""

    messages: set[str] = field(default_factory=set)
    last: float = 0.0


@dataclass(slots=True)
class _Written:
    """An event that is in the API."""

    namespace: str
    name: str
    count: int


class Recorder:
    """Tells of events under one component's name. `run()` must be running in a task of the owner's; what is told
    before it runs waits. Losing an event is never an error for the teller."""

    def __init__(
        self, client: Client, component: str, host: str = "", *, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock
        self._queue: deque[_Told] = deque()
        self._wakeup = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._written: OrderedDict[tuple[object, ...], _Written] = OrderedDict()
        self._similar: OrderedDict[tuple[object, ...], _Similar] = OrderedDict()
        self._allowance: OrderedDict[_ObjectKey, tuple[float, float]] = OrderedDict()
        self._last_stamp = 0

    def event(
        self, obj: Object, type_: EventType, reason: str, message: str, *, field_path: str = ""
    ) -> None:
        """Tell that something happened to `obj` (or its part at `field_path`). Returns at once."""
        if len(self._queue) >= QUEUE_ENTRIES:
            log.warning("event queue is full, %s %s dropped", reason, obj["metadata"]["name"])
            return
        text = message.encode()
        if len(text) > MESSAGE_BYTES:
            message = text[: MESSAGE_BYTES - 3].decode(errors="ignore") + "..."
        self._queue.append(_Told(reference(obj, field_path), type_, reason, message, self._clock()))
        self._idle.clear()
        self._wakeup.set()

    async def flush(self) -> None:
        """Wait until everything told so far has been written or given up."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write events in the order they were told until cancelled."""
        while True:
            while self._queue:
                told = self._queue.popleft()
                try:
                    await self._record(told)
                except Exception:  # an event is a courtesy: whatever it is, the next one is written
                    log.exception("event %s of %s could not be written", told.reason, told.regarding)
            self._idle.set()
            self._wakeup.clear()
            await self._wakeup.wait()

    async def _record(self, told: _Told) -> None:
        key = self._correlate(told)
        if not self._allowed(told):
            return
        for attempt in range(RETRIES):
            try:
                await self._write(key, told)
                return
            except StatusError as e:
                if e.code not in (429, 500, 503, 504):
                    # A namespace on its way out, or an object nobody may write about: retrying cannot help.
                    log.debug("event %s: %s", told.reason, e.message)
                    return
            except ConnectionLost as e:
                log.debug("event %s: %s", told.reason, e)
            if attempt + 1 < RETRIES:
                await asyncio.sleep(min(FIRST_PAUSE * 2**attempt, MOST_PAUSE))

    def _correlate(self, told: _Told) -> tuple[object, ...]:
        """The cache key of an event; changes its message where it is one of many similar ones."""
        group = (told.object_key, told.type, told.reason)
        similar = self._similar.pop(group, None)
        if similar is None or told.when - similar.last > SIMILAR_SECONDS:
            similar = _Similar()
        similar.last = told.when
        if len(similar.messages) < SIMILAR_MOST or told.message in similar.messages:
            similar.messages.add(told.message)
            key: tuple[object, ...] = (*group, told.message)
        else:
            told.message = f"(combined from similar events): {told.message}"
            key = group
        self._similar[group] = similar
        _trim(self._similar)
        return key

    def _allowed(self, told: _Told) -> bool:
        tokens, last = self._allowance.pop(told.object_key, (SPAM_BURST, told.when))
        tokens = min(SPAM_BURST, tokens + max(0.0, told.when - last) / SPAM_SECONDS)
        allowed = tokens >= 1
        self._allowance[told.object_key] = (tokens - 1 if allowed else tokens, told.when)
        _trim(self._allowance)
        return allowed

    async def _write(self, key: tuple[object, ...], told: _Told) -> None:
        written = self._written.get(key)
        when = format_time(told.when)
        if written is not None:
            patch = {"count": written.count + 1, "lastTimestamp": when, "message": told.message}
            try:
                await self._client.patch(
                    EVENTS, written.namespace, written.name, patch, content_type=STRATEGIC_MERGE_PATCH
                )
            except StatusError as e:
                if e.code != 404:
                    raise
                # It has expired; begin anew.
                del self._written[key]
            else:
                written.count += 1
                self._written.move_to_end(key)
                return
        namespace = told.regarding.get("namespace") or "default"
        # Names must differ even where the clock has not moved on.
        self._last_stamp = max(int(told.when * 1e9), self._last_stamp + 1)
        name = f"{told.regarding['name']}.{self._last_stamp:x}"
        source = {"component": self._component}
        if self._host:
            source["host"] = self._host
        event: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": told.regarding,
            "reason": told.reason,
            "message": told.message,
            "source": source,
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
            "type": told.type,
            "eventTime": None,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
        await self._client.create(EVENTS, event, namespace=namespace)
        self._written[key] = _Written(namespace, name, 1)
        _trim(self._written)


def _trim(cache: OrderedDict[object, object] | OrderedDict) -> None:  # type: ignore[type-arg]
    while len(cache) > CACHE_ENTRIES:
        cache.popitem(last=False)
