"""The gRPC client: on a real etcd where that shows it, on peers that misbehave where no etcd would."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sampan.store import grpc, messages
from sampan.store.etcd import open_store
from sampan.store.grpc import RpcError, connect
from sampan.store.members import Members, Tls
from sampan.store.types import StoreError, ValueTooLarge
from tests.store.real_etcd import Etcd
from tests.transport.authority import Authority

needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
ONE_RANGE = messages.range_request(b"\0")


@pytest.fixture(params=["http", "https"])
async def etcd(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Etcd, Tls | None]]:
    flags: tuple[str, ...] = ()
    tls = None
    if request.param == "https":
        authority = Authority(tmp_path)
        cert, key = map(str, authority.issue("member"))
        flags = ("--cert-file", cert, "--key-file", key)
        tls = Tls(str(authority.certificate))
    server = Etcd(tmp_path / "etcd", *flags, scheme=request.param)
    await server.start()
    yield server, tls
    await server.kill()


@needs_etcd
async def test_values_greater_than_every_window(etcd: tuple[Etcd, Tls | None]) -> None:
    server, tls = etcd
    store = await open_store([server.endpoint], tls=tls)
    values = {f"/big/{i}": bytes((i,)) * 1_400_000 for i in range(8)}
    await asyncio.gather(*(store.create(k, v) for k, v in values.items()))
    assert {e.key: e.value for e in (await store.list("/big/")).entries} == values
    with pytest.raises(ValueTooLarge):
        await store.create("/big/more", bytes(2_000_000))
    again = await open_store([server.endpoint], tls=tls)
    assert {e.key: e.value for e in (await again.list("/big/")).entries} == values
    for one in (store, again):
        await one.close()


@needs_etcd
async def test_more_calls_at_a_time_than_the_peer_takes(etcd: tuple[Etcd, Tls | None]) -> None:
    server, tls = etcd
    store = await open_store([server.endpoint], tls=tls)
    await asyncio.gather(*(store.create(f"/many/{i}", b"%d" % i) for i in range(1500)))
    assert await store.count("/many/") == 1500
    tasks = [asyncio.ensure_future(store.create(f"/dropped/{i}", b"")) for i in range(600)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(not t.cancelled() for t in tasks) == 300
    await store.create("/after", b"")
    await store.close()


async def served(serve: Serve) -> tuple[asyncio.Server, int]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    return server, port


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(*pairs: tuple[str, str]) -> bytes:
    """Headers as plain literals."""
    return b"".join(b"\0" + bytes((len(k),)) + k.encode() + bytes((len(v),)) + v.encode() for k, v in pairs)


ANSWER = (
    frame(1, 4, 1, literal((":status", "200"), ("content-type", "application/grpc")))
    + frame(0, 0, 1, b"\0\0\0\0\3abc")
    + frame(1, 5, 1, literal(("grpc-status", "0")))
)


async def ask(answer: bytes, *, slowly: bool = False) -> bytes:
    """What one call gets from a peer that sends `answer`, in one piece or byte by byte."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(SETTINGS)
        await reader.readuntil(b"KV/Range")
        for piece in [answer[i : i + 1] for i in range(len(answer))] if slowly else [answer]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()
        writer.close()

    server, port = await served(serve)
    connection = await connect("127.0.0.1", port, None, 5)
    try:
        return await connection.call("KV/Range", ONE_RANGE, 5)
    finally:
        connection.close()
        server.close()


@pytest.mark.parametrize("slowly", [False, True])
async def test_an_answer_in_any_pieces(slowly: bool) -> None:
    assert await ask(ANSWER, slowly=slowly) == b"abc"
    # a message over several frames, padding, headers that go on, priority, unknown frames, a ping
    block = literal((":status", "200"), ("content-type", "application/grpc"))
    parts = (
        frame(6, 0, 0, b"12345678") + frame(99, 7, 1, b"?") + frame(1, 0x20, 1, b"\0\0\0\0\0" + block[:9])
        + frame(9, 0, 1, block[9:20]) + frame(9, 4, 1, block[20:])
        + frame(0, 8, 1, b"\2\0\0\0" + b"\0\0") + frame(0, 0, 1, b"\0\3a") + frame(0, 0, 1, b"bc")
        + frame(1, 0xD, 1, b"\4" + literal(("grpc-status", "0")) + b"\0\0\0\0")
    )  # fmt: skip
    assert await ask(parts, slowly=slowly) == b"abc"


@pytest.mark.parametrize(
    ("answer", "code", "said", "never_done"),
    [
        (frame(1, 5, 1, literal((":status", "200"), ("grpc-status", "11"), ("grpc-message", "a%20b%25"))), 11, "a b%", False),
        (frame(1, 5, 1, literal((":status", "404"))), 2, "it answered 404", False),
        (frame(3, 0, 1, b"\0\0\0\7"), 14, "reset", True),
        (frame(3, 0, 1, b"\0\0\0\2"), 14, "reset", False),
        (frame(7, 0, 0, b"\0\0\0\0\0\0\0\0bye"), 14, "bye", True),
        (frame(1, 4, 1, literal((":status", "200"))) + frame(1, 5, 1, literal(("grpc-status", "0"))), 13, "0 messages", False),
        (frame(0, 0, 1, b"\1\0\0\0\1a"), 14, "compressed", False),
        (frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"), 14, "cannot be read", False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 14, "no HTTP/2", False),
    ],
)  # fmt: skip
async def test_answers_that_are_none(answer: bytes, code: int, said: str, never_done: bool) -> None:
    with pytest.raises(RpcError) as e:
        await asyncio.wait_for(ask(answer), 8)
    assert (e.value.code, e.value.never_done) == (code, never_done)
    assert said in e.value.message


async def test_a_peer_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "PING_SECONDS", 0.1)
    monkeypatch.setattr(grpc, "PONG_SECONDS", 0.1)
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        while data := await reader.read(1000):
            heard.extend(data)
        writer.close()

    server, port = await served(serve)
    connection = await connect("127.0.0.1", port, None, 5)
    with pytest.raises(RpcError, match="does not answer"):
        await connection.call("KV/Range", ONE_RANGE, 5)
    assert frame(6, 0, 0, bytes(8)) in heard
    assert connection.closed
    with pytest.raises(RpcError) as e:
        await connection.call("KV/Range", ONE_RANGE, 5)
    assert e.value.never_done
    server.close()


async def test_a_call_whose_time_is_up_and_one_that_is_given_up() -> None:
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        while data := await reader.read(1000):
            heard.extend(data)
        writer.close()

    server, port = await served(serve)
    connection = await connect("127.0.0.1", port, None, 5)
    with pytest.raises(RpcError) as e:
        await connection.call("KV/Range", ONE_RANGE, 0.05)
    assert e.value.code == grpc.DEADLINE_EXCEEDED
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(connection.call("KV/Range", ONE_RANGE, 5), 0.05)
    async with asyncio.timeout(20):
        while frame(3, 0, 3, b"\0\0\0\x08") not in heard:
            await asyncio.sleep(0)
    assert frame(3, 0, 1, b"\0\0\0\x08") in heard
    connection.close()
    server.close()


async def test_a_peer_that_is_no_etcd_is_named() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server, port = await served(serve)
    members = Members([f"http://127.0.0.1:{port}"], None, 1)
    with pytest.raises(StoreError, match=f"127.0.0.1:{port}"):
        await members.call("KV/Range", ONE_RANGE)
    await members.close()
    server.close()
