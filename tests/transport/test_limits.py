"""What a peer may not do to the server, whether it means harm or is merely broken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from sampan.transport.connection import Connection
from sampan.transport.tls import client_context, server_context
from sampan.transport.types import Request, Response
from tests.transport.authority import Authority
from tests.transport.test_http import echo, get, read_answer, serving

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        # Two readings of where a request ends.
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
        (POST + b"Content-Length: +5\r\n\r\nhello", 400),
        (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
        (POST + b"Content-Length: \r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 38\r\n\r\n", 400),
        (POST + b"X: a\r\n b\r\n\r\n", 400),
        (POST + b"X: a\rb\r\n\r\n", 400),
        (b"POST / HTTP/1.1\nHost: x\n\n", 400),
        # Chunks.
        (CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", 400),
        (CHUNKED + b"-1\r\nhello\r\n0\r\n\r\n", 400),
        (CHUNKED + b"fffffffffffffffffff\r\nhello\r\n0\r\n\r\n", 400),
        (CHUNKED + b"5\r\nhelloX\r\n0\r\n\r\n", 400),
        (CHUNKED + b"5\nhello\n0\n\n", 400),
        # Which host.
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x/y z\r\n\r\n", 400),
        # Which version, which method.
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        # Where to.
        (b"GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        # How much.
        (b"GET /" + b"a" * 140_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"a%d:\r\n" % n for n in range(2000)) + b"\r\n", 431),
        (POST + b"Content-Length: 3145729\r\n\r\n", 413),
        (POST + b"Content-Length: 3145729\r\nExpect: 100-continue\r\n\r\n", 413),
        (POST + b"Content-Length: 2\r\nExpect: 200-ok\r\n\r\n", 417),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
async def test_one_clear_answer_and_the_end_of_the_connection(sent: bytes, code: int) -> None:
    seen: list[str] = []

    def handler(request: Request) -> Response:
        seen.append(request.target)
        return echo(request)

    async with serving(handler) as connect:
        reader, writer = await connect()
        writer.write(sent + SMUGGLED)
        async with asyncio.timeout(20):
            status, headers, body = await read_answer(reader)
            assert status == code
            assert headers["connection"] == "close"
            assert (found := json.loads(body))["code"] == code
            assert found["message"]
            assert await reader.read() == b""
    assert "/smuggled" not in seen


async def test_what_is_unusual_and_right() -> None:
    async with serving(echo) as connect:
        reader, writer = await connect()
        for sent, target in (
            (b"\r\n\r\nGET /lines HTTP/1.1\r\nHost: x\r\n\r\n", "/lines"),
            (b"GET http://elsewhere/absolute?q HTTP/1.1\r\nHost: x\r\n\r\n", "/absolute?q"),
            (b"GET /empty HTTP/1.1\r\nHost:\r\n\r\n", "/empty"),
            (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "*"),
            (b"TRACE /t HTTP/1.1\r\nHost: x\r\n\r\n", "/t"),
            (CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX-Trailer: 1\r\nHost: y\r\n\r\n", "/"),
        ):
            writer.write(sent)
            status, _, body = await read_answer(reader)
            assert (status, json.loads(body)["target"]) == (200, target)


async def test_trailers_are_no_headers() -> None:
    def who(request: Request) -> Response:
        return Response(200, request.headers.get("authorization", "nobody").encode())

    async with serving(who) as connect:
        reader, writer = await connect()
        writer.write(CHUNKED + b"1\r\nx\r\n0\r\nAuthorization: Bearer x\r\nX: y\r\n\r\n")
        assert (await read_answer(reader))[2] == b"nobody"
        writer.write(get())
        assert (await read_answer(reader))[2] == b"nobody"


def open_in(connect: Any) -> set[Connection]:
    """The server's side of its connections."""
    found: set[Connection] = connect.server._connections
    return found


async def test_beyond_the_limit_the_oldest_idle_connections_are_given_up() -> None:
    gate = asyncio.Event()

    async def held(request: Request) -> Response:
        if request.target == "/held":
            await gate.wait()
        return Response(200)

    async with serving(held, max_connections=3) as connect:
        busy = await connect()
        busy[1].write(get("/held"))
        idle = []
        for _ in range(3):
            reader, writer = await connect()
            writer.write(get("/"))
            assert (await read_answer(reader))[0] == 200
            idle.append((reader, writer))
            now = (loop := asyncio.get_running_loop()).time()
            while loop.time() == now:  # uvloop's clock has milliseconds.
                await asyncio.sleep(0)
        async with asyncio.timeout(20):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await read_answer(idle[0][0])
        for reader, writer in idle[1:]:
            writer.write(get("/"))
            assert (await read_answer(reader))[0] == 200
        gate.set()
        assert (await read_answer(busy[0]))[0] == 200


async def test_where_none_is_idle_the_new_connection_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()

    async def held(request: Request) -> Response:
        await gate.wait()
        return Response(200)

    async with serving(held, max_connections=2) as connect:
        busy = [await connect() for _ in range(2)]
        for _, writer in busy:
            writer.write(get())
        await asyncio.sleep(0)
        while any(c.idle for c in open_in(connect)):
            await asyncio.sleep(0)
        reader, _ = await connect()
        async with asyncio.timeout(20):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(1)
        assert "none of them idle" in caplog.text
        gate.set()
        for reader, _ in busy:
            assert (await read_answer(reader))[0] == 200


async def test_dead_peers_are_noticed_by_the_kernel() -> None:
    kept: list[Any] = []

    async with serving(echo) as connect:
        reader, writer = await connect()
        writer.write(get())
        await read_answer(reader)
        for connection in open_in(connect):
            sock = connection.transport.get_extra_info("socket")
            kept.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            kept.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
    assert kept == [1, 30]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_no_tls_on_the_tls_port(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever comes there instead of a handshake costs its own connection, no log lines and nobody else."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("api")
    caplog.set_level(logging.INFO)
    async with serving(echo, ssl_context=server_context(certificate, key)) as connect:
        for garbage in (
            get(),
            b"\0" * 500,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 600,
            b"",
        ):
            reader, writer = await connect()
            writer.write(garbage)
            writer.write_eof()
            async with asyncio.timeout(20):
                with contextlib.suppress(ConnectionResetError):
                    assert b"HTTP" not in await reader.read()
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(ssl=old)
        reader, writer = await connect(ssl=client_context(authority.certificate), server_hostname="localhost")
        writer.write(get())
        assert (await read_answer(reader))[0] == 200
    assert not [r for r in caplog.records if r.levelno > logging.INFO]
