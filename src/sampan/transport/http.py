"""The HTTP/1.1 server: one `asyncio.Protocol` per connection, parsed by httptools, answering `transport.types.Handler`.

A handler that answers at once costs no task and one write. Requests of a connection are answered in the order they
came; while one is being answered the next are parsed and wait. Ways in which a peer can be slow or rude (headers or
bodies that trickle, answers that are never read, sizes over the limits) each end the connection by a timer or an error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import httptools

from sampan.api.errors import StatusError, internal
from sampan.transport import head
from sampan.transport.stream import ConnectionStream
from sampan.transport.tls import peer_certificate
from sampan.transport.types import (
    Answer,
    Handler,
    PeerCertificate,
    Request,
    Response,
    StreamingResponse,
    Upgrade,
)

log = logging.getLogger("sampan.transport.http")

MAX_BODY = 3 * 1024 * 1024
"""Upstream's limit of a request body (`MaxRequestBodyBytes`)."""
MAX_HEAD = 128 * 1024
GZIP_FROM = 128 * 1024
"""Answers larger than this are compressed for clients that accept it."""
_SLICE = 128 * 1024
"""About how many bytes of a body in parts are written at once."""
_MAX_QUEUED = 16
"""Requests parsed ahead on one connection before it is no longer read from."""
_LINGER = 1.0
"""Seconds for which a refused request is still read and thrown away, so that its sender gets to read why."""
_MAX_AHEAD = 1024 * 1024
"""Bytes kept unparsed behind a request that wants to upgrade."""

Address = tuple[str, int]


class HttpServer:
    """Serves `handler` on one or more sockets.

    `max_body` bounds a request's body after decompression; `head_timeout` and `body_timeout` (seconds) bound how long a
    request may take to arrive, `idle_timeout` how long a connection may lie unused, `write_timeout` how long a peer may
    go without taking any of an answer that waits for it. `stream_body` tells by method and target which requests are
    handed over before their bodies (of any size) have come: see `Request.body_stream`.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        ssl_context: ssl.SSLContext | None = None,
        max_body: int = MAX_BODY,
        max_head: int = MAX_HEAD,
        head_timeout: float = 32.0,
        body_timeout: float = 60.0,
        idle_timeout: float = 90.0,
        write_timeout: float = 60.0,
        stream_body: Callable[[str, str], bool] | None = None,
        name: str = "http",
    ) -> None:
        self.handler = handler
        self.max_body = max_body
        self.max_head = max_head
        self.head_timeout = head_timeout
        self.body_timeout = body_timeout
        self.idle_timeout = idle_timeout
        self.write_timeout = write_timeout
        self.stream_body = stream_body
        self.name = name
        self.closing = False
        self._ssl_context = ssl_context
        self._connections: set[_Connection] = set()
        self._listeners: list[asyncio.Server] = []
        self._all_gone: asyncio.Future[None] | None = None

    async def listen(
        self, host: str = "127.0.0.1", port: int = 0, *, sock: socket.socket | None = None
    ) -> Address:
        """Start to serve on an address, or on a socket that is already bound; returns the address (`port` 0 picks a
        free one). May be called several times. Raises OSError where the address cannot be had."""
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        if self._ssl_context is not None:
            tls = {"ssl": self._ssl_context, "ssl_handshake_timeout": 10.0, "ssl_shutdown_timeout": 5.0}
        where: dict[str, Any] = {"sock": sock} if sock is not None else {"host": host, "port": port}
        listener = await loop.create_server(lambda: _Connection(self, loop), backlog=1024, **where, **tls)
        self._listeners.append(listener)
        name = listener.sockets[0].getsockname()
        return (name[0], name[1]) if isinstance(name, tuple) else (str(name), 0)

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening, end streams, let requests in progress be answered for up to `grace` seconds, then cut."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.shut_down()
        if self._connections:
            self._all_gone = asyncio.get_running_loop().create_future()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._all_gone), grace)
            for connection in list(self._connections):
                connection.abort()
            if self._connections:
                await self._all_gone
        self._listeners.clear()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def _opened(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def _closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._connections and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)


_names: dict[bytes, str] = {}


def _header_name(raw: bytes) -> str:
    name = raw.decode("latin-1").lower()
    if len(_names) < 512:
        _names[raw] = name
    return name


class _Failed(Exception):
    """The request that is being parsed is answered with this error, and the connection ends."""

    def __init__(self, error: StatusError) -> None:
        self.error = error


class _Incoming:
    """A request with what the answer's framing depends on."""

    __slots__ = ("accepts_gzip", "error", "http10", "keep_alive", "request", "upgrade")

    def __init__(self, request: Request, keep_alive: bool, http10: bool, error: StatusError | None = None):
        self.request = request
        self.keep_alive = keep_alive
        self.http10 = http10
        self.error = error
        self.upgrade = False
        self.accepts_gzip = "gzip" in request.headers.get("accept-encoding", "")

    @property
    def unread(self) -> bool:
        """Whether some of a streamed body is still to come, or was left lying: the connection cannot go on."""
        body = self.request.body_stream
        return body is not None and not body.at_eof()


