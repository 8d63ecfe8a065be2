from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sampan.api.errors import not_found, too_many_requests
from sampan.transport.http import HttpServer
from sampan.transport.tls import client_context, server_context
from sampan.transport.types import (
    Answer,
    Handler,
    Request,
    Response,
    Stream,
    StreamingResponse,
    Upgrade,
    frame,
)
from tests.transport.authority import Authority

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[Callable[..., Any]]:
    server = HttpServer(handler, **options)
    host, port = await server.listen("127.0.0.1")
    writers: list[asyncio.StreamWriter] = []

    async def connect(**how: Any) -> Connection:
        reader, writer = await asyncio.open_connection(host, port, **how)
        writers.append(writer)
        return reader, writer

    connect.server = server  # type: ignore[attr-defined]
    try:
        yield connect
    finally:
        for writer in writers:
            writer.close()
        await server.close(1)
    assert server.connections == 0


async def read_answer(
    reader: asyncio.StreamReader, head_only: bool = False
) -> tuple[int, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    status = int(lines[0].split()[1])
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
    if head_only or status in (101, 204, 304) or status < 200:
        return status, headers, b""
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while chunk := await read_chunk(reader):
            body += chunk
        return status, headers, body
    if "content-length" in headers:
        return status, headers, await reader.readexactly(int(headers["content-length"]))
    return status, headers, await reader.read()


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readuntil(b"\r\n"), 16)
    data = await reader.readexactly(size)
    assert await reader.readexactly(2) == b"\r\n"
    return data


def echo(request: Request) -> Response:
    said = {"method": request.method, "target": request.target, "body": request.body.decode("latin-1")}
    return Response(200, json.dumps(said).encode())


def get(target: str = "/", more: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


async def test_keep_alive_serves_many_requests_on_one_connection() -> None:
    async with serving(echo) as connect:
        reader, writer = await connect()
        for n in range(3):
            writer.write(get(f"/{n}?a=b"))
            status, headers, body = await read_answer(reader)
            assert (status, json.loads(body)["target"]) == (200, f"/{n}?a=b")
            assert "date" in headers
            assert headers["content-type"] == "application/json"


async def test_pipelined_requests_are_answered_in_order_whoever_is_quicker() -> None:
    gate = asyncio.Event()

    async def slow(request: Request) -> Answer:
        await gate.wait()
        return echo(request)

    def handler(request: Request) -> Any:
        if request.path == "/2":
            gate.set()
        return slow(request) if request.path == "/0" else echo(request)

    async with serving(handler) as connect:
        reader, writer = await connect()
        other_reader, other = await connect()
        writer.write(b"".join(get(f"/{n}") for n in (0, 1, 3, 4)))
        await writer.drain()
        other.write(get("/2"))
        await read_answer(other_reader)
        order = [json.loads((await read_answer(reader))[2])["target"] for _ in range(4)]
        assert order == ["/0", "/1", "/3", "/4"]


async def test_an_answer_that_is_begun_as_its_peer_goes_gets_to_tidy_up() -> None:
    loop = asyncio.get_running_loop()
    gate, asked, tidied = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def held(request: Request) -> Answer:
        asked.set()
        await gate.wait()
        return echo(request)

    async def handed(request: Request) -> Answer:
        try:
            await asyncio.Event().wait()
            return echo(request)
        finally:
            tidied.set()

    async with serving(lambda r: held(r) if r.path == "/1" else handed(r)) as connect:
        _, writer = await connect()
        writer.write(get("/1") + get("/2"))
        await asked.wait()
        (connection,) = connect.server._connections  # type: ignore[attr-defined]
        # In one turn of the loop the connection breaks, then the first answer is there and the second is begun.
        loop.call_soon(connection.transport.abort)
        gate.set()
        await asyncio.wait_for(tidied.wait(), 20)


async def test_more_pipelined_requests_than_are_parsed_ahead() -> None:
    async def later(request: Request) -> Answer:
        await asyncio.sleep(0)
        return echo(request)

    async with serving(later) as connect:
        reader, writer = await connect()
        for n in range(200):
            writer.write(get(f"/{n}"))
        order = [json.loads((await read_answer(reader))[2])["target"] for _ in range(200)]
        assert order == [f"/{n}" for n in range(200)]


async def test_a_request_may_come_byte_by_byte() -> None:
    async with serving(echo) as connect:
        reader, writer = await connect()
        for byte in b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert json.loads((await read_answer(reader))[2])["body"] == "abc"


async def test_chunked_and_gzipped_bodies_are_unpacked() -> None:
    async with serving(echo) as connect:
        reader, writer = await connect()
        packed = gzip.compress(b"hello")
        head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        writer.write(head.encode() + b"\r\n" + frame(b"ab") + frame(b"c") + b"0\r\n\r\n")
        assert json.loads((await read_answer(reader))[2])["body"] == "abc"
        head += "Content-Encoding: gzip\r\n\r\n"
        writer.write(head.encode() + frame(packed) + b"0\r\n\r\n")
        assert json.loads((await read_answer(reader))[2])["body"] == "hello"


@pytest.mark.parametrize(
    ("body", "encoding", "code"),
    [
        (b"x" * 2000, "", 413),
        (gzip.compress(b"x" * 2000), "gzip", 413),
        (b"not gzip", "gzip", 400),
        (gzip.compress(b"x" * 900)[:-6], "gzip", 400),
        (b"x", "br", 415),
    ],
)
async def test_bodies_that_are_refused(body: bytes, encoding: str, code: int) -> None:
    async with serving(echo, max_body=1000) as connect:
        reader, writer = await connect()
        more = f"Content-Encoding: {encoding}\r\n" if encoding else ""
        writer.write(
            f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body
        )
        status, _, answer = await read_answer(reader)
        assert (status, json.loads(answer)["kind"]) == (code, "Status")


async def test_a_chunked_body_over_the_limit_is_refused_when_it_passes_it() -> None:
    async with serving(echo, max_body=1000) as connect:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + frame(b"x" * 1001))
        assert (await read_answer(reader))[0] == 413
        assert await reader.read() == b""


