"""The pods that wait for a node: ready ones by priority and age, those that must pause, and those that nothing helps yet.

A pod that found no node sleeps until a change that concerns one of the plugins that refused it. It then pauses, 1 s after
its first attempt and doubling to 10 s; but while no other pod is ready there is no reason to let it wait, so it is taken
at once, as upstream does. Only one that failed by an error really waits its pause.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sampan.scheduler.cache import PodInfo

FIRST_PAUSE, MOST_PAUSE = 1.0, 10.0
"""Seconds."""


@dataclass(slots=True, eq=False)
class QueuedPod:
    """A pod that waits. `plugins` are those that refused it the last time; `since` is when it came or came back."""

    info: PodInfo
    since: float
    attempts: int = 0
    plugins: frozenset[str] = frozenset()
    tried: float = 0.0
    failed: bool = False
    """Whether the last attempt ended in an error."""
    ticket: int = 0
    """Its valid entry of the heaps; 0 for none."""

    @property
    def pause(self) -> float:
        return min(FIRST_PAUSE * 2.0 ** min(self.attempts - 1, 10), MOST_PAUSE)


_Entry = tuple[float, float, int, QueuedPod]


class SchedulingQueue:
    """Belongs to the loop's thread. A pod is in one of the three places, or its scheduler's (after `pop`)."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        self._tickets = itertools.count(1)
        self._active: list[_Entry] = []
        self._backoff: list[_Entry] = []
        self._place: dict[str, QueuedPod] = {}
        """The pods that are in one of the two heaps. An entry whose ticket is not its pod's any more is void."""
        self._asleep: dict[str, QueuedPod] = {}
        self._gated: dict[str, QueuedPod] = {}
        self._wakeup = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, info: PodInfo) -> None:
        """A new pod; one with scheduling gates waits until they are gone."""
        self.remove(info.key)
        pod = QueuedPod(info, self._clock())
        if info.spec.get("schedulingGates"):
            self._gated[info.key] = pod
        else:
            self._activate(pod)

    def update(self, info: PodInfo) -> None:
        """The pod itself was changed, in what it asks for."""
        pod = self._asleep.get(info.key) or self._place.get(info.key)
        if pod is None:
            self.add(info)
            return
        pod.info = info
        if info.key in self._asleep:
            self._awaken(pod)
        elif not pod.failed:
            self._activate(pod)  # its priority may have changed

    def get(self, key: str) -> QueuedPod | None:
        return self._place.get(key) or self._asleep.get(key) or self._gated.get(key)

    def remove(self, key: str) -> None:
        for place in (self._place, self._asleep, self._gated):
            pod = place.pop(key, None)
            if pod is not None:
                pod.ticket = 0

    def add_unschedulable(self, pod: QueuedPod, plugins: frozenset[str]) -> None:
        """The popped pod found no node: it sleeps until a change that concerns one of `plugins` (none: any change)."""
        self.remove(pod.info.key)
        pod.plugins, pod.failed, pod.tried = plugins, False, self._clock()
        self._asleep[pod.info.key] = pod

    def add_failed(self, pod: QueuedPod) -> None:
        """The popped pod could not be placed by an error: it is tried again after its pause."""
        self.remove(pod.info.key)
        pod.plugins, pod.failed, pod.tried = frozenset(), True, self._clock()
        self._pause(pod)

    def move(self, plugins: Iterable[str] | None) -> None:
        """A change that concerns `plugins` (None: every one) has happened: wake the pods that it may help."""
        changed = None if plugins is None else frozenset(plugins)
        for pod in [
            p for p in self._asleep.values() if changed is None or not p.plugins or p.plugins & changed
        ]:
            self._awaken(pod)

    def wake(self, key: str) -> None:
        """Wake one pod, whatever refused it."""
        pod = self._asleep.get(key)
        if pod is not None:
            self._awaken(pod)

    async def pop(self) -> QueuedPod:
        """The next pod to place. It counts an attempt."""
        while True:
            pod = self._next()
            if pod is not None:
                pod.attempts += 1
                return pod
            self._wakeup.clear()
            await self._wakeup.wait()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __len__(self) -> int:
        return len(self._place) + len(self._asleep) + len(self._gated)

    def _next(self) -> QueuedPod | None:
        self._release()
        waiting = self._active
        while waiting and not _valid(waiting[0]):
            heapq.heappop(waiting)
        if not waiting:
            # Nobody else wants the scheduler: no reason to pause, unless after an error.
            waiting = [e for e in self._backoff if _valid(e) and not e[3].failed]
        if not waiting:
            return None
        pod = min(waiting)[3] if waiting is not self._active else heapq.heappop(waiting)[3]
        pod.ticket = 0
        del self._place[pod.info.key]
        return pod

    def _activate(self, pod: QueuedPod) -> None:
        self._enter(self._active, -pod.info.priority, pod)

    def _pause(self, pod: QueuedPod) -> None:
        self._enter(self._backoff, pod.tried + pod.pause, pod)

    def _enter(self, heap: list[_Entry], first: float, pod: QueuedPod) -> None:
        pod.ticket = next(self._tickets)
        self._place[pod.info.key] = pod
        heapq.heappush(heap, (first, pod.since, pod.ticket, pod))
        self._wakeup.set()

    def _awaken(self, pod: QueuedPod) -> None:
        del self._asleep[pod.info.key]
        if pod.tried + pod.pause > self._clock():
            self._pause(pod)
        else:
            self._activate(pod)

    def _release(self) -> None:
        """Make ready what has paused long enough, and come back for the next."""
        now = self._clock()
        while self._backoff and (not _valid(self._backoff[0]) or self._backoff[0][0] <= now):
            entry = heapq.heappop(self._backoff)
            if _valid(entry):
                self._activate(entry[3])
        self.close()
        if self._backoff:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._backoff[0][0] - now, self._wakeup.set)


def _valid(entry: _Entry) -> bool:
    return entry[3].ticket == entry[2]
