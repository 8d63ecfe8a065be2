"""The open end of a streamed answer (`transport.types.Stream`) on a connection of the HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from sampan.transport.types import frame

_LAST_CHUNK = b"0\r\n\r\n"


class _Owner(Protocol):
    """What a stream needs of its connection."""

    transport: asyncio.Transport

    def stream_ended(self, close: bool) -> None: ...

    async def drained(self) -> None: ...


class ConnectionStream:
    """Chunks for HTTP/1.1; bare bytes for HTTP/1.0, which knows none, and where the length is known."""

    __slots__ = ("_callbacks", "_chunked", "_close", "_owner", "_transport", "ended")

    def __init__(self, owner: _Owner, *, chunked: bool, close: bool) -> None:
        self._owner = owner
        self._transport = owner.transport
        self._chunked = chunked
        self._close = close
        self._callbacks: list[Callable[[], None]] = []
        self.ended = False

    def write(self, data: bytes) -> None:
        if data and not self.ended:
            self._transport.write(frame(data) if self._chunked else data)

    def write_framed(self, framed: bytes) -> None:
        if not self.ended:
            self._transport.write(framed if self._chunked else unframe(framed))

    @property
    def buffered(self) -> int:
        return 0 if self.ended else self._transport.get_write_buffer_size()

    async def drain(self) -> None:
        if self.ended:
            raise ConnectionResetError("the stream has ended")
        await self._owner.drained()

    def close(self) -> None:
        if self.ended:
            return
        if self._chunked:
            self._transport.write(_LAST_CHUNK)
        self._finished()
        self._owner.stream_ended(self._close)

    def abort(self) -> None:
        if not self.ended:
            self._transport.abort()
            self._finished()

    def on_closed(self, callback: Callable[[], None]) -> None:
        if self.ended:
            callback()
        else:
            self._callbacks.append(callback)

    def lost(self) -> None:
        """The connection has gone."""
        if not self.ended:
            self._finished()

    def _finished(self) -> None:
        self.ended = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


def unframe(framed: bytes) -> bytes:
    """The payload of one or more chunks made by `frame`."""
    out: list[bytes] = []
    at = 0
    while at < len(framed):
        end = framed.index(b"\r\n", at)
        size = int(framed[at:end], 16)
        out.append(framed[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(out)
