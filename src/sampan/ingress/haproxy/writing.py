"""HAProxy's files on the disk: all of them or none, so that whatever happens it finds what belongs together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from sampan.ingress.haproxy.files import Files


class Writer:
    """Writes what `configuration.render` makes. What was there before is kept beside it until HAProxy has taken the new: `keep`
    or `restore` comes after each `write`. What is in force already is not written again, if it is
    there."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._written: dict[Path, str] = {}
        """Names' files that are in force."""
        self._wanted: Mapping[Path, str] = {}
        """What was written last and is not in force yet."""
        self._changed: list[Path] = []

    def make_directories(self) -> None:
        """Raises OSError."""
        self._files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files.root.mkdir(mode=0o755, exist_ok=True)
        self._files.named.mkdir(mode=0o700, exist_ok=True)

    def write(self, wanted: Mapping[Path, str]) -> None:
        """Have these files. Raises OSError, and then those from before are there."""
        changed = {
            path: text
            for path, text in wanted.items()
            if path.parent != self._files.named or self._written.get(path) != text or not path.exists()
        }
        try:
            for path, text in changed.items():
                with open(os.open(_new(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
                    f.write(text.encode(errors="replace"))
        except OSError:
            for path in changed:
                with contextlib.suppress(OSError):
                    _new(path).unlink(missing_ok=True)
            raise
        self._wanted, self._changed = wanted, []
        try:
            # What is referred to comes before what refers to it.
            for path in sorted(
                changed, key=lambda p: (p == self._files.configuration, p.parent != self._files.named)
            ):
                _old(path).unlink(missing_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    os.link(path, _old(path))
                _new(path).replace(path)
                self._changed.append(path)
        except OSError:
            self.restore()
            raise

    def keep(self) -> None:
        """What was written last is in force: what only the files from before had goes. Raises OSError."""
        wanted, self._wanted, self._changed = self._wanted, {}, []
        self._written = {p: text for p, text in wanted.items() if p.parent == self._files.named}
        for directory in (self._files.named, self._files.directory):
            for path in directory.iterdir():
                if path.suffix in (_OLD, _NEW) or (directory == self._files.named and path not in wanted):
                    path.unlink()

    def restore(self) -> None:
        """What was written last is not taken: have the files from before. Raises OSError."""
        changed, self._changed, self._wanted = self._changed, [], {}
        for path in reversed(changed):
            if _old(path).exists():
                _old(path).replace(path)
            else:
                path.unlink(missing_ok=True)


_NEW, _OLD = ".new", ".old"


def _new(path: Path) -> Path:
    return path.with_name(path.name + _NEW)


def _old(path: Path) -> Path:
    return path.with_name(path.name + _OLD)
