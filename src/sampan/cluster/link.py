"""Both ends of the supervisor's socket: a part's standing connection, and a client's questions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_RETRY = 0.05


class PartLink:
    """A part's connection to whatever supervisor there is. With `revive`, a supervisor that died is started again
    (one part of a cluster does that; a lock lets only one live)."""

    def __init__(self, run_directory: Path, name: str, revive: list[str] | None = None) -> None:
        self._path = run_directory / "supervisor.sock"
        self._name = name
        self._revive = revive
        self._said: bytes | None = None
        self._writer: asyncio.StreamWriter | None = None

    def ready(self, ready: bool, problem: str = "") -> None:
        """Tell how this part is, now and to every supervisor to come."""
        self._said = json.dumps({"op": "ready", "ready": ready, "problem": problem}).encode() + b"\n"
        if self._writer is not None:
            self._writer.write(self._said)

    async def run(self) -> None:
        """Keep connected until cancelled."""
        revived = False
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path))
            except OSError:
                if self._revive and not revived:
                    revived = True
                    self._start_supervisor(self._revive)
                await asyncio.sleep(_RETRY)
                continue
            revived = False
            hello = {"op": "part", "name": self._name, "pid": os.getpid()}
            writer.write(json.dumps(hello).encode() + b"\n" + (self._said or b""))
            self._writer = writer
            with contextlib.suppress(OSError):
                await reader.read()
            self._writer = None
            writer.close()

    def _start_supervisor(self, command: list[str]) -> None:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=True,
        )


def revive_command(name: str) -> list[str]:
    """The command that runs the supervisor of a cluster anew."""
    return [sys.executable, "-m", "sampan.cluster.supervision", name]


class NotRunning(Exception):
    """The cluster has no supervisor."""


@contextlib.contextmanager
def _connected(run_directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(str(run_directory / "supervisor.sock"))
        except OSError as e:
            raise NotRunning(str(e)) from e
        try:
            yield sock
        except (ConnectionResetError, BrokenPipeError) as e:
            raise NotRunning("the supervisor ended") from e


def answers(run_directory: Path) -> bool:
    """Whether a supervisor listens."""
    try:
        with _connected(run_directory):
            return True
    except NotRunning:
        return False


def ask(run_directory: Path, operation: str, **more: str) -> dict[str, Any]:
    """One answer: `status`, `stop`, or `start` and `end` of a `part`. Raises NotRunning."""
    with _connected(run_directory) as sock:
        sock.sendall(json.dumps({"op": operation, **more}).encode() + b"\n")
        line = sock.makefile("rb").readline()
        if not line:
            raise NotRunning("the supervisor ended before it answered")
        return dict(json.loads(line))


def follow(run_directory: Path, timeout: float) -> Iterator[dict[str, Any]]:
    """The cluster's status at every change until it is ready. Raises NotRunning, TimeoutError."""
    with _connected(run_directory) as sock:
        sock.settimeout(timeout)
        sock.sendall(b'{"op": "wait"}\n')
        for line in sock.makefile("rb"):
            status = dict(json.loads(line))
            yield status
            if status["ready"]:
                return
        raise NotRunning("the supervisor ended")
