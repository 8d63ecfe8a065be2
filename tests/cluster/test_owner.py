"""The tasks of a process and what their failures lead to."""

from __future__ import annotations

import asyncio

import pytest

from sampan.cluster.owner import PartEnded, run_until_told


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
