from __future__ import annotations

import asyncio

import pytest

from sampan.client import workqueue
from sampan.client.workqueue import WorkQueue


async def test_a_key_that_waits_is_kept_once() -> None:
    queue = WorkQueue("q")
    for key in ("a", "b", "a"):
        queue.add(key)
    assert len(queue) == 2
    assert [await queue.get(), await queue.get()] == ["a", "b"]


async def test_a_key_added_during_its_work_is_worked_on_again_afterwards() -> None:
    queue = WorkQueue("q")
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_of_two_times_the_earlier_counts() -> None:
    queue = WorkQueue("q")
    queue.add_after("a", 1000)
    queue.add_after("a", 0.01)
    queue.add_after("a", 2000)
    assert await asyncio.wait_for(queue.get(), 10) == "a"
    queue.add_after("b", 0)
    assert await queue.get() == "b"
    queue.add_after("c", 1000)
    queue.close()


async def test_what_is_gone_is_not_waited_for() -> None:
    queue = WorkQueue("q")
    for key, seconds in (("a", 0.01), ("b", 0.02), ("c", 1000)):
        queue.add_after(key, seconds)
    queue.not_later("a")
    queue.not_later("c")
    queue.not_later("unknown")
    assert await asyncio.wait_for(queue.get(), 10) == "b"
    assert (len(queue), queue._timers) == (0, {})


async def test_pauses_double_until_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, pauses = WorkQueue("q"), []
    monkeypatch.setattr(queue, "add_after", lambda key, seconds: pauses.append(seconds))
    for _ in range(3):
        queue.add_rate_limited("a")
    assert pauses == [0.005, 0.01, 0.02]
    assert queue.failures("a") == 3
    for _ in range(40):
        queue.add_rate_limited("a")
    assert pauses[-1] == workqueue.MOST_PAUSE
    queue.forget("a")
    queue.add_rate_limited("a")
    assert pauses[-1] == 0.005


async def test_workers_share_keys_and_try_failures_again() -> None:
    queue = WorkQueue("q")
    active: set[str] = set()
    worked: list[str] = []
    finished = asyncio.Event()

    async def work(key: str) -> None:
        assert key not in active
        active.add(key)
        await asyncio.sleep(0)
        active.discard(key)
        worked.append(key)
        if key == "bad" and worked.count("bad") < 3:
            raise ValueError("not yet")
        if worked.count("bad") == 3:
            finished.set()

    runner = asyncio.ensure_future(queue.run(work, workers=4))
    for key in ("x", "bad", "y", "x"):
        queue.add(key)
    await asyncio.wait_for(finished.wait(), 10)
    runner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await runner
    assert {"x", "y"} <= set(worked)
    assert queue.failures("bad") == 0
