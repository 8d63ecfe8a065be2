"""Work that goes on for ever and is begun anew when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)
_FIRST_PAUSE, _MOST_PAUSE = 1.0, 60.0


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
