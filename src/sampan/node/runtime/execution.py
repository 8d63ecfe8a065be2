"""A command run inside a running container, through `crun exec` or `runc exec`."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import struct
import tempfile
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sampan.node.runtime.messages import from_log
from sampan.node.runtime.process import Child, descendants, spawn
from sampan.node.runtime.streams import Sink, Source, pipe_reader, pipe_writer
from sampan.node.runtime.types import RuntimeFailure


class Execution:
    """A Process that runs in a container besides its own; see `start`."""

    def __init__(self, directory: tempfile.TemporaryDirectory[str], program: str) -> None:
        self._directory = directory
        self._program = program
        self._child: Child | None = None
        self._sources: list[Source] = []
        self._sink: Sink | None = None
        self._terminal = -1
        self._killed = False
        self._ended = False
        self._failure: str | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None

    def launch(self, arguments: Sequence[str], *, stdin: bool) -> None:
        """Start with pipes."""
        passed: list[int | None] = [None, None, None]
        if stdin:
            passed[0], ours = os.pipe2(os.O_CLOEXEC)
            self._write_to(ours)
        ours, passed[1] = os.pipe2(os.O_CLOEXEC)
        self.stdout, source = pipe_reader(ours)
        self._sources.append(source)
        ours, passed[2] = os.pipe2(os.O_CLOEXEC)
        self.stderr, source = pipe_reader(ours)
        self._sources.append(source)
        self._spawn(arguments, passed)

    def launch_on_terminal(self, arguments: Sequence[str], *, stdin: bool) -> None:
        """Start with a terminal of ours, which the runtime copies from and to the command's own."""
        ours, theirs = os.openpty()
        self._use_terminal(ours, stdin)
        self._spawn(arguments, [theirs] * 3)

    async def launch_with_console_socket(self, arguments: Sequence[str], *, stdin: bool) -> None:
        """Start with the command's own terminal, which the runtime hands over through a socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # Through the open directory, as the path of a socket may have 107 bytes only.
            directory = os.open(self._directory.name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                listener.bind(f"/proc/self/fd/{directory}/console")
            finally:
                os.close(directory)
            listener.listen(1)
            listener.setblocking(False)
            self._spawn(arguments, [None] * 3)
            assert self._child
            loop = asyncio.get_running_loop()
            accepting = loop.create_task(loop.sock_accept(listener))
            waiting: set[asyncio.Future[Any]] = {accepting, self._child.done}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not accepting.done():
                    accepting.cancel()
        if accepting.done() and not accepting.cancelled():
            connection, _ = accepting.result()
            with connection:
                connection.setblocking(True)
                _, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, connection, 4096, 1)
            if descriptors:
                os.set_inheritable(descriptors[0], False)
                self._use_terminal(descriptors[0], stdin)
                return
        # It ended before it had a terminal; `wait` says why.
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_eof()
        if stdin:
            self._write_to(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))

    def _use_terminal(self, terminal: int, stdin: bool) -> None:
        self._terminal = terminal
        self.stdout, source = pipe_reader(os.dup(terminal))
        self._sources.append(source)
        if stdin:
            self._write_to(os.dup(terminal))

    def _write_to(self, descriptor: int) -> None:
        self._sink = pipe_writer(descriptor)
        self.stdin = self._sink.writer

    def _spawn(self, arguments: Sequence[str], passed: Sequence[int | None]) -> None:
        try:
            self._child = Child(spawn(arguments, stdin=passed[0], stdout=passed[1], stderr=passed[2]))
        finally:
            for descriptor in {descriptor for descriptor in passed if descriptor is not None}:
                os.close(descriptor)

    async def wait(self) -> int:
        assert self._child
        code = await self._child.wait()
        self._read_outcome()
        if self._failure is not None:
            raise RuntimeFailure(
                f"OCI runtime exec failed: exec failed: {from_log(self._failure, self._program)}",
                "ExecFailed",
            )
        return code

    def _read_outcome(self) -> None:
        """Once, after the end: could the command be started at all?"""
        if self._ended:
            return
        self._ended = True
        if not self._killed and not os.path.exists(f"{self._directory.name}/pid"):
            self._failure = ""
            with suppress(OSError), open(f"{self._directory.name}/log", errors="replace") as file:
                self._failure = file.read()

    def resize(self, columns: int, rows: int) -> None:
        if self._terminal < 0 or not self._child:
            return
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        # A terminal of ours is not the runtime's controlling one, so the kernel does not tell it.
        self._child.send(signal.SIGWINCH)

    async def close(self) -> None:
        if self._child and not self._child.done.done():
            self._kill()
            await self._child.wait()
        self._read_outcome()
        for source in self._sources:
            source.close()
        if self._sink:
            self._sink.abort()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        self._directory.cleanup()

    def _kill(self) -> None:
        assert self._child
        self._killed = True
        # The runtime, which alone reaps the command, is held still meanwhile: no pid changes its meaning.
        self._child.send(signal.SIGSTOP)
        try:
            with open(f"{self._directory.name}/pid") as file:
                pids = [int(file.read())]
        except (OSError, ValueError):
            pids = [*descendants(self._child.pid)]  # it has not come as far as the command
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._child.send(signal.SIGKILL)


async def start(
    runtime: Sequence[str],
    container_id: str,
    process: Mapping[str, Any],
    directory: str,
    *,
    stdin: bool,
    console_socket: bool,
) -> Execution:
    """Run `process` (of an OCI configuration) in the container; `runtime` is the program with its global options.

    `console_socket`: does the runtime hand over a terminal and still wait (crun does, runc does not)? A command that
    cannot be started (not found, say) makes `wait` raise RuntimeFailure.
    """
    files = tempfile.TemporaryDirectory(prefix="exec-", dir=directory)
    execution = Execution(files, str(process["args"][0]))
    arguments = [
        *runtime,
        "--log",
        f"{files.name}/log",
        "exec",
        "--process",
        f"{files.name}/process.json",
        "--pid-file",
        f"{files.name}/pid",
    ]
    try:
        with open(f"{files.name}/process.json", "w") as file:
            json.dump(process, file)
        if not process["terminal"]:
            execution.launch([*arguments, container_id], stdin=stdin)
        elif console_socket:
            arguments += ["--console-socket", f"{files.name}/console", container_id]
            await execution.launch_with_console_socket(arguments, stdin=stdin)
        else:
            execution.launch_on_terminal([*arguments, container_id], stdin=stdin)
    except BaseException:
        await execution.close()
        raise
    return execution
