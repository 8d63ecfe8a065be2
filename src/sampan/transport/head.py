"""The first lines of an answer, as bytes: status line, Content-Type, Content-Length, Date and the handler's own headers.

Most answers share their head but for the length, so the parts are made once and kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

_REASONS = {int(s): s.phrase for s in HTTPStatus}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"
CLOSE = b"Connection: close\r\n"


@lru_cache(maxsize=256)
def status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n".encode()


@lru_cache(maxsize=512)
def _start(status: int, content_type: str) -> bytes:
    line = status_line(status)
    return line + b"Content-Type: %b\r\n" % _clean(content_type) if content_type else line


def _clean(text: str) -> bytes:
    """A header's name or value for the wire. Raises ValueError where it would end the line."""
    raw = text.encode("latin-1", "replace")
    if b"\r" in raw or b"\n" in raw or b"\0" in raw:
        raise ValueError(f"line break in a response header: {text!r}")
    return raw


class _Date:
    """The Date header, made once a second."""

    def __init__(self) -> None:
        self.second = -1
        self.line = b""

    def __call__(self) -> bytes:
        now = int(time.time())
        if now != self.second:
            self.second = now
            self.line = b"Date: %b\r\n" % formatdate(now, usegmt=True).encode()
        return self.line


date_line = _Date()


def render(
    status: int,
    content_type: str,
    headers: Sequence[tuple[str, str]],
    connection: bytes,
    length: int | None,
) -> bytes:
    """The head up to and including the empty line. `length` None leaves Content-Length out (chunked, 101, 304)."""
    parts = [_start(status, content_type), date_line(), connection]
    for name, value in headers:
        parts.append(b"%b: %b\r\n" % (_clean(name), _clean(value)))
    parts.append(b"\r\n" if length is None else b"Content-Length: %d\r\n\r\n" % length)
    return b"".join(parts)
