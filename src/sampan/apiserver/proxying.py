"""Passing a request on to a pod, a service's endpoint or a node: plain HTTP with streaming, and upgraded connections
as bytes both ways.

Links and redirects that point back at the target are rewritten to go through us, as upstream does.
Upstream: `k8s.io/apimachinery/pkg/util/proxy` (UpgradeAwareHandler, Transport).
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httptools

from sampan.api.errors import StatusError, unavailable
from sampan.transport.bytestream import CHUNK, pipe
from sampan.transport.types import Answer, Request, Response, Stream, StreamingResponse, Upgrade

if TYPE_CHECKING:
    import aiohttp

_DIAL_TIMEOUT = 30.0
_MAX_ANSWER = 1024 * 1024
"""Bytes kept of an answer that should have been an upgrade."""
_HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
_NOT_SENT = _HOP_BY_HOP | {"host", "content-length", "authorization", "expect", "accept-encoding"}
_NOT_RETURNED = _HOP_BY_HOP | {
    "date",
    "content-type",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. `path` is percent-encoded, `prefix` is our own path that stands for the target's root
    ("" leaves the answer as it is). `tls` None means plain HTTP."""

    host: str
    port: int
    path: str
    query: str = ""
    prefix: str = ""
    tls: ssl.SSLContext | None = None

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def resource(self) -> str:
        return f"{self.path or '/'}?{self.query}" if self.query else self.path or "/"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.resource}"


def dial_error(target: Target, failure: Exception) -> str:
    """Why a connection could not be made, in the words of Go's network library that users know."""
    number = getattr(failure, "errno", None) or getattr(getattr(failure, "os_error", None), "errno", None)
    if isinstance(failure, TimeoutError):
        text = "i/o timeout"
    elif number == errno.ECONNREFUSED:
        text = "connect: connection refused"
    elif number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        text = f"connect: {'no route to host' if number == errno.EHOSTUNREACH else 'network is unreachable'}"
    else:
        text = str(failure) or type(failure).__name__
    return f"dial tcp {target.authority}: {text}"


