"""subPath: one file or directory of a volume, mounted without ever following a link out of the volume.

A container can change the volume while we look, so every step is taken on open descriptors, and what was opened, not
its name, is bind-mounted below the pod's own directory. Upstream: `pkg/volume/util/subpath`.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from sampan.linux.syscalls import MS_BIND, MS_REC, mount, open_in_root, unmount


class SubPathFailure(Exception):
    """The path is not there, or not inside."""


def prepare_subpath(volume: Path, subpath: str, target: Path) -> Path:
    """Bind `subpath` of the directory `volume` to `target` and return that; what is missing is made as directories.

    `target` is the caller's own path for this mount; one left there by an earlier start is replaced. Raises
    SubPathFailure.
    """
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise SubPathFailure(f"subPath must not contain '..' or be absolute: {subpath!r}")
    try:
        root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise SubPathFailure(f"volume {volume.name}: {e.strerror}") from None
    try:
        found = _open_or_make(root, subpath)
    except OSError as e:
        raise SubPathFailure(f"subPath {subpath!r}: {e.strerror}") from None
    finally:
        os.close(root)
    try:
        release_subpath(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(os.fstat(found).st_mode):
            target.mkdir()
        else:
            target.touch()
        # The descriptor, not the name: that may lead elsewhere by now.
        mount(f"/proc/self/fd/{found}", str(target), "", MS_BIND | MS_REC)
    finally:
        os.close(found)
    return target


def release_subpath(target: Path) -> None:
    """Take the mount at `target` away, and the mount point."""
    if not os.path.lexists(target):
        return
    unmount(str(target))
    if target.is_dir():
        target.rmdir()
    else:
        target.unlink()


def _open_or_make(root: int, subpath: str) -> int:
    try:
        return open_in_root(root, subpath, os.O_PATH)
    except FileNotFoundError:
        pass
    permissions = os.fstat(root).st_mode & 0o7777
    at = os.dup(root)
    try:
        done = ""
        for part in (p for p in subpath.split("/") if p not in ("", ".")):
            done = f"{done}/{part}" if done else part
            try:
                following = open_in_root(root, done, os.O_PATH)
            except FileNotFoundError:
                # EEXIST here is a link that leads nowhere: refused, not followed.
                os.mkdir(part, permissions, dir_fd=at)
                following = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=at)
                os.chmod(f"/proc/self/fd/{following}", permissions)
            os.close(at)
            at = following
            if not stat.S_ISDIR(os.fstat(at).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return os.dup(at)
    finally:
        os.close(at)
