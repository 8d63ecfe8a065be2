"""Health check node ports: what a load balancer in front of the nodes asks to find out which of them have endpoints.

Each Service of type LoadBalancer with externalTrafficPolicy Local has such a port, on every node. The answer is upstream's
(`pkg/proxy/healthcheck/service_health.go`).
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sampan.api.errors import Object
from sampan.api.service_fields import needs_health_check_node_port
from sampan.proxy.services import family_of
from sampan.transport.http import HttpServer
from sampan.transport.types import Request, Response

log = logging.getLogger(__name__)

NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
WEIGHT = "X-Load-Balancing-Endpoint-Weight"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What one Service wants: a port, and how many of its endpoints of each family are ready on this node."""

    port: int
    local_endpoints: Mapping[str, int] = field(default_factory=dict)


def wanted(service: Object, counts: Callable[[], Mapping[str, int]]) -> HealthCheck | None:
    """The health check of a Service, None for one without. `counts` is only asked where there is one."""
    port = service["spec"].get("healthCheckNodePort")
    if not port or not needs_health_check_node_port(service):
        return None
    return HealthCheck(port, counts())


class HealthChecks:
    """Listens for every Service that has a health check port, on each of `addresses`.

    `healthy` is the proxy's own health. `failed` is told of a Service (`ns/name`) whose port could not be listened on, and
    why; it is tried again at the next `update`.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        healthy: Callable[[], bool],
        failed: Callable[[str, int, OSError], None] = lambda key, port, error: None,
    ) -> None:
        self._addresses = addresses
        self._healthy = healthy
        self._failed = failed
        self._wanted: dict[str, HealthCheck] = {}
        self._servers: dict[str, tuple[int, list[HttpServer]]] = {}
        self._missing: set[str] = set()

    async def update(self, changes: Mapping[str, HealthCheck | None]) -> None:
        """Set what the Services in `changes` want; None: nothing any more."""
        for key, wish in changes.items():
            if wish is not None:
                self._wanted[key] = wish
            else:
                self._wanted.pop(key, None)
                self._missing.discard(key)
        # What ends comes first: another Service may have got its port.
        for key in changes:
            open_one = self._servers.get(key)
            if open_one is not None and ((now := self._wanted.get(key)) is None or now.port != open_one[0]):
                del self._servers[key]
                await _close(open_one[1])
        for key in [k for k in (*changes, *self._missing) if k in self._wanted and k not in self._servers]:
            await self._open(key, self._wanted[key].port)

    async def close(self) -> None:
        for _, servers in self._servers.values():
            await _close(servers)
        self._servers.clear()

    async def _open(self, key: str, port: int) -> None:
        servers: list[HttpServer] = []
        try:
            for address in self._addresses:
                answer = functools.partial(self._answer, key, family_of(address))
                servers.append(HttpServer(answer, max_body=0, name="health check"))
                await servers[-1].listen(address, port)
        except OSError as e:
            await _close(servers)
            log.warning("the health check port %d of Service %s: %s", port, key, e)
            if key not in self._missing:
                self._failed(key, port, e)
            self._missing.add(key)
            return
        self._missing.discard(key)
        self._servers[key] = (port, servers)

    def _answer(self, key: str, family: str, request: Request) -> Response:
        check, healthy = self._wanted.get(key), self._healthy()
        count = check.local_endpoints.get(family, 0) if check is not None else 0
        namespace, _, name = key.partition("/")
        body = {
            "service": {"namespace": namespace, "name": name},
            "localEndpoints": count,
            "serviceProxyHealthy": healthy,
        }
        return Response(
            200 if count and healthy else 503,
            json.dumps(body, indent="\t").encode(),
            headers=(NO_SNIFFING, (WEIGHT, str(count))),
        )


async def _close(servers: Sequence[HttpServer]) -> None:
    for server in servers:
        await server.close(0)
