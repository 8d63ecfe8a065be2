"""The work queue that controllers share: each key is worked on by one worker at a time, and never twice for one change.

As in client-go's workqueue: a key added while waiting is kept once; one added while it is being worked on is worked
on again afterwards; a key that failed comes back after a pause that doubles from 5 ms to 1000 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

FIRST_PAUSE, MOST_PAUSE = 0.005, 1000.0


class WorkQueue:
    """Keys (text) waiting for work. All methods belong to the loop's thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._ready: deque[str] = deque()
        self._dirty: set[str] = set()
        self._active: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wakeup = asyncio.Event()

    def add(self, key: str) -> None:
        """Have `key` worked on as soon as a worker is free."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._active:
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

    def add_rate_limited(self, key: str) -> None:
        """Have a key that failed worked on again after its pause."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(FIRST_PAUSE * 2 ** min(failures, 30), MOST_PAUSE))

    def forget(self, key: str) -> None:
        """The key succeeded: its next failure waits the shortest pause again."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        return self._failures.get(key, 0)

    def __len__(self) -> int:
        return len(self._ready)

    async def get(self) -> str:
        """The next key; it is the caller's until `done(key)`."""
        while not self._ready:
            self._wakeup.clear()
            await self._wakeup.wait()
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._active.add(key)
        return key

    def done(self, key: str) -> None:
        self._active.discard(key)
        if key in self._dirty:
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
