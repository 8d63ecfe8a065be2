"""The proxy's own HTTP: /healthz and /livez on the node's addresses, /metrics on loopback; kube-proxy's ports and answers.

A load balancer may ask /healthz (port 10256) whether a node takes traffic at all; upstream: `pkg/proxy/healthcheck/proxy_health.go`.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sampan.api.errors import Object
from sampan.proxy.health_check import NO_SNIFFING
from sampan.transport.http import HttpServer
from sampan.transport.types import Request, Response

log = logging.getLogger(__name__)

HEALTHZ_PORT, METRICS_PORT = 10256, 10249
LATE = 60.0
"""Seconds after which a change that is not in the kernel makes a proxy unhealthy."""
_GOING = "ToBeDeletedByClusterAutoscaler"
"""A taint: the node is to go, and must get no new connections."""


class Health:
    """Whether what changes reaches the kernel in time, and whether the node is to get traffic."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._waiting_since: float | None = None
        self._updated = 0.0
        self.node_eligible = True
        self.answers: Counter[tuple[str, int]] = Counter()
        """How often /healthz and /livez answered what, by path and code."""

    def queued(self) -> None:
        """Something changed."""
        if self._waiting_since is None:
            self._waiting_since = self._clock()

    def updated(self) -> None:
        """The kernel has all of it."""
        self._waiting_since = None
        self._updated = self._clock()

    @property
    def healthy(self) -> bool:
        return self._waiting_since is None or self._clock() - self._waiting_since < LATE

    def follow_node(self, node: Object | None) -> None:
        """Take over what a Node says; None: it is gone."""
        taints = (node["spec"] if node is not None else {}).get("taints") or ()
        going = node is None or bool(node["metadata"].get("deletionTimestamp"))
        self.node_eligible = not going and all(t["key"] != _GOING for t in taints)

    def answer(self, path: str) -> Response:
        """What `/healthz` or `/livez` says."""
        now, well = self._clock(), self.healthy
        said: Object = {"lastUpdated": "", "currentTime": _text(now)}
        if path == "/healthz":
            said["nodeEligible"] = self.node_eligible
            well = well and self.node_eligible
        said["lastUpdated"] = _text(now if well else self._updated)
        code = 200 if well else 503
        self.answers[path, code] += 1
        return Response(code, json.dumps(said).encode(), headers=(NO_SNIFFING,))


def _text(seconds: float) -> str:
    """A time as Go prints one."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC")


class ProxyServer:
    """`start` listens; a port that another has is told and done without."""

    def __init__(self, health: Health, metrics: Callable[[], bytes], addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._healthz = HttpServer(functools.partial(_healthz, health), max_body=0, name="proxy health")
        self._metrics = HttpServer(functools.partial(_metrics, metrics), max_body=0, name="proxy metrics")

    async def start(self) -> None:
        places = [(self._healthz, a, HEALTHZ_PORT) for a in self._addresses]
        for server, address, port in (*places, (self._metrics, "127.0.0.1", METRICS_PORT)):
            try:
                await server.listen(address, port)
            except OSError as e:
                log.error("the proxy's port %d on %s: %s", port, address, e)

    async def close(self) -> None:
        await self._healthz.close(0)
        await self._metrics.close(0)


def _healthz(health: Health, request: Request) -> Response:
    if request.path in ("/healthz", "/livez"):
        return health.answer(request.path)
    return Response(404, b"404 page not found\n", "text/plain; charset=utf-8")


def _metrics(metrics: Callable[[], bytes], request: Request) -> Response:
    match request.path:
        case "/metrics":
            return Response(200, metrics(), "text/plain; version=0.0.4; charset=utf-8")
        case "/proxyMode":
            return Response(200, b"nftables", "text/plain; charset=utf-8")
        case "/healthz":
            return Response(200, b"ok", "text/plain; charset=utf-8")
    return Response(404, b"404 page not found\n", "text/plain; charset=utf-8")
