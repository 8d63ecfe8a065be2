"""The HTTP/1.1 server: one `asyncio.Protocol` per connection, parsed by httptools, answering `transport.types.Handler`.

A handler that answers at once costs no task and one write. Requests of a connection are answered in the order they
came; while one is being answered the next are parsed and wait. Ways in which a peer can be slow or rude (headers or
bodies that trickle, answers that are never read, sizes over the limits) each end the connection by a timer or an error.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import resource
import socket
import ssl
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sampan.transport.connection import FRESH, Connection
from sampan.transport.types import Handler

MAX_BODY = 3 * 1024 * 1024
"""Upstream's limit of a request body (`MaxRequestBodyBytes`)."""
MAX_HEAD = 128 * 1024

Address = tuple[str, int]

_HIJACKED_GRACE = 1.0
_DESCRIPTORS_KEPT = 256
"""File descriptors of a process that are not for connections of clients."""
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""A peer that has vanished without a word is noticed after 90 s of silence. (There is no TCP_USER_TIMEOUT: it would also
cut off who has only paused, such as `kubectl logs -f | less`.)"""

log = logging.getLogger(__name__)


class HttpServer:
    """Serves `handler` on one or more sockets.

    `max_body` bounds a request's body after decompression; `head_timeout` and `body_timeout` (seconds) bound how long a
    request may take to arrive, `idle_timeout` how long a connection may lie unused, `write_timeout` how long a peer may
    go without taking any of an answer that waits for it. Beyond `max_connections` (or what the process may open) those that
    have been idle longest are given up, and where none is idle the new one. `stream_body` tells by method and target which requests are
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
        max_connections: int = 20_000,
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
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _DESCRIPTORS_KEPT
        self.max_connections = min(max_connections, max(descriptors, 16))
        self.stream_body = stream_body
        self.name = name
        self.closing = False
        self.slices = asyncio.Lock()
        """Held by the one large answer that is being written."""
        self._ssl_context = ssl_context
        self._connections: set[Connection] = set()
        self._shaking_hands: weakref.WeakSet[Connection] = weakref.WeakSet()
        """Accepted, and not yet open. (One that never will be is let go of without a word.)"""
        self._hands_shaken: asyncio.Future[None] | None = None
        self._carried_through: set[asyncio.Task[None]] = set()
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
            handshake = min(10.0, self.head_timeout)
            tls = {"ssl": self._ssl_context, "ssl_handshake_timeout": handshake, "ssl_shutdown_timeout": 5.0}
        where: dict[str, Any] = {"sock": sock} if sock is not None else {"host": host, "port": port}
        listener = await loop.create_server(lambda: self._accepted(loop), backlog=1024, **where, **tls)
        self._listeners.append(listener)
        for accepting in listener.sockets:
            if accepting.family in (socket.AF_INET, socket.AF_INET6):
                # What it accepts inherits these.
                accepting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in _KEEPALIVE:
                    accepting.setsockopt(socket.IPPROTO_TCP, option, value)
        name = listener.sockets[0].getsockname()
        return (name[0], name[1]) if isinstance(name, tuple) else (str(name), 0)

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening, end streams, let requests in progress be answered for up to `grace` seconds, then cut.
        Connections that are no longer HTTP are cut after a second: what they are for may go on for ever."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        if self._shaking_hands:
            self._hands_shaken = asyncio.get_running_loop().create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(grace, FRESH)):
                    await self._hands_shaken
        for connection in list(self._connections):
            connection.shut_down()
        if self._connections:
            loop = asyncio.get_running_loop()
            self._all_gone = loop.create_future()
            hijacked = loop.call_later(min(grace, _HIJACKED_GRACE), self._cut_hijacked)
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await asyncio.shield(self._all_gone)
            hijacked.cancel()
            for connection in list(self._connections):
                connection.abort()
            if self._connections:
                await self._all_gone
        self._listeners.clear()

    def _carry_through(self, task: asyncio.Task[None]) -> None:
        """Have a task go on that no connection waits for any more."""
        self._carried_through.add(task)
        task.add_done_callback(self._carried_through.discard)

    def _cut_hijacked(self) -> None:
        for connection in [c for c in self._connections if c.hijacked]:
            connection.abort()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def _accepted(self, loop: asyncio.AbstractEventLoop) -> Connection:
        connection = Connection(self, loop)
        self._shaking_hands.add(connection)
        return connection

    def _opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._shaking_hands.discard(connection)
        if not self._shaking_hands and self._hands_shaken is not None and not self._hands_shaken.done():
            self._hands_shaken.set_result(None)
        if len(self._connections) > self.max_connections:
            self._make_room(connection)

    def _make_room(self, connection: Connection) -> None:
        """Give up some connections that have been idle longest (a hundredth of all: looking for them takes time), or else
        the new one."""
        idle = (c for c in self._connections if c.idle and c is not connection)
        oldest = heapq.nsmallest(1 + self.max_connections // 100, idle, key=lambda c: c.idle_since)
        if not oldest:
            log.warning(
                "%s: %d connections, none of them idle: one more is refused", self.name, self.max_connections
            )
        for given_up in oldest or (connection,):
            given_up.transport.abort()

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)
