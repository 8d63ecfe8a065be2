"""Directories whose content changes all at once: user-visible links lead through `..data` to a directory made anew.

Readers see either the old or the new content of all files. Layout as upstream's `pkg/volume/util/atomic_writer.go`:

    ..2024_05_01_10_00_00.123456789/app.conf   the content
    ..data -> ..2024_05_01_10_00_00.123456789
    app.conf -> ..data/app.conf
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sampan.node.volumes.types import VolumeFailure

DATA, NEW_DATA = "..data", "..data_tmp"


@dataclass(frozen=True, slots=True)
class FileContent:
    """One file: its bytes, permission bits, and owner where it is not root."""

    data: bytes
    mode: int
    owner: int | None = None


Payload = Mapping[str, FileContent]
"""Files by relative path."""


def checked_path(path: str) -> str:
    """`path` if it stays inside the volume. Raises VolumeFailure."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or path.startswith("..") or "\0" in path:
        raise VolumeFailure(f"invalid path: {path!r}")
    return path


class AtomicWriter:
    """Writes payloads into `target`, which only it may change."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._written: dict[str, FileContent] | None = None

    def write(self, payload: Payload, group: int | None = None) -> bool:
        """Make `payload` the content; False if it was already. `group` is the fsGroup: it may read everything."""
        wanted = {checked_path(path): content for path, content in payload.items()}
        if wanted == self._written and (self.target / DATA).exists():
            return False
        old = self._current()
        name = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime()) + str(secrets.randbelow(10**9))
        fresh = self.target / name
        fresh.mkdir(mode=0o755)
        try:
            for path, content in wanted.items():
                self._write_file(fresh / path, content)
            # mkdir and open obey the umask, and the agent's is not the user's affair.
            _set_group(fresh, group)
            link = self.target / NEW_DATA
            with contextlib.suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(name)
            for top in {path.split("/")[0] for path in wanted}:
                visible = self.target / top
                if not visible.is_symlink():
                    visible.symlink_to(f"{DATA}/{top}")
            link.rename(self.target / DATA)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        self._remove_stale({path.split("/")[0] for path in wanted})
        if old is not None and old != fresh:
            shutil.rmtree(old, ignore_errors=True)
        self._written = wanted
        return True

    def _current(self) -> Path | None:
        try:
            return self.target / (self.target / DATA).readlink()
        except OSError:
            return None

    def _remove_stale(self, kept: set[str]) -> None:
        for entry in self.target.iterdir():
            if not entry.name.startswith("..") and entry.name not in kept:
                with contextlib.suppress(OSError):
                    entry.unlink()

    @staticmethod
    def _write_file(path: Path, content: FileContent) -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(content.data)
            while view:
                view = view[os.write(fd, view) :]
            if content.owner is not None:
                os.fchown(fd, content.owner, -1)
            os.fchmod(fd, content.mode & 0o777)
        finally:
            os.close(fd)


def _set_group(top: Path, group: int | None) -> None:
    for directory, _, files in os.walk(top):
        os.chmod(directory, 0o755)
        if group is None:
            continue
        os.chown(directory, -1, group)
        os.chmod(directory, 0o2775)
        for file in files:
            path = os.path.join(directory, file)
            mode = os.stat(path).st_mode & 0o777
            os.chown(path, -1, group)
            os.chmod(path, mode | 0o440)
