"""A real HAProxy on loopback with the driver that looks after it, and backends that say who they are and what they got."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from sampan.ingress.haproxy.driver import HaproxyDriver
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import Process
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import INGRESS_SCOPE, Endpoint, Listener


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, no two of them the same."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def free_port() -> int:
    (port,) = free_ports(1)
    return port


@dataclass(slots=True)
class Answer:
    """What a client got: status, headers (lower case) and body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


class Upstream:
    """A backend: answers `NAME` and then the head that it got. Requests for `/slow` wait until `release` is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.release = asyncio.Event()
        self.waiting = asyncio.Event()
        self.connections = 0

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *args: object) -> None:
        self._server.close()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.port, pod=f"pod-{self.name}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.split()[1].endswith(b"/slow"):
                    self.waiting.set()
                    await self.release.wait()
                body = self.name.encode() + b"\n" + head
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        writer.close()


@dataclass(slots=True)
class Door:
    """`table` is what the test changes; `settle` has the proxy follow and waits until it has."""

    table: RoutingTable
    driver: HaproxyDriver
    process: Process
    port: int
    files: Files
    log: Path
    serving: asyncio.Event
    tls_port: int = 0

    async def settle(self) -> None:
        self.driver.apply(self.table.routing, self.table.take_change())
        async with asyncio.timeout(15):
            await self.driver.settled()

    async def get(self, host: str, path: str, *headers: str, method: str = "GET") -> Answer:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
        return await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def raw(self, data: bytes) -> Answer:
        """Send bytes as they are, read until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(10):
                return parse((await reader.read(-1)).decode(errors="replace"))
        finally:
            writer.close()

    async def who(self, host: str, path: str) -> str:
        """The name of the backend that answers, or the status."""
        answer = await self.get(host, path)
        return answer.body.split("\n")[0] if answer.status == 200 else str(answer.status)


def parse(text: str) -> Answer:
    if not text:
        return Answer(0)
    head, _, body = text.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, body)


@contextlib.asynccontextmanager
async def open_door(directory: Path, *, tls: bool = False) -> AsyncIterator[Door]:
    """A door that is open, with `tls` for HTTPS as well. HAProxy is ended at the end of the block."""
    os.chmod(directory, 0o755)
    port, own = free_ports(2)
    table = RoutingTable()
    tls_port = own if tls else 0
    https = [Listener("https", tls_port, INGRESS_SCOPE, tls=True)] if tls else []
    table.set_listeners([Listener("http", port, INGRESS_SCOPE), *https])
    files = Files(directory / "run", ("127.0.0.1",))
    log = directory / "access.log"
    process = Process(files, "haproxy", log)
    serving = asyncio.Event()

    def tell(on: bool, why: str) -> None:
        if on:
            serving.set()
        else:
            serving.clear()

    driver = HaproxyDriver(files, process, tell)
    driver.apply(table.routing, table.take_change())
    task = asyncio.create_task(driver.run())
    try:
        async with asyncio.timeout(15):
            await serving.wait()
        yield Door(table, driver, process, port, files, log, serving, tls_port)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await process.end()
