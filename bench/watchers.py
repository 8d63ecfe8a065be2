"""Many watches read as cheaply as Python can: the reader must not be what limits the server that is measured.

Bytes are counted, not parsed, but for one event in a hundred, whose `data.t` (seconds since the epoch) tells its lag.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from bench.api import Target

_EVERY = 97
_STAMP = re.compile(rb'"t":"([\d.]+)"')


class Watchers:
    """`async with`: all watches have begun at the start of the block, and are closed at its end."""

    def __init__(self, target: Target, path: str, revision: str, count: int) -> None:
        self.lags: list[float] = []
        self._target = target
        self._path = f"{path}?watch=1&resourceVersion={revision}"
        self._count = count
        self._seen = 0
        self._wanted = 0
        self._enough = asyncio.Event()
        self._watches: list[_Watch] = []

    async def __aenter__(self) -> Self:
        url = urlsplit(self._target.server)
        insecure = ssl.create_default_context()
        insecure.check_hostname = False
        insecure.verify_mode = ssl.CERT_NONE
        request = f"GET {self._path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {self._target.token}\r\n\r\n"
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            _, watch = await loop.create_connection(
                lambda: _Watch(request.encode(), self._saw), url.hostname or "", url.port or 443, ssl=insecure
            )
            self._watches.append(watch)
            await watch.begun.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None
    ) -> None:
        for watch in self._watches:
            watch.close()

    async def wait_for(self, events: int, timeout: float) -> int:
        """How many events were delivered: `events`, or fewer at the timeout."""
        self._wanted = events
        if self._seen < events:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), timeout)
        return self._seen

    def _saw(self, events: int, data: bytes) -> None:
        before = self._seen
        self._seen += events
        if before // _EVERY != self._seen // _EVERY and (stamp := _STAMP.search(data)):
            self.lags.append(time.time() - float(stamp[1]))
        if self._seen >= self._wanted > 0:
            self._enough.set()


class _Watch(asyncio.Protocol):
    """One watch. Its events are the line feeds that no carriage return comes before: those belong to the chunks."""

    def __init__(self, request: bytes, saw: Callable[[int, bytes], None]) -> None:
        self.begun = asyncio.Event()
        self._request = request
        self._saw = saw
        self._last = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.begun.is_set():
            assert data.startswith(b"HTTP/1.1 200"), data[:200].decode()
            self.begun.set()
        joined = self._last + data
        self._last = data[-1:] if data.endswith(b"\r") else b""
        events = joined.count(b"\n") - joined.count(b"\r\n")
        if events:
            self._saw(events, data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
