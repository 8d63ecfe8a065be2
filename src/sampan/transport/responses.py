"""Writing answers to a connection: whole ones, large ones slice by slice, compressed ones."""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections.abc import Sequence
from time import perf_counter
from typing import cast

from sampan.api.errors import StatusError, internal
from sampan.transport import head
from sampan.transport.incoming import Incoming
from sampan.transport.parsing import RequestReader
from sampan.transport.types import Response

log = logging.getLogger("sampan.transport.http")

GZIP_FROM = 128 * 1024
"""Answers larger than this are compressed for clients that accept it."""
_SLICE = 128 * 1024
"""About how many bytes of a body in parts are written at once."""
_SLICE_SECONDS = 0.002
"""How long a peer that takes everything at once holds the loop."""
_GZIP_PIECE = 1024 * 1024


class ResponseWriter(RequestReader):
    """`_current` is the request being answered; `_answered` is called when its answer has been written."""

    _current: Incoming | None
    _task: asyncio.Task[None] | None
    _lost: bool
    _paused_writing: bool
    _drained: list[asyncio.Future[None]]

    def _answered(self, close: bool) -> None:
        raise NotImplementedError

    def _failure(self, failure: Exception) -> Response:
        if isinstance(failure, StatusError):
            return status_response(failure)
        request = self._current.request if self._current else None
        where = f"{request.method} {request.raw_path}" if request else ""
        log.error("%s: %s failed", self.server.name, where, exc_info=failure)
        return status_response(internal(f"{type(failure).__name__}: {failure}"))

    def _finish(self, response: Response) -> None:
        """Write a complete answer and go on to the next request."""
        incoming = self._current
        assert incoming is not None
        body = response.body
        size = len(body) if isinstance(body, bytes) else response.size or sum(map(len, body))
        gzipped = (
            size > GZIP_FROM
            and incoming.accepts_gzip
            and incoming.request.method != "HEAD"
            and not any(name.lower() == "content-encoding" for name, _ in response.headers)
        )
        if not isinstance(body, bytes):
            if size > _SLICE and not gzipped and incoming.request.method != "HEAD":
                self._task = self.loop.create_task(self._finish_in_slices(incoming, response, body, size))
                return
            if not gzipped:
                body = b"".join(body)
        if gzipped:
            self._task = self.loop.create_task(self._finish_gzipped(incoming, response))
        else:
            assert isinstance(body, bytes)
            self._write_response(incoming, response, body)

    async def _finish_in_slices(
        self, incoming: Incoming, response: Response, parts: Sequence[bytes], size: int
    ) -> None:
        """Write a large body as fast as the peer takes it, never copied as a whole: each slice uses the same memory
        again, where whole copies for joining, encrypting and sending made the kernel clear fresh pages every time."""
        step = max(1, len(parts) * _SLICE // size)
        try:
            start, close = self._head(incoming, response, size)
        except ValueError as failure:
            self._task = None
            self._finish(self._failure(failure))
            return
        try:
            self.transport.write(start)
            at = 0
            while at < len(parts):
                await self.drained()
                # One large answer at a time, so that one round of the loop is not as long as there are many of them.
                async with self.server.slices:
                    until = perf_counter() + _SLICE_SECONDS
                    while at < len(parts) and not self._paused_writing and perf_counter() < until:
                        self.transport.write(b"".join(parts[at : at + step]))
                        at += step
                    await asyncio.sleep(0)
        except ConnectionError:
            return
        self._task = None
        self._answered(close)

    async def _finish_gzipped(self, incoming: Incoming, response: Response) -> None:
        packed = await self.loop.run_in_executor(None, _gzip, response.body)
        self._task = None
        headers = (*response.headers, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
        shrunk = Response(response.status, packed, response.content_type, headers)
        if not self._lost:
            self._write_response(incoming, shrunk, packed)

    def _write_response(self, incoming: Incoming, response: Response, body: bytes) -> None:
        bare = response.status in (204, 304) or response.status < 200
        try:
            start, close = self._head(incoming, response, None if bare else len(body))
        except ValueError as failure:
            response = self._failure(failure)
            body = cast(bytes, response.body)
            start, close = self._head(incoming, response, len(body))
            bare = False
        self.transport.write(start if bare or incoming.request.method == "HEAD" else start + body)
        self._answered(close)

    def _head(self, incoming: Incoming, response: Response, length: int | None) -> tuple[bytes, bool]:
        """The first lines of an answer, and whether the connection ends with it. Raises ValueError."""
        close = not incoming.keep_alive or self.server.closing or incoming.unread
        connection = head.CLOSE if close else head.KEEP_ALIVE if incoming.http10 else b""
        start = head.render(response.status, response.content_type, response.headers, connection, length)
        return start, close

    async def drained(self) -> None:
        """Wait until the transport takes more. Raises ConnectionResetError once the connection has gone."""
        if self._paused_writing and not self._lost:
            future: asyncio.Future[None] = self.loop.create_future()
            self._drained.append(future)
            await future
        if self._lost:
            raise ConnectionResetError("the peer has gone")

    def _wake_drains(self) -> None:
        waiting, self._drained = self._drained, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def _gzip(body: bytes | Sequence[bytes]) -> bytes:
    """For a thread: a body in parts is joined a piece at a time, for whoever compresses a piece does not hold others up."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    out = []
    if isinstance(body, bytes):
        out.append(packer.compress(body))
    else:
        step = max(1, len(body) * _GZIP_PIECE // max(1, sum(map(len, body))))
        out += [packer.compress(b"".join(body[i : i + step])) for i in range(0, len(body), step)]
    out.append(packer.flush())
    return b"".join(out)


def status_response(error: StatusError) -> Response:
    retry = (error.details or {}).get("retryAfterSeconds")
    headers = (("Retry-After", str(retry)),) if retry else ()
    return Response(error.code, json.dumps(error.status(), separators=(",", ":")).encode(), headers=headers)
