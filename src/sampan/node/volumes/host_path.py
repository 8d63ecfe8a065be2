"""hostPath: a file or directory of the node, checked or made as its type says."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sampan.node.volumes.types import VolumeContext, VolumeFailure

_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


class HostPath:
    def __init__(self, context: VolumeContext, source: dict[str, Any]) -> None:
        self.path = Path(source["path"])
        self.refresh_at = 0.0
        self._type = source.get("type") or ""

    async def set_up(self) -> None:
        if ".." in self.path.parts or "\0" in str(self.path):
            raise VolumeFailure(f"hostPath {str(self.path)!r} must not contain '..' or a NUL")
        if not self._type:
            # As container runtimes do for a mount whose source is missing.
            if not self.path.exists():
                self.path.mkdir(mode=0o755, parents=True)
            return
        check = _CHECKS.get(self._type)
        if check is None:
            raise VolumeFailure(f"hostPath type check failed: unknown type {self._type}")
        if self._type == "DirectoryOrCreate" and not self.path.exists():
            self.path.mkdir(mode=0o755, parents=True)
        elif self._type == "FileOrCreate" and not self.path.exists():
            try:
                self.path.touch(mode=0o644)
            except OSError as e:
                raise VolumeFailure(f"hostPath type check failed: {e.strerror}: {self.path}") from None
        matches, what = check
        try:
            mode = self.path.stat().st_mode
        except OSError:
            mode = 0
        if not matches(mode):
            raise VolumeFailure(f"hostPath type check failed: {self.path} is not {what}")

    def tear_down(self) -> None:
        """The node keeps its files."""
