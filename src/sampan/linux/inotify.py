"""inotify(7): be woken when something changes in a directory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE = 0x2, 0x8, 0x40, 0x80, 0x100
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


def watch(directory: Path, events: int) -> int:
    """A non-blocking descriptor that becomes readable at each of `events` in `directory`; the caller's to close.
    Raises OSError where the directory is missing or the kernel has no watch left."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(_NONBLOCK | _CLOEXEC)
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(directory), events) < 0:
        number = ctypes.get_errno()
        if fd >= 0:
            os.close(fd)
        raise OSError(number, os.strerror(number), str(directory))
    return fd
