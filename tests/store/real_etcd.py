"""Real etcds for tests: one, or the members of a cluster, to be killed, frozen and started again at the same address."""

from __future__ import annotations

import asyncio
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sampan.store import messages
from sampan.store.members import Members, Tls

QUICK = ("--heartbeat-interval", "10", "--election-timeout", "100")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class Etcd:
    """One member in a directory. `cluster` is what `--initial-cluster` says; by itself unless given."""

    def __init__(self, directory: Path, *flags: str, name: str = "default", scheme: str = "http") -> None:
        self._directory = directory
        self._flags = flags
        self.name = name
        self.peer = f"http://127.0.0.1:{free_port()}"
        self.endpoint = f"{scheme}://127.0.0.1:{free_port()}"
        self.cluster = f"{name}={self.peer}"
        self._process: Process | None = None
        self._draining: asyncio.Task[bytes] | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *("etcd", "--name", self.name, "--data-dir", str(self._directory)),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer),
            *("--initial-cluster", self.cluster, *QUICK),
            *self._flags,
            stderr=PIPE,
        )
        log = self._process.stderr
        assert log is not None
        async with asyncio.timeout(20):
            while b"ready to serve client requests" not in (line := await log.readline()):
                assert line, "etcd ended"
        self._draining = asyncio.create_task(log.read())

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None
        if self._draining is not None:
            await self._draining
            self._draining = None


@asynccontextmanager
async def three_members(directory: Path, *flags: str, scheme: str = "http") -> AsyncIterator[list[Etcd]]:
    """A cluster that has a leader."""
    members = [Etcd(directory / f"m{i}", *flags, name=f"m{i}", scheme=scheme) for i in range(3)]
    for member in members:
        member.cluster = ",".join(f"{m.name}={m.peer}" for m in members)
    try:
        await asyncio.gather(*(m.start() for m in members))
        yield members
    finally:
        await asyncio.gather(*(m.kill() for m in members))


async def leader_of(members: Sequence[Etcd], tls: Tls | None = None) -> Etcd:
    """The member that leads."""
    for member in members:
        asked = Members([member.endpoint], tls, 5)
        try:
            status = messages.status_answer(await asked.call("Maintenance/Status", b""))
        finally:
            await asked.close()
        if status.leader == status.member:
            return member
    raise AssertionError("no member leads")
