"""Reading container logs in CRI format: `RFC3339Nano stdout|stderr F|P text`, one raw line each; P is a part of a line
that goes on. Following is woken by inotify and sees rotation (a new file under the old name) and truncation.

Upstream: `k8s.io/kubernetes/pkg/kubelet/kuberuntime/logs`.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from sampan.linux import inotify

_BLOCK = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What of a log is wanted (PodLogOptions). `since` is in seconds since the epoch; None means no limit."""

    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: float | None = None
    limit_bytes: int | None = None
    stream: Literal["All", "Stdout", "Stderr"] = "All"


async def read_log(
    path: Path, options: LogOptions, ended: Awaitable[None] | None = None
) -> AsyncGenerator[bytes, None]:
    """The text of a log, in pieces. With `follow` it goes on until `ended` (the container's end) is done and all has
    been read; without it, up to what is there now. A file that is missing is empty, or waited for. Raises OSError."""
    text = _Text(options)
    watch = _Watch(path.parent) if options.follow else None
    over = asyncio.ensure_future(ended) if ended is not None and options.follow else None
    file: BinaryIO | None = None
    rest = b""
    try:
        with suppress(FileNotFoundError):
            file = path.open("rb")
            if options.tail_lines is not None:
                _seek_tail(file, options.tail_lines)
        while True:
            last = over is not None and over.done()  # Looked at before reading: what came until then is read.
            while file is not None and (block := file.read(_BLOCK)):
                lines, newline, tail = (rest + block).rpartition(b"\n")
                rest = tail
                if newline and (piece := text.take(lines)):
                    yield piece
                if text.full:
                    return
            if watch is None:
                return
            file, moved = _reopened(path, file)
            if moved:
                rest = b""
                continue
            if last:
                return
            await watch.wait(over)
    finally:
        if file is not None:
            file.close()
        if watch is not None:
            watch.close()
        if over is not None:
            over.cancel()


def _reopened(path: Path, file: BinaryIO | None) -> tuple[BinaryIO | None, bool]:
    """The file to read on in, and whether that is another one (or the same from its start)."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return file, False  # In the middle of a rotation.
    if file is None:
        return path.open("rb"), True
    here = os.fstat(file.fileno())
    if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
        if here.st_size > file.tell():
            return file, True  # More was written before it was moved away.
        new = path.open("rb")
        file.close()
        return new, True
    if here.st_size < file.tell():
        file.seek(0)
        return file, True
    return file, False


def _seek_tail(file: BinaryIO, lines: int) -> None:
    """Go to where the last `lines` raw lines begin."""
    end = file.seek(0, os.SEEK_END)
    if lines == 0:
        return
    at = end
    wanted = lines + 1  # The newline before the first line that is wanted.
    while at > 0:
        size = min(_BLOCK, at)
        at -= size
        file.seek(at)
        block = file.read(size)
        if at + size == end and not block.endswith(b"\n"):
            wanted -= 1
        position = len(block)
        while wanted and (position := block.rfind(b"\n", 0, position)) >= 0:
            wanted -= 1
        if not wanted:
            file.seek(at + position + 1)
            return
    file.seek(0)


class _Text:
    """Raw lines to what the user reads."""

    def __init__(self, options: LogOptions) -> None:
        self._timestamps = options.timestamps
        self._since = options.since
        self._stream = options.stream.lower().encode() if options.stream != "All" else None
        self._left = options.limit_bytes
        self._new_line = True
        self.full = self._left == 0

    def take(self, lines: bytes) -> bytes:
        out: list[bytes] = []
        for line in lines.split(b"\n"):
            parts = line.split(b" ", 3)
            if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
                continue  # Damaged, as after a crash of the machine.
            stamp, stream, tags = parts[:3]
            if self._stream is not None and stream != self._stream:
                continue
            if self._since is not None:
                if _comparable(stamp) < self._since:
                    continue
                self._since = None  # Later lines are younger.
            if self._timestamps and self._new_line:
                out.append(stamp.replace(b"+00:00", b"Z") + b" ")
            out.append(parts[3] if len(parts) == 4 else b"")
            self._new_line = not tags.startswith(b"P")
            if self._new_line:
                out.append(b"\n")
        piece = b"".join(out)
        if self._left is not None:
            piece = piece[: self._left]
            self._left -= len(piece)
            self.full = self._left == 0
        return piece


def _comparable(stamp: bytes) -> float:
    """Seconds since the epoch of a log's time (nanoseconds are cut to what `datetime` knows); 0 if it is none."""
    text = stamp.decode("latin-1")
    head, dot, fraction = text.partition(".")
    if dot:
        digits = len(fraction) - len(fraction.lstrip("0123456789"))
        text = f"{head}.{fraction[: min(digits, 6)].ljust(6, '0')}{fraction[digits:]}"
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


class _Watch:
    """Wakes when something changes in a directory. Raises OSError where the kernel has no watch left."""

    def __init__(self, directory: Path) -> None:
        self._fd = inotify.watch(
            directory, inotify.MODIFY | inotify.CREATE | inotify.MOVED_TO | inotify.MOVED_FROM
        )
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._fd, 64 * 1024)
        self._changed.set()

    async def wait(self, over: asyncio.Future[None] | None) -> None:
        """Until a change since the last call, or until `over` is done."""
        if not self._changed.is_set():
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait(
                    (changed,) if over is None else (changed, over), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                changed.cancel()
        self._changed.clear()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