class Proxy:
    """Sends requests on. Holds the HTTP client, which is made when it is first needed."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        target: Target,
        method: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] = b"",
    ) -> aiohttp.ClientResponse:
        """Send a request; its answer with the body still to be read. Raises ConnectionError with Go's words."""
        import aiohttp
        import yarl

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=False, keepalive_timeout=30),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_DIAL_TIMEOUT),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        try:
            return await self._session.request(
                method,
                yarl.URL(target.url, encoded=True),
                headers=headers,
                data=body or None,
                ssl=target.tls or False,
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorError as failure:
            raise ConnectionError(dial_error(target, failure.os_error)) from failure
        except TimeoutError as failure:
            raise ConnectionError(dial_error(target, failure)) from failure
        except (aiohttp.ClientError, OSError) as failure:
            raise ConnectionError(str(failure) or type(failure).__name__) from failure

    async def forward(self, request: Request, target: Target) -> Answer:
        """Answer `request` with the target's answer. Raises StatusError 503 where it cannot be reached."""
        if "upgrade" in request.headers.get("connection", "").lower() and "upgrade" in request.headers:
            return await self.tunnel(request, target, _sent(request))
        if not target.path and request.method in ("GET", "HEAD"):
            # Relative links only work below a path that ends in a slash.
            query = f"?{target.query}" if target.query else ""
            return Response(301, b"", "", [("Location", f"{request.raw_path}/{query}")])
        headers = _sent(request)
        headers["Accept-Encoding"] = request.headers.get("accept-encoding", "identity")
        _mark(request, target, headers)
        try:
            answer = await self.request(target, request.method, headers, _body(request, headers))
        except ConnectionError as failure:
            raise unavailable(f"error trying to reach service: {failure}") from failure
        return _returned(request, target, answer)

    async def tunnel(self, request: Request, target: Target, headers: Mapping[str, str]) -> Answer:
        """Ask the target for an upgrade; if it agrees, the connection is its own from then on. What it answers instead
        is returned as it is. Raises StatusError 500 where it cannot be reached."""
        lines = [f"{request.method} {target.resource} HTTP/1.1", f"Host: {target.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Connection: Upgrade\r\nUpgrade: {request.headers['upgrade']}"]
        lines += [f"Content-Length: {len(request.body)}"] if request.body or request.method == "POST" else []
        head = "\r\n".join(lines) + "\r\n\r\n"
        try:
            async with asyncio.timeout(_DIAL_TIMEOUT):
                reader, writer = await asyncio.open_connection(target.host, target.port, ssl=target.tls)
        except (OSError, TimeoutError) as failure:
            message = f"error dialing backend: {dial_error(target, failure)}"
            raise StatusError(500, "InternalError", message) from failure
        answer = _UpgradeAnswer()
        try:
            writer.write(head.encode("latin-1") + request.body)
            await answer.read(reader)
        except (OSError, EOFError, httptools.HttpParserError) as failure:
            writer.close()
            raise StatusError(500, "InternalError", f"error sending request: {failure}") from failure
        except BaseException:
            writer.close()
            raise
        if answer.status != 101:
            writer.close()
            kept = [(n, v) for n, v in answer.headers if n.lower() not in _NOT_RETURNED | {"content-length"}]
            return Response(answer.status, answer.body, answer.content_type, kept)

        async def run(client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
            client_writer.write(answer.rest)
            upward = asyncio.create_task(pipe(client_reader, writer))
            try:
                await pipe(reader, client_writer)
            finally:
                upward.cancel()
                with suppress(asyncio.CancelledError):
                    await upward
                writer.close()

        kept = [
            (n, v) for n, v in answer.headers if n.lower() not in ("connection", "date", "content-length")
        ]
        return Upgrade(run, kept)


class _UpgradeAnswer:
    """The head (and, if it is no upgrade, the body) of an answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.content_type = ""
        self.body = b""
        self.rest = b""
        self._complete = False
        self._parser = httptools.HttpResponseParser(self)

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Raises EOFError, HttpParserError, OSError."""
        while not self._complete:
            data = await reader.read(CHUNK)
            if not data:
                if self.status and self.headers:
                    return  # A body that ends with the connection.
                raise EOFError("unexpected EOF")
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self.rest = data[upgrade.args[0] :]
                self._complete = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))
        if name.lower() == b"content-type":
            self.content_type = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body = (self.body + body)[:_MAX_ANSWER]

    def on_message_complete(self) -> None:
        self._complete = self.status >= 200 or self.status == 101


def _sent(request: Request) -> dict[str, str]:
    """The client's headers without those of its connection to us and its credentials for us."""
    named = {n.strip().lower() for n in request.headers.get("connection", "").split(",")}
    return {
        name: value
        for name, value in request.headers.items()
        if name not in _NOT_SENT and name not in named and not name.startswith("impersonate-")
    }


def _body(request: Request, headers: dict[str, str]) -> bytes | AsyncIterator[bytes]:
    """The body to send on, as it comes where the server hands it over so."""
    stream = request.body_stream
    if stream is None:
        return request.body
    if length := request.headers.get("content-length"):
        headers["Content-Length"] = length

    async def pieces() -> AsyncIterator[bytes]:
        while data := await stream.read(CHUNK):
            yield data

    return pieces()


def streams_body(method: str, target: str) -> bool:
    """Whether a request's body is passed on as it comes (`HttpServer`'s `stream_body`): those to a proxy subresource."""
    return "/proxy/" in target and (
        target.startswith(("/api/v1/namespaces/", "/api/v1/nodes/", "/api/v1/proxy/"))
    )


