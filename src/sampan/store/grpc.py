"""gRPC over one HTTP/2 connection, as much of both as a client of etcd needs, on the caller's loop.

Calls are pipelined: whatever is asked for in one turn of the loop leaves in one write. Headers are the same few bytes each
time, for neither side keeps a table of them; what comes back is looked up whole, and only what was never seen is decoded.

Specified by RFC 9113 (HTTP/2), RFC 7541 (HPACK) and gRPC's `PROTOCOL-HTTP2.md`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator
from typing import cast
from urllib.parse import unquote

OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, OUT_OF_RANGE, INTERNAL, UNAVAILABLE = (
    0, 1, 2, 4, 8, 11, 13, 14,
)  # fmt: skip
"""gRPC's status codes, those that matter here."""
PING_SECONDS, PONG_SECONDS = 10.0, 5.0
"""After so long without a word the peer is asked, and given up after so much longer. Below 5 s etcd would take it for an
attack."""

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 3, 4, 5
_REFUSED_STREAM, _CANCEL = 7, 8
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST = 16_384
"""Bytes in a frame that we take."""
_OUR_WINDOW = 2**30
_REPLENISH = 2**20
# No table of headers (1), no pushes (2), windows (4) that are never in the way.
_OUR_SETTINGS = b"".join(
    n.to_bytes(2, "big") + v.to_bytes(4, "big") for n, v in ((1, 0), (2, 0), (4, _OUR_WINDOW))
)


class RpcError(Exception):
    """A call that failed. `never_done`: the peer has not begun with it, and never will."""

    def __init__(self, code: int, message: str, *, never_done: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.never_done = never_done


class _Stream:
    """One call: what has come of it, and who waits."""

    __slots__ = ("buffer", "consumed", "error", "headers", "messages", "number", "unsent", "wake", "window")

    def __init__(self, number: int, window: int) -> None:
        self.number = number
        self.window = window
        """Bytes that may be sent yet."""
        self.unsent: tuple[bytes, bool] | None = None
        """What waits for a window, and whether the stream ends with it."""
        self.buffer = b""
        self.messages: deque[bytes] = deque()
        self.consumed = 0
        self.headers: dict[str, str] = {}
        self.error: RpcError | None = None
        """How it ended; code OK for well."""
        self.wake: asyncio.Future[None] | None = None

    def notify(self) -> None:
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)


