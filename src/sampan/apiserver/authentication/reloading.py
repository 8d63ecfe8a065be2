"""The AuthenticationConfiguration is read again when its file changes; a file that cannot be used changes nothing.

Upstream: `--authentication-config` of the API server is reloaded in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from sampan.apiserver.authentication.configuration import AuthenticationConfiguration, load
from sampan.linux import inotify

log = logging.getLogger(__name__)
_EVENTS = inotify.CLOSE_WRITE | inotify.MOVED_TO | inotify.CREATE


async def follow(path: Path, configure: Callable[[AuthenticationConfiguration], None]) -> None:
    """Call `configure` with each new state of the file, for ever. Raises OSError where it cannot be watched."""
    loop = asyncio.get_running_loop()
    # The directory: editors, and whoever mounts files into containers, put a new file in the old one's place.
    descriptor = inotify.watch(path.parent, _EVENTS)
    changed = asyncio.Event()
    loop.add_reader(descriptor, changed.set)
    try:
        held = path.read_bytes()
        while True:
            await changed.wait()
            changed.clear()
            os.read(descriptor, 1 << 16)
            try:
                if (found := path.read_bytes()) == held:
                    continue
                configure(load(path))
                held = found
                log.info("took up the changed %s", path)
            except (OSError, ValueError) as e:
                log.warning("the changed file is not taken up: %s", e)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