async def test_expect_continue() -> None:
    async with serving(echo, max_body=10) as connect:
        reader, writer = await connect()
        writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await read_answer(reader))[0] == 100
        writer.write(b"abc")
        assert json.loads((await read_answer(reader))[2])["body"] == "abc"
        writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\nExpect: 100-continue\r\n\r\n")
        assert (await read_answer(reader))[0] == 413


async def test_head_has_the_length_and_no_body() -> None:
    async with serving(lambda r: Response(200, b"abc")) as connect:
        reader, writer = await connect()
        writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + get())
        _, headers, _ = await read_answer(reader, head_only=True)
        assert headers["content-length"] == "3"
        assert (await read_answer(reader))[2] == b"abc"


async def test_http_1_0_closes_unless_asked_to_keep() -> None:
    async with serving(echo) as connect:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await read_answer(reader))[1]["connection"] == "keep-alive"
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await read_answer(reader))[1]["connection"] == "close"
        assert await reader.read() == b""


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"complete nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 5000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 5000, 431),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ],
)
async def test_malformed_requests(sent: bytes, code: int) -> None:
    async with serving(echo, max_head=4096) as connect:
        reader, writer = await connect()
        writer.write(sent)
        status, _, body = await read_answer(reader)
        assert (status, json.loads(body)["code"]) == (code, code)


async def test_a_malformed_request_is_answered_after_the_good_one_before_it() -> None:
    gate = asyncio.Event()

    async def slow(request: Request) -> Answer:
        await gate.wait()
        return echo(request)

    async with serving(slow) as connect:
        reader, writer = await connect()
        writer.write(get("/a") + b"nonsense\r\n\r\n")
        asyncio.get_running_loop().call_later(0.02, gate.set)
        assert (await read_answer(reader))[0] == 200
        assert (await read_answer(reader))[0] == 400
        assert await reader.read() == b""


async def test_errors_become_status_objects() -> None:
    def handler(request: Request) -> Answer:
        if request.path == "/missing":
            raise not_found("pods", "a")
        if request.path == "/busy":
            raise too_many_requests("later", 7)
        if request.path == "/split":
            return Response(200, b"", headers=[("X-A", "b\r\nEvil: 1")])
        raise RuntimeError("boom")

    async with serving(handler) as connect:
        reader, writer = await connect()
        writer.write(get("/missing") + get("/busy") + get("/bug") + get("/split"))
        status, _, body = await read_answer(reader)
        assert (status, json.loads(body)["reason"]) == (404, "NotFound")
        status, headers, _ = await read_answer(reader)
        assert (status, headers["retry-after"]) == (429, "7")
        status, _, body = await read_answer(reader)
        assert (status, json.loads(body)["reason"]) == (500, "InternalError")
        status, headers, _ = await read_answer(reader)
        assert (status, "evil" in headers) == (500, False)


