"""The access log, kept small: HAProxy appends to it by itself, and we set it aside when it is large.

HAProxy holds the file open, so it is copied and emptied; lines written between the two are lost. Nothing happens while
nobody writes: the kernel tells of the first line, and after a pause the size is looked at.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path

from sampan.linux import inotify

log = logging.getLogger(__name__)
MOST_BYTES = 10 * 1024 * 1024
"""Beyond this it is set aside; one such file is kept."""
_PAUSE = 2.0
_PAUSE_OF_FAILURE = 10.0


async def keep_small(path: Path, most: int = MOST_BYTES, pause: float = _PAUSE) -> None:
    """Until cancelled. What goes wrong is logged and tried again."""
    while True:
        try:
            await _written(path)
            await asyncio.sleep(pause)
            if path.stat().st_size > most:
                await asyncio.to_thread(set_aside, path)
        except Exception as e:
            log.warning("%s is not kept small: %s", path, e, exc_info=not isinstance(e, OSError))
            await asyncio.sleep(_PAUSE_OF_FAILURE)


async def _written(path: Path) -> None:
    """Returns once something is written to a file, which is made if there is none. Raises OSError."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    loop, written = asyncio.get_running_loop(), asyncio.Event()
    watch = inotify.watch(path, inotify.MODIFY)
    loop.add_reader(watch, written.set)
    try:
        await written.wait()
    finally:
        loop.remove_reader(watch)
        os.close(watch)


def set_aside(path: Path) -> None:
    """Copy to `NAME.1` and begin anew."""
    aside = path.with_name(f"{path.name}.1")
    temporary = path.with_name(f"{path.name}.new")
    try:
        with (
            open(path, "rb") as source,
            open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as to,
        ):
            shutil.copyfileobj(source, to, 1 << 20)
        temporary.replace(aside)
    except OSError as e:
        # The disk is full: the lines go, so that it is not full by them.
        log.warning("lines of %s are lost: %s", path, e)
        temporary.unlink(missing_ok=True)
    os.truncate(path, 0)
