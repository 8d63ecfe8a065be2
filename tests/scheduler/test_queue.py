"""The order of waiting pods, and when sleeping ones wake; on a clock that the test turns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sampan.scheduler.queue import QueuedPod, SchedulingQueue
from tests.scheduler.objects import info


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def queue(clock: Clock) -> Any:
    made = SchedulingQueue(clock)
    yield made
    made.close()


async def names(queue: SchedulingQueue, count: int) -> list[str]:
    return [(await asyncio.wait_for(queue.pop(), 20)).info.key.removeprefix("default/") for _ in range(count)]


def ready(queue: SchedulingQueue) -> QueuedPod | None:
    """What `pop` would return at once."""
    popping = queue.pop()
    try:
        popping.send(None)
    except StopIteration as e:
        return e.value  # type: ignore[no-any-return]
    popping.close()
    return None


async def test_by_priority_then_age(queue: SchedulingQueue, clock: Clock) -> None:
    for name, priority in (("a", 0), ("b", 0), ("c", 10)):
        queue.add(info(name, priority=priority))
        clock.now += 1
    assert await names(queue, 3) == ["c", "a", "b"]
    assert ready(queue) is None


async def test_a_removed_pod_does_not_come(queue: SchedulingQueue) -> None:
    queue.add(info("a"))
    queue.add(info("b"))
    queue.remove("default/a")
    assert await names(queue, 1) == ["b"]
    assert ready(queue) is None
    assert len(queue) == 0


async def test_sleeping_pods_wake_by_what_concerns_them(queue: SchedulingQueue, clock: Clock) -> None:
    queue.add(info("a"))
    pod = await queue.pop()
    queue.add_unschedulable(pod, frozenset({"NodeAffinity"}))
    queue.move({"NodeResourcesFit"})
    assert ready(queue) is None
    queue.move({"NodeAffinity", "TaintToleration"})
    # In its pause, but nobody else waits.
    assert ready(queue) is pod
    queue.add_unschedulable(pod, frozenset())
    queue.move({"NodePorts"})
    assert ready(queue) is pod
    queue.add_unschedulable(pod, frozenset({"NodePorts"}))
    queue.move(None)
    assert ready(queue) is pod


async def test_pauses_double_and_others_go_first(queue: SchedulingQueue, clock: Clock) -> None:
    queue.add(info("a", priority=5))
    pod = await queue.pop()
    pauses = []
    for _ in range(6):
        queue.add_unschedulable(pod, frozenset({"X"}))
        pauses.append(pod.pause)
        queue.move({"X"})
        queue.add(info("other"))
        assert await names(queue, 2) == ["other", "a"]
    assert pauses == [1, 2, 4, 8, 10, 10]
    queue.add_unschedulable(pod, frozenset({"X"}))
    clock.now += 10
    queue.move({"X"})
    queue.add(info("other"))
    assert await names(queue, 2) == ["a", "other"]


async def test_after_an_error_the_pause_is_kept(queue: SchedulingQueue, clock: Clock) -> None:
    queue.add(info("a"))
    pod = await queue.pop()
    queue.add_failed(pod)
    queue.move(None)
    assert ready(queue) is None
    queue.update(pod.info)
    assert ready(queue) is None
    clock.now += 1
    assert ready(queue) is pod


async def test_a_pod_that_failed_waits_only_once(queue: SchedulingQueue, clock: Clock) -> None:
    queue.add(info("a"))
    pod = await queue.pop()
    queue.add(info("a"))  # an event came in between
    queue.add_failed(pod)
    assert ready(queue) is None
    clock.now += 1
    assert ready(queue) is pod
    assert ready(queue) is None


async def test_gated_pods_wait_for_their_gates_to_go(queue: SchedulingQueue) -> None:
    gated = info("a", schedulingGates=[{"name": "x"}])
    queue.add(gated)
    queue.move(None)
    queue.wake("default/a")
    assert ready(queue) is None
    queue.update(info("a"))
    assert await names(queue, 1) == ["a"]


async def test_a_changed_pod_is_tried_again(queue: SchedulingQueue) -> None:
    queue.add(info("a"))
    pod = await queue.pop()
    queue.add_unschedulable(pod, frozenset({"NodeAffinity"}))
    changed = info("a", labels={"x": "y"})
    queue.update(changed)
    found = ready(queue)
    assert found is pod
    assert found.info is changed
    assert found.attempts == 2


async def test_the_timer_wakes_a_waiting_scheduler() -> None:
    queue = SchedulingQueue()
    pod = QueuedPod(info("a"), 0.0)
    pod.attempts = -20  # a pause of a few microseconds
    queue.add_failed(pod)
    try:
        assert await asyncio.wait_for(queue.pop(), 20) is pod
    finally:
        queue.close()
