"""The access log, kept small: HAProxy appends to it by itself, and we set it aside when it is large.

HAProxy holds the file open, so it is copied and emptied; lines written between the two are lost. Nothing happens while
nobody writes: the kernel tells of the first line, and after a pause the size is looked at.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from sampan.linux import inotify

MOST_BYTES = 10 * 1024 * 1024
"""Beyond this it is set aside; one such file is kept."""
_PAUSE = 2.0


async def keep_small(path: Path, most: int = MOST_BYTES, pause: float = _PAUSE) -> None:
    """Until cancelled."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    loop = asyncio.get_running_loop()
    while True:
        written = asyncio.Event()
        watch = inotify.watch(path, inotify.MODIFY)
        loop.add_reader(watch, written.set)
        try:
            await written.wait()
        finally:
            loop.remove_reader(watch)
            os.close(watch)
        await asyncio.sleep(pause)
        if path.stat().st_size > most:
            await asyncio.to_thread(set_aside, path)


def set_aside(path: Path) -> None:
    """Copy to `NAME.1` and begin anew."""
    aside = path.with_name(f"{path.name}.1")
    temporary = path.with_name(f"{path.name}.new")
    with (
        open(path, "rb") as source,
        open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as to,
    ):
        shutil.copyfileobj(source, to, 1 << 20)
    temporary.replace(aside)
    os.truncate(path, 0)
