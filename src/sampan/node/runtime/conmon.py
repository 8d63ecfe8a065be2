"""conmon: the supervisor that stays with each container, writes its log and outlives us."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass

from sampan.node.runtime.process import Child, descendants, spawn
from sampan.node.runtime.streams import Sink, Source, pipe_reader
from sampan.node.runtime.types import RuntimeFailure

_STDERR = 3  # the first byte of a packet; 2 is standard output
_RESIZE, _REOPEN = 1, 2
_PACKET = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What conmon is started with. Everything it leaves lies in `bundle` and `exits`."""

    conmon: str
    runtime: str
    runtime_arguments: tuple[str, ...]
    id: str
    name: str
    bundle: str
    exits: str
    log_path: str
    stdin: bool
    stdin_once: bool
    tty: bool


def _arguments(launch: Launch) -> list[str]:
    result = [
        launch.conmon,
        "--sync",  # it stays our child, so its pid is known before it does anything
        "--cid",
        launch.id,
        "--cuuid",
        launch.id,
        "--name",
        launch.name,
        "--runtime",
        launch.runtime,
        "--bundle",
        launch.bundle,
        "--container-pidfile",
        f"{launch.bundle}/pidfile",
        "--log-path",
        launch.log_path,
        "--exit-dir",
        launch.exits,
        "--full-attach",
        "--no-sync-log",
        "--log-level",
        "error",
    ]
    for argument in launch.runtime_arguments:
        result += ["--runtime-arg", argument]
    if launch.tty:
        result.append("--terminal")
    if launch.stdin:
        result.append("--stdin")
        if not launch.stdin_once:
            result.append("--leave-stdin-open")
    return result


async def create(launch: Launch) -> tuple[Child, int]:
    """Start conmon and through it create the container (not yet started): conmon and the container's pid.

    Raises RuntimeFailure with the runtime's own message.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    errors = os.open(
        f"{launch.bundle}/conmon.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    try:
        child = Child(
            spawn(_arguments(launch), stderr=errors, extra=writing, environment={"_OCI_SYNCPIPE": "3"})
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
        os.close(errors)
    reader, source = pipe_reader(reading)
    try:
        line = await reader.readline()
    finally:
        source.close()
    try:
        answer = json.loads(line)
        pid = int(answer["pid"])
    except (ValueError, KeyError, TypeError):
        await child.wait()
        with open(f"{launch.bundle}/conmon.log", errors="replace") as file:
            raise RuntimeFailure(f"conmon failed: {file.read().strip()}", "RunContainerError") from None
    if pid <= 0:
        await child.wait()
        raise RuntimeFailure(str(answer.get("message", "")).strip(), "RunContainerError")
    return child, pid


def kill(id: str) -> None:
    """End a conmon of which only the container's id is known, and what it has started."""
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit():
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if f"--cid\0{id}\0".encode() not in file.read():
                        continue
                # Held still, so that it starts nothing while we look.
                os.kill(int(name), signal.SIGSTOP)
                for pid in (*descendants(int(name)), int(name)):
                    os.kill(pid, signal.SIGKILL)


def exit_code(exits: str, id: str) -> tuple[int, float] | None:
    """How and when (seconds since the epoch) the container ended, or None where conmon has not said."""
    try:
        with open(f"{exits}/{id}") as file:
            return int(file.read()), os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, ValueError):
        return None


def _control(bundle: str, message: int, first: int = 0, second: int = 0) -> None:
    # Opening fails (ENXIO) instead of waiting when conmon has gone.
    try:
        descriptor = os.open(f"{bundle}/ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeFailure(f"the container's supervisor does not answer: {error}") from error
    try:
        os.write(descriptor, f"{message} {first} {second}\n".encode())
    finally:
        os.close(descriptor)


def resize(bundle: str, columns: int, rows: int) -> None:
    _control(bundle, _RESIZE, rows, columns)


def reopen_log(bundle: str) -> None:
    _control(bundle, _REOPEN)


_BETWEEN_SIZES = 0.05
"""Seconds between two sizes sent to conmon."""


class Attached:
    """A Process that is a container's own, reached over conmon's attach socket."""

    def __init__(
        self, connection: socket.socket, bundle: str, ended: asyncio.Future[int], *, stdin: bool, tty: bool
    ) -> None:
        self._connection = connection
        self._bundle = bundle
        self._ended = ended
        self._size = self._sent_size = (0, 0)
        self._pause: asyncio.TimerHandle | None = None
        self.stdout: asyncio.StreamReader | None = asyncio.StreamReader()
        self.stderr: asyncio.StreamReader | None = None if tty else asyncio.StreamReader()
        self._source = Source(
            connection.fileno(), lambda: connection.recv(_PACKET + 1), self._deliver, self._end
        )
        self._sink: Sink | None = None
        self.stdin: asyncio.StreamWriter | None = None
        if stdin:
            self._sink = Sink(connection.fileno(), lambda data: connection.send(data[:_PACKET]), self._finish)
            self.stdin = self._sink.writer
        for reader in (self.stdout, self.stderr):
            if reader:
                reader.set_transport(self._source)

    def _deliver(self, packet: bytes) -> None:
        reader = self.stderr if packet[0] == _STDERR and self.stderr else self.stdout
        if reader:
            reader.feed_data(packet[1:])

    def _finish(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def _end(self) -> None:
        if self._sink:
            self._sink.abort()
        self._connection.close()
        for reader in (self.stdout, self.stderr):
            if reader:
                reader.feed_eof()

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def resize(self, columns: int, rows: int) -> None:
        self._size = (columns, rows)
        if self._pause is None:
            self._send_size()

    def _send_size(self) -> None:
        """conmon (2.1.6) loses the second of two sizes that come together: the newest follows after a pause."""
        self._pause = None
        if self._size == self._sent_size:
            return
        self._sent_size = self._size
        with suppress(RuntimeFailure):
            resize(self._bundle, *self._size)
        self._pause = asyncio.get_running_loop().call_later(_BETWEEN_SIZES, self._send_size)

    async def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._source.close()


def attach(bundle: str, ended: asyncio.Future[int], *, stdin: bool, tty: bool) -> Attached:
    """Connect to the container's own streams. Raises RuntimeFailure where conmon has gone."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # The path of a socket may have 107 bytes only; through the open directory any bundle's is short.
    directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory}/attach")
    except OSError as error:
        connection.close()
        raise RuntimeFailure(f"cannot attach: {error}") from error
    finally:
        os.close(directory)
    connection.setblocking(False)
    return Attached(connection, bundle, ended, stdin=stdin, tty=tty)
