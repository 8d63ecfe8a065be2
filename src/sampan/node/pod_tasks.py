"""The tasks of one pod: owned, never silently failed, and each able to wake the pod's worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class PodTasks:
    """`name` is the pod's, for the log."""

    def __init__(self, name: str) -> None:
        self.wakeup = asyncio.Event()
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def wake(self) -> None:
        """Have the worker look at everything again."""
        self.wakeup.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as a task of this pod's; what it raises is logged and wakes the worker."""
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self.own(task)
        return task

    def own(self, task: asyncio.Task[Any]) -> None:
        """Take over a task that someone else waits for: it ends with the pod at the latest."""
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Seen, though nobody may wait for it any more.
            task.exception()

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # whatever it is: the worker looks at the whole pod again
            log.exception("pod %s", self._name)
            self.wake()
