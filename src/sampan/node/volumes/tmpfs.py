"""Memory-backed directories: where secrets live, and emptyDir with medium Memory."""

from __future__ import annotations

import os
from pathlib import Path

from sampan.linux.syscalls import mount, unmount


def is_mount(path: Path) -> bool:
    """Whether something is mounted at `path` (on another device than its parent)."""
    try:
        return os.lstat(path).st_dev != os.lstat(path.parent).st_dev
    except FileNotFoundError:
        return False


def mount_tmpfs(path: Path, *, size: int = 0, mode: int = 0o777) -> None:
    """Make `path` a tmpfs of at most `size` bytes (0: the kernel's own bound), unless it is one already."""
    path.mkdir(parents=True, exist_ok=True)
    if is_mount(path):
        return
    options = f"mode={mode:o}" + (f",size={size}" if size else "")
    mount("tmpfs", str(path), "tmpfs", 0, options)


def unmount_tmpfs(path: Path) -> None:
    if is_mount(path):
        unmount(str(path))
