"""One connection of the HTTP server: what its transport tells, the order of its requests and answers, and the many ways in
which it ends. How requests are read is in `parsing`, how answers are written in `responses` and `long_answers`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import httptools

from sampan.api.errors import StatusError
from sampan.transport import head
from sampan.transport.incoming import Incoming, Refused, decode_body, head_too_large
from sampan.transport.long_answers import LongAnswers
from sampan.transport.responses import status_response
from sampan.transport.stream import ConnectionStream
from sampan.transport.tls import peer_certificate
from sampan.transport.types import Answer, Request, Response, StreamingResponse, Upgrade

if TYPE_CHECKING:
    from sampan.transport.http import HttpServer

log = logging.getLogger("sampan.transport.http")

_MAX_QUEUED = 16
"""Requests parsed ahead on one connection before it is no longer read from."""
_LINGER = 1.0
"""Seconds for which a refused request is still read and thrown away, so that its sender gets to read why."""
FRESH = 1.0
"""Seconds within which a connection that is new, or was in use until then, must ask something of a server that closes."""
_MAX_AHEAD = 1024 * 1024
"""Bytes kept unparsed behind a request that wants to upgrade."""


class Connection(LongAnswers):
    """One connection. `_current` is the request being answered; `_queue` those that wait behind it."""

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop)
        self._queue: deque[Incoming] = deque()
        self._current: Incoming | None = None
        self._task: asyncio.Task[None] | None = None
        self._stream: ConnectionStream | None = None
        self._tls = False
        self.hijacked = False
        self._reader: asyncio.StreamReader | None = None  # Of a hijacked connection.
        self._lost = False
        self._eof = False
        self._ahead: bytearray | None = None  # Bytes behind a request that asked to upgrade.
        self._paused_reading = False
        self._paused_writing = False
        self._drained: list[asyncio.Future[None]] = []
        self._idle_timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        """On the loop's clock."""
        self._stall_timer: asyncio.TimerHandle | None = None
        self._stall_size = 0
        self._linger_timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is asked or answered now, and the last answer has been taken."""
        busy = self.hijacked or self._current is not None or self._queue or self._in_message
        return not busy and not self.transport.get_write_buffer_size()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self._tls = True
            self.certificate = peer_certificate(tls)
        self.server._opened(self)
        self.idle_since = self.loop.time()
        self._idle_timer = self.loop.call_later(self.server.idle_timeout, self._idle)
        if self.server.closing:
            self.shut_down()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
        for timer in (self._arrival_timer, self._idle_timer, self._stall_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._queue.clear()
        if self._receiving is not None:
            self._receiving.set_exception(ConnectionResetError("the peer has gone"))
        if self._stream is not None:
            self._stream.lost()
        self._cancel()
        self._wake_drains()

    def _cancel(self) -> None:
        """Cancel the task that is under way, after its first step at the earliest: one that never began gives nothing back of
        what it was handed (a seat, an open stream)."""
        if self._task is None:
            return
        if self._current is not None and self._current.request.carried_through:
            self.server._carry_through(self._task)
        else:
            self.loop.call_soon(self._task.cancel)

    def _gone(self) -> None:
        self._lost = True
        self.server._closed(self)

    def data_received(self, data: bytes) -> None:
        if self._end:
            return
        if self._ahead is not None:
            self._ahead += data
            if len(self._ahead) > _MAX_AHEAD:
                self._pause_reading()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._reader is not None:
                self._reader.feed_data(rest)
            else:
                self._ahead = bytearray(rest)
                self._settle_upgrade()
        except httptools.HttpParserError as failure:
            cause = failure.__context__
            if isinstance(cause, Refused):
                self._refuse(cause.error)
            else:
                self._refuse(StatusError(400, "BadRequest", f"malformed HTTP request: {failure}"))
        if self._in_message:
            if not self._head_done:
                self._head_size += len(data)
                if self._head_size > self.server.max_head:
                    self._refuse(head_too_large(self.server.max_head))
                    return
            if self._arrival_timer is None and not self._end and self._receiving is None:
                self._arrival_timer = self.loop.call_later(self.server.head_timeout, self._late, False)
        elif self._arrival_timer is not None:
            self._disarm()

    def eof_received(self) -> bool:
        """A peer that has shut its sending half still gets the answers to what it asked; one that follows a stream
        is taken as gone, for there is no other sign of its leaving."""
        self._eof = True
        if self._stream is not None or self._current is None:
            self.transport.close()
            return False
        self._end = True
        if self._receiving is not None:
            self._receiving.set_exception(ConnectionResetError("the request's body ended early"))
        return not self._tls  # TLS knows no half-closed connections.

    def pause_writing(self) -> None:
        self._paused_writing = True
        if self._stream is None:
            self._watch_for_stall()

    def resume_writing(self) -> None:
        self._paused_writing = False
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        self._wake_drains()
        self._next()

    # Requests and answers, in order.

    def _take(self, request: Request) -> None:
        """Answer a request, or have it wait for its turn."""
        parser = self._parser
        incoming = Incoming(request, parser.should_keep_alive(), parser.get_http_version() == "1.0")
        incoming.upgrade = parser.should_upgrade()
        if request.method == "CONNECT":
            incoming.error = StatusError(405, "MethodNotAllowed", "CONNECT is not supported")
        elif (encoding := request.headers.get("content-encoding")) and request.body_stream is None:
            incoming.error = decode_body(request, encoding, self.server.max_body)
        if self._current is None and not self._queue and not self._paused_writing:
            self._answer(incoming)
        else:
            self._queue.append(incoming)
            if len(self._queue) >= _MAX_QUEUED:
                self._pause_reading()

    def _send_continue(self) -> None:
        """`100 Continue`, as soon as no earlier answer is due."""
        if self._continue and self._current is None and not self._queue:
            self._continue = False
            self.transport.write(head.CONTINUE)

    def _next(self) -> None:
        """Answer what waits, until something cannot be answered at once."""
        while self._queue and self._current is None and not self._paused_writing and not self._lost:
            self._answer(self._queue.popleft())
        if self._lost or self.hijacked or self._current is not None or self._queue:
            return
        if self._end:
            self.transport.close()
            return
        self._settle_upgrade()
        self._send_continue()
        if self._paused_reading and not self._queue:
            self._paused_reading = False
            with suppress(RuntimeError):
                self.transport.resume_reading()

    def _settle_upgrade(self) -> None:
        """A request that asked to upgrade was answered otherwise: what follows it is HTTP again."""
        if self._ahead is None or self._current is not None or self._queue or self.hijacked or self._end:
            return
        rest, self._ahead = bytes(self._ahead), None
        self._parser = httptools.HttpRequestParser(self)
        if rest:
            self.data_received(rest)

    def _answer(self, incoming: Incoming) -> None:
        self._current = incoming
        if incoming.error is not None:
            self._finish(status_response(incoming.error))
            return
        try:
            answer = self.server.handler(incoming.request)
        except Exception as failure:  # the server's last line: a 500, logged
            answer = self._failure(failure)
        if type(answer) is Response:
            self._finish(answer)
        elif isinstance(answer, Response | StreamingResponse | Upgrade):
            self._begin(answer)
        else:
            incoming.request.give_up = self._give_up
            self._task = self.loop.create_task(self._later(incoming, answer), name=self.server.name)

    def _give_up(self, error: StatusError) -> None:
        """Answer the request whose task is under way with an error; the task goes on."""
        task, self._task = self._task, None
        if task is None or self._lost:
            return
        self.server._carry_through(task)
        self._finish(status_response(error))

    async def _later(self, incoming: Incoming, awaitable: Awaitable[Answer]) -> None:
        """The task of a request that is not answered at once, and of whatever its answer goes on to run."""
        try:
            answer = await awaitable
        except Exception as failure:  # as above
            answer = self._failure(failure)
        if self._lost or self._current is not incoming:
            return  # Nobody waits for it any more.
        self._task = None
        self._begin(answer)

    def _begin(self, answer: Answer) -> None:
        if isinstance(answer, Response):
            self._finish(answer)
        elif isinstance(answer, StreamingResponse):
            self._start_stream(answer)
        else:
            self._hijack(answer)

    def _answered(self, close: bool) -> None:
        self._current = None
        self.idle_since = self.loop.time()
        if close:
            refused = self._end or self._receiving is not None
            self._end = True
            self._queue.clear()
            if refused and not self._eof:
                self._linger()
            else:
                self.transport.close()
        elif self._queue or self._end or self._paused_reading or self._continue or self._ahead is not None:
            self._next()

    def _refuse(self, error: StatusError) -> None:
        """Answer what could not be parsed, after the answers that are due before it, and end the connection."""
        if self._end:
            return
        self._end = True
        self._in_message = False
        self._disarm()
        incoming = Incoming(Request("", "", {}), False, False, error)
        if self._current is None and not self._queue:
            self._answer(incoming)
        else:
            self._queue.append(incoming)

    # Ending.

    def shut_down(self) -> None:
        """The server closes: end what would go on for ever, close if idle, else after the answer. Whoever has just come, or
        just been answered, may well have a request on its way, which is the last one to be answered."""
        if self._lost or self.hijacked:
            return
        if not self._end and self.idle and self.loop.time() - self.idle_since < FRESH:
            self._linger_timer = self.loop.call_later(FRESH, self._close_if_idle)
            return
        self._end = True
        if self._stream is not None:
            self._stream.close()
        if self._current is None and not self._queue:
            self.transport.close()

    def _close_if_idle(self) -> None:
        if self.idle:
            self.transport.close()

    def abort(self) -> None:
        self._cancel()
        self.transport.abort()

    def _linger(self) -> None:
        """Close once the peer has (or a moment later): closing on what it still sends would reset the connection, and
        it would never see the answer."""
        if not self._tls:
            self.transport.write_eof()
        self._linger_timer = self.loop.call_later(_LINGER, self.transport.close)
        with suppress(RuntimeError):
            self.transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._paused_reading:
            self._paused_reading = True
            self.transport.pause_reading()

    def _idle(self) -> None:
        quiet = self.loop.time() - self.idle_since
        busy = self._current is not None or self._queue or self._in_message
        if not busy and quiet >= self.server.idle_timeout - 0.01:
            if self.transport.is_closing():
                self.transport.abort()  # The peer does not take the end of its last answer.
                return
            self.transport.close()
            quiet = 0.0
        wait = self.server.idle_timeout if busy else self.server.idle_timeout - quiet
        self._idle_timer = self.loop.call_later(wait, self._idle)

    def _watch_for_stall(self) -> None:
        self._stall_size = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(self.server.write_timeout, self._stalled)

    def _stalled(self) -> None:
        size = self.transport.get_write_buffer_size()
        if self._stream is None and size >= self._stall_size:
            log.info("%s: %s takes no data; connection cut", self.server.name, self.peer)
            self.abort()
            return
        self._stall_size = size
        self._stall_timer = self.loop.call_later(self.server.write_timeout, self._stalled)
