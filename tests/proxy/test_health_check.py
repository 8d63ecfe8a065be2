"""Health check node ports and the proxy's own health, asked over HTTP."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from sampan.api.errors import Object
from sampan.proxy.health_check import HealthCheck, HealthChecks, wanted
from sampan.proxy.server import HEALTHZ_PORT, LATE, Health, ProxyServer

HOST = f"127.78.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""An address of loopback that only this process uses."""


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def balanced(**spec: object) -> Object:
    return {
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30999,
            **spec,
        }
    }


def test_who_has_a_health_check() -> None:
    assert wanted(balanced(), lambda: {"IPv4": 2}) == HealthCheck(30999, {"IPv4": 2})
    for other in ({"type": "NodePort"}, {"externalTrafficPolicy": "Cluster"}, {"healthCheckNodePort": 0}):
        assert wanted(balanced(**other), lambda: pytest.fail("not asked")) is None


async def test_the_answer_is_upstreams(http: aiohttp.ClientSession) -> None:
    well = True
    checks = HealthChecks([HOST], lambda: well)
    await checks.update({"ns/web": HealthCheck(30998, {"IPv4": 2, "IPv6": 9})})
    async with http.get(f"http://{HOST}:30998/") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Load-Balancing-Endpoint-Weight"] == "2"
        assert await answer.text() == (
            '{\n\t"service": {\n\t\t"namespace": "ns",\n\t\t"name": "web"\n\t},\n'
            '\t"localEndpoints": 2,\n\t"serviceProxyHealthy": true\n}'
        )
    well = False
    async with http.get(f"http://{HOST}:30998/healthz") as answer:
        assert (answer.status, (await answer.json())["serviceProxyHealthy"]) == (503, False)
    well = True
    await checks.update({"ns/web": HealthCheck(30998, {})})
    async with http.get(f"http://{HOST}:30998/healthz") as answer:
        assert (answer.status, answer.headers["X-Load-Balancing-Endpoint-Weight"]) == (503, "0")
    # One ends, and another Service gets its port, in one go.
    await checks.update({"ns/b": HealthCheck(30998, {"IPv4": 1}), "ns/web": None})
    async with http.get(f"http://{HOST}:30998/healthz") as answer:
        assert (await answer.json())["service"]["name"] == "b"
    await checks.update({"ns/b": HealthCheck(30997, {"IPv4": 1})})
    assert not listens(30998)
    await checks.close()
    assert not listens(30997)


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex((HOST, port)) == 0


async def test_a_port_that_another_has_is_told_once_and_tried_again(http: aiohttp.ClientSession) -> None:
    told: list[str] = []
    checks = HealthChecks([HOST], lambda: True, lambda key, port, error: told.append(f"{key} {port}"))
    with socket.create_server((HOST, 30996)):
        for _ in range(2):
            await checks.update({"ns/web": HealthCheck(30996, {"IPv4": 1})})
        assert told == ["ns/web 30996"]
    await checks.update({})
    async with http.get(f"http://{HOST}:30996/") as answer:
        assert answer.status == 200
    await checks.close()


async def test_healthz_and_livez(http: aiohttp.ClientSession) -> None:
    now = 1_700_000_000.0
    health = Health(lambda: now)
    server = ProxyServer(health, lambda: b"kubeproxy_x 1\n", [HOST])
    await server.start()

    async def ask(path: str) -> tuple[int, Object]:
        async with http.get(f"http://{HOST}:{HEALTHZ_PORT}{path}") as answer:
            return answer.status, json.loads(await answer.text())

    health.updated()
    health.queued()
    now += LATE - 1
    assert await ask("/healthz") == (200, {
        "lastUpdated": "2023-11-14 22:14:19.000000 +0000 UTC",
        "currentTime": "2023-11-14 22:14:19.000000 +0000 UTC",
        "nodeEligible": True,
    })  # fmt: skip
    now += 1
    code, said = await ask("/livez")
    assert (code, said["lastUpdated"]) == (503, "2023-11-14 22:13:20.000000 +0000 UTC")
    assert (await ask("/healthz"))[0] == 503
    health.updated()
    # A node that is to go takes no new traffic, though its proxy is well.
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
    health.follow_node({"metadata": {}, "spec": {"taints": [taint]}})
    assert (await ask("/healthz"))[0] == 503
    assert await ask("/livez") == (
        200,
        {"lastUpdated": said["currentTime"], "currentTime": said["currentTime"]},
    )
    health.follow_node({"metadata": {}, "spec": {}})
    assert (await ask("/healthz"))[0] == 200
    assert health.answers["/healthz", 503] == 2
    async with http.get(f"http://{HOST}:{HEALTHZ_PORT}/else") as answer:
        assert answer.status == 404
    await server.close()
