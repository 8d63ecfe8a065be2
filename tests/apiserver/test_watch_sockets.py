"""Watches over real connections: a peer that does not read, many at once, WebSockets."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sampan.api.resources import CONFIGMAPS
from sampan.apiserver import watching
from sampan.transport.http import HttpServer
from sampan.transport.tls import client_context, server_context
from sampan.transport.websocket import Decoder, Opcode, WebSocket, accept_key
from tests.apiserver.conftest import Api
from tests.apiserver.test_verbs import CM, config_map
from tests.transport.authority import Authority

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()  # the loop that the server runs on
    return policy


@pytest.fixture(params=["http", "https"])
async def connect(request: pytest.FixtureRequest, api: Api, tmp_path: Path) -> AsyncIterator[Connect]:
    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None
    if request.param == "https":
        authority = Authority(tmp_path)
        server_tls = server_context(*authority.issue("api"), authority.certificate)
        client_tls = client_context(authority.certificate)
    server = HttpServer(lambda r: api.app.handle(r), ssl_context=server_tls)
    host, port = await server.listen()
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Connection:
        connection = await asyncio.open_connection(host, port, ssl=client_tls)
        writers.append(connection[1])
        return connection

    yield connect
    for writer in writers:
        writer.close()
    api.app.cache.close()
    await server.close(0.1)


def ask(writer: asyncio.StreamWriter, target: str, *more: str) -> None:
    lines = [f"GET {target} HTTP/1.1", "Host: x", "Authorization: Bearer admin", *more, "", ""]
    writer.write("\r\n".join(lines).encode())


async def event(reader: asyncio.StreamReader) -> Any:
    """One event of a chunked answer whose chunks are one event each."""
    async with asyncio.timeout(20):
        size = int(await reader.readuntil(b"\r\n"), 16)
        return json.loads((await reader.readexactly(size + 2))[:-2])


async def forever(reader: asyncio.StreamReader) -> None:
    while True:
        await event(reader)


async def watch(connect: Connect, query: str = "") -> Connection:
    reader, writer = await connect()
    ask(writer, f"{CM}?watch=1{query}")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"Transfer-Encoding: chunked" in head
    return reader, writer


def watchers(api: Api) -> int:
    return sum(len(g.watchers) for g in api.app.cache.shelf(CONFIGMAPS).groups.values())


async def test_who_does_not_read_is_cut_off_and_delays_nobody(
    api: Api, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST_BUFFERED", 2**20)
    slow, _ = await watch(connect)
    fast, _ = await watch(connect)
    assert watchers(api) == 2
    count = 0
    while watchers(api) == 2:
        assert count < 300, "never cut off"
        await api.ok("POST", CM, {**config_map(f"c{count:03}"), "data": {"k": "x" * 100_000}})
        told = await event(fast)
        assert told["object"]["metadata"]["name"] == f"c{count:03}"
        count += 1
    assert count > 10, "what the peer's machine takes is not counted"
    # Whoever was cut off finds a broken connection behind what it had been sent, not an end.
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await forever(slow)
    await api.ok("POST", CM, config_map("last"))
    assert (await event(fast))["object"]["metadata"]["name"] == "last"


async def test_a_large_state_goes_at_the_peers_pace(api: Api, connect: Connect) -> None:
    """What is there at the beginning may be more than a watcher may leave untaken."""
    value = "x" * 100_000
    for i in range(0, 300, 50):
        await asyncio.gather(
            *(api.ok("POST", CM, {**config_map(f"c{i + j:03}"), "data": {"k": value}}) for j in range(50))
        )
    reader, _ = await watch(connect, "&allowWatchBookmarks=1")
    assert watchers(api) == 0, "still catching up"
    await api.ok("POST", CM, config_map("d"))
    names = [(await event(reader))["object"]["metadata"].get("name") for _ in range(302)]
    assert names == [*(f"c{i:03}" for i in range(300)), "d", None]
    assert watchers(api) == 1


async def test_two_hundred_watchers_and_no_task_of_theirs(api: Api, connect: Connect) -> None:
    streams = [await watch(connect) for _ in range(200)]
    tasks = len(asyncio.all_tasks())
    await api.ok("POST", CM, config_map("a"))
    events = await asyncio.gather(*(event(reader) for reader, _ in streams))
    assert all(e == events[0] for e in events)
    assert tasks < 20
    for _, writer in streams:
        writer.close()


async def test_watching_over_a_websocket(api: Api, connect: Connect) -> None:
    await api.ok("POST", CM, config_map("a"))
    reader, writer = await connect()
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    ask(
        writer,
        f"{CM}?watch=1&allowWatchBookmarks=true&timeoutSeconds=60",
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 101 ")
    assert f"Sec-WebSocket-Accept: {accept_key(key)}" in head
    socket = WebSocket(reader, writer, client=True)
    await api.ok("DELETE", f"{CM}/a")
    told = []
    for _ in range(3):
        message = await socket.receive()
        assert message is not None
        assert message.opcode is Opcode.TEXT
        told.append(json.loads(message.data)["type"])
    assert told == ["ADDED", "BOOKMARK", "DELETED"]
    socket.send(b"nobody listens", Opcode.TEXT)
    socket.ping(b"are you there")
    await api.ok("POST", CM, config_map("b"))
    message = await socket.receive()
    assert message is not None
    assert json.loads(message.data)["type"] == "ADDED"
    assert watchers(api) == 1
    await socket.finish()
    assert watchers(api) == 0


async def test_a_websocket_ends_with_its_watch(api: Api, connect: Connect) -> None:
    reader, writer = await connect()
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    ask(writer, f"{CM}?watch=1", *upgrade, "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Protocol: one, two")
    assert b"Sec-WebSocket-Protocol: one\r\n" in await reader.readuntil(b"\r\n\r\n")
    for group in list(api.app.cache.shelf(CONFIGMAPS).groups.values()):
        for watcher in list(group.watchers):
            watcher.end()
    async with asyncio.timeout(10):
        (closed,) = Decoder(client=True).feed(await reader.read(100))
    assert closed.opcode is Opcode.CLOSE
    assert watchers(api) == 0


async def test_a_websocket_without_rights_is_refused_before_it_is_one(api: Api, connect: Connect) -> None:
    reader, writer = await connect()
    lines = [
        f"GET {CM}?watch=1 HTTP/1.1",
        "Host: x",
        "Authorization: Bearer nobody",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: eA==",
        "",
        "",
    ]
    writer.write("\r\n".join(lines).encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