class _Connection(asyncio.Protocol):
    """One connection. `_current` is the request being answered; `_queue` those that wait behind it."""

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.certificate: PeerCertificate | None = None
        self.peer = ""
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[_Incoming] = deque()
        self._current: _Incoming | None = None
        self._task: asyncio.Task[None] | None = None
        self._stream: ConnectionStream | None = None
        self._tls = False
        self._hijacked = False
        self._reader: asyncio.StreamReader | None = None  # Of a hijacked connection.
        self._lost = False
        self._eof = False
        self._end = False  # No further request is taken; close when the queue is answered.
        self._ahead: bytearray | None = None  # Bytes behind a request that asked to upgrade.
        self._paused_reading = False
        self._paused_writing = False
        self._drained: list[asyncio.Future[None]] = []
        self._arrival_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._stall_timer: asyncio.TimerHandle | None = None
        self._stall_size = 0
        self._linger_timer: asyncio.TimerHandle | None = None
        self._receiving: asyncio.StreamReader | None = None  # Of the request whose body is being streamed.
        self._reset()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self._tls = True
            self.certificate = peer_certificate(tls)
        self.server._opened(self)
        self._idle_since = self.loop.time()
        self._idle_timer = self.loop.call_later(self.server.idle_timeout, self._idle)
        if self.server.closing:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.server._closed(self)
        for timer in (self._arrival_timer, self._idle_timer, self._stall_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._queue.clear()
        if self._receiving is not None:
            self._receiving.set_exception(ConnectionResetError("the peer has gone"))
        if self._stream is not None:
            self._stream.lost()
        if self._task is not None:
            self._task.cancel()
        self._wake_drains()

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
            if isinstance(cause, _Failed):
                self._refuse(cause.error)
            else:
                self._refuse(StatusError(400, "BadRequest", f"malformed HTTP request: {failure}"))
        if self._in_message:
            if not self._head_done:
                self._head_size += len(data)
                if self._head_size > self.server.max_head:
                    self._refuse(_head_too_large(self.server.max_head))
                    return
            if self._arrival_timer is None and not self._end and self._receiving is None:
                self._arrival_timer = self.loop.call_later(self.server.head_timeout, self._late, False)
        elif self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

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

    def _wake_drains(self) -> None:
        waiting, self._drained = self._drained, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    # The parser's side. `_reset` begins a request.

    def _reset(self) -> None:
        self._in_message = False
        self._head_done = False
        self._head_size = 0
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_size = 0
        self._continue = False

    def on_message_begin(self) -> None:
        self._in_message = True

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = _names.get(name) or _header_name(name)
        text = value.decode("latin-1")
        headers = self._headers
        if key in headers:
            # A group's name may hold a comma; nothing in a header can hold a line break.
            between = "\n" if key.startswith("impersonate-") else ", "
            text = f"{headers[key]}{between}{text}"
        headers[key] = text

    def on_headers_complete(self) -> None:
        self._head_done = True
        headers = self._headers
        limit = self.server.max_head
        if sum(map(len, headers.values())) + len(self._target) > limit:
            raise _Failed(_head_too_large(limit))
        if "host" not in headers and self._parser.get_http_version() == "1.1":
            raise _Failed(StatusError(400, "BadRequest", "missing required Host header"))
        length = headers.get("content-length")
        has_body = bool(length) or "transfer-encoding" in headers
        if has_body and length != "0" and "upgrade" not in headers and self.server.stream_body is not None:
            request = self._request(b"")
            if self.server.stream_body(request.method, request.target):
                self._hand_over_early(request)
                return
        if length and int(length) > self.server.max_body:
            raise _Failed(_body_too_large(self.server.max_body))
        if has_body:
            if self._arrival_timer is not None:
                self._arrival_timer.cancel()
            self._arrival_timer = self.loop.call_later(self.server.body_timeout, self._late, True)
            if headers.get("expect", "").lower() == "100-continue":
                self._continue = True
                self._send_continue()

    def _hand_over_early(self, request: Request) -> None:
        """Have a request answered while its body comes; reading pauses while nobody takes the body."""
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None
        body = request.body_stream = self._receiving = asyncio.StreamReader(loop=self.loop)
        body.set_transport(self.transport)
        self._continue = self._headers.get("expect", "").lower() == "100-continue"
        self._send_continue()
        self._take(request)

    def on_body(self, body: bytes) -> None:
        if self._receiving is not None:
            if not self._end:
                self._receiving.feed_data(body)
            return
        self._body_size += len(body)
        if self._body_size > self.server.max_body:
            raise _Failed(_body_too_large(self.server.max_body))
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._end:
            return
        if self._receiving is not None:
            self._receiving.feed_eof()
            self._receiving = None
            self._reset()
            return
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None
        body = self._body
        request = self._request(b"" if not body else body[0] if len(body) == 1 else b"".join(body))
        self._reset()
        self._take(request)

    def _request(self, body: bytes) -> Request:
        target = self._target.decode("latin-1")
        if not target.startswith("/"):
            target = _origin_form(target)
        method = self._parser.get_method().decode()
        return Request(method, target, self._headers, body, self.peer, self.certificate)

    def _take(self, request: Request) -> None:
        """Answer a request, or have it wait for its turn."""
        parser = self._parser
        incoming = _Incoming(request, parser.should_keep_alive(), parser.get_http_version() == "1.0")
        incoming.upgrade = parser.should_upgrade()
        if request.method == "CONNECT":
            incoming.error = StatusError(405, "MethodNotAllowed", "CONNECT is not supported")
        elif (encoding := request.headers.get("content-encoding")) and request.body_stream is None:
            incoming.error = _decode_body(request, encoding, self.server.max_body)
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

    # Answering.

    def _next(self) -> None:
        """Answer what waits, until something cannot be answered at once."""
        while self._queue and self._current is None and not self._paused_writing and not self._lost:
            self._answer(self._queue.popleft())
        if self._lost or self._hijacked or self._current is not None or self._queue:
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
        if self._ahead is None or self._current is not None or self._queue or self._hijacked or self._end:
            return
        rest, self._ahead = bytes(self._ahead), None
        self._parser = httptools.HttpRequestParser(self)
        if rest:
            self.data_received(rest)

    def _answer(self, incoming: _Incoming) -> None:
        self._current = incoming
        if incoming.error is not None:
            self._finish(_status_response(incoming.error))
            return
        try:
            answer = self.server.handler(incoming.request)
        except Exception as failure:
            answer = self._failure(failure)
        if type(answer) is Response:
            self._finish(answer)
        elif isinstance(answer, Response | StreamingResponse | Upgrade):
            self._begin(answer)
        else:
            self._task = self.loop.create_task(self._later(answer), name=self.server.name)

    async def _later(self, awaitable: Awaitable[Answer]) -> None:
        """The task of a request that is not answered at once, and of whatever its answer goes on to run."""
        try:
            answer = await awaitable
        except Exception as failure:
            answer = self._failure(failure)
        if self._lost:
            return
        self._task = None
        self._begin(answer)

    def _failure(self, failure: Exception) -> Response:
        if isinstance(failure, StatusError):
            return _status_response(failure)
        request = self._current.request if self._current else None
        where = f"{request.method} {request.raw_path}" if request else ""
        log.error("%s: %s failed", self.server.name, where, exc_info=failure)
        return _status_response(internal(f"{type(failure).__name__}: {failure}"))

    def _begin(self, answer: Answer) -> None:
        if isinstance(answer, Response):
            self._finish(answer)
        elif isinstance(answer, StreamingResponse):
            self._start_stream(answer)
        else:
            self._hijack(answer)

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
            body = b"".join(body)
        if gzipped:
            self._task = self.loop.create_task(self._finish_gzipped(incoming, response, body))
        else:
            self._write_response(incoming, response, body)

    async def _finish_in_slices(
        self, incoming: _Incoming, response: Response, parts: Sequence[bytes], size: int
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
            for i in range(0, len(parts), step):
                await self.drained()
                self.transport.write(b"".join(parts[i : i + step]))
        except ConnectionError:
            return
        self._task = None
        self._answered(close)

    async def _finish_gzipped(self, incoming: _Incoming, response: Response, body: bytes) -> None:
        packed = await self.loop.run_in_executor(None, _gzip, body)
        self._task = None
        headers = (*response.headers, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
        shrunk = Response(response.status, packed, response.content_type, headers)
        if not self._lost:
            self._write_response(incoming, shrunk, packed)

    def _write_response(self, incoming: _Incoming, response: Response, body: bytes) -> None:
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

    def _head(self, incoming: _Incoming, response: Response, length: int | None) -> tuple[bytes, bool]:
        """The first lines of an answer, and whether the connection ends with it. Raises ValueError."""
        close = not incoming.keep_alive or self.server.closing or incoming.unread
        connection = head.CLOSE if close else head.KEEP_ALIVE if incoming.http10 else b""
        start = head.render(response.status, response.content_type, response.headers, connection, length)
        return start, close

    def _answered(self, close: bool) -> None:
        self._current = None
        self._idle_since = self.loop.time()
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
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None
        incoming = _Incoming(Request("", "", {}), False, False, error)
        if self._current is None and not self._queue:
            self._answer(incoming)
        else:
            self._queue.append(incoming)

    # Streams and upgrades.

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

    async def drained(self) -> None:
        """Wait until the transport takes more. Raises ConnectionResetError once the connection has gone."""
        if self._paused_writing and not self._lost:
            future: asyncio.Future[None] = self.loop.create_future()
            self._drained.append(future)
            await future
        if self._lost:
            raise ConnectionResetError("the peer has gone")

    def _hijack(self, answer: Upgrade) -> None:
        incoming = self._current
        assert incoming is not None
        if not incoming.upgrade:
            self._finish(_status_response(StatusError(400, "BadRequest", "Upgrade request required")))
            return
        self._hijacked = True
        self.transport.write(head.render(101, "", (("Connection", "Upgrade"), *answer.headers), b"", None))
        for timer in (self._idle_timer, self._arrival_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        reader = self._reader = asyncio.StreamReader(loop=self.loop)
        protocol = _Hijacked(reader, self)
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

    # Ending.

    def shut_down(self) -> None:
        """The server closes: end what would go on for ever, close if idle, else after the answer."""
        if self._lost or self._hijacked:
            return
        self._end = True
        if self._stream is not None:
            self._stream.close()
        if self._current is None and not self._queue:
            self.transport.close()

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
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

    def _late(self, body: bool) -> None:
        self._arrival_timer = None
        what = "body" if body else "header"
        self._refuse(StatusError(408, "Timeout", f"the request's {what} did not arrive in time"))

    def _idle(self) -> None:
        quiet = self.loop.time() - self._idle_since
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


class _Hijacked(asyncio.StreamReaderProtocol):
    """The protocol of a connection that has stopped being HTTP; tells the connection when it is over."""

    def __init__(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        super().__init__(reader, loop=connection.loop)
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        connection = self._connection
        connection._lost = True
        connection.server._closed(connection)


def _discard(awaitable: Awaitable[None]) -> None:
    if (close := cast("Callable[[], None] | None", getattr(awaitable, "close", None))) is not None:
        close()


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


def _decode_body(request: Request, encoding: str, limit: int) -> StatusError | None:
    """Unpack a body in place. A body that unpacks to more than the limit is refused before it fills the memory."""
    if encoding == "identity" or not request.body:
        return None
    if encoding != "gzip":
        return StatusError(415, "UnsupportedMediaType", f"Content-Encoding {encoding} is not supported")
    unpacker = zlib.decompressobj(31)
    try:
        body = unpacker.decompress(request.body, limit + 1)
    except zlib.error as failure:
        return StatusError(400, "BadRequest", f"body is not valid gzip: {failure}")
    if len(body) > limit:
        return _body_too_large(limit)
    if not unpacker.eof:
        return StatusError(400, "BadRequest", "body is not valid gzip: it ends early")
    request.body = body
    del request.headers["content-encoding"]
    return None


def _origin_form(target: str) -> str:
    """The path of an absolute-form target (`http://host/path`), which clients send to proxies."""
    scheme, separator, rest = target.partition("://")
    if not separator or not scheme.isalpha():
        return target
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def _body_too_large(limit: int) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def _head_too_large(limit: int) -> StatusError:
    return StatusError(431, "RequestHeaderFieldsTooLarge", f"Request header too large: limit is {limit}")


def _status_response(error: StatusError) -> Response:
    retry = (error.details or {}).get("retryAfterSeconds")
    headers = (("Retry-After", str(retry)),) if retry else ()
    return Response(error.code, json.dumps(error.status(), separators=(",", ":")).encode(), headers=headers)
