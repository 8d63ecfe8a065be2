"""HAProxy's processes: a master and its worker, started, looked after and reloaded by us, and left running when we end.

The master is no child that dies with us: whoever comes after us finds it by its socket and takes it over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.runtime import NoAnswer, ask

log = logging.getLogger(__name__)
_LOADED_WITHIN, _READY_WITHIN = 120.0, 10.0
"""Thousands of certificates take ten seconds and more to load; what fails is known before. Then a worker answers soon."""
_PAUSE = 0.005
_ANSWERS = 3
"""For a moment both workers may take what comes to the admin socket: so many in a row, and the old one has let go of it."""
_SUMMARY = re.compile(r"^(\d+)\s+worker\s", re.MULTILINE)
_FAILED = re.compile(r"\[failed: (\d+)\]")
"""How many reloads have failed since the last that did not."""


class HaproxyError(Exception):
    """HAProxy refused its configuration, or does not start; with its own words."""


class Process:
    """One HAProxy. `program` is its path; what it says goes to `haproxy.log`, its access log to `access_log`."""

    def __init__(self, files: Files, program: str, access_log: Path) -> None:
        self._files = files
        self._program = program
        self._access_log = access_log
        self._pid = 0
        self._pidfd = -1
        self._failed = 0
        """Reloads that are known to have failed."""
        self.worker = 0
        """Process id of the worker that has the configuration in force."""

    @property
    def running(self) -> bool:
        return self._pidfd >= 0

    def adopt(self) -> bool:
        """Take over one that runs with these files."""
        pid = master_of(self._files)
        if pid is None:
            return False
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        if str(self._files.configuration).encode() not in _arguments(pid):  # the number is another's by now
            os.close(pidfd)
            return False
        self._pid, self._pidfd = pid, pidfd
        return True

    @property
    def said(self) -> Path:
        """What it says besides the access log."""
        return self._files.directory / "haproxy.log"

    async def check(self) -> None:
        """Raises HaproxyError if HAProxy would refuse the configuration."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            *("-c", "-f", str(self._files.configuration)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode:
            raise HaproxyError(_alerts(said.decode(errors="replace")) or "HAProxy refuses the configuration")

    def check_ports(self, ports: Iterable[int]) -> None:
        """Raises HaproxyError for a port that cannot be had. A new worker that finds out by itself has the old one stop listening
        at all of its ports while it tries again, for two seconds."""
        for address in self._files.addresses:
            for port in ports:
                with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as one:
                    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # as HAProxy does
                        one.setsockopt(socket.SOL_SOCKET, option, 1)
                    try:
                        one.bind((address, port))
                    except OSError as e:
                        raise HaproxyError(f"port {port} of {address}: {e.strerror}") from None

    async def start(self) -> None:
        """Start it with the files; returns once it serves. Raises HaproxyError."""
        said = self.said
        self._end_strays()
        child = self._spawn(said)
        self._pid, self._pidfd = child.pid, os.pidfd_open(child.pid)
        try:
            await self._new_worker(0)
        except HaproxyError:
            await self.end()
            raise HaproxyError(_alerts(said.read_text(errors="replace")) or "it ended at once") from None

    @property
    def _listens(self) -> str:
        """What the command line says of the master's socket."""
        return f"{self._files.master_socket},mode,600"

    def _end_strays(self) -> None:
        """End what runs with these files and cannot be asked, as where somebody ended us before it listened: the kernel would lead
        some of the connections to it, and it would never learn of a change."""
        for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
            if self._listens.encode() in _arguments(pid) and _network(pid) == _network(os.getpid()):
                log.warning("process %d has the same files and cannot be asked: it is ended", pid)
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _spawn(self, said: Path) -> subprocess.Popen[bytes]:
        self._files.master_socket.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with (
            open(os.open(self._access_log, flags, 0o600), "ab") as out,
            open(os.open(said, flags | os.O_TRUNC, 0o600), "ab") as err,
        ):
            return subprocess.Popen(
                [
                    *(self._program, "-W", "-f", str(self._files.configuration)),
                    *("-S", self._listens),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                cwd=self._files.directory,
            )

    async def reload(self) -> None:
        """Have a new worker with the files as they are now; the old one ends what it has begun. Raises HaproxyError."""
        if not self.worker:  # it was taken over
            await self._new_worker(0)
        if master_of(self._files) != self._pid:
            raise HaproxyError("its master cannot be asked")
        said = self._said_so_far()
        with contextlib.suppress(NoAnswer):
            await ask("reload", self._files.master_socket)
        await self._new_worker(self.worker, said)

    async def ended(self) -> None:
        """Returns when the master has ended."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        pidfd = self._pidfd
        if pidfd < 0:
            return
        loop.add_reader(pidfd, done.set)
        try:
            await done.wait()
        finally:
            loop.remove_reader(pidfd)
        self._forget()

    async def end(self) -> None:
        """End it at once."""
        if self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self.ended()
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._forget()

    def _forget(self) -> None:
        os.close(self._pidfd)
        self._pidfd, self.worker, self._failed = -1, 0, 0
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, os.WNOHANG)

    def _said_so_far(self) -> int:
        """How long the file is that has what it says."""
        with contextlib.suppress(OSError):
            return self.said.stat().st_size
        return 0

    def _says(self, since: int) -> str:
        with contextlib.suppress(OSError):
            return self.said.read_bytes()[since:].decode(errors="replace")
        return ""

    async def _new_worker(self, old: int, said: int = 0) -> None:
        """Wait until the master has another worker than `old`, and the admin socket is that one's. HAProxy tells of neither, so
        it is asked. Raises HaproxyError where it fails, with what it says since it had said so much."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LOADED_WITHIN
        there = False
        answers = 0
        while True:
            with contextlib.suppress(NoAnswer):
                shown = (await ask("show proc;quit", self._files.master_socket)).partition("# old workers")[0]
                found, failed = _SUMMARY.search(shown), _FAILED.search(shown)
                failures = int(failed[1]) if failed else 0
                if found and int(found[1]) != old:
                    if not there:
                        there, deadline = True, loop.time() + _READY_WITHIN
                    info = await ask("show info", self._files.admin_socket)
                    answers = answers + 1 if f"\nPid: {found[1]}\n" in info else 0
                    if answers >= _ANSWERS:
                        self.worker, self._failed = int(found[1]), failures
                        return
                    continue
                if failures > self._failed:
                    self._failed = failures
                    raise HaproxyError(_alerts(self._says(said)) or "it did not take the reload")
            if _gone(self._pidfd):
                raise HaproxyError("it ended")
            if loop.time() > deadline:
                raise HaproxyError("its new worker does not answer" if there else "it has no new worker")
            await asyncio.sleep(_PAUSE)


def _alerts(said: str) -> str:
    """The first of HAProxy's complaints."""
    return "; ".join([line for line in said.splitlines() if "[ALERT]" in line][:3])


def _gone(pidfd: int) -> bool:
    try:
        return os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # adopted: not ours to wait for
        try:
            signal.pidfd_send_signal(pidfd, 0)
        except ProcessLookupError:
            return True
        return False


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _network(pid: int) -> str:
    """Which network a process has: who has another one may have other files of the same names, too."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/net")
    return ""


def master_of(files: Files) -> int | None:
    """The process id of the master that listens at its socket (SO_PEERCRED of unix(7): who listens is who made it)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(files.master_socket))
        except OSError:
            return None
        size = struct.calcsize("3i")
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return int(pid)
