"""WebSocket (RFC 6455), both sides: the framing as values (`Decoder`, `encode`), the handshake, and `WebSocket`, a
connection on asyncio streams. No extensions.
"""

from __future__ import annotations

import asyncio
import base64
import enum
import hashlib
import secrets
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sampan.api.errors import StatusError, bad_request
from sampan.transport.bytestream import CHUNK
from sampan.transport.types import Request, Upgrade

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MAX_MESSAGE = 32 * 1024 * 1024


class Opcode(enum.IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(enum.IntEnum):
    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_DATA = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011


class ProtocolError(Exception):
    """The peer broke the protocol; `code` is what to close the connection with."""

    def __init__(self, message: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message (fragments joined), or a control frame."""

    opcode: Opcode
    data: bytes

    @property
    def close_code(self) -> int:
        """Of a CLOSE; 1005 where it gave none."""
        return int.from_bytes(self.data[:2], "big") if len(self.data) >= 2 else 1005


def mask(data: bytes, key: bytes) -> bytes:
    """`data` with the 4-byte key applied; its own inverse."""
    size = len(data)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


def encode(opcode: Opcode, data: bytes = b"", *, masked: bool = False, final: bool = True) -> bytes:
    """One frame. Clients must mask."""
    size = len(data)
    first = opcode | (0x80 if final else 0)
    flag = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, flag | size))
    elif size < 65536:
        head = struct.pack(">BBH", first, flag | 126, size)
    else:
        head = struct.pack(">BBQ", first, flag | 127, size)
    if not masked:
        return head + data
    key = secrets.token_bytes(4)
    return head + key + mask(data, key)


class Decoder:
    """Bytes in, messages out. `client` says which side reads: a server's frames come bare, a client's masked."""

    def __init__(self, *, client: bool = False, max_message: int = MAX_MESSAGE) -> None:
        self._expect_mask = not client
        self._max = max_message
        self._buffer = bytearray()
        self._fragments: list[bytes] = []
        self._fragments_size = 0
        self._opcode: Opcode | None = None

    def feed(self, data: bytes) -> list[Message]:
        """Take `data`; the messages that are complete now. Raises ProtocolError."""
        self._buffer += data
        out: list[Message] = []
        while (message := self._frame()) is not None:
            if message is not _FRAGMENT:
                out.append(message)
        return out

    def _frame(self) -> Message | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        size, at = second & 0x7F, 2
        if first & 0x70:
            raise ProtocolError("reserved bits are set")
        if bool(second & 0x80) is not self._expect_mask:
            raise ProtocolError("a client's frames must be masked and a server's must not")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise ProtocolError(f"unknown opcode {first & 0x0F}") from None
        final = bool(first & 0x80)
        if opcode >= Opcode.CLOSE and (not final or size > 125):
            raise ProtocolError("a control frame is fragmented or too long")
        if size == 126:
            if len(buffer) < 4:
                return None
            size, at = int.from_bytes(buffer[2:4], "big"), 4
        elif size == 127:
            if len(buffer) < 10:
                return None
            size, at = int.from_bytes(buffer[2:10], "big"), 10
        if size + self._fragments_size > self._max:
            raise ProtocolError("message is too big", CloseCode.TOO_BIG)
        start = at + 4 if self._expect_mask else at
        if len(buffer) < start + size:
            return None
        data = bytes(buffer[start : start + size])
        if self._expect_mask:
            data = mask(data, bytes(buffer[at:start]))
        del buffer[: start + size]
        if opcode >= Opcode.CLOSE:
            return Message(opcode, data)
        return self._data(opcode, data, final)

    def _data(self, opcode: Opcode, data: bytes, final: bool) -> Message:
        if (opcode is Opcode.CONTINUATION) is (self._opcode is None):
            raise ProtocolError("a fragment is out of place")
        kind = self._opcode or opcode
        if not final:
            self._opcode = kind
            self._fragments.append(data)
            self._fragments_size += len(data)
            return _FRAGMENT
        if self._opcode is not None:
            data = b"".join((*self._fragments, data))
            self._fragments.clear()
            self._fragments_size = 0
            self._opcode = None
        return Message(kind, data)


_FRAGMENT = Message(Opcode.CONTINUATION, b"")


class WebSocket:
    """One connection. Pings are answered and a close is returned by whoever calls `receive`; one reader at a time."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        client: bool = False,
        max_message: int = MAX_MESSAGE,
        protocol: str = "",
    ) -> None:
        self.protocol = protocol
        self._reader = reader
        self._writer = writer
        self._client = client
        self._decoder = Decoder(client=client, max_message=max_message)
        self._ready: list[Message] = []
        self._close_sent = False
        self._ended = False

    async def receive(self) -> Message | None:
        """The next text or binary message; None when the peer has closed, broken off or broken the protocol."""
        while not self._ended:
            while self._ready:
                message = self._ready.pop(0)
                if message.opcode is Opcode.PING:
                    self._write(Opcode.PONG, message.data)
                elif message.opcode is Opcode.CLOSE:
                    self._ended = True
                    self.close(message.close_code if message.close_code != 1005 else CloseCode.NORMAL)
                    return None
                elif message.opcode is not Opcode.PONG:
                    return message
            try:
                data = await self._reader.read(CHUNK)
                if not data:
                    break
                self._ready = self._decoder.feed(data)
            except ProtocolError as failure:
                self.close(failure.code, str(failure))
                break
            except ConnectionError:
                break
        self._ended = True
        return None

    def send(self, data: bytes, opcode: Opcode = Opcode.BINARY) -> None:
        """Send one message; after a close nothing is sent."""
        self._write(opcode, data)

    def ping(self, data: bytes = b"") -> None:
        self._write(Opcode.PING, data)

    def _write(self, opcode: Opcode, data: bytes) -> None:
        if not self._close_sent and not self._writer.is_closing():
            self._writer.write(encode(opcode, data, masked=self._client))

    async def drain(self) -> None:
        await self._writer.drain()

    @property
    def buffered(self) -> int:
        """Bytes sent and not yet taken by the kernel."""
        return self._writer.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Cut the connection."""
        self._writer.transport.abort()

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Say goodbye; the other side then closes the connection."""
        self._write(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode()[:123])
        self._close_sent = True

    async def finish(self, code: int = CloseCode.NORMAL, reason: str = "", timeout: float = 5.0) -> None:
        """Say goodbye and wait for the peer's, so that nothing sent before is lost; then close the connection."""
        self.close(code, reason)
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(timeout):
                await self.drain()
                while await self.receive() is not None:
                    pass
        self._writer.close()


class Tunnel:
    """A WebSocket as a byte stream (`ByteStream`): every binary message is a piece of it."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while (message := await self._socket.receive()) is not None:
            if message.data:
                return message.data
        return b""

    def write(self, data: bytes) -> None:
        self._socket.send(data)

    async def drain(self) -> None:
        await self._socket.drain()

    def close(self) -> None:
        self._socket.close()


# The handshake.


def accept_key(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def is_websocket(request: Request) -> bool:
    return (
        "websocket" in request.headers.get("upgrade", "").lower()
        and "upgrade" in request.headers.get("connection", "").lower()
    )


def offered(headers: Mapping[str, str]) -> list[str]:
    """The subprotocols that a client offers, best first."""
    return [p.strip() for p in headers.get("sec-websocket-protocol", "").split(",") if p.strip()]


def choose(client: Sequence[str], server: Sequence[str]) -> str | None:
    """The subprotocol to speak: the client's first that the server knows; "" if the client offers none."""
    if not client:
        return ""
    return next((p for p in client if p in server), None)


def upgrade(
    request: Request,
    protocols: Sequence[str],
    run: Callable[[WebSocket], Awaitable[None]],
    *,
    max_message: int = MAX_MESSAGE,
) -> Upgrade:
    """The answer that turns `request` into a WebSocket, which `run` then owns. Raises StatusError 400 for a handshake
    that is none, 403 where no subprotocol is common."""
    key = request.headers.get("sec-websocket-key", "")
    if not is_websocket(request) or not key or request.headers.get("sec-websocket-version") != "13":
        raise bad_request("not a WebSocket version 13 handshake")
    protocol = choose(offered(request.headers), protocols)
    if protocol is None:
        raise StatusError(
            403,
            "Forbidden",
            f"unable to upgrade: no subprotocol of {offered(request.headers)} is supported; these are: {list(protocols)}",
        )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        socket = WebSocket(reader, writer, max_message=max_message, protocol=protocol)
        try:
            await run(socket)
        except BaseException:
            socket.close(CloseCode.INTERNAL_ERROR)
            raise
        await socket.finish()

    headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept_key(key))]
    if protocol:
        headers.append(("Sec-WebSocket-Protocol", protocol))
    return Upgrade(serve, headers)