async def test_large_answers_are_gzipped_for_those_who_accept_it() -> None:
    big = b"kubernetes" * 20_000
    async with serving(lambda r: Response(200, [big, big])) as connect:
        reader, writer = await connect()
        writer.write(get("/", "Accept-Encoding: gzip\r\n") + get("/"))
        _, headers, body = await read_answer(reader)
        assert headers["content-encoding"] == "gzip"
        assert gzip.decompress(body) == big + big
        _, headers, body = await read_answer(reader)
        assert "content-encoding" not in headers
        assert body == big + big


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("br,gzip ; q=1.0", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, identity", False),
        ("xgzip", False),
        ("identity", False),
        ("", False),
    ],
)
async def test_who_accepts_gzip(accepted: str, packed: bool) -> None:
    body = [b"%d," % i for i in range(200_000)]
    small = [b"x" * 128 * 1024]
    async with serving(lambda r: Response(200, body if r.path == "/" else small)) as connect:
        reader, writer = await connect()
        writer.write(
            get("/", f"Accept-Encoding: {accepted}\r\n") + get("/small", "Accept-Encoding: gzip\r\n")
        )
        _, headers, sent = await read_answer(reader)
        assert ("content-encoding" in headers) is packed
        assert (gzip.decompress(sent) if packed else sent) == b"".join(body)
        assert "content-encoding" not in (await read_answer(reader))[1], "not worth it"


