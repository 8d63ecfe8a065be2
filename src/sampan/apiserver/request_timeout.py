"""How long a request may take, and what becomes of one that takes longer.

Upstream: `k8s.io/apiserver/pkg/endpoints/filters/request_deadline.go` and `server/filters/timeout.go`. Unlike there, a write
that has begun is always carried through, whether its time is over or its sender has gone: who reserved something for it is told
how it ended.
"""

from __future__ import annotations

import asyncio
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
        self._writing: set[asyncio.Task[Answer]] = set()

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

    async def within(self, seconds: float, info: RequestInfo, later: Awaitable[Answer]) -> Answer:
        """The answer, if it comes in time. Raises StatusError 504."""
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                if info.verb not in _WRITES:
                    return await later
                task = asyncio.ensure_future(later)
                assert isinstance(task, asyncio.Task)
                self._writing.add(task)
                task.add_done_callback(self._writing.discard)
                return await asyncio.shield(task)
        except TimeoutError:
            if limit.expired():
                why = "Timeout: request did not complete within the allotted timeout"
                raise StatusError(504, "Timeout", why) from None
            raise

    async def written(self, grace: float) -> None:
        """Wait up to `grace` seconds for the writes that are under way."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=grace)


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
