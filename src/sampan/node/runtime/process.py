"""Child processes and other processes' ends, told by pidfd.

Why not `asyncio.subprocess`: what is started here (pause, conmon) outlives us, must be watched again after our
restart when it is no longer our child, and is on the path of a pod's start, where a thread per child is too dear.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass


def boot_id() -> str:
    """A name for this run of the kernel; process ids of another one mean nothing."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 where there is none or where it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def descendants(pid: int) -> Iterator[int]:
    """The process's children and theirs, lowest first."""
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                for child in map(int, file.read().split()):
                    yield from descendants(child)
                    yield child


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for good: a pid alone is used again by others."""

    pid: int
    start_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        return cls(pid, start_ticks(pid), boot_id())

    def open(self) -> int | None:
        """A pidfd of the process, or None where it has ended."""
        if not self.pid or not self.start_ticks or self.boot != boot_id():
            return None
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if start_ticks(self.pid) == self.start_ticks:
            return descriptor
        os.close(descriptor)
        return None

    def alive(self) -> bool:
        descriptor = self.open()
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; nothing happens where the process has ended."""
        descriptor = self.open()
        if descriptor is None:
            return
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)


class Watch:
    """Calls `ended` once with the exit code when a process ends (-1 where it is not our child). Owns the pidfd."""

    def __init__(self, descriptor: int, ended: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        code = -1
        try:
            result = os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            result = None
        if result:
            code = result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
        self.close()
        self._ended(code)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def spawn(
    arguments: Sequence[str],
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    extra: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Start a program (absolute path) in a session of its own and return its pid.

    Descriptors not given are /dev/null; `extra` becomes the child's descriptor 3. The child gets the namespaces of
    the calling thread.
    """
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = []
    for number, given in enumerate((stdin, stdout, stderr)):
        if given is None:
            actions.append((os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0))
        else:
            actions.append((os.POSIX_SPAWN_DUP2, given, number))
    if extra is not None:
        actions.append((os.POSIX_SPAWN_DUP2, extra, 3))
    return os.posix_spawn(
        arguments[0],
        list(arguments),
        {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **(environment or {})},
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        # Python ignores these and an ignored signal would stay so in every container.
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
    )


class Child:
    """A process that we started. `done` becomes its exit code."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watch = Watch(os.pidfd_open(pid), self._ended)

    def _ended(self, code: int) -> None:
        if not self.done.done():
            self.done.set_result(code)

    async def wait(self) -> int:
        return await asyncio.shield(self.done)

    def close(self) -> None:
        """Watch it no longer; it goes on, and `done` stays as it is."""
        self._watch.close()

    def send(self, number: int) -> None:
        if not self.done.done():
            os.kill(self.pid, number)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended, with all it wrote."""

    arguments: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes


async def run(arguments: Sequence[str]) -> Finished:
    """Run a short command of little output to its end."""
    # Files in memory, not pipes: nothing to read while it runs, and no grandchild can keep us waiting.
    stdout, stderr = os.memfd_create("stdout"), os.memfd_create("stderr")
    try:
        child = Child(spawn(arguments, stdout=stdout, stderr=stderr))
        code = await child.wait()
        return Finished(tuple(arguments), code, os.pread(stdout, 1 << 20, 0), os.pread(stderr, 1 << 20, 0))
    finally:
        os.close(stdout)
        os.close(stderr)