class Connection(asyncio.Protocol):
    """Made by `connect`. All methods belong to the loop's thread."""

    def __init__(self, authority: str, scheme: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._authority = authority
        self._scheme = scheme
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """Done when the peer has said its first word; fails if it never does."""
        self.closed = False
        """It takes no more calls; those under way may go on."""
        self._dead = False
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._most = 100
        """Streams that the peer takes at a time."""
        self._turns: deque[asyncio.Future[None]] = deque()
        self._out: list[bytes] = []
        self._in = b""
        self._block: tuple[int, bool, bytes] | None = None
        """Headers that go on in the next frame."""
        self._window = 65_535
        self._stream_window = 65_535
        self._frame = _LARGEST
        self._blocked: deque[_Stream] = deque()
        self._received = 0
        self._heard = True
        self._pinged = False
        self._timer: asyncio.TimerHandle | None = None
        self._heads: dict[tuple[str, str], bytes] = {}
        self._known: dict[bytes, dict[str, str]] = {}

    # ---- calls

    async def call(self, method: str, request: bytes, timeout: float) -> bytes:
        """The answer to one request (`KV/Range`). Raises RpcError."""
        stream = await self._open(method, request, f"{int(timeout * 1000)}m", end=True)
        timer = self._loop.call_later(timeout, self._expire, stream)
        try:
            while stream.error is None:
                stream.wake = self._loop.create_future()
                await stream.wake
        finally:
            timer.cancel()
            self._leave(stream)
        if stream.error.code != OK:
            raise stream.error
        if len(stream.messages) != 1:
            raise RpcError(INTERNAL, f"{len(stream.messages)} messages answer one request")
        return stream.messages[0]

    async def stream(self, method: str, request: bytes) -> AsyncGenerator[list[bytes], None]:
        """What answers one request that stays open, in batches as they arrive. Raises RpcError."""
        stream = await self._open(method, request, "", end=False)
        try:
            while True:
                if stream.messages:
                    batch = list(stream.messages)
                    stream.messages.clear()
                    yield batch
                elif stream.error is not None:
                    if stream.error.code != OK:
                        raise stream.error
                    return
                else:
                    stream.wake = self._loop.create_future()
                    await stream.wake
        finally:
            self._leave(stream)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end("closed")

    async def _open(self, method: str, request: bytes, timeout: str, *, end: bool) -> _Stream:
        while len(self._streams) >= self._most and not self.closed:
            turn = self._loop.create_future()
            self._turns.append(turn)
            await turn
        if self.closed:
            raise RpcError(UNAVAILABLE, "the connection is closed", never_done=True)
        stream = _Stream(self._next, self._stream_window)
        self._streams[self._next] = stream
        self._next += 2
        head = self._heads.get((method, timeout))
        if head is None:
            head = self._heads[method, timeout] = self._head(method, timeout)
        self._send(_HEADERS, _END_HEADERS, stream.number, head)
        self._send_data(stream, b"\0" + len(request).to_bytes(4, "big") + request, end)
        return stream

    def _leave(self, stream: _Stream) -> None:
        """Whoever asked wants no more of it."""
        if self._streams.pop(stream.number, None) is None:
            return
        if stream.error is None and not self._dead:
            self._send(_RST_STREAM, 0, stream.number, _CANCEL.to_bytes(4, "big"))
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        if self.closed and not self._streams and not self._dead:
            self.close()

    def _expire(self, stream: _Stream) -> None:
        if stream.error is None:
            self._send(_RST_STREAM, 0, stream.number, _CANCEL.to_bytes(4, "big"))
            stream.error = RpcError(DEADLINE_EXCEEDED, "no answer in time")
            stream.notify()

    # ---- sending

    def _head(self, method: str, timeout: str) -> bytes:
        """The headers of a call: literals that no table remembers."""
        fields = [("content-type", "application/grpc"), ("te", "trailers")]
        fields.append(("grpc-timeout", timeout) if timeout else ("hasleader", "true"))
        scheme = b"\x87" if self._scheme == "https" else b"\x86"
        named = b"".join(b"\0" + _text(k) + _text(v) for k, v in fields)
        return (
            b"\x83"
            + scheme
            + b"\x04"
            + _text(f"/etcdserverpb.{method}")
            + b"\x01"
            + _text(self._authority)
            + named
        )

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(
            len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
        )

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._dead:
            self._transport.write(b"".join(out))

    def _send_data(self, stream: _Stream, data: bytes, end: bool) -> None:
        """As much as the windows allow; the rest when they open."""
        while data:
            size = min(len(data), self._frame, self._window, stream.window)
            if size <= 0:
                stream.unsent = data, end
                self._blocked.append(stream)
                return
            self._window -= size
            stream.window -= size
            last = end and size == len(data)
            self._send(_DATA, _END_STREAM if last else 0, stream.number, data[:size])
            data = data[size:]

    def _unblock(self) -> None:
        blocked, self._blocked = self._blocked, deque()
        for stream in blocked:
            if stream.unsent is not None and stream.number in self._streams:
                (data, end), stream.unsent = stream.unsent, None
                self._send_data(stream, data, end)

    # ---- receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_PREFACE)
        self._send(_SETTINGS, 0, 0, _OUR_SETTINGS)
        self._send(_WINDOW_UPDATE, 0, 0, (_OUR_WINDOW - 65_535).to_bytes(4, "big"))
        self._timer = self._loop.call_later(PING_SECONDS, self._look)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        data = self._in + data if self._in else data
        position, end = 0, len(data)
        try:
            while end - position >= 9:
                size = int.from_bytes(data[position : position + 3], "big")
                stop = position + 9 + size
                if size > _LARGEST:
                    raise ValueError(f"a frame of {size} bytes")
                if stop > end:
                    break
                number = int.from_bytes(data[position + 5 : position + 9], "big") & 0x7FFFFFFF
                self._frame_received(
                    data[position + 3], data[position + 4], number, data[position + 9 : stop]
                )
                position = stop
        except (ValueError, IndexError) as e:
            self._give_up(f"it sent what is no HTTP/2: {e}")
            return
        self._in = data[position:]

    def connection_lost(self, error: Exception | None) -> None:
        self._end(str(error) if error else "the peer closed the connection")

    def _frame_received(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _DATA:
            self._data(number, _unpadded(payload) if flags & _PADDED else payload, len(payload))
            if flags & _END_STREAM:
                self._ended(number)
        elif kind == _HEADERS:
            block = _unpadded(payload) if flags & _PADDED else payload
            if flags & _PRIORITY:
                block = block[5:]
            if flags & _END_HEADERS:
                self._headers(number, block, bool(flags & _END_STREAM))
            else:
                self._block = number, bool(flags & _END_STREAM), block
        elif kind == _CONTINUATION and self._block is not None:
            number, ends, block = self._block
            self._block = number, ends, block + payload
            if flags & _END_HEADERS:
                self._block = None
                self._headers(number, block + payload, ends)
        elif kind == _WINDOW_UPDATE:
            more = int.from_bytes(payload, "big") & 0x7FFFFFFF
            if number == 0:
                self._window += more
            elif (stream := self._streams.get(number)) is not None:
                stream.window += more
            if self._blocked:
                self._unblock()
        elif kind == _PING:
            if not flags & _ACK:
                self._send(_PING, _ACK, 0, payload)
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._settings(payload)
        elif kind == _RST_STREAM:
            code = int.from_bytes(payload, "big")
            refused = code == _REFUSED_STREAM
            self._fail(number, RpcError(UNAVAILABLE, f"the stream was reset ({code})", never_done=refused))
        elif kind == _GOAWAY:
            self._go_away(payload)

    def _settings(self, payload: bytes) -> None:
        for i in range(0, len(payload), 6):
            name, value = (
                int.from_bytes(payload[i : i + 2], "big"),
                int.from_bytes(payload[i + 2 : i + 6], "big"),
            )
            if name == _MAX_CONCURRENT_STREAMS:
                self._most = max(value, 1)
            elif name == _INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif name == _MAX_FRAME_SIZE:
                self._frame = value
        self._send(_SETTINGS, _ACK, 0, b"")
        if not self.ready.done():
            self.ready.set_result(None)
        if self._blocked:
            self._unblock()

    def _data(self, number: int, data: bytes, size: int) -> None:
        self._received += size
        if self._received > _REPLENISH:
            self._send(_WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big"))
            self._received = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.consumed += size
        if stream.consumed > _REPLENISH:
            self._send(_WINDOW_UPDATE, 0, number, stream.consumed.to_bytes(4, "big"))
            stream.consumed = 0
        data = stream.buffer + data if stream.buffer else data
        position, end = 0, len(data)
        while end - position >= 5:
            stop = position + 5 + int.from_bytes(data[position + 1 : position + 5], "big")
            if stop > end:
                break
            if data[position]:
                raise ValueError("a compressed message")
            stream.messages.append(data[position + 5 : stop])
            position = stop
        stream.buffer = data[position:]
        stream.notify()

    def _headers(self, number: int, block: bytes, ends: bool) -> None:
        stream = self._streams.get(number)
        headers = self._known.get(block)
        if headers is None:
            headers = _decode(block)
            if len(self._known) < 100:
                self._known[block] = headers
        if stream is None:
            return
        stream.headers = headers if not stream.headers else {**stream.headers, **headers}
        if ends:
            self._ended(number)

    def _ended(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        headers = stream.headers
        status = headers.get("grpc-status")
        if status is None:
            http = headers.get(":status", "nothing")
            self._fail(number, RpcError(UNKNOWN, f"it is no gRPC server: it answered {http}"))
        else:
            self._fail(number, RpcError(int(status), unquote(headers.get("grpc-message", ""))))

    def _fail(self, number: int, error: RpcError) -> None:
        stream = self._streams.get(number)
        if stream is not None and stream.error is None:
            stream.error = error
            stream.notify()

    def _go_away(self, payload: bytes) -> None:
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        why = payload[8:].decode(errors="replace") or "it is going away"
        for number in list(self._streams):
            if number > last:
                self._fail(number, RpcError(UNAVAILABLE, why, never_done=True))
        # What it has begun may yet be answered; nothing new is asked on this connection.
        self.closed = True
        self._wake_turns()

    # ---- the end

    def _look(self) -> None:
        if self._heard:
            self._heard, self._pinged = False, False
            self._timer = self._loop.call_later(PING_SECONDS, self._look)
        elif not self._pinged:
            self._pinged = True
            self._send(_PING, 0, 0, bytes(8))
            self._timer = self._loop.call_later(PONG_SECONDS, self._look)
        else:
            self._give_up("it does not answer")

    def _give_up(self, why: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(why)

    def _end(self, why: str) -> None:
        self.closed = self._dead = True
        if self._timer is not None:
            self._timer.cancel()
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(why))
            self.ready.exception()  # nobody may be waiting
        for number in list(self._streams):
            self._fail(number, RpcError(UNAVAILABLE, why))
        self._wake_turns()

    def _wake_turns(self) -> None:
        for turn in self._turns:
            if not turn.done():
                turn.set_result(None)
        self._turns.clear()


async def connect(host: str, port: int, context: ssl.SSLContext | None, timeout: float) -> Connection:
    """A connection whose peer has answered. Raises OSError (TimeoutError and ssl.SSLError are some)."""
    loop = asyncio.get_running_loop()
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    async with asyncio.timeout(timeout):
        _, connection = await loop.create_connection(
            lambda: Connection(authority, "https" if context else "http"),
            host,
            port,
            ssl=context,
            server_hostname=host if context else None,
        )
        try:
            await connection.ready
        except BaseException:
            connection.close()
            raise
    return connection


def _decode(block: bytes) -> dict[str, str]:
    import hpack

    decoder = hpack.Decoder()
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    try:
        return {str(k): str(v) for k, v in decoder.decode(block)}
    except hpack.HPACKError as e:
        raise ValueError(f"headers that cannot be read: {e}") from e


def _text(value: str) -> bytes:
    """A literal of HPACK, as it is."""
    raw = value.encode()
    size = len(raw)
    if size < 0x7F:
        return bytes((size,)) + raw
    out = bytearray((0x7F,))
    size -= 0x7F
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out) + raw


def _unpadded(payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]]