def _mark(request: Request, target: Target, headers: dict[str, str]) -> None:
    """Say for whom we ask."""
    before = headers.get("x-forwarded-for", "")
    headers["x-forwarded-for"] = f"{before}, {request.peer_address}" if before else request.peer_address
    headers["x-forwarded-host"] = request.headers.get("host", "")
    headers["x-forwarded-proto"] = "https"
    headers["x-forwarded-uri"] = target.prefix + target.path


def _returned(request: Request, target: Target, answer: aiohttp.ClientResponse) -> Answer:
    content_type = answer.headers.get("Content-Type", "")
    headers = [(n, v) for n, v in answer.headers.items() if n.lower() not in _NOT_RETURNED]
    if location := answer.headers.get("Location"):
        headers = [h for h in headers if h[0].lower() != "location"]
        headers.append(("Location", _rewrite_location(request, target, location)))
    if answer.status in (204, 304):
        answer.release()
        headers = [h for h in headers if h[0].lower() != "content-length"]
        return Response(answer.status, b"", content_type, headers)
    rewriter: _Links | None = None
    encoding = answer.headers.get("Content-Encoding", "identity")
    if target.prefix and content_type.startswith("text/html") and encoding in ("identity", "gzip", "deflate"):
        rewriter = _Links(target.prefix, encoding)
        headers = [h for h in headers if h[0].lower() not in ("content-length", "content-encoding")]

    async def send(stream: Stream) -> None:
        import aiohttp

        async with answer:
            try:
                async for chunk in answer.content.iter_any():
                    stream.write(rewriter.feed(chunk) if rewriter else chunk)
                    await stream.drain()
            except (aiohttp.ClientError, OSError, TimeoutError, zlib.error) as failure:
                raise ConnectionError(f"the answer of {target.authority} broke off: {failure}") from failure
            if rewriter:
                stream.write(rewriter.end())

    return StreamingResponse(send, answer.status, content_type, headers)


def _rewrite_location(request: Request, target: Target, location: str) -> str:
    parts = urlsplit(location)
    ours = parts.netloc in (target.authority, target.host, request.headers.get("host", ""))
    if not target.prefix or (parts.netloc and not ours) or not parts.path.startswith("/"):
        return location
    rest = parts._replace(scheme="", netloc="").geturl()
    return rest if rest.startswith(target.prefix + "/") else target.prefix + rest


_LINK = re.compile(
    rb"""(\s(?:action|background|cite|classid|codebase|data|formaction|href|icon|longdesc|manifest|poster|profile|src|usemap)"""
    rb"""\s*=\s*["']?)(/(?!/)[^"'\s>]*)""",
    re.IGNORECASE,
)


class _Links:
    """Puts `prefix` before the absolute paths in a page's links, piece by piece."""

    def __init__(self, prefix: str, encoding: str) -> None:
        self._prefix = prefix.encode("latin-1")
        self._unpack: Any = None if encoding == "identity" else zlib.decompressobj(47)
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        text = self._rest + (data if self._unpack is None else self._unpack.decompress(data))
        end = text.rfind(b">") + 1
        if not end and len(text) > CHUNK:
            end = len(text)  # No tag is that long.
        self._rest = text[end:]
        return _LINK.sub(self._link, text[:end])

    def end(self) -> bytes:
        rest, self._rest = self._rest, b""
        return _LINK.sub(self._link, rest)

    def _link(self, found: re.Match[bytes]) -> bytes:
        start, path = found.groups()
        return start + path if path.startswith(self._prefix + b"/") else start + self._prefix + path


def split_scheme_name_port(
    text: str, schemes: Sequence[str] = ("", "http", "https")
) -> tuple[str, str, str] | None:
    """`name`, `name:port` or `scheme:name:port` (scheme and port may be empty) as scheme, name, port; None if it is
    none of them."""
    parts = text.split(":")
    if len(parts) == 1:
        scheme, name, port = "", parts[0], ""
    elif len(parts) == 2:
        scheme, name, port = "", parts[0], parts[1]
    elif len(parts) == 3:
        scheme, name, port = parts
    else:
        return None
    return (scheme, name, port) if name and scheme in schemes else None
