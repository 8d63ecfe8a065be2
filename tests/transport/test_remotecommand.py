"""The channel protocols, frame by frame, as other clients than kubectl speak them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sampan.api.errors import StatusError
from sampan.transport import portforward, remotecommand, spdy
from sampan.transport.bytestream import SocketStream
from sampan.transport.http import HttpServer
from sampan.transport.remotecommand import Options, exit_status
from sampan.transport.types import Request
from sampan.transport.websocket import Message, Opcode, WebSocket


class Process:
    """Upper-cases its input; `die` ends it."""

    def __init__(self) -> None:
        self.stdout: asyncio.StreamReader | None = asyncio.StreamReader()
        self.stderr: asyncio.StreamReader | None = asyncio.StreamReader()
        self.given = asyncio.StreamReader()
        self.stdin: Any = self
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.closed = asyncio.Event()

    def write(self, data: bytes) -> None:
        assert self.stdout is not None
        self.stdout.feed_data(data.upper())

    async def drain(self) -> None: ...

    def die(self, code: int) -> None:
        assert self.stdout is not None
        assert self.stderr is not None
        self.stdout.feed_eof()
        self.stderr.feed_eof()
        self.code.set_result(code)

    async def wait(self) -> int:
        return await self.code

    def resize(self, columns: int, rows: int) -> None:
        self.sizes.put_nowait((columns, rows))

    class _Stdin:
        def __init__(self, process: Process) -> None:
            self.write, self.drain = process.write, process.drain
            self.close: Callable[[], None] = lambda: process.die(0)

    async def close(self) -> None:
        self.closed.set()


class Rig:
    def __init__(self) -> None:
        self.process = Process()
        self.process.stdin = Process._Stdin(self.process)

    async def start(self) -> Process:
        return self.process


@asynccontextmanager
async def command(protocol: str, query: str) -> AsyncIterator[tuple[Rig, WebSocket]]:
    rig = Rig()

    def handle(request: Request) -> Any:
        return remotecommand.upgrade(request, Options.of(request), rig.start)

    server = HttpServer(handle)
    reader, writer = await asyncio.open_connection(*await server.listen())
    offer = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    writer.write(
        f"GET /?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n{offer}\r\n".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 101 "), head
    socket = WebSocket(reader, writer, client=True)
    try:
        async with asyncio.timeout(10):
            yield rig, socket
            await socket.finish()
            await asyncio.wait_for(rig.process.closed.wait(), 20)
    finally:
        await server.close(1)
        assert server.connections == 0


async def test_v5_with_the_close_signal() -> None:
    async with command("v5.channel.k8s.io", "input=1&output=1&error=1") as (rig, socket):
        socket.send(b"\x00hello")
        assert await socket.receive() == Message(Opcode.BINARY, b"\x01HELLO")
        rig.process.stderr.feed_data(b"oops")  # type: ignore[union-attr]
        assert await socket.receive() == Message(Opcode.BINARY, b"\x02oops")
        socket.send(b"\xff\x00")
        last = await socket.receive()
        assert last is not None
        assert last.data[0] == 3
        assert json.loads(last.data[1:]) == {"metadata": {}, "status": "Success"}
        assert await socket.receive() is None


async def test_v4_knows_no_close_signal_and_resizes() -> None:
    async with command("v4.channel.k8s.io", "input=1&output=1&tty=1") as (rig, socket):
        await socket.receive()
        socket.send(b"\xff\x00")
        socket.send(b'\x04{"Width":80,"Hei')
        socket.send(b'\x04ght":24}')
        assert await rig.process.sizes.get() == (80, 24)
        assert not rig.process.code.done()
        rig.process.die(7)
        last = await socket.receive()
        assert last is not None
        assert json.loads(last.data[1:]) == exit_status(7)


@pytest.mark.parametrize("protocol", ["", "channel.k8s.io"])
async def test_the_first_protocol_tells_failures_as_text(protocol: str) -> None:
    async with command(protocol, "output=1") as (rig, socket):
        assert await socket.receive() == Message(Opcode.BINARY, b"\x01")
        rig.process.die(2)
        last = await socket.receive()
        assert last is not None
        assert (
            last.data
            == b"\x03command terminated with non-zero exit code: command terminated with exit code 2"
        )


async def test_base64() -> None:
    async with command("v4.base64.channel.k8s.io", "input=1&output=1") as (rig, socket):
        assert await socket.receive() == Message(Opcode.TEXT, b"1")
        socket.send(b"0" + base64.b64encode(b"abc"), Opcode.TEXT)
        assert await socket.receive() == Message(Opcode.TEXT, b"1" + base64.b64encode(b"ABC"))
        rig.process.die(0)
        last = await socket.receive()
        assert last is not None
        assert json.loads(base64.b64decode(last.data[1:]))["status"] == "Success"


async def test_a_client_that_goes_lets_go_of_the_process() -> None:
    async with command("v5.channel.k8s.io", "output=1") as (rig, socket):
        rig.process.stdout.feed_data(b"up")  # type: ignore[union-attr]
        await socket.receive()
        socket.close()
        assert await socket.receive() is None
        await rig.process.closed.wait()


def test_at_least_one_stream_must_be_asked_for() -> None:
    with pytest.raises(StatusError, match="at least 1 of stdin, stdout, stderr"):
        Options.of(Request("GET", "/?tty=1", {}))


def test_unknown_protocols_and_no_upgrade_are_refused_by_name() -> None:
    async def start() -> Any: ...

    options = Options(False, True, False, False)
    with pytest.raises(StatusError, match="Upgrade request required"):
        remotecommand.upgrade(Request("POST", "/", {}), options, start)
    headers = {"upgrade": "SPDY/3.1", "connection": "upgrade", "x-stream-protocol-version": "v9"}
    with pytest.raises(StatusError, match="v9"):
        remotecommand.upgrade(Request("POST", "/", headers), options, start)


async def test_spdy_waits_for_the_streams_that_were_asked_for() -> None:
    rig = Rig()
    server = HttpServer(lambda r: remotecommand.upgrade(r, Options.of(r), rig.start))
    reader, writer = await asyncio.open_connection(*await server.listen())
    writer.write(
        b"POST /?input=1&output=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: channel.k8s.io\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in head
    session = spdy.Session(SocketStream(reader, writer), server=False)
    running = asyncio.create_task(session.run())
    streams = {n: session.open({"streamType": n}) for n in ("error", "stdin", "stdout")}
    twice = session.open({"streamType": "stdin"})
    assert await twice.read() == b""
    streams["stdin"].write(b"abc")
    streams["stdin"].close()
    async with asyncio.timeout(20):
        assert await streams["stdout"].read() == b"ABC"
        assert json.loads(await streams["error"].read())["status"] == "Success"
        assert await streams["stdout"].read() == b""
    writer.close()
    await running
    await server.close(1)


async def test_port_forward_by_channels() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(5)).upper())
        await writer.drain()
        writer.close()

    target = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]

    async def open_port(number: int) -> Any:
        if number == 1:
            raise ConnectionRefusedError("connection refused")
        return await asyncio.open_connection("127.0.0.1", number)

    server = HttpServer(lambda r: portforward.upgrade(r, open_port, "web_default, uid 1"))
    reader, writer = await asyncio.open_connection(*await server.listen())
    writer.write(
        f"GET /?port=1&ports={port} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"
        "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    socket = WebSocket(reader, writer, client=True)
    socket.send(b"\x02hello")
    got: dict[int, bytes] = {}
    while (message := await asyncio.wait_for(socket.receive(), 20)) is not None:
        channel = message.data[0]
        got[channel] = got.get(channel, b"") + message.data[1:]
    one, other = (1).to_bytes(2, "little"), port.to_bytes(2, "little")
    told = b"error forwarding port 1 to pod web_default, uid 1: connection refused"
    assert got == {0: one, 1: one + told, 2: other + b"HELLO", 3: other}
    writer.close()
    await server.close(1)
    target.close()


@pytest.mark.parametrize("query", ["", "port=0", "port=70000", "port=x"])
def test_ports_must_be_given_and_valid(query: str) -> None:
    async def open_port(number: int) -> Any: ...

    headers = {"upgrade": "websocket", "connection": "upgrade"}
    with pytest.raises(StatusError) as caught:
        portforward.upgrade(Request("GET", f"/?{query}", headers), open_port, "p")
    assert caught.value.code == 400


@pytest.mark.parametrize("query", ["output=1", "input=1&output=1"])
async def test_a_client_that_goes_does_not_end_the_input(query: str) -> None:
    async with command("v5.channel.k8s.io", query) as (rig, socket):
        rig.process.stdout.feed_data(b"up")  # type: ignore[union-attr]
        await socket.receive()
        socket.close()
        assert await socket.receive() is None
        await rig.process.closed.wait()
        assert not rig.process.code.done()
