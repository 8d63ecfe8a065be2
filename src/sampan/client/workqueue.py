"""The work queue that controllers share: each key is worked on by one worker at a time, and never twice for one change.

As in client-go's workqueue: a key added while waiting is kept once; one added while it is being worked on is worked
on again afterwards; a key that failed comes back after a pause that doubles from 5 ms to 1000 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import ClassVar
from weakref import WeakSet

from sampan.client.metrics import Histogram

log = logging.getLogger(__name__)

FIRST_PAUSE, MOST_PAUSE = 0.005, 1000.0


_BOUNDS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Seconds; upstream's for its queues."""


class WorkQueue:
    """Keys (text) waiting for work. All methods belong to the loop's thread. `adds`, `retries`, `waits` (seconds in the
    queue) and `works` (seconds at work) are counted for metrics."""

    everyone: ClassVar[WeakSet[WorkQueue]] = WeakSet()
    """All queues of this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._ready: deque[str] = deque()
        self._dirty: set[str] = set()
        self._active: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wakeup = asyncio.Event()
        self._since: dict[str, float] = {}
        """Since when a key waits, or is worked on."""
        self.adds = self.retries = 0
        self.waits, self.works = Histogram(_BOUNDS), Histogram(_BOUNDS)
        self.everyone.add(self)

    def add(self, key: str) -> None:
        """Have `key` worked on as soon as a worker is free."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        self.adds += 1
        if key not in self._active:
            self._since[key] = perf_counter()
            self._ready.append(key)
            self._wakeup.set()

    def add_after(self, key: str, seconds: float) -> None:
        """Have `key` worked on after a while; of two pending times the earlier counts."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= when:
                return
            pending.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    def not_later(self, key: str) -> None:
        """Have `key` not worked on after a while any more: what it is for is gone."""
        pending = self._timers.pop(key, None)
        if pending is not None:
            pending.cancel()

    def add_rate_limited(self, key: str) -> None:
        """Have a key that failed worked on again after its pause."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retries += 1
        self.add_after(key, min(FIRST_PAUSE * 2 ** min(failures, 30), MOST_PAUSE))

    def forget(self, key: str) -> None:
        """The key succeeded: its next failure waits the shortest pause again."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        return self._failures.get(key, 0)

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def oldest_work(self) -> float:
        """Seconds that the key longest at work has been there; 0 where none is."""
        return max((perf_counter() - self._since[key] for key in self._active), default=0.0)

    async def get(self) -> str:
        """The next key; it is the caller's until `done(key)`."""
        while not self._ready:
            self._wakeup.clear()
            await self._wakeup.wait()
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._active.add(key)
        now = perf_counter()
        self.waits.observe(now - self._since[key])
        self._since[key] = now
        return key

    def done(self, key: str) -> None:
        self._active.discard(key)
        now = perf_counter()
        self.works.observe(now - self._since.pop(key, now))
        if key in self._dirty:
            self._since[key] = now
            self._ready.append(key)
            self._wakeup.set()

    def close(self) -> None:
        """Drop pending timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def run(self, work: Callable[[str], Awaitable[None]], workers: int = 1) -> None:
        """Work on keys until cancelled. A `work` that raises has its key tried again after a pause; it may itself call
        `add_after` for a key that must be looked at later."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._worker(work))
        finally:
            self.close()

    async def _worker(self, work: Callable[[str], Awaitable[None]]) -> None:
        while True:
            key = await self.get()
            try:
                await work(key)
            except Exception as e:
                level = logging.DEBUG if getattr(e, "code", 0) == 409 else logging.WARNING
                log.log(level, "%s: %s failed: %s", self.name, key, e, exc_info=level > logging.WARNING)
                self.add_rate_limited(key)
            else:
                self.forget(key)
            finally:
                self.done(key)

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)
