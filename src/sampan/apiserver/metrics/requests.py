"""Counts of requests by what they were about and how they ended.

Upstream: `k8s.io/apiserver/pkg/endpoints/metrics`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import perf_counter

from sampan.apiserver.subresources import CONNECT
from sampan.apiserver.types import RequestInfo
from sampan.client.metrics import Histogram
from sampan.client.types import APPLY_PATCH
from sampan.transport.types import Answer, Request, Response, Stream, StreamingResponse, Upgrade

BOUNDS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
"""Seconds; upstream's."""
_VERBS = {
    "get": "GET",
    "list": "LIST",
    "watch": "WATCH",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETECOLLECTION",
    "post": "POST",
    "put": "PUT",
    "head": "GET",
}
_MUTATING = frozenset({"create", "update", "patch", "delete", "deletecollection"})

Key = tuple[str, str, str, str, str, str, str]
"""Verb, dry run, group, version, resource, subresource, scope: labels in upstream's order."""


class Requests:
    """One a server. A key's figures are found once for each shape of request."""

    def __init__(self) -> None:
        self.codes: dict[Key, dict[int, int]] = {}
        self.durations: dict[Key, Histogram] = {}
        self.long_running: dict[Key, int] = {}
        """Watches and connections that are open now."""
        self.inflight = {"mutating": 0, "readOnly": 0}
        """Requests that are being answered; what is answered at once is never seen here."""
        self._keys: dict[tuple[str, str, str, str, str, bool, bool], Key] = {}

    def key(self, request: Request, info: RequestInfo) -> Key:
        """The labels of a request. `info` is small and the same for all requests of a shape."""
        if not _is_served(info) or "dryRun" in request.target or info.verb == "patch":
            apply = request.headers.get("content-type", "").startswith(APPLY_PATCH)
            return self._make(info, "dryRun" in request.target, info.verb == "patch" and apply)
        shape = (
            info.verb, info.group, info.version, info.plural, info.subresource, bool(info.namespace), bool(info.name),
        )  # fmt: skip
        found = self._keys.get(shape)
        if found is None:
            found = self._keys[shape] = self._make(info, False, False)
        return found

    @staticmethod
    def _make(info: RequestInfo, dry_run: bool, apply: bool) -> Key:
        verb = "APPLY" if apply else _VERBS.get(info.verb, "OTHER")
        if info.subresource in CONNECT:
            verb = "CONNECT"
        if not info.is_resource:
            return verb, "", "", "", "", _path(info.path), ""
        if not _is_served(info):
            # Names that nobody serves must not become label values: anybody could make any number of them.
            return verb, "", "", "", "", "", ""
        scope = "resource" if info.name else "namespace" if info.namespace else "cluster"
        return verb, "All" if dry_run else "", info.group, info.version, info.plural, info.subresource, scope

    def answered(self, key: Key, answer: Answer, began: float) -> None:
        """Count an answer; of one that goes on, its beginning."""
        if isinstance(answer, Response):
            code = answer.status
            histogram = self.durations.get(key)
            if histogram is None:
                histogram = self.durations[key] = Histogram(BOUNDS)
            histogram.observe(perf_counter() - began)
        elif isinstance(answer, StreamingResponse):
            code = answer.status
            self._go_on(key, answer)
        else:
            code = 101
            self._connect(key, answer)
        codes = self.codes.get(key)
        if codes is None:
            codes = self.codes[key] = {}
        codes[code] = codes.get(code, 0) + 1

    def _go_on(self, key: Key, answer: StreamingResponse) -> None:
        start = answer.start

        def counted(stream: Stream) -> Awaitable[None] | None:
            self.long_running[key] = self.long_running.get(key, 0) + 1
            stream.on_closed(lambda: self._ended(key))
            return start(stream)

        answer.start = counted

    def _connect(self, key: Key, answer: Upgrade) -> None:
        run = answer.run

        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.long_running[key] = self.long_running.get(key, 0) + 1
            try:
                await run(reader, writer)
            finally:
                self._ended(key)

        answer.run = counted

    def _ended(self, key: Key) -> None:
        self.long_running[key] -= 1

    @staticmethod
    def kind(info: RequestInfo) -> str:
        return "mutating" if info.verb in _MUTATING else "readOnly"


def _is_served(info: RequestInfo) -> bool:
    resource, subresource = info.resource, info.subresource
    return resource is not None and (not subresource or resource.subresource(subresource) is not None)


def _path(path: str) -> str:
    """The first part of a path that is no resource, if it is one of ours."""
    first = "/" + path.strip("/").partition("/")[0]
    return first if first in _PATHS else ""


_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/metrics", "/version", "/openapi", "/api", "/apis"})
