"""Work that is begun anew when it fails."""

from __future__ import annotations

import asyncio

import pytest

from sampan.client.restarting import again_and_again


async def test_a_work_that_fails_is_begun_anew_after_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    works, begun = 0, asyncio.Event()

    async def work() -> None:
        nonlocal works
        works += 1
        if works == 9:
            begun.set()
            await asyncio.Event().wait()
        if works % 2:
            raise ExceptionGroup("group", [ValueError("broken")])

    task = asyncio.create_task(again_and_again("controllers", work))
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
