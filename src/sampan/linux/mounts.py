"""What is mounted where, as this mount namespace sees it, and removing trees without ever looking through a mount."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

from sampan.linux.syscalls import unmount

_ESCAPED = re.compile(rb"\\([0-7]{3})")


def mount_points() -> list[str]:
    """Every mount point, in the order of mounting. Names need not be UTF-8."""
    with open("/proc/self/mountinfo", "rb") as lines:
        points = [line.split(b" ", 5)[4] for line in lines]
    return [
        os.fsdecode(_ESCAPED.sub(lambda m: bytes([int(m[1], 8)]), p) if b"\\" in p else p) for p in points
    ]


def mounts_below(directory: Path) -> list[str]:
    """The mount points inside a directory, not the directory itself."""
    prefix = os.path.realpath(directory) + "/"
    return [point for point in mount_points() if point.startswith(prefix)]


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted exactly at `path`, files included (`os.path.ismount` sees directories only)."""
    return str(path) in mount_points()


def unmount_below(directory: Path) -> None:
    """Unmount everything inside a directory, the newest first."""
    for point in reversed(mounts_below(directory)):
        unmount(point)


def remove_tree(directory: Path) -> None:
    """Remove a directory and all in it, however deep it is; nothing happens where there is none. Links are not
    followed. Raises OSError, and removes nothing, while something is mounted inside: a bind mount of the same file
    system cannot be told from a directory by its device."""
    for point in mounts_below(directory):
        raise OSError(errno.EBUSY, f"{point} is still a mount: unmount it, then delete again")
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        if not os.path.lexists(directory):
            return
    except (RecursionError, OSError):
        pass
    else:
        return
    # Deeper than the interpreter goes or paths may be long (any container can make such a tree), or somebody who just
    # ended was still writing: rm goes down by descriptors.
    done = subprocess.run(
        ["rm", "-rf", "--one-file-system", "--", str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(errno.EBUSY, f"cannot remove {directory}: {done.stderr.strip()[-500:]}")
