from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.errors import StatusError
from sampan.transport import websocket
from sampan.transport.http import HttpServer
from sampan.transport.types import Request
from sampan.transport.websocket import Decoder, Message, Opcode, ProtocolError, WebSocket, encode, mask

payloads = st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(lambda n: b"x" * n))


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


@given(st.binary(max_size=1000), st.binary(min_size=4, max_size=4))
def test_masking_is_its_own_inverse(data: bytes, key: bytes) -> None:
    masked = mask(data, key)
    assert masked == bytes(b ^ key[i % 4] for i, b in enumerate(data))
    assert mask(masked, key) == data


@given(
    st.lists(st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), payloads), max_size=5),
    st.lists(st.integers(0, 5000), max_size=10),
    st.booleans(),
)
def test_messages_survive_however_the_bytes_are_cut(
    messages: list[tuple[Opcode, bytes]], sizes: list[int], from_client: bool
) -> None:
    wire = b"".join(encode(o, d, masked=from_client) for o, d in messages)
    decoder = Decoder(client=not from_client)
    got = [m for piece in pieces(wire, sizes) for m in decoder.feed(piece)]
    assert got == [Message(o, d) for o, d in messages]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6))
def test_fragments_are_joined_with_control_frames_between_them(parts: list[bytes]) -> None:
    decoder = Decoder()
    got: list[Message] = []
    for n, part in enumerate(parts):
        opcode = Opcode.BINARY if n == 0 else Opcode.CONTINUATION
        got += decoder.feed(encode(opcode, part, masked=True, final=n == len(parts) - 1))
        got += decoder.feed(encode(Opcode.PING, b"p", masked=True))
    assert [m for m in got if m.opcode is Opcode.BINARY] == [Message(Opcode.BINARY, b"".join(parts))]
    assert len(got) == len(parts) + 1


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        Decoder(max_message=1000).feed(data)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (encode(Opcode.BINARY, b"bare"), 1002),
        (b"\xc2\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (encode(Opcode.PING, b"x", masked=True, final=False), 1002),
        (encode(Opcode.CLOSE, b"x" * 126, masked=True), 1002),
        (encode(Opcode.CONTINUATION, b"", masked=True), 1002),
        (encode(Opcode.TEXT, b"", masked=True, final=False) * 2, 1002),
        (encode(Opcode.BINARY, b"x" * 101, masked=True), 1009),
        (b"\x82\xff" + (1 << 62).to_bytes(8, "big"), 1009),
        (
            encode(Opcode.BINARY, b"x" * 60, masked=True, final=False)
            + encode(Opcode.CONTINUATION, b"x" * 60, masked=True),
            1009,
        ),
    ],
)
def test_broken_frames(wire: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        Decoder(max_message=100).feed(wire)
    assert caught.value.code == code


def handshake(**headers: str) -> Request:
    given_headers = {
        "connection": "keep-alive, Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    given_headers.update({k.replace("_", "-"): v for k, v in headers.items()})
    return Request("GET", "/", given_headers)


async def nothing(socket: WebSocket) -> None:
    return None


def test_the_handshake_of_the_specification() -> None:
    answer = websocket.upgrade(handshake(sec_websocket_protocol="b, a"), ("a", "b"), nothing)
    assert dict(answer.headers) == {
        "Upgrade": "websocket",
        "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol": "b",
    }
    assert "Sec-WebSocket-Protocol" not in dict(websocket.upgrade(handshake(), ("a",), nothing).headers)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"upgrade": "h2c"}, 400),
        ({"sec_websocket_version": "8"}, 400),
        ({"sec_websocket_key": ""}, 400),
        ({"sec_websocket_protocol": "unknown"}, 403),
    ],
)
def test_handshakes_that_are_refused(headers: dict[str, str], code: int) -> None:
    with pytest.raises(StatusError) as caught:
        websocket.upgrade(handshake(**headers), ("a",), nothing)
    assert caught.value.code == code


async def connect(run: Any) -> tuple[HttpServer, asyncio.StreamReader, asyncio.StreamWriter]:
    server = HttpServer(lambda request: websocket.upgrade(request, (), run, max_message=1000))
    reader, writer = await asyncio.open_connection(*await server.listen())
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return server, reader, writer


async def test_both_sides_with_pings_and_goodbye() -> None:
    async def echo(socket: WebSocket) -> None:
        while (message := await socket.receive()) is not None:
            socket.send(message.data, message.opcode)
            await socket.drain()

    server, reader, writer = await connect(echo)
    client = WebSocket(reader, writer, client=True)
    client.ping(b"are you there")
    client.send(b"hello")
    client.send("été".encode(), Opcode.TEXT)
    assert await client.receive() == Message(Opcode.BINARY, b"hello")
    assert await client.receive() == Message(Opcode.TEXT, "été".encode())
    await client.finish()
    await server.close(5)
    assert server.connections == 0


async def test_a_breach_of_protocol_is_answered_with_its_code() -> None:
    async def read_all(socket: WebSocket) -> None:
        assert await socket.receive() is None

    server, reader, writer = await connect(read_all)
    writer.write(encode(Opcode.BINARY, b"x" * 2000, masked=True))
    message = Decoder(client=True).feed(await reader.read(100))[0]
    assert (message.opcode, message.close_code) == (Opcode.CLOSE, 1009)
    writer.close()
    await server.close(5)


async def test_a_service_that_fails_says_so() -> None:
    async def fail(socket: WebSocket) -> None:
        raise RuntimeError("boom")

    server, reader, writer = await connect(fail)
    message = Decoder(client=True).feed(await reader.read(100))[0]
    assert message.close_code == 1011
    assert await reader.read() == b""
    writer.close()
    await server.close(5)
