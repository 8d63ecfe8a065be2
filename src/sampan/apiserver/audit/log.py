"""The audit log file: one event a line, rotated by size. Nobody has his answer before the event of it is written."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from pathlib import Path

from sampan.api.errors import Object
from sampan.apiserver.records import to_json

log = logging.getLogger(__name__)
_MEGABYTE = 1024 * 1024


class AuditLog:
    """Appends to `path` (mode 0600). When the file would pass `most_megabytes` it is set aside under a name that tells
    the time, and of those the newest `most_backups` are kept (0: all)."""

    def __init__(self, path: Path, most_megabytes: int = 100, most_backups: int = 10) -> None:
        self._path = path
        self._most = most_megabytes * _MEGABYTE
        self._most_backups = most_backups
        self._fd, self._size = -1, 0
        """-1: not open."""
        self._open()
        self.lost = 0
        """Events that could not be written."""

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, event: Object) -> None:
        """Append an event. A failure loses it, is told, and keeps nobody from his answer."""
        data = to_json(event) + b"\n"
        try:
            if self._fd < 0:
                self._open()
            if self._size and self._size + len(data) > self._most:
                self._rotate()
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            self._size += len(data)
        except OSError as e:
            self.lost += 1
            log.error("an audit event is lost: %s: %s", self._path, e.strerror)

    def _rotate(self) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
        self._path.rename(self._path.with_name(f"{self._path.stem}-{now}{self._path.suffix}"))
        full = self._fd
        try:
            self._open()
        finally:
            # Where there is no new one, the number must not be written to: it is another file's next.
            if self._fd == full:
                self._fd = -1
            os.close(full)
        if self._most_backups:
            pattern = f"{self._path.stem}-*{self._path.suffix}"
            for old in sorted(self._path.parent.glob(pattern))[: -self._most_backups]:
                with contextlib.suppress(FileNotFoundError):
                    old.unlink()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
