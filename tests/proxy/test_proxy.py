"""The proxy follows the API: on a real API server core, with a table that is only written down."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence

import aiohttp
import pytest

from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import ENDPOINTSLICES, EVENTS, NODES, SERVICES, Resource
from sampan.apiserver.app import App
from sampan.client.types import Client
from sampan.proxy.fake import FakeTable
from sampan.proxy.proxy import Proxy
from sampan.proxy.types import Operation
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config
from tests.controllers.conftest import running, service

HOST = f"127.79.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
IP = "10.96.0.77"


class Told(FakeTable):
    """A table that says when it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Event()

    def apply(self, operations: Sequence[Operation]) -> None:
        super().apply(operations)
        self.changed.set()

    async def until(self, holds: Callable[[str], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds(self.dump()):
                self.changed.clear()
                await self.changed.wait()


class Node:
    """A proxy of the node n1, in zone z1, and the API that it follows."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.table = Told()
        self.proxy = Proxy(
            client, node_name="n1", node_addresses=[HOST], pod_cidrs=["10.244.0.0/16"],
            service_cidrs=["10.96.0.0/16"], table=self.table,
        )  # fmt: skip

    async def change(self, resource: Resource, name: str, change: Callable[[Object], object]) -> None:
        namespace = "" if resource is NODES else "default"
        fresh = deep_copy(await self.client.get(resource, namespace, name))
        change(fresh)
        await self.client.update(resource, fresh)

    async def slice(self, name: str, *endpoints: Object) -> None:
        await self.client.create(ENDPOINTSLICES, {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": list(endpoints), "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        })  # fmt: skip


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    app = App(MemoryStore(), config())
    await app.start()
    made = Node(app.client())
    labels = {"topology.kubernetes.io/zone": "z1"}
    await made.client.create(
        NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}}
    )
    async with running(made.proxy.run()):
        yield made
    await app.close()


def endpoint(address: str, node: str = "n1", zone: str = "") -> Object:
    made: Object = {"addresses": [address], "conditions": {"ready": True}, "nodeName": node}
    return {**made, "zone": zone, "hints": {"forZones": [{"name": zone}]}} if zone else made


async def test_another_proxys_service_is_left_to_it(node: Node) -> None:
    await node.slice("web-1", endpoint("10.244.0.2"))
    await node.client.create(SERVICES, service(clusterIP=IP))
    await node.table.until(lambda text: f"{IP}:80/TCP 0 : 10.244.0.2:8080" in text)
    label = {"service.kubernetes.io/service-proxy-name": "other"}
    await node.change(SERVICES, "web", lambda s: s["metadata"].update(labels=label))
    await node.table.until(lambda text: IP not in text)
    await node.change(SERVICES, "web", lambda s: s["metadata"].update(labels={}))
    await node.table.until(lambda text: f"{IP}:80/TCP 0 : 10.244.0.2:8080" in text)


async def test_slices_of_whomever_and_a_service_without_a_selector(node: Node) -> None:
    without = service(clusterIP=IP)
    del without["spec"]["selector"]
    await node.client.create(SERVICES, without)
    await node.slice("by-hand", endpoint("192.0.2.7"))
    await node.slice("by-hand-2", endpoint("192.0.2.8"))
    await node.table.until(lambda text: "192.0.2.7:8080" in text and "192.0.2.8:8080" in text)
    await node.client.delete(ENDPOINTSLICES, "default", "by-hand")
    await node.table.until(lambda text: "192.0.2.7" not in text and "192.0.2.8:8080" in text)


async def test_a_node_that_moves_to_another_zone_sends_its_traffic_there(node: Node) -> None:
    await node.client.create(SERVICES, service(clusterIP=IP))
    await node.slice("web-1", endpoint("10.244.1.2", "n2", "z1"), endpoint("10.244.2.2", "n3", "z2"))
    await node.table.until(lambda text: "10.244.1.2:8080" in text)
    assert "10.244.2.2:8080" not in node.table.dump()
    moved = {"topology.kubernetes.io/zone": "z2"}
    await node.change(NODES, "n1", lambda n: n["metadata"].update(labels=moved))
    await node.table.until(lambda text: "10.244.2.2:8080" in text and "10.244.1.2:8080" not in text)


async def test_a_load_balancers_health_check_follows_the_service(node: Node) -> None:
    await node.slice("web-1", endpoint("10.244.0.2"))
    await node.client.create(
        SERVICES, service(clusterIP=IP, type="LoadBalancer", externalTrafficPolicy="Local")
    )
    made = await node.client.get(SERVICES, "default", "web")
    port = made["spec"]["healthCheckNodePort"]
    node_port = made["spec"]["ports"][0]["nodePort"]
    await node.table.until(lambda text: f"{HOST}:{node_port}/TCP 0 : 10.244.0.2:8080" in text)
    assert await health_check(port, 200) == 1
    await node.change(ENDPOINTSLICES, "web-1", lambda s: s["endpoints"][0].update(nodeName="n2"))
    assert await health_check(port, 503) == 0
    assert f"{HOST}:{node_port}/TCP 0 : 10.244.0.2:8080" not in node.table.dump()
    await node.change(SERVICES, "web", lambda s: s["spec"].update(type="ClusterIP"))
    await health_check(port, None)
    assert f":{node_port}/TCP" not in node.table.dump()


async def health_check(port: int, code: int | None) -> int:
    """Ask until the answer has this code (None: until nobody listens); returns the number of endpoints that it tells."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(10):
        while True:
            try:
                async with http.get(f"http://{HOST}:{port}/healthz") as answer:
                    if answer.status == code:
                        return int((await answer.json())["localEndpoints"])
            except aiohttp.ClientConnectorError:
                if code is None:
                    return 0
            await asyncio.sleep(0)


async def test_two_services_with_one_address_are_an_event(node: Node) -> None:
    for name in ("web", "other"):
        await node.client.create(SERVICES, service(name, externalIPs=["192.0.2.1"]))
        await node.table.until(lambda text: "192.0.2.1:80/TCP" in text)
    async with asyncio.timeout(10):
        async for event in node.client.watch(EVENTS, "default", resource_version="0"):
            if event.object.get("reason") == "AddressConflict":
                break
    assert event.object["involvedObject"]["name"] == "other"
    assert event.object["message"] == (
        "192.0.2.1:80/TCP is Service default/web's on node n1: it leads there until that gives it up"
    )


async def test_a_cluster_address_as_an_external_one_is_an_event_and_no_rule(node: Node) -> None:
    await node.slice("greedy-1", endpoint("10.244.0.2"))
    await node.client.create(SERVICES, service("greedy", externalIPs=["10.96.0.10", "192.0.2.1"]))
    await node.table.until(lambda text: "192.0.2.1:80/TCP" in text)
    assert "10.96.0.10" not in node.table.dump()
    async with asyncio.timeout(10):
        async for event in node.client.watch(EVENTS, "default", resource_version="0"):
            if event.object.get("reason") == "AddressConflict":
                break
    assert event.object["involvedObject"]["name"] == "greedy"
    assert event.object["message"].startswith("10.96.0.10 is of a range of cluster addresses")


async def test_a_health_check_port_that_is_taken_is_an_event_of_the_service(node: Node) -> None:
    server = await asyncio.start_server(lambda r, w: None, HOST, 30999)
    await node.client.create(
        SERVICES,
        service(clusterIP=IP, type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=30999),
    )
    async with asyncio.timeout(10):
        async for event in node.client.watch(EVENTS, "default", resource_version="0"):
            if event.object.get("reason") == "FailedToStartServiceHealthcheck":
                break
    assert event.object["involvedObject"]["kind"] == "Service"
    assert 'node n1 failed to start healthcheck "default/web" on port 30999' in event.object["message"]
    server.close()
