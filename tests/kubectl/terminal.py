"""A program on a pseudo-terminal, and somebody who reads it and types."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType

_PATIENCE = 30.0


class Terminal:
    """`with Terminal(command, columns=101, rows=33) as terminal`; at the end of the block the program is killed."""

    def __init__(self, command: Sequence[str], *, columns: int = 80, rows: int = 24) -> None:
        self._ours, theirs = os.openpty()
        self.resize(columns, rows)
        self._read = ""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
                # Only the controlling terminal tells of its new size (SIGWINCH).
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        finally:
            os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def expect(self, text: str) -> str:
        """Read on until `text`; returns what came before it."""
        deadline = time.monotonic() + _PATIENCE
        while text not in self._read:
            assert self._more(deadline), f"waited for {text!r} and read {self._read!r}"
        before, _, self._read = self._read.partition(text)
        return before

    def end(self) -> tuple[str, int]:
        """Read to the end; the rest and the exit code."""
        deadline = time.monotonic() + _PATIENCE
        while self._more(deadline):
            pass
        return self._read, self._process.wait(_PATIENCE)

    def _more(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._ours, 65536) if ready else b""
        except OSError:  # the program has closed its side
            data = b""
        self._read += data.decode(errors="replace")
        return bool(data)
