"""Two API servers on one etcd: whatever they give out at the same time, nobody gets what another has."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.apiserver.app import App
from sampan.store.etcd import open_store
from tests.store.real_etcd import Etcd

from .conftest import Api, config

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")
PATH = "/api/v1/namespaces/default/services"
SMALL = "10.0.0.0/27"


@pytest.fixture
async def servers(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[list[Api]]:
    etcd = Etcd(tmp_path / "etcd")
    await etcd.start()
    stores = [await open_store([etcd.endpoint]) for _ in range(2)]
    apps = [App(store, config(**getattr(request, "param", {}))) for store in stores]
    for app in apps:
        await app.start()
    yield [Api(app, store, tmp_path) for app, store in zip(apps, stores, strict=True)]  # type: ignore[arg-type]
    for app, store in zip(apps, stores, strict=True):
        await app.close()
        await store.close()
    await etcd.kill()


def service(name: str, kind: str = "ClusterIP", node_port: int = 0, **spec: Any) -> Object:
    port = {"port": 80, **({"nodePort": node_port} if node_port else {})}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"type": kind, "ports": [port], **spec}}  # fmt: skip


async def held(api: Api) -> tuple[set[str], set[int]]:
    """What the store says is taken."""
    await api.store.catch_up()
    found = await api.ok("GET", "/apis/networking.k8s.io/v1/ipaddresses")
    ports = await api.app._allocator.node_ports.read()
    return {a["metadata"]["name"] for a in found["items"]}, set(ports or ())


async def test_one_of_fifty_wins(servers: list[Api]) -> None:
    wishes = [
        [service(f"ip{i}", clusterIP="10.96.0.77", clusterIPs=["10.96.0.77"]) for i in range(50)],
        [service(f"port{i}", "NodePort", 30777) for i in range(50)],
    ]
    for bodies in wishes:
        replies = await asyncio.gather(*(servers[i % 2]("POST", PATH, b) for i, b in enumerate(bodies)))
        assert Counter(r.status for r in replies) == {201: 1, 422: 49}
    addresses, ports = await held(servers[0])
    services = (await servers[0].ok("GET", "/api/v1/services"))["items"]
    assert addresses == {s["spec"]["clusterIP"] for s in services}, "the losers hold nothing"
    assert ports == {30777}


async def test_each_gets_its_own_and_gives_it_back_to_either(servers: list[Api]) -> None:
    names = [f"s{i}" for i in range(100)]
    made = await asyncio.gather(
        *(servers[i % 2].ok("POST", PATH, service(n, "NodePort")) for i, n in enumerate(names))
    )
    assert len({m["spec"]["clusterIP"] for m in made}) == 100
    assert len({m["spec"]["ports"][0]["nodePort"] for m in made}) == 100
    for api in servers:
        await api.store.catch_up()
    await asyncio.gather(*(servers[1 - i % 2].ok("DELETE", f"{PATH}/{n}") for i, n in enumerate(names)))
    assert await held(servers[0]) == ({"10.96.0.1"}, set())


@pytest.mark.parametrize(
    "servers", [{"service_cidrs": (SMALL,), "node_port_range": (30000, 30019)}], indirect=True
)
async def test_the_last_ones_are_given_once(servers: list[Api]) -> None:
    replies = await asyncio.gather(*(servers[i % 2]("POST", PATH, service(f"s{i}")) for i in range(40)))
    given = [r.json["spec"]["clusterIP"] for r in replies if r.status == 201]
    assert len(given) == len(set(given)) == 29, "thirty addresses, of which the API has one"
    assert {r.json["message"] for r in replies if r.status != 201} == {
        "Internal error occurred: failed to allocate a serviceIP: range is full"
    }
    for name in [r.json["metadata"]["name"] for r in replies if r.status == 201]:
        await servers[0].ok("DELETE", f"{PATH}/{name}")
    await servers[1].store.catch_up()
    more = await asyncio.gather(*(servers[i % 2]("POST", PATH, service(f"p{i}", "NodePort")) for i in range(25)))  # fmt: skip
    ports = [r.json["spec"]["ports"][0]["nodePort"] for r in more if r.status == 201]
    assert len(ports) == len(set(ports)) == 20
    addresses, taken = await held(servers[0])
    assert (len(addresses), len(taken)) == (21, 20), "who got no port gave the address back"
