"""A watch over WebSocket: each event is a text message. What the client says is not listened to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sampan.transport.stream import unframe
from sampan.transport.types import Request, Stream, Upgrade
from sampan.transport.websocket import Opcode, WebSocket, is_websocket, offered, upgrade

__all__ = ["SocketStream", "answer", "is_websocket"]


class SocketStream:
    """Implements `transport.types.Stream` on a WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._callbacks: list[Callable[[], None]] = []
        self._ended = asyncio.Event()

    def write(self, data: bytes) -> None:
        for line in data.splitlines(keepends=True):
            self._socket.send(line, Opcode.TEXT)

    def write_framed(self, framed: bytes) -> None:
        self.write(unframe(framed))

    @property
    def buffered(self) -> int:
        return self._socket.buffered

    async def drain(self) -> None:
        await self._socket.drain()

    def close(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            for callback in self._callbacks:
                callback()

    def abort(self) -> None:
        self._socket.abort()
        self.close()

    def on_closed(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    async def until_closed(self) -> None:
        """Until either side ends it."""
        reading = asyncio.ensure_future(self._read())
        try:
            await self._ended.wait()
        finally:
            reading.cancel()
            self.close()

    async def _read(self) -> None:
        while await self._socket.receive() is not None:
            pass
        self.close()


def answer(request: Request, start: Callable[[Stream], None]) -> Upgrade:
    """The answer that begins a watch, as `StreamingResponse` does, on a WebSocket. Raises StatusError for a handshake that
    is none."""

    async def run(socket: WebSocket) -> None:
        stream = SocketStream(socket)
        start(stream)
        await stream.until_closed()

    return upgrade(request, offered(request.headers)[:1], run)
