"""Answers that go on: streams, and connections that stop being HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from sampan.api.errors import StatusError
from sampan.transport import head
from sampan.transport.responses import ResponseWriter, status_response
from sampan.transport.stream import ConnectionStream
from sampan.transport.types import StreamingResponse, Upgrade


class LongAnswers(ResponseWriter):
    """`_stream` is the stream that is open, `_reader` what a connection that has stopped being HTTP reads from."""

    _ahead: bytearray | None
    _eof: bool
    hijacked: bool
    _idle_timer: asyncio.TimerHandle | None
    _paused_reading: bool
    _reader: asyncio.StreamReader | None
    _stall_timer: asyncio.TimerHandle | None
    _stream: ConnectionStream | None

    def _watch_for_stall(self) -> None:
        raise NotImplementedError

    def _gone(self) -> None:
        """There is no connection any more."""
        raise NotImplementedError

    def _start_stream(self, answer: StreamingResponse) -> None:
        incoming = self._current
        assert incoming is not None
        close = not incoming.keep_alive or incoming.http10 or self.server.closing or incoming.unread
        chunked = not incoming.http10 and not any(n.lower() == "content-length" for n, _ in answer.headers)
        headers = (*answer.headers, ("Transfer-Encoding", "chunked")) if chunked else answer.headers
        try:
            start = head.render(
                answer.status, answer.content_type, headers, head.CLOSE if close else b"", None
            )
        except ValueError as failure:
            self._finish(self._failure(failure))
            return
        self.transport.write(start)
        if incoming.request.method == "HEAD":
            self._answered(close)
            return
        stream = ConnectionStream(self, chunked=chunked, close=close)
        self._stream = stream
        if self._eof:
            self.transport.close()
        try:
            awaitable = answer.start(stream)
        except Exception as failure:
            self._failure(failure)
            stream.abort()
            return
        if awaitable is not None:
            if stream.ended:
                _discard(awaitable)
            else:
                self._task = self.loop.create_task(self._produce(stream, awaitable), name=self.server.name)
        if self.server.closing:
            stream.close()

    async def _produce(self, stream: ConnectionStream, awaitable: Awaitable[None]) -> None:
        try:
            await awaitable
        except ConnectionError:
            stream.abort()
        except Exception as failure:
            self._failure(failure)
            stream.abort()
        finally:
            if self._task is asyncio.current_task():
                self._task = None
            stream.close()

    def stream_ended(self, close: bool) -> None:
        """Called by the stream when its last chunk has been written."""
        self._stream = None
        if self._paused_writing and self._stall_timer is None:
            self._watch_for_stall()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            self._task = None
        self._answered(close)

    def _hijack(self, answer: Upgrade) -> None:
        incoming = self._current
        assert incoming is not None
        if not incoming.upgrade:
            self._finish(status_response(StatusError(400, "BadRequest", "Upgrade request required")))
            return
        self.hijacked = True
        self.transport.write(head.render(101, "", (("Connection", "Upgrade"), *answer.headers), b"", None))
        for timer in (self._idle_timer, self._arrival_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        reader = self._reader = asyncio.StreamReader(loop=self.loop)
        protocol = Hijacked(reader, self)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self._paused_writing:
            protocol.pause_writing()
        if self._ahead:
            reader.feed_data(bytes(self._ahead))
        self._ahead = None
        if self._eof:
            reader.feed_eof()
        if self._paused_reading:
            self.transport.resume_reading()
        writer = asyncio.StreamWriter(self.transport, protocol, reader, self.loop)
        self._task = self.loop.create_task(self._run_upgrade(answer, reader, writer), name=self.server.name)

    async def _run_upgrade(
        self, answer: Upgrade, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await answer.run(reader, writer)
        except ConnectionError:
            pass
        except Exception as failure:
            self._failure(failure)
        finally:
            self._task = None
            writer.close()


class Hijacked(asyncio.StreamReaderProtocol):
    """The protocol of a connection that has stopped being HTTP; tells the connection when it is over."""

    def __init__(self, reader: asyncio.StreamReader, connection: LongAnswers) -> None:
        super().__init__(reader, loop=connection.loop)
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection._gone()


def _discard(awaitable: Awaitable[None]) -> None:
    if (close := cast("Callable[[], None] | None", getattr(awaitable, "close", None))) is not None:
        close()
