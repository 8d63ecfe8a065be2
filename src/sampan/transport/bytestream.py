"""Two-way byte streams: what SPDY runs on (a socket, or a WebSocket as a tunnel) and what a forwarded port is."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

CHUNK = 64 * 1024


class ByteStream(Protocol):
    async def read(self) -> bytes:
        """What has come, at least one byte; b"" at the end. Raises ConnectionError when the peer broke off."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        """Wait until little is buffered. Raises ConnectionError when the peer has gone."""

    def close(self) -> None: ...


class SocketStream:
    """A connection of asyncio's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        return await self._reader.read(CHUNK)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, then pass the end on (as a half-close where the transport can)."""
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
