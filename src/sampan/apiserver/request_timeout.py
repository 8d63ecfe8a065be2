"""How long a request may take, and what becomes of one that takes longer.

Upstream: `k8s.io/apiserver/pkg/endpoints/filters/request_deadline.go` and `server/filters/timeout.go`. Unlike there, a write
that has begun is always carried through, whether its time is over or its sender has gone: who reserved something for it is told
how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable

from sampan.api.errors import StatusError, bad_request, show
from sampan.apiserver.subresources import CONNECT
from sampan.apiserver.types import RequestInfo
from sampan.transport.types import Answer, Request

_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class RequestTimeouts:
    """One a server. `most` is what a request may take at most, in seconds; it may ask for less."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._writing = 0
        self._none_writing: asyncio.Future[None] | None = None

    def allotted(self, request: Request, info: RequestInfo) -> float | None:
        """Seconds that a request may take; None for one that goes on. Raises StatusError 400."""
        if info.verb == "watch" or info.subresource in CONNECT:
            return None
        if "timeout" not in request.target or not (text := request.param("timeout")):
            return self._most
        try:
            asked = duration(text)
        except ValueError as problem:
            raise bad_request(f"invalid timeout specified in the request URL - {problem}") from None
        return asked if 0 < asked < self._most else self._most

    def within(
        self, seconds: float, request: Request, info: RequestInfo, later: Awaitable[Answer]
    ) -> Awaitable[Answer]:
        """The answer. If it does not come in time: a read ends, with StatusError 504 raised; a write is answered so, and goes
        on."""
        if info.verb in _WRITES:
            request.carried_through = True
            return self._carry_through(seconds, request, later)
        return self._read(seconds, later)

    @staticmethod
    async def _read(seconds: float, later: Awaitable[Answer]) -> Answer:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await later
        except TimeoutError:
            if limit.expired():
                raise _too_late() from None
            raise

    async def _carry_through(self, seconds: float, request: Request, later: Awaitable[Answer]) -> Answer:
        timer = asyncio.get_running_loop().call_later(seconds, _give_up, request)
        self._writing += 1
        try:
            return await later
        finally:
            timer.cancel()
            self._writing -= 1
            if not self._writing and self._none_writing is not None and not self._none_writing.done():
                self._none_writing.set_result(None)

    async def written(self, grace: float) -> None:
        """Wait up to `grace` seconds for the writes that are under way."""
        if self._writing:
            self._none_writing = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._none_writing


def _give_up(request: Request) -> None:
    if request.give_up is not None:
        request.give_up(_too_late())


def _too_late() -> StatusError:
    return StatusError(504, "Timeout", "Timeout: request did not complete within the allotted timeout")


def duration(text: str) -> float:
    """Seconds in a duration as Go writes it (`1m30s`). Raises ValueError in Go's words."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None or not part[1].isascii():
            raise ValueError(f"time: invalid duration {show(text)}")
        number, unit = part.groups()
        if not unit:
            raise ValueError(f"time: missing unit in duration {show(text)}")
        if unit not in _SECONDS:
            raise ValueError(f"time: unknown unit {show(unit)} in duration {show(text)}")
        total += float(number) * _SECONDS[unit]
        at = part.end()
    if not rest or total >= 2**63 / 1e9:
        raise ValueError(f"time: invalid duration {show(text)}")
    return sign * total
