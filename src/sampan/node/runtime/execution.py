"""A command run inside a running container, through `crun exec` or `runc exec`."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import struct
import tempfile
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sampan.node.runtime.messages import from_log
from sampan.node.runtime.process import Child, spawn
from sampan.node.runtime.streams import Sink, Source, pipe_reader, pipe_writer
from sampan.node.runtime.types import RuntimeFailure


class Execution:
    """A Process that runs in a container besides its own; see `start`."""

    def __init__(self, directory: tempfile.TemporaryDirectory[str]) -> None:
        self._directory = directory
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

    def launch(self, arguments: Sequence[str], *, stdin: bool, tty: bool) -> None:
        if tty:
            ours, theirs = os.openpty()
            self._terminal = os.dup(ours)
            self.stdout, source = pipe_reader(os.dup(ours))
            self._sources.append(source)
            if stdin:
                self._sink = pipe_writer(os.dup(ours))
            os.close(ours)
            passed = [theirs, theirs, theirs]
        else:
            passed = [-1, -1, -1]
            if stdin:
                passed[0], ours = os.pipe2(os.O_CLOEXEC)
                self._sink = pipe_writer(ours)
            ours, passed[1] = os.pipe2(os.O_CLOEXEC)
            self.stdout, source = pipe_reader(ours)
            self._sources.append(source)
            ours, passed[2] = os.pipe2(os.O_CLOEXEC)
            self.stderr, source = pipe_reader(ours)
            self._sources.append(source)
        if self._sink:
            self.stdin = self._sink.writer
        try:
            given = [None if descriptor < 0 else descriptor for descriptor in passed]
            self._child = Child(spawn(arguments, stdin=given[0], stdout=given[1], stderr=given[2]))
        finally:
            for descriptor in {*passed} - {-1}:
                os.close(descriptor)

    async def wait(self) -> int:
        assert self._child
        code = await self._child.wait()
        self._read_outcome()
        if self._failure is not None:
            raise RuntimeFailure(
                f"OCI runtime exec failed: exec failed: {from_log(self._failure)}", "ExecFailed"
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
        # The terminal is not the runtime's controlling one, so the kernel does not tell it.
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
            pids = [*_descendants(self._child.pid)]  # it has not come as far as the command
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._child.send(signal.SIGKILL)


def _descendants(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                for child in map(int, file.read().split()):
                    yield from _descendants(child)
                    yield child


async def start(
    runtime: Sequence[str],
    container_id: str,
    process: Mapping[str, Any],
    directory: str,
    *,
    stdin: bool,
    tty: bool,
) -> Execution:
    """Run `process` (of an OCI configuration) in the container; `runtime` is the program with its global options.

    A command that cannot be started (not found, say) makes `wait` raise RuntimeFailure.
    """
    files = tempfile.TemporaryDirectory(prefix="exec-", dir=directory)
    execution = Execution(files)
    try:
        with open(f"{files.name}/process.json", "w") as file:
            json.dump(process, file)
        execution.launch(
            [
                *runtime,
                "--log",
                f"{files.name}/log",
                "exec",
                "--process",
                f"{files.name}/process.json",
                "--pid-file",
                f"{files.name}/pid",
                container_id,
            ],
            stdin=stdin,
            tty=tty,
        )
    except BaseException:
        await execution.close()
        raise
    return execution
