"""The tasks of a process and what their failures lead to."""

from __future__ import annotations

import asyncio

import pytest

from sampan.cluster import owner
from sampan.cluster.owner import PartEnded, again_and_again, run_until_told


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_task_that_fails_or_returns_ends_all() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    async def return_() -> None:
        return

    with pytest.raises(ExceptionGroup) as failed:
        await run_until_told({"one": forever(), "other": fail()}, asyncio.Event())
    assert isinstance(failed.value.exceptions[0], ValueError)
    with pytest.raises(ExceptionGroup) as ended:
        await run_until_told({"one": forever(), "other": return_()}, asyncio.Event())
    assert isinstance(ended.value.exceptions[0], PartEnded)


async def test_a_work_that_fails_is_begun_anew_after_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(owner.asyncio, "sleep", note)
    works, begun = 0, asyncio.Event()

    async def work() -> None:
        nonlocal works
        works += 1
        if works == 9:
            begun.set()
            await forever()
        if works % 2:
            raise ExceptionGroup("group", [ValueError("broken")])

    task = asyncio.create_task(again_and_again("controllers", work))
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
