"""The allocation controller on a real API server core: what users write, and what they read then."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sampan.api import address_ranges
from sampan.api.errors import Object, StatusError
from sampan.api.resources import EVENTS, IPADDRESSPOOLS, SERVICES
from sampan.apiserver.app import App
from sampan.client.types import MERGE_PATCH
from sampan.loadbalancer.controller import LoadBalancerController
from sampan.loadbalancer.requests import FINALIZER, FROM_POOL
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config
from tests.controllers.conftest import Cluster, api, running, service

__all__ = ["api"]
RANGE = "192.0.2.200-192.0.2.202"


@contextlib.asynccontextmanager
async def controlled(client: Any, *ranges: str) -> AsyncIterator[Cluster]:
    async with running(LoadBalancerController(client, ranges or (RANGE,)).run()):
        yield Cluster(client)


@pytest.fixture
async def cluster(api: Any) -> AsyncIterator[Cluster]:
    async with controlled(api) as made:
        yield made


def wanted(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    made = service(name, type="LoadBalancer", **spec)
    made["metadata"]["annotations"] = annotations or {}
    return made


def shown(found: Object) -> list[str]:
    ingress = (found.get("status") or {}).get("loadBalancer", {}).get("ingress") or []
    assert all(point["ipMode"] == "VIP" for point in ingress)
    return [point["ip"] for point in ingress]


async def has(cluster: Cluster, name: str, *addresses: str) -> Object:
    """Wait until a Service shows these addresses."""

    def holds(all_: list[Object]) -> bool:
        return any(s["metadata"]["name"] == name and shown(s) == list(addresses) for s in all_)

    found = await cluster.until(SERVICES, holds)
    return next(s for s in found if s["metadata"]["name"] == name)


async def make(cluster: Cluster, name: str, *addresses: str, **more: Any) -> Object:
    await cluster.client.create(SERVICES, wanted(name, **more))
    return await has(cluster, name, *addresses)


async def patch(cluster: Cluster, name: str, change: Object) -> None:
    await cluster.client.patch(SERVICES, "default", name, change, content_type=MERGE_PATCH)


def pool(name: str, *ranges: str, **spec: Any) -> Object:
    return {
        "apiVersion": "loadbalancer.sampan.io/v1",
        "kind": "IPAddressPool",
        "metadata": {"name": name},
        "spec": {"addresses": list(ranges), **spec},
    }


async def counted(cluster: Cluster, name: str, assigned: int, available: int) -> None:
    def holds(all_: list[Object]) -> bool:
        return any(
            p["metadata"]["name"] == name
            and (p.get("status") or {}).get("assignedIPv4") == assigned
            and p["status"]["availableIPv4"] == available
            for p in all_
        )

    await cluster.until(IPADDRESSPOOLS, holds, "")


async def test_a_service_gets_an_address_and_gives_it_back(cluster: Cluster) -> None:
    made = await make(cluster, "a", "192.0.2.200")
    assert made["metadata"]["finalizers"] == [FINALIZER]
    assert made["metadata"]["annotations"][FROM_POOL] == "default"
    event = await cluster.event("IPAllocated")
    assert event["message"] == 'Assigned IP ["192.0.2.200"]'
    assert event["involvedObject"]["name"] == "a"
    await counted(cluster, "default", 1, 2)
    await make(cluster, "b", "192.0.2.201")
    await cluster.client.delete(SERVICES, "default", "a")
    await cluster.until(SERVICES, lambda all_: {s["metadata"]["name"] for s in all_} == {"b", "kubernetes"})
    await make(cluster, "c", "192.0.2.200")
    await counted(cluster, "default", 2, 1)


async def test_another_type_gives_the_address_back_and_the_type_again_brings_one(cluster: Cluster) -> None:
    await make(cluster, "a", "192.0.2.200")
    await patch(cluster, "a", {"spec": {"type": "ClusterIP"}})
    found = await cluster.until(SERVICES, lambda all_: not any(s["metadata"].get("finalizers") for s in all_))
    service = next(s for s in found if s["metadata"]["name"] == "a")
    assert shown(service) == []
    assert FROM_POOL not in (service["metadata"].get("annotations") or {})
    await make(cluster, "b", "192.0.2.200")
    await patch(cluster, "a", {"spec": {"type": "LoadBalancer"}})
    await has(cluster, "a", "192.0.2.201")


async def test_an_empty_pool_is_told_and_the_first_in_the_line_gets_what_becomes_free(
    cluster: Cluster,
) -> None:
    for i, name in enumerate("abc"):
        await make(cluster, name, f"192.0.2.20{i}")
    for name in ("first", "second"):
        await make(cluster, name)
        message = f'Failed to allocate IP for "default/{name}": no available IPs'
        event = await cluster.event("AllocationFailed", message)
        assert event["type"] == "Warning"
        assert "default (192.0.2.200-192.0.2.202)" in event["message"]
    await cluster.client.delete(SERVICES, "default", "b")
    await has(cluster, "first", "192.0.2.201")
    await cluster.client.delete(SERVICES, "default", "a")
    await has(cluster, "second", "192.0.2.200")


async def test_a_pool_that_is_made_later_serves_those_who_wait(cluster: Cluster) -> None:
    await make(cluster, "a", annotations={"metallb.io/address-pool": "more"})
    await cluster.event("AllocationFailed", 'unknown pool "more"')
    await cluster.client.create(IPADDRESSPOOLS, pool("more", "198.51.100.0/30", avoidBuggyIPs=True))
    await has(cluster, "a", "198.51.100.1")
    await counted(cluster, "more", 1, 2)
    # One that loses the range takes the address away.
    await cluster.client.patch(IPADDRESSPOOLS, "", "more", {"spec": {"addresses": ["203.0.113.0/30"]}})
    await has(cluster, "a", "203.0.113.1")
    await cluster.event("ClearAssignment", "not allowed by config")
    await cluster.client.delete(IPADDRESSPOOLS, "", "more")
    await has(cluster, "a")


async def test_wishes_for_addresses(cluster: Cluster) -> None:
    await make(cluster, "a", "192.0.2.202", loadBalancerIP="192.0.2.202")
    noted = {"metallb.io/loadBalancerIPs": "192.0.2.201"}
    await make(cluster, "b", "192.0.2.201", annotations=noted)
    await make(cluster, "c", loadBalancerIP="192.0.2.201")
    await cluster.event("AllocationFailed", "address also in use by default/b")
    # What b leaves is what c waits for.
    await patch(cluster, "b", {"metadata": {"annotations": {"metallb.io/loadBalancerIPs": "192.0.2.200"}}})
    await has(cluster, "b", "192.0.2.200")
    await has(cluster, "c", "192.0.2.201")
    await make(cluster, "d", annotations=noted, loadBalancerIP="192.0.2.201")
    await cluster.event("AllocationFailed", "can not have both")


async def test_an_address_is_shared_by_annotation(cluster: Cluster) -> None:
    key = {"metallb.io/allow-shared-ip": "k"}
    await make(cluster, "a", "192.0.2.200", annotations=key)
    await make(cluster, "b", "192.0.2.200", annotations=key, ports=[{"port": 443}])
    await make(cluster, "c", "192.0.2.201", annotations=key)
    await make(cluster, "d", annotations=key, ports=[{"port": 443}], loadBalancerIP="192.0.2.200")
    await cluster.event("AllocationFailed", 'port TCP/443 is already in use on "192.0.2.200"')
    await patch(cluster, "b", {"spec": {"ports": [{"port": 8443}]}})
    await has(cluster, "d", "192.0.2.200")
    await counted(cluster, "default", 2, 1)


async def test_addresses_of_nodes_are_in_no_pool(api: Any) -> None:
    reserved = [address_ranges.parse("192.0.2.0-192.0.2.30")]
    async with running(LoadBalancerController(api, ["192.0.2.0/27"], reserved).run()):
        cluster = Cluster(api)
        await make(cluster, "a", "192.0.2.31")
        await counted(cluster, "default", 1, 0)
        await make(cluster, "b", loadBalancerIP="192.0.2.1")
        await cluster.event("AllocationFailed", '["192.0.2.1"] is not allowed in config')


async def test_without_ranges_nobody_gets_an_address_and_who_had_one_loses_it(api: Any) -> None:
    async with controlled(api) as cluster:
        await make(cluster, "a", "192.0.2.200")
    async with running(LoadBalancerController(api).run()):
        await has(Cluster(api), "a")
        await cluster.until(SERVICES, lambda all_: not any(s["metadata"].get("finalizers") for s in all_))
        await api.create(SERVICES, wanted("of-another"))
        status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": "VIP"}]}}}
        await api.patch(SERVICES, "default", "of-another", status, subresource="status")
        await api.delete(SERVICES, "default", "a")
        await has(cluster, "of-another", "192.0.2.9")
    assert not any(e["involvedObject"]["name"] == "of-another" for e in await cluster.all(EVENTS))


async def test_services_of_other_classes_are_left_alone(cluster: Cluster) -> None:
    other = await cluster.client.create(SERVICES, wanted("other", loadBalancerClass="example.com/lb"))
    await make(cluster, "ours", "192.0.2.200", loadBalancerClass="sampan.io/loadbalancer")
    found = await cluster.client.get(SERVICES, "default", "other")
    assert found["metadata"]["resourceVersion"] == other["metadata"]["resourceVersion"]


async def test_addresses_are_kept_over_a_restart(api: Any) -> None:
    async with controlled(api) as cluster:
        await make(cluster, "a", "192.0.2.200")
        await make(cluster, "b", "192.0.2.201")
        await cluster.client.delete(SERVICES, "default", "a")
        await cluster.until(SERVICES, lambda all_: len(all_) == 2)
    # While nobody looks, one goes and one comes.
    await api.create(SERVICES, wanted("c"))
    await patch(cluster, "b", {"spec": {"ports": [{"port": 81}]}})
    async with controlled(api) as cluster:
        await has(cluster, "c", "192.0.2.200")
        await has(cluster, "b", "192.0.2.201")
    events = await cluster.all(EVENTS)
    assert sum(e["involvedObject"]["name"] == "b" for e in events) == 1


async def test_what_went_while_nobody_looked_is_let_go(api: Any) -> None:
    async with controlled(api) as cluster:
        await make(cluster, "a", "192.0.2.200")
        await make(cluster, "b", "192.0.2.201")
    await api.delete(SERVICES, "default", "a")
    await patch(cluster, "b", {"spec": {"type": "ClusterIP"}})
    async with controlled(api) as cluster:
        await cluster.until(
            SERVICES,
            lambda all_: len(all_) == 2 and not any(s["metadata"].get("finalizers") for s in all_),
        )


async def test_the_ranges_of_the_command_line_are_a_pool(api: Any) -> None:
    async with controlled(api, RANGE) as cluster:
        await counted(cluster, "default", 0, 3)
        changed = {"spec": {"addresses": ["192.0.2.1-192.0.2.2"]}}
        await api.patch(IPADDRESSPOOLS, "", "default", changed)
        await counted(cluster, "default", 0, 2)
    async with controlled(api, RANGE) as cluster:
        await make(cluster, "a", "192.0.2.1")
    async with controlled(api, "198.51.100.0/31", "2001:db8::/127") as cluster:
        await has(cluster, "a", "198.51.100.0")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"addresses": []}, "spec.addresses: Required value"),
        ({"addresses": ["192.0.2.1"]}, 'spec.addresses[0]: Invalid value: "192.0.2.1": must be a range'),
        ({"addresses": ["192.0.2.9-192.0.2.1"]}, "must not end before it begins"),
        ({"addresses": ["192.0.2.0/24", "192.0.2.7-192.0.2.9"]}, "spec.addresses[1]: Invalid value"),
        ({"addresses": ["127.0.0.0/30"]}, "must be unicast addresses"),
        ({"addresses": ["192.0.2.0/24"], "serviceAllocation": {"namespaces": ["A_"]}}, "namespaces[0]"),
        ({"addresses": ["192.0.2.0/24"], "autoassign": True}, 'unknown field "spec.autoassign"'),
    ],
)
async def test_a_pool_that_makes_no_sense_is_refused(api: Any, spec: Object, problem: str) -> None:
    with pytest.raises(StatusError) as refused:
        await api.create(IPADDRESSPOOLS, {**pool("p"), "spec": spec})
    assert problem in refused.value.message


async def test_one_address_a_family_in_a_dual_stack_cluster() -> None:
    app = App(MemoryStore(), config(service_cidrs=("10.96.0.0/16", "fd00:1::/108")))
    await app.start()
    client = app.client()
    async with controlled(client, "192.0.2.200-192.0.2.201", "2001:db8::10-2001:db8::11") as cluster:
        await make(cluster, "both", "192.0.2.200", "2001:db8::10", ipFamilyPolicy="RequireDualStack")
        await make(cluster, "six", "2001:db8::11", ipFamilies=["IPv6"])
        # One address is better than none, and the other is had when it is free.
        await make(cluster, "prefers", "192.0.2.201", ipFamilyPolicy="PreferDualStack")
        await cluster.client.delete(SERVICES, "default", "six")
        await cluster.until(SERVICES, lambda all_: not any(s["metadata"]["name"] == "six" for s in all_))
        await patch(cluster, "prefers", {"metadata": {"labels": {"looked": "at"}}})
        await has(cluster, "prefers", "192.0.2.201", "2001:db8::11")
        # One that gives up a family keeps the address of the other.
        present = (await cluster.client.get(SERVICES, "default", "both"))["spec"]["clusterIPs"]
        single = {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": present[:1]}
        await patch(cluster, "both", {"spec": single})
        await has(cluster, "both", "192.0.2.200")
    await app.close()
