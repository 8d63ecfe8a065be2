"""A watch over WebSocket: each event is a text message. What the client says is not listened to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sampan.transport.stream import unframe
from sampan.transport.websocket import Opcode, WebSocket


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
