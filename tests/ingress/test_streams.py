"""What is no plain request and answer: WebSockets, events that come one by one, uploads larger than any buffer; and ports that are taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import which

import pytest

from sampan.ingress.haproxy.driver import HaproxyDriver
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import Process
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import Endpoint, Listener
from tests.ingress.door import Door, Upstream, open_door
from tests.ingress.objects import add, ingress, set_backends

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as opened:
        yield opened


async def connected(door: Door, request: bytes) -> tuple[Streams, Streams, asyncio.Server, bytes]:
    """Client and backend of one request, which has been sent; and the head that the backend got."""
    arrived: asyncio.Queue[Streams] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait((reader, writer))

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [Endpoint("127.0.0.1", port)]})
    await door.settle()
    client = await asyncio.open_connection("127.0.0.1", door.port)
    client[1].write(request)
    backend = await arrived.get()
    return client, backend, server, await backend[0].readuntil(b"\r\n\r\n")


def upgrade(host: str) -> bytes:
    """A request for a WebSocket."""
    asked = f"GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    return f"{asked}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()


async def talk(client: Streams, backend: Streams) -> None:
    """The backend takes the upgrade, and what either says comes to the other."""
    (reader, writer), (got, say) = client, backend
    say.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
    say.write(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    for n in range(3):
        writer.write(b"ping%d" % n)
        assert await got.readexactly(5) == b"ping%d" % n
        say.write(b"pong%d" % n)
        assert await reader.readexactly(5) == b"pong%d" % n


async def send_events(client: Streams, backend: Streams) -> None:
    """Each comes before the next one is sent, and none is kept back for a while: that would take ten seconds here."""
    reader, say = client[0], backend[1]
    say.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(8):
        for n in range(10, 60):
            say.write(b"a\r\ndata: %d\n\n\r\n" % n)
            assert b"data: %d\n\n" % n in await reader.readuntil(b"\n\n\r\n")


async def test_a_websocket_goes_both_ways(door: Door) -> None:
    client, backend, server, head = await connected(door, upgrade("foo.com"))
    assert b"upgrade: websocket" in head.lower()
    await talk(client, backend)
    client[1].close()
    server.close()


async def test_an_event_comes_when_it_is_sent(door: Door) -> None:
    asked = b"GET /events HTTP/1.1\r\nHost: foo.com\r\nAccept: text/event-stream\r\n\r\n"
    client, backend, server, _ = await connected(door, asked)
    await send_events(client, backend)
    client[1].close()
    server.close()


async def test_an_upload_is_not_kept_back(door: Door) -> None:
    size = 4_000_000
    asked = b"POST /up HTTP/1.1\r\nHost: foo.com\r\nContent-Length: %d\r\n\r\n" % size
    (reader, writer), (got, say), server, _ = await connected(door, asked)
    # The first bytes are there before the last are sent.
    writer.write(b"x" * 1000)
    assert await got.readexactly(1000) == b"x" * 1000
    writer.write(b"y" * (size - 1000))
    assert await got.readexactly(size - 1000) == b"y" * (size - 1000)
    say.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert b" 204 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    server.close()


async def test_connections_with_pods_are_kept(door: Door) -> None:
    async with Upstream("one") as one:
        add(door.table, ingress("web", [("foo.com", "/", "Prefix", "one")]))
        set_backends(door.table, {"one": [one.endpoint]})
        await door.settle()
        assert door.driver.reloads == 0, "it came while the proxy ran"
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        for _ in range(5):
            writer.write(b"GET / HTTP/1.1\r\nHost: foo.com\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        writer.close()
        assert one.connections == 1


async def test_a_port_that_is_taken_is_told_and_taken_when_it_is_free(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    table = RoutingTable()
    table.set_listeners([Listener("http", port, "ingress")])
    files = Files(tmp_path / "run", ("127.0.0.1",))
    process = Process(files, "haproxy", tmp_path / "log")
    told: asyncio.Queue[tuple[bool, str]] = asyncio.Queue()
    driver = HaproxyDriver(files, process, lambda on, why: told.put_nowait((on, why)))
    driver.apply(table.routing, table.take_change())
    task = asyncio.create_task(driver.run())
    async with asyncio.timeout(20):
        on, why = await told.get()
        assert not on
        assert f"[127.0.0.1:{port}]" in why
        taken.close()
        while not on:
            on, why = await told.get()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await process.end()