@pytest.mark.parametrize("count", [1, 7, 20_000])
async def test_a_large_body_in_parts_and_the_next_request_on_the_connection(count: int) -> None:
    parts = [b"%d," % i + b"x" * (8_000_000 // count) for i in range(count)]

    def answer(request: Request) -> Response:
        return Response(200, parts if request.path == "/parts" else b"next")

    async with serving(answer) as connect:
        reader, writer = await connect()
        writer.write(get("/parts") + get("/") + get("/parts", "Connection: close\r\n"))
        assert (await read_answer(reader))[2] == b"".join(parts)
        assert (await read_answer(reader))[2] == b"next"
        assert (await read_answer(reader))[2] == b"".join(parts)
        assert await reader.read() == b""


async def test_a_stream_without_a_task_and_the_next_request_on_the_connection() -> None:
    streams: list[Stream] = []
    ended: list[int] = []

    def handler(request: Request) -> Answer:
        if request.path != "/watch":
            return echo(request)
        return StreamingResponse(streams.append)

    async with serving(handler) as connect:
        reader, writer = await connect()
        writer.write(get("/watch") + get("/next"))
        await reader.readuntil(b"\r\n\r\n")
        streams[0].on_closed(lambda: ended.append(1))
        streams[0].write(b"one\n")
        assert await read_chunk(reader) == b"one\n"
        streams[0].write_framed(frame(b"two\n") + frame(b"three\n"))
        assert await read_chunk(reader) == b"two\n"
        assert await read_chunk(reader) == b"three\n"
        streams[0].close()
        streams[0].write(b"not sent")
        assert await read_chunk(reader) == b""
        assert json.loads((await read_answer(reader))[2])["target"] == "/next"
        assert ended == [1]


async def test_a_produced_stream_ends_with_its_task_and_is_cancelled_with_its_peer() -> None:
    cancelled = asyncio.Event()

    async def produce(stream: Stream) -> None:
        stream.write(b"a")
        await stream.drain()

    async def forever(stream: Stream) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def handler(request: Request) -> Answer:
        return StreamingResponse(produce if request.path == "/a" else forever)

    async with serving(handler) as connect:
        reader, writer = await connect()
        writer.write(get("/a") + get("/a"))
        assert (await read_answer(reader))[2] == b"a"
        assert (await read_answer(reader))[2] == b"a"
        writer.write(get("/forever"))
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await asyncio.wait_for(cancelled.wait(), 20)


async def test_a_stream_to_http_1_0_is_bare_bytes() -> None:
    async def produce(stream: Stream) -> None:
        stream.write(b"a")
        stream.write_framed(frame(b"bc") + frame(b"d"))

    async with serving(lambda r: StreamingResponse(produce)) as connect:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await read_answer(reader))[2] == b"abcd"


async def test_a_slow_reader_is_seen_in_buffered_and_held_by_drain() -> None:
    taken: asyncio.Queue[Stream] = asyncio.Queue()
    async with serving(lambda r: StreamingResponse(taken.put_nowait)) as connect:
        reader, writer = await connect(limit=1024)
        writer.write(get())
        stream = await taken.get()
        for _ in range(100):
            stream.write(b"x" * 100_000)
        assert stream.buffered > 1_000_000
        drain = asyncio.ensure_future(stream.drain())
        await asyncio.sleep(0)
        assert not drain.done()
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(100):
            assert len(await read_chunk(reader)) == 100_000
        await asyncio.wait_for(drain, 20)
        stream.abort()
        assert stream.buffered == 0


async def test_a_half_closed_client_gets_its_answer_and_a_half_closed_watcher_is_let_go() -> None:
    gate = asyncio.Event()
    gone = asyncio.Event()

    async def slow(request: Request) -> Answer:
        if request.path == "/watch":
            return StreamingResponse(lambda stream: stream.on_closed(gone.set))
        await gate.wait()
        return echo(request)

    async with serving(slow) as connect:
        reader, writer = await connect()
        writer.write(get("/a") + get("/b"))
        writer.write_eof()
        asyncio.get_running_loop().call_later(0.02, gate.set)
        assert (await read_answer(reader))[0] == 200
        assert (await read_answer(reader))[0] == 200
        assert await reader.read() == b""
        reader, writer = await connect()
        writer.write(get("/watch"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        await asyncio.wait_for(gone.wait(), 20)


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\nHost:", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"],
    ids=["head", "body"],
)
async def test_trickling_requests_are_ended(sent: bytes) -> None:
    async with serving(echo, head_timeout=0.05, body_timeout=0.05) as connect:
        reader, writer = await connect()
        writer.write(sent)
        assert (await read_answer(reader))[0] == 408
        assert await reader.read() == b""


async def test_idle_connections_are_closed_and_used_ones_are_not() -> None:
    async with serving(echo, idle_timeout=0.2) as connect:
        reader, writer = await connect()
        for _ in range(3):
            await asyncio.sleep(0.1)
            writer.write(get())
            assert (await read_answer(reader))[0] == 200
        assert await asyncio.wait_for(reader.read(), 20) == b""


@pytest.mark.parametrize("parts", [1, 1000])
async def test_a_peer_that_never_reads_its_answer_is_cut(parts: int) -> None:
    big = b"x" * 20_000_000 if parts == 1 else [b"x" * 20_000] * parts
    async with serving(lambda r: Response(200, big), write_timeout=0.1) as connect:
        _, writer = await connect(limit=1024)
        writer.transport.pause_reading()
        writer.write(get())
        server = connect.server  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            while not server.connections:
                await asyncio.sleep(0.01)
            while server.connections:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_an_upgrade_owns_the_connection_with_what_came_ahead(later: bool) -> None:
    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        writer.write(b"bye")
        await writer.drain()

    answer = Upgrade(run, [("Upgrade", "shout")])

    async def answer_later() -> Answer:
        await asyncio.sleep(0.02)
        return answer

    async with serving(lambda r: answer_later() if later else answer) as connect:
        reader, writer = await connect()
        writer.write(get("/", "Connection: Upgrade\r\nUpgrade: shout\r\n") + b"early\n")
        status, headers, _ = await read_answer(reader)
        assert (status, headers["upgrade"], headers["connection"]) == (101, "shout", "Upgrade")
        assert await reader.readline() == b"EARLY\n"
        writer.write(b"late\n")
        assert await reader.readline() == b"LATE\n"
        writer.write_eof()
        assert await reader.read() == b"bye"


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_a_request_to_upgrade_may_be_answered_as_http(later: bool) -> None:
    async def answer_later(request: Request) -> Answer:
        await asyncio.sleep(0.02)
        return echo(request)

    async with serving(answer_later if later else echo) as connect:
        reader, writer = await connect()
        writer.write(get("/a", "Connection: Upgrade\r\nUpgrade: h2c\r\n") + get("/b"))
        assert json.loads((await read_answer(reader))[2])["target"] == "/a"
        assert json.loads((await read_answer(reader))[2])["target"] == "/b"


async def test_closing_ends_streams_and_answers_what_is_in_progress() -> None:
    started = asyncio.Event()
    gate = asyncio.Event()

    async def slow(request: Request) -> Answer:
        started.set()
        await gate.wait()
        return echo(request)

    def handler(request: Request) -> Any:
        return StreamingResponse(lambda s: None) if request.path == "/watch" else slow(request)

    server = HttpServer(handler)
    host, port = await server.listen()
    idle = await asyncio.open_connection(host, port)
    watch = await asyncio.open_connection(host, port)
    watch[1].write(get("/watch"))
    await watch[0].readuntil(b"\r\n\r\n")
    busy = await asyncio.open_connection(host, port)
    busy[1].write(get("/"))
    await started.wait()
    closing = asyncio.ensure_future(server.close(60))
    assert await idle[0].read() == b""
    assert await watch[0].read() == b"0\r\n\r\n"
    gate.set()
    assert (await read_answer(busy[0]))[1]["connection"] == "close"
    await asyncio.wait_for(closing, 20)
    for _, writer in (idle, watch, busy):
        writer.close()


async def test_who_comes_while_the_server_closes_is_answered_once() -> None:
    """Most likely a request is on its way; a connection cut then leaves its sender not knowing what became of it."""
    gate = asyncio.Event()

    async def slow(request: Request) -> Answer:
        await gate.wait()
        return echo(request)

    def handler(request: Request) -> Any:
        if request.path == "/watch":
            return StreamingResponse(lambda s: None)
        return slow(request) if request.path == "/slow" else echo(request)

    server = HttpServer(handler)
    host, port = await server.listen()
    busy, fresh, watching, silent = [await asyncio.open_connection(host, port) for _ in range(4)]
    busy[1].write(get("/slow"))
    while server.connections < 4:
        await asyncio.sleep(0)
    closing = asyncio.ensure_future(server.close(60))
    await asyncio.sleep(0)
    fresh[1].write(get("/fresh"))
    status, headers, _ = await read_answer(fresh[0])
    assert (status, headers["connection"]) == (200, "close")
    assert await fresh[0].read() == b""
    watching[1].write(get("/watch"))
    assert (await watching[0].read()).endswith(b"0\r\n\r\n")
    assert await silent[0].read() == b""
    gate.set()
    assert (await read_answer(busy[0]))[0] == 200
    await asyncio.wait_for(closing, 20)
    for _, writer in (busy, fresh, watching, silent):
        writer.close()


async def test_who_was_just_answered_may_ask_once_more_of_a_server_that_closes() -> None:
    """kubectl looks something up and then writes over the same connection: the write must not meet a closed one."""
    server = HttpServer(echo)
    host, port = await server.listen()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(get("/look"))
    assert (await read_answer(reader))[1].get("connection") != "close"
    closing = asyncio.ensure_future(server.close(60))
    await asyncio.sleep(0)
    writer.write(get("/write"))
    status, headers, _ = await read_answer(reader)
    assert (status, headers["connection"]) == (200, "close")
    assert await reader.read() == b""
    await asyncio.wait_for(closing, 20)
    writer.close()


async def test_a_handshake_under_way_is_waited_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = HttpServer(echo, ssl_context=server_context(*authority.issue("server")))
    host, port = await server.listen()
    loop = asyncio.get_running_loop()
    raw = socket.create_connection((host, port))
    raw.setblocking(False)
    while not server._shaking_hands:
        await asyncio.sleep(0)
    closing = asyncio.ensure_future(server.close(60))
    await asyncio.sleep(0)
    reader, writer = await asyncio.open_connection(
        sock=raw, ssl=client_context(authority.certificate), server_hostname="127.0.0.1"
    )
    writer.write(get("/first"))
    status, headers, _ = await read_answer(reader)
    assert (status, headers["connection"]) == (200, "close")
    writer.close()
    started = loop.time()
    await asyncio.wait_for(closing, 20)
    assert loop.time() - started < 4


async def test_client_certificates_and_renewal(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    renewed = authority.issue("renewed")
    client = authority.issue("alice", ["devs", "ops"])
    stranger = Authority(tmp_path, "other-ca").issue("mallory")

    def who(request: Request) -> Response:
        shown = request.certificate
        return Response(200, f"{shown.common_name} {shown.organizations}".encode() if shown else b"nobody")

    async def ask(connect: Any, context: ssl.SSLContext) -> tuple[bytes, Any]:
        reader, writer = await connect(ssl=context)
        writer.write(get())
        body = (await read_answer(reader))[2]
        return body, writer.get_extra_info("peercert")["subject"][0][0][1]

    async with serving(who, ssl_context=server_context(certificate, key, authority.certificate)) as connect:
        anonymous = client_context(authority.certificate)
        assert await ask(connect, anonymous) == (b"nobody", "server")
        known = client_context(authority.certificate, *client)
        assert await ask(connect, known) == (b"alice ('devs', 'ops')", "server")
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask(connect, client_context(authority.certificate, *stranger))
        renewed[0].replace(certificate)
        assert (await ask(connect, anonymous))[1] == "server"  # The key is still the old one.
        renewed[1].replace(key)
        assert await ask(connect, known) == (b"alice ('devs', 'ops')", "renewed")


def early(method: str, target: str) -> bool:
    return target.startswith("/early")


async def test_a_body_of_any_size_is_streamed_to_who_asked_for_it() -> None:
    async def count(request: Request) -> Answer:
        assert request.body == b""
        assert request.body_stream is not None
        size = 0
        while data := await request.body_stream.read(100_000):
            size += len(data)
        return Response(200, b"%d" % size)

    def handler(request: Request) -> Any:
        return count(request) if request.path == "/early" else echo(request)

    async with serving(handler, max_body=1000, stream_body=early) as connect:
        reader, writer = await connect()
        big = b"x" * 5_000_000
        writer.write(
            b"PUT /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n" + big + get("/next")
        )
        assert (await read_answer(reader))[2] == b"5000000"
        assert json.loads((await read_answer(reader))[2])["target"] == "/next"
        writer.write(b"PUT /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + frame(big))
        writer.write(b"0\r\n\r\n" + get("/next"))
        assert (await read_answer(reader))[2] == b"5000000"
        assert json.loads((await read_answer(reader))[2])["target"] == "/next"


async def test_a_streamed_body_holds_back_its_sender() -> None:
    taken: asyncio.Queue[Request] = asyncio.Queue()
    gate = asyncio.Event()

    async def hold(request: Request) -> Answer:
        taken.put_nowait(request)
        await gate.wait()
        return Response(200)

    async with serving(hold, stream_body=early) as connect:
        _, writer = await connect()
        writer.write(b"PUT /early HTTP/1.1\r\nHost: x\r\nContent-Length: 99000000\r\n\r\n")
        await taken.get()
        writer.write(b"x" * 20_000_000)
        drain = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0.1)
        assert not drain.done()
        drain.cancel()
        gate.set()


async def test_a_streamed_body_that_breaks_off_is_an_error_for_its_reader() -> None:
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def take(request: Request) -> Answer:
        assert request.body_stream is not None
        try:
            while await request.body_stream.read(1000):
                pass
        except ConnectionError as failure:
            failed.set_result(failure)
        return Response(200)

    async with serving(take, stream_body=early) as connect:
        _, writer = await connect()
        writer.write(b"PUT /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        writer.write_eof()
        assert isinstance(await asyncio.wait_for(failed, 20), ConnectionResetError)


@pytest.mark.parametrize("target", ["/early", "/limited"])
async def test_a_refused_upload_gets_to_read_why(target: str) -> None:
    def handler(request: Request) -> Answer:
        raise not_found("pods", "a")

    async with serving(handler, max_body=1000, stream_body=early) as connect:
        reader, writer = await connect()
        writer.write(f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n".encode())
        writer.write(b"x" * 9_000_000)
        await writer.drain()
        status, headers, _ = await read_answer(reader)
        assert (status, headers["connection"]) == (404 if target == "/early" else 413, "close")
        assert await reader.read() == b""
