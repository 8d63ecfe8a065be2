"""HTTP/1.1 as the servers here see it: a request with its whole body, and the three kinds of answer.

`sampan.transport.http` implements the server side; `apiserver` and the node's own server are handlers. Streams that
outlive a request (watch, logs) and connections that stop being HTTP (exec, attach, port-forward) are answers too, so
that a handler never touches a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qs, unquote

from sampan.api.errors import StatusError


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The verified client certificate of a connection: who (`common_name`), in which groups (`organizations`)."""

    common_name: str
    organizations: tuple[str, ...]
    not_after: float
    """End of validity, seconds since the epoch."""
    fingerprint: str = ""
    """SHA-256 of the whole certificate, in hexadecimal."""
    uid: str = ""
    """The user's uid, where the subject names one (1.3.6.1.4.1.57683.2)."""


@dataclass(slots=True)
class Request:
    """One request. Header names are lower case; of a repeated header the values are joined with `, `, or, of an
    `Impersonate-` header, with a line break."""

    method: str
    target: str
    """As sent: path, and query after `?`, still percent-encoded."""
    headers: dict[str, str]
    body: bytes = b""
    """The whole body (de-chunked, un-gzipped); larger ones than the server's limit never reach a handler (413)."""
    peer_address: str = ""
    certificate: PeerCertificate | None = None
    body_stream: asyncio.StreamReader | None = None
    """The body as it comes, raw, of those requests that the server was told to hand over early (`body` is empty then);
    what a handler leaves unread costs the connection."""
    carried_through: bool = False
    """Set by a handler: what it does for this request is not cancelled, even if the peer goes."""
    give_up: Callable[[StatusError], None] | None = field(default=None, repr=False)
    """Set by the server for a request that is not answered at once: answers it with an error although the handler is not
    done, whose own answer is dropped."""
    _params: dict[str, list[str]] | None = field(default=None, repr=False)

    @property
    def raw_path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def path(self) -> str:
        raw = self.raw_path
        return unquote(raw) if "%" in raw else raw

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def params(self) -> dict[str, list[str]]:
        """The decoded query."""
        if self._params is None:
            self._params = parse_qs(self.query, keep_blank_values=True) if "?" in self.target else {}
        return self._params

    def param(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        values = self.params.get(name)
        return values[0] if values else default


@dataclass(slots=True)
class Response:
    """A complete answer. A `body` of several parts is written as one; the server adds Content-Length and Date.

    `size` is the length of a body of very many parts, where whoever made it knows: adding up takes time. 0 is unknown.
    """

    status: int
    body: bytes | Sequence[bytes] = b""
    content_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()
    size: int = 0


class Stream(Protocol):
    """The open end of a streamed answer. Writing never blocks: what the peer has not taken yet is `buffered`."""

    def write(self, data: bytes) -> None:
        """Send `data` as one HTTP chunk, at once."""

    def write_framed(self, framed: bytes) -> None:
        """Send bytes that `frame()` already made; lets one encoded event serve every watcher."""

    @property
    def buffered(self) -> int:
        """Bytes written and not yet taken by the kernel."""

    async def drain(self) -> None:
        """Wait until little is buffered (for one producer per stream, e.g. logs). Raises ConnectionError if closed."""

    def close(self) -> None:
        """End the answer properly (last chunk) and keep the connection."""

    def abort(self) -> None:
        """Cut the connection."""

    def on_closed(self, callback: Callable[[], None]) -> None:
        """Have `callback` run once when the stream ends, whoever ends it; at once if it has ended."""


def frame(data: bytes) -> bytes:
    """`data` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(slots=True)
class StreamingResponse:
    """An answer that goes on. `start` is called when the head has been written; where it returns an awaitable, that
    runs as a task of the connection's and is cancelled when the peer goes; the stream is closed when it returns.
    Where it returns None, whoever took the stream closes it. Sent in chunks, unless `headers` carry a Content-Length:
    then exactly that many bytes must be written."""

    start: Callable[[Stream], Awaitable[None] | None]
    status: int = 200
    content_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()


@dataclass(slots=True)
class Upgrade:
    """The connection stops being HTTP: `101 Switching Protocols` with `headers`, then `run` owns both directions; the
    connection closes when it returns."""

    run: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    headers: Sequence[tuple[str, str]] = ()


Answer = Response | StreamingResponse | Upgrade
Handler = Callable[[Request], Answer | Awaitable[Answer]]
"""A handler may answer at once (no task is made: the fast path for reads) or later. What it raises is answered with
500 by the server; a `sampan.api.errors.StatusError` with its Status."""
