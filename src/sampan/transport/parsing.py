"""Reading requests from a connection: the parser's side of it, with the limits of what a request may be and how long it may
take to come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from sampan.api.errors import StatusError
from sampan.transport.incoming import (
    MOST_HEADERS,
    Refused,
    body_too_large,
    head_problem,
    head_too_large,
    header_name,
    header_names,
    malformed,
    origin_form,
)
from sampan.transport.types import PeerCertificate, Request

if TYPE_CHECKING:
    from sampan.transport.http import HttpServer


class RequestReader(asyncio.Protocol):
    """httptools calls `on_...`; what comes of it is handed to `_take` or, if it is no request, to `_refuse`.

    `_reset` begins a request.
    """

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.certificate: PeerCertificate | None = None
        self.peer = ""
        self._parser = httptools.HttpRequestParser(self)
        self._end = False  # No further request is taken; close when the queue is answered.
        self._arrival_timer: asyncio.TimerHandle | None = None
        self._receiving: asyncio.StreamReader | None = None  # Of the request whose body is being streamed.
        self._reset()

    def _take(self, request: Request) -> None:
        """A request is there."""
        raise NotImplementedError

    def _refuse(self, error: StatusError) -> None:
        """What came is no request that can be answered otherwise."""
        raise NotImplementedError

    def _send_continue(self) -> None:
        """`100 Continue` may be due."""
        raise NotImplementedError

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
        if self._head_done:
            return  # A trailer, which must not pass for a header.
        key = header_names.get(name) or header_name(name)
        text = value.decode("latin-1")
        headers = self._headers
        if key in headers:
            if key == "host":
                raise Refused(malformed("too many Host headers"))
            # A group's name may hold a comma; nothing in a header can hold a line break.
            between = "\n" if key.startswith("impersonate-") else ", "
            text = f"{headers[key]}{between}{text}"
        headers[key] = text

    def on_headers_complete(self) -> None:
        self._head_done = True
        headers = self._headers
        limit = self.server.max_head
        if sum(map(len, headers.values())) + len(self._target) > limit or len(headers) > MOST_HEADERS:
            raise Refused(head_too_large(limit))
        if (problem := head_problem(self._parser.get_http_version(), headers)) is not None:
            raise Refused(problem)
        length = headers.get("content-length")
        has_body = bool(length) or "transfer-encoding" in headers
        if has_body and length != "0" and self._parser.should_upgrade():
            # Whether what follows is the body or the other protocol is open to two readings.
            raise Refused(malformed("a request to upgrade cannot have a body"))
        if has_body and length != "0" and "upgrade" not in headers and self.server.stream_body is not None:
            request = self._request(b"")
            if self.server.stream_body(request.method, request.target):
                self._hand_over_early(request)
                return
        if length and int(length) > self.server.max_body:
            raise Refused(body_too_large(self.server.max_body))
        if has_body:
            self._disarm()
            self._arrival_timer = self.loop.call_later(self.server.body_timeout, self._late, True)
            if headers.get("expect", "").lower() == "100-continue":
                self._continue = True
                self._send_continue()

    def _hand_over_early(self, request: Request) -> None:
        """Have a request answered while its body comes; reading pauses while nobody takes the body."""
        if self._arrival_timer is not None:
            self._disarm()
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
            raise Refused(body_too_large(self.server.max_body))
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
            self._disarm()
        body = self._body
        request = self._request(b"" if not body else body[0] if len(body) == 1 else b"".join(body))
        self._reset()
        self._take(request)

    def _request(self, body: bytes) -> Request:
        target = self._target.decode("latin-1")
        if not target.startswith("/"):
            target = origin_form(target)
        method = self._parser.get_method().decode()
        return Request(method, target, self._headers, body, self.peer, self.certificate)

    def _disarm(self) -> None:
        """The request has come in time."""
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _late(self, body: bool) -> None:
        self._arrival_timer = None
        what = "body" if body else "header"
        self._refuse(StatusError(408, "Timeout", f"the request's {what} did not arrive in time"))
