"""HAProxy's files on the disk: all of them or none, so that whatever happens it finds what belongs together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from sampan.ingress.haproxy.files import Files


class Writer:
    """Writes what `configuration.render` makes. What is named after its content is not written again."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._written: dict[Path, str] = {}

    def make_directories(self) -> None:
        """Raises OSError."""
        self._files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files.root.mkdir(mode=0o755, exist_ok=True)
        self._files.named.mkdir(mode=0o700, exist_ok=True)

    def write(self, wanted: Mapping[Path, str]) -> None:
        """Have these files and no others. Raises OSError, and then those from before are there."""
        changed = {
            path: text
            for path, text in wanted.items()
            if path.parent != self._files.named or self._written.get(path) != text
        }
        new = {path: path.with_suffix(".new") for path in changed}
        try:
            for path, text in changed.items():
                with open(os.open(new[path], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
                    f.write(text.encode(errors="replace"))
        except OSError:
            for temporary in new.values():
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
            raise
        # What is referred to comes before what refers to it.
        for path in sorted(
            changed, key=lambda p: (p == self._files.configuration, p.parent != self._files.named)
        ):
            new[path].replace(path)
        for path in self._files.named.iterdir():
            if path not in wanted:
                path.unlink()
        self._written = {p: text for p, text in wanted.items() if p.parent == self._files.named}
