"""A speaker on the API core, with an announcer in memory: which addresses fall to its node."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.api.resources import ENDPOINTSLICES, NODES, SERVICES
from sampan.loadbalancer import speaker as speaker_module
from sampan.loadbalancer.election import elect
from sampan.loadbalancer.fake import FakeAnnouncer
from sampan.loadbalancer.heartbeats import Heartbeats, Peer
from sampan.loadbalancer.requests import FROM_POOL
from sampan.loadbalancer.speaker import Speaker
from tests.controllers.conftest import Cluster, api, running, service

__all__ = ["api"]
ADDRESSES = [f"192.0.2.{n}" for n in range(200, 220)]


class FakeHeartbeats:
    """Who is alive is what the test says."""

    last: FakeHeartbeats

    def __init__(self, node: str, address: str, networks: object, changed: Callable[[], None]) -> None:
        self.watched: dict[str, str] = {}
        self.dead: set[str] = set()
        self.changed = changed
        FakeHeartbeats.last = self

    @property
    def peers(self) -> Mapping[str, Peer]:
        return {n: Peer(a, 0, True) for n, a in self.watched.items() if n not in self.dead}

    def set_peers(self, addresses: Mapping[str, str]) -> None:
        self.watched = dict(addresses)

    def close(self) -> None:
        self.watched = {}


@contextlib.asynccontextmanager
async def speaking(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Cluster, FakeAnnouncer]]:
    monkeypatch.setattr(speaker_module, "Heartbeats", FakeHeartbeats)
    announcer = FakeAnnouncer()
    made = Speaker(
        client, node_name="n1", address="192.0.2.1", uplink="", networks=["192.0.2.1/24"], announcer=announcer
    )
    async with running(made.run()):
        yield Cluster(client), announcer


async def node(cluster: Cluster, name: str, address: str, **labels: str) -> None:
    status = {"addresses": [{"type": "InternalIP", "address": address}]}
    metadata = {"name": name, "labels": labels}
    await cluster.client.create(
        NODES, {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}
    )


async def balanced(cluster: Cluster, name: str, *addresses: str, **spec: Any) -> None:
    made = service(name, type="LoadBalancer", **spec)
    made["metadata"]["annotations"] = {FROM_POOL: "default"}
    await cluster.client.create(SERVICES, made)
    ingress = [{"ip": a, "ipMode": "VIP"} for a in addresses]
    status = {"status": {"loadBalancer": {"ingress": ingress}}}
    await cluster.client.patch(SERVICES, "default", name, status, subresource="status")


async def until(announcer: FakeAnnouncer, *addresses: str) -> None:
    wanted = {ipaddress.ip_address(a) for a in addresses}
    async with asyncio.timeout(10):
        while announcer.announced != wanted:
            await asyncio.sleep(0.001)


def falls_to(names: str) -> list[str]:
    """The addresses that node n1 has among these nodes."""
    nodes = names.split()
    return [a for a in ADDRESSES if elect(ipaddress.ip_address(a), nodes) == "n1"]


def test_addresses_spread_and_few_move() -> None:
    many = [ipaddress.ip_address(f"10.0.{a}.{b}") for a in range(4) for b in range(250)]
    three, two = ["a", "b", "c"], ["a", "b"]
    for name in three:
        assert 250 < sum(elect(x, three) == name for x in many) < 420
    assert all(elect(x, two) == elect(x, three) for x in many if elect(x, three) != "c")
    assert elect(many[0], []) == ""


async def test_alone_a_node_announces_all_and_watches_nobody(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with speaking(api, monkeypatch) as (cluster, announcer):
        await balanced(cluster, "a", "192.0.2.200", "2001:db8::1")
        await until(announcer, "192.0.2.200", "2001:db8::1")
        await cluster.event("nodeAssigned", 'announcing from node "n1" with protocol "layer2"')
        assert FakeHeartbeats.last.watched == {}
        other = service("other", type="LoadBalancer")
        await cluster.client.create(SERVICES, other)
        status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}}
        await cluster.client.patch(SERVICES, "default", "other", status, subresource="status")
        await balanced(cluster, "b", "192.0.2.201")
        await until(announcer, "192.0.2.200", "2001:db8::1", "192.0.2.201")
        await cluster.client.delete(SERVICES, "default", "a")
        await until(announcer, "192.0.2.201")
    assert not announcer.announced


def test_a_node_without_a_true_address_is_nobodys_peer() -> None:
    for address, taken in (("192.0.2.2", "192.0.2.2"), ("some.host", ""), ("x" * 64, ""), ("", "")):
        told = {"addresses": [{"type": "InternalIP", "address": address}]}
        assert speaker_module._facts({"metadata": {"name": "n2"}, "status": told}) == ("n2", taken, False)


async def test_nodes_share_the_addresses_and_take_over(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with speaking(api, monkeypatch) as (cluster, announcer):
        await node(cluster, "n1", "192.0.2.1")
        await node(cluster, "n2", "192.0.2.2")
        await node(cluster, "n3", "192.0.2.3")
        assert FakeHeartbeats.last.watched == {}, "nobody is watched where there is no address"
        for i, address in enumerate(ADDRESSES):
            await balanced(cluster, f"s{i}", address)
        await until(announcer, *falls_to("n1 n2 n3"))
        heartbeats = FakeHeartbeats.last
        assert heartbeats.watched == {"n2": "192.0.2.2", "n3": "192.0.2.3"}
        heartbeats.dead.add("n2")
        announcer.told.clear()
        heartbeats.changed()
        await until(announcer, *falls_to("n1 n3"))
        repeated = {line.split()[1] for line in announcer.told if line.startswith("announce")}
        assert repeated == set(falls_to("n1 n3")), "what it had is announced again, for who was cut off"
        heartbeats.dead.add("n3")
        heartbeats.changed()
        await until(announcer, *ADDRESSES)
        heartbeats.dead.clear()
        heartbeats.changed()
        await until(announcer, *falls_to("n1 n2 n3"))
        # A node that is to have none, and one that is no more.
        excluded = {"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}}
        await cluster.client.patch(NODES, "", "n2", excluded)
        await until(announcer, *falls_to("n1 n3"))
        await cluster.client.delete(NODES, "", "n3")
        await until(announcer, *ADDRESSES)


async def test_policy_local_keeps_to_nodes_with_a_ready_endpoint(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with speaking(api, monkeypatch) as (cluster, announcer):
        await node(cluster, "n1", "192.0.2.1")
        await node(cluster, "n2", "192.0.2.2")
        to_me, to_other = falls_to("n1 n2")[0], next(a for a in ADDRESSES if a not in falls_to("n1 n2"))
        await balanced(cluster, "a", to_me, externalTrafficPolicy="Local")
        await balanced(cluster, "b", to_other, externalTrafficPolicy="Local")
        made = await cluster.client.create(ENDPOINTSLICES, endpoints("b", ("n1", True), ("n2", False)))
        await until(announcer, to_other)
        await cluster.client.create(ENDPOINTSLICES, endpoints("a", ("n1", True)))
        await until(announcer, to_me, to_other)

        def both(obj: Object) -> None:
            obj["endpoints"] = endpoints("b", ("n1", True), ("n2", True))["endpoints"]

        await cluster.change(ENDPOINTSLICES, made, both)
        await until(announcer, to_me)


def endpoints(name: str, *found: tuple[str, bool]) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": 80}],
        "endpoints": [
            {"addresses": [f"10.0.0.{i + 1}"], "nodeName": node, "conditions": {"ready": ready}}
            for i, (node, ready) in enumerate(found)
        ],
    }


async def test_heartbeats_end_where_there_is_nobody_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[int] = []
    beats = Heartbeats("a", "127.0.0.1", (), lambda: changes.append(1))
    other = Heartbeats("b", "127.0.0.2", (ipaddress.ip_network("192.0.2.0/24"),), lambda: changes.append(2))
    beats.set_peers({"b": "127.0.0.2"})
    other.set_peers({"a": "127.0.0.1"})
    async with asyncio.timeout(10):
        while not beats.peers or beats.peers["b"].networks is None:
            await asyncio.sleep(0.001)
        assert beats.peers["b"].reaches(ipaddress.ip_address("192.0.2.7"))
        assert not beats.peers["b"].reaches(ipaddress.ip_address("198.51.100.7"))
        other.set_peers({})
        while beats.peers:  # It said goodbye or fell silent.
            await asyncio.sleep(0.001)
    assert other._socket is None
    assert other._timer is None
    beats.close()
