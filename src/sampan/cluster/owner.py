"""The tasks of a process: each has a name and an owner, and one that ends by itself ends the process."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

log = logging.getLogger(__name__)
_FIRST_PAUSE, _MOST_PAUSE = 1.0, 60.0


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


async def again_and_again(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do a work until cancelled: when it fails it is begun anew, after a pause that doubles from 1 s to 1 minute and is
    short again after it went well for that long. For what may fail without the process it is in: an object that a
    controller cannot bear must not take away the API, by which alone it can be deleted."""
    clock = asyncio.get_running_loop().time
    pause = _FIRST_PAUSE
    while True:
        began = clock()
        try:
            await work()
            log.error("%s ended", name)
        except Exception:
            log.exception("%s failed", name)
        if clock() - began > _MOST_PAUSE:
            pause = _FIRST_PAUSE
        await asyncio.sleep(pause)
        pause = min(pause * 2, _MOST_PAUSE)


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
