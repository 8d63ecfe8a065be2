"""The tasks of a process: each has a name and an owner, and one that ends by itself ends the process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Mapping
from typing import Any


class PartEnded(Exception):
    """A task that runs as long as its process returned."""


async def run_until_told(tasks: Mapping[str, Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
    """Run all until `stop` is set; then cancel them and wait for their end. A failure of one is raised, and so is its
    return (PartEnded): the supervisor then starts the process anew."""

    async def watched(name: str, work: Coroutine[Any, Any, None]) -> None:
        await work
        raise PartEnded(name)

    class Told(Exception):
        """The way out of the group."""

    async def wait() -> None:
        await stop.wait()
        raise Told

    try:
        async with asyncio.TaskGroup() as group:
            for name, work in tasks.items():
                group.create_task(watched(name, work), name=name)
            group.create_task(wait(), name="stop")
    except* Told:
        pass


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
