"""A Gateway on a real HAProxy, and routes for it written briefly."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from sampan.api.errors import Object
from sampan.ingress import gateways
from sampan.ingress.types import ServicePort
from tests.ingress.door import Answer, Door, Upstream, free_ports, open_door, parse
from tests.ingress.gateway_objects import Cluster, gateway, rule, service, tls_secret

NAMES = ("s", "t", "u", "v", "w")


class Place:
    """A door with a Gateway, asked at the port of its first listener; the Services s, t, u, v and w, each with one endpoint."""

    def __init__(self, door: Door, cluster: Cluster, ports: dict[int, int]) -> None:
        self.door, self.cluster, self.ports = door, cluster, ports

    async def have(self, *routes: Object) -> None:
        for route in routes:
            meta = route["metadata"]
            state = self.cluster.route(route)
            self.door.table.update((route["kind"], meta["namespace"], meta["name"]), state.contribution)
        await self.door.settle()

    async def who(
        self, path: str, *headers: str, host: str = "a.example.com", method: str = "GET", port: int = 0
    ) -> str:
        """The name of the backend that answers, or the status."""
        self.door.port = self.ports[port] if port else self.door.port
        answer = await self.door.get(host, path, *headers, method=method)
        return answer.body.split("\n")[0] if answer.status == 200 else str(answer.status)

    async def secure(self, name: str, path: str, host: str) -> Answer:
        """The answer over TLS to who asks for a certificate for `name`."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.ports[443], ssl=context, server_hostname=name
        )
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            async with asyncio.timeout(10):
                return parse((await reader.read(-1)).decode(errors="replace"))
        finally:
            writer.close()


@asynccontextmanager
async def place(directory: Path, *listeners: Object) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(open_door(directory))
        pair = tls_secret("infra", "pair", "example.org")
        cluster = Cluster([gateway(*listeners)], [service(name) for name in NAMES], [pair])
        for name in NAMES:
            up = await stack.enter_async_context(Upstream(name))
            door.table.set_endpoints(ServicePort("infra", name, 80), [up.endpoint])
        asked = dict.fromkeys(one["port"] for one in cluster.gateways[0]["spec"]["listeners"])
        ports = dict(zip(asked, free_ports(len(asked)), strict=True))
        door.port = next(iter(ports.values()))
        made_for_it = {"spec": {"ports": [{"port": p, "nodePort": own} for p, own in ports.items()]}}
        door.table.update(("Gateway", "infra", "g"), gateways.contribution(cluster.state(), made_for_it))
        yield Place(door, cluster, ports)


def to(backend: str, *matches: Object, **more: object) -> Object:
    return rule({"name": backend, "port": 80}, matches=list(matches) or [{}], **more)


def path(value: str, kind: str = "PathPrefix", **more: object) -> Object:
    return {"path": {"type": kind, "value": value}, **more}
