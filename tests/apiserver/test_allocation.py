"""Addresses and node ports of Services: IPAddress objects and a bitmap in the store."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import IPADDRESSES, SERVICECIDRS, SERVICES
from sampan.apiserver.allocation import ServiceAllocator, node_ports
from sampan.apiserver.allocation.node_ports import Ports
from sampan.apiserver.allocation.repair import Repair
from sampan.apiserver.allocation.types import Taken
from sampan.apiserver.registry import Registry
from sampan.apiserver.watchcache import WatchCache
from sampan.store.memory import MemoryStore

from .conftest import Api
from .fakes import config, make

_uid = itertools.count(1)


def service(name: str = "web", kind: str = "ClusterIP", ports: list[Object] | None = None, **spec: object) -> Object:  # fmt: skip
    spec = {
        "type": kind,
        "selector": {"a": "b"},
        "ports": ports or [{"port": 80, "protocol": "TCP"}],
        **spec,
    }
    return make("Service", name, metadata={"uid": f"uid-{next(_uid)}"}, spec=spec)


def port(number: int, node_port: int = 0, protocol: str = "TCP") -> Object:
    return {"port": number, "protocol": protocol, **({"nodePort": node_port} if node_port else {})}


class Told:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    def event(self, obj: Object, type_: str, reason: str, message: str, *, field_path: str = "") -> None:
        self.events.append((obj["metadata"]["name"], reason, message))


class Server:
    """What one API server has for allocation, on a store that may be another's too."""

    def __init__(self, store: MemoryStore | None = None, **settings: Any) -> None:
        self.store = store or MemoryStore()
        self.cache = WatchCache(self.store)
        self.registry = Registry(self.store, self.cache)
        self.settings = config(**settings)
        self.told = Told()
        self.now = 0.0

    async def start(self) -> Server:
        await self.cache.start()
        self.allocator = ServiceAllocator(self.registry, self.settings)
        self.repair = Repair(self.store, self.cache, self.allocator, self.told, self.told, clock=lambda: self.now)  # type: ignore[arg-type]  # fmt: skip
        if self.cache.get(SERVICECIDRS, "", "kubernetes") is None:
            await self.add_range("kubernetes", *self.settings.service_cidrs)
        return self

    async def add_range(self, name: str, *cidrs: str, **status: object) -> None:
        created = f"2026-01-01T00:00:{len(self.cache.list(SERVICECIDRS)):02}Z"
        obj = make("ServiceCIDR", name, metadata={"creationTimestamp": created}, spec={"cidrs": list(cidrs)}, status=status)  # fmt: skip
        await self.registry.put_new(SERVICECIDRS, obj, dry_run=False)

    async def take(self, obj: Object, old: Object | None = None, *, dry_run: bool = False) -> Object:
        async with self.allocator.allocated(obj, old, dry_run=dry_run):
            pass
        return obj

    async def save(self, obj: Object) -> Object:
        obj["metadata"].setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        await self.registry.put_new(SERVICES, obj, dry_run=False)
        return obj

    def addresses(self) -> set[str]:
        return {a["metadata"]["name"] for a in self.cache.list(IPADDRESSES)}

    async def ports(self) -> set[int]:
        return set(await self.allocator.node_ports.read() or ())

    async def refusal(self, obj: Object, old: Object | None = None) -> StatusError:
        held = (self.addresses(), await self.ports())
        with pytest.raises(StatusError) as e:
            await self.take(obj, old)
        assert (self.addresses(), await self.ports()) == held, "a refusal takes nothing"
        return e.value


async def server(**settings: object) -> Server:
    return await Server(**settings).start()  # type: ignore[arg-type]


async def test_a_cluster_ip_comes_from_the_upper_band() -> None:
    s = await server()
    for i in range(300):
        spec = (await s.take(service(f"s{i}")))["spec"]
        assert (spec["clusterIPs"], spec["ipFamilies"]) == ([spec["clusterIP"]], ["IPv4"])
        assert spec["ipFamilyPolicy"] == "SingleStack"
        a, b, c, d = map(int, spec["clusterIP"].split("."))
        assert (a, b) == (10, 96)
        assert c * 256 + d > 256
    assert len(s.addresses()) == 300


async def test_an_address_is_an_object_that_says_whose_it_is() -> None:
    s = await server()
    made = await s.take(service())
    address = s.cache.get(IPADDRESSES, "", made["spec"]["clusterIP"])
    assert address is not None
    meta = address["metadata"]
    assert meta["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    assert address["spec"] == {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}
    assert [m["manager"] for m in meta["managedFields"]] == ["kube-apiserver"]
    await s.allocator.release(service("other", clusterIP=meta["name"]))
    assert s.addresses() == {meta["name"]}, "what is another's stays"
    await s.allocator.release(made)
    assert s.addresses() == set()


async def test_what_is_asked_for() -> None:
    s = await server()
    await s.take(service(clusterIP="10.96.0.5", clusterIPs=["10.96.0.5"]))
    again = service("other", clusterIP="10.96.0.5", clusterIPs=["10.96.0.5"])
    assert (await s.refusal(again)).message == (
        'Service "other" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.5"]: '
        "failed to allocate IP 10.96.0.5: provided IP is already allocated"
    )
    for outside in ("10.97.0.1", "10.96.0.0", "10.96.255.255"):
        error = await s.refusal(service(clusterIPs=[outside], clusterIP=outside))
        assert f"failed to allocate IP {outside}: the provided network does not match the current range" in error.message  # fmt: skip


async def test_headless_and_external_name() -> None:
    s = await server()
    headless = await s.take(service(clusterIP="None"))
    assert (headless["spec"]["clusterIP"], headless["spec"]["clusterIPs"]) == ("None", ["None"])
    assert headless["spec"]["ipFamilies"] == ["IPv4"]
    bare = await s.take(service(clusterIP="None", selector=None))
    assert (bare["spec"]["ipFamilyPolicy"], bare["spec"]["ipFamilies"]) == (
        "RequireDualStack",
        ["IPv4", "IPv6"],
    )
    external = await s.take(service(kind="ExternalName", externalName="example.org"))
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & set(external["spec"])
    assert not s.addresses()


async def test_families_that_the_cluster_has_not() -> None:
    s = await server()
    error = await s.refusal(service(ipFamilyPolicy="RequireDualStack"))
    assert "this cluster is not configured for dual-stack services" in error.message
    error = await s.refusal(service(ipFamilies=["IPv6"]))
    assert 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster' in error.message
    either = await s.take(service(ipFamilyPolicy="PreferDualStack"))
    assert either["spec"]["ipFamilies"] == ["IPv4"]


BOTH: Object = {"service_cidrs": ("10.96.0.0/16", "fd00:96::/112")}


def families_of(obj: Object) -> tuple[str, list[str], list[str]]:
    """Its policy, its families, and those of its addresses."""
    spec = obj["spec"]
    assert spec["clusterIP"] == spec["clusterIPs"][0]
    found = ["IPv6" if ":" in ip else "IPv4" for ip in spec["clusterIPs"] if ip != "None"]
    return spec["ipFamilyPolicy"], spec["ipFamilies"], found


@pytest.mark.parametrize(
    ("asked", "policy", "families"),
    [
        ({}, "SingleStack", ["IPv4"]),
        ({"ipFamilies": ["IPv6"]}, "SingleStack", ["IPv6"]),
        ({"ipFamilyPolicy": "PreferDualStack"}, "PreferDualStack", ["IPv4", "IPv6"]),
        ({"ipFamilyPolicy": "RequireDualStack"}, "RequireDualStack", ["IPv4", "IPv6"]),
        (
            {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]},
            "RequireDualStack",
            ["IPv6", "IPv4"],
        ),
        (
            {"ipFamilyPolicy": "PreferDualStack", "clusterIPs": ["fd00:96::77"], "clusterIP": "fd00:96::77"},
            "PreferDualStack",
            ["IPv6", "IPv4"],
        ),
        ({"clusterIPs": ["fd00:96::78"], "clusterIP": "fd00:96::78"}, "SingleStack", ["IPv6"]),
    ],
)
async def test_families_of_a_cluster_with_two(asked: Object, policy: str, families: list[str]) -> None:
    s = await server(**BOTH)
    made = await s.take(service(**asked))
    assert families_of(made) == (policy, families, families)
    assert s.addresses() == set(made["spec"]["clusterIPs"])
    for ip in asked.get("clusterIPs", ()):
        assert made["spec"]["clusterIP"] == ip
    await s.allocator.release(made)
    assert not s.addresses()


async def test_headless_of_two_families_has_no_addresses() -> None:
    s = await server(**BOTH)
    made = await s.take(service(clusterIP="None", ipFamilyPolicy="PreferDualStack"))
    assert families_of(made) == ("PreferDualStack", ["IPv4", "IPv6"], [])
    assert not s.addresses()


async def test_a_service_goes_up_to_two_families_and_down_again() -> None:
    s = await server(**BOTH)
    single = await s.take(service())
    up = deep_copy(single)
    up["spec"]["ipFamilyPolicy"] = "PreferDualStack"
    await s.take(up, single)
    assert families_of(up) == ("PreferDualStack", ["IPv4", "IPv6"], ["IPv4", "IPv6"])
    assert up["spec"]["clusterIP"] == single["spec"]["clusterIP"]
    assert s.addresses() == set(up["spec"]["clusterIPs"])
    # Neither comes by itself: only the policy releases.
    less = deep_copy(up)
    del less["spec"]["clusterIPs"][1]
    error = await s.refusal(less, up)
    assert (
        "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary cluster IP"
        in error.message
    )
    down = deep_copy(up)
    down["spec"]["ipFamilyPolicy"] = "SingleStack"
    await s.take(down, up)
    assert families_of(down) == ("SingleStack", ["IPv4"], ["IPv4"])
    assert s.addresses() == set(single["spec"]["clusterIPs"])


async def test_preferring_two_families_changes_nothing_when_the_cluster_got_a_second() -> None:
    one = await server()
    before = await one.take(service(ipFamilyPolicy="PreferDualStack"))
    assert families_of(before) == ("PreferDualStack", ["IPv4"], ["IPv4"])
    two = await Server(one.store, **BOTH).start()
    await two.add_range("six", "fd00:96::/112")
    after = deep_copy(before)
    after["spec"]["selector"] = {"c": "d"}
    await two.take(after, before)
    assert families_of(after) == ("PreferDualStack", ["IPv4"], ["IPv4"])


async def test_one_of_two_addresses_that_cannot_be_had_gives_the_other_back() -> None:
    s = await server(service_cidrs=("10.96.0.0/16", "fd00:96::/127"))
    error = await s.refusal(
        service(
            ipFamilyPolicy="RequireDualStack", clusterIPs=["10.96.0.9", "fd00:97::1"], clusterIP="10.96.0.9"
        )
    )
    assert (
        "failed to allocate IP fd00:97::1: the provided network does not match the current range"
        in error.message
    )
    await s.take(service(ipFamilies=["IPv6"]))
    error = await s.refusal(service("b", ipFamilyPolicy="RequireDualStack"))
    assert (error.code, error.message) == (
        500,
        "Internal error occurred: failed to allocate a serviceIP: range is full",
    )
    error = await s.refusal(service("c", ipFamilyPolicy="SingleStack", ipFamilies=["IPv4", "IPv6"]))
    assert (
        "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"
        in error.message
    )


async def test_node_ports() -> None:
    s = await server()
    made = await s.take(service(kind="NodePort", ports=[port(80), port(443, 30443)]))
    first, second = (p["nodePort"] for p in made["spec"]["ports"])
    assert second == 30443
    assert 30086 <= first <= 32767
    error = await s.refusal(service("b", "NodePort", [port(1, 30443)]))
    assert "spec.ports[0].nodePort: Invalid value: 30443: provided port is already allocated" in error.message
    error = await s.refusal(service("b", "NodePort", [port(1, 37844)]))
    assert (
        "spec.ports[0].nodePort: Invalid value: 37844: provided port is not in the valid range. "
        "The range of valid ports is 30000-32767" in error.message
    )


async def test_every_problem_at_once() -> None:
    s = await server()
    await s.take(service(kind="NodePort", ports=[port(80, 30001)], clusterIPs=["10.96.0.7"]))
    wanted = service(
        "b", "NodePort", [port(80, 30001), port(81, 99), port(82, 30002)], clusterIPs=["10.96.0.7"]
    )
    error = await s.refusal(wanted)
    assert error.details is not None
    assert [c["field"] for c in error.details["causes"]] == [
        "spec.clusterIPs",
        "spec.ports[0].nodePort",
        "spec.ports[1].nodePort",
    ]


async def test_one_port_over_tcp_and_udp_has_one_node_port() -> None:
    s = await server()
    dns = await s.take(service(kind="NodePort", ports=[port(53), port(53, protocol="UDP")]))
    assert len({p["nodePort"] for p in dns["spec"]["ports"]}) == 1
    named = await s.take(service("n", "NodePort", [port(53, 30053), port(53, 30053, "UDP")]))
    error = await s.refusal(service("m", "NodePort", [port(53, 30054), port(54, 30054, "UDP")]))
    assert "spec.ports[1].nodePort: Invalid value: 30054: provided port is already allocated" in error.message
    await s.allocator.release(named)
    assert 30053 not in await s.ports()


async def test_a_load_balancer_may_do_without_node_ports() -> None:
    s = await server()
    made = await s.take(service(kind="LoadBalancer", allocateLoadBalancerNodePorts=False, ports=[port(80), port(81, 30081)]))  # fmt: skip
    assert [p.get("nodePort") for p in made["spec"]["ports"]] == [None, 30081]
    local = await s.take(service("l", kind="LoadBalancer", externalTrafficPolicy="Local"))
    assert local["spec"]["healthCheckNodePort"] in await s.ports()
    error = await s.refusal(service("m", kind="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=30081))  # fmt: skip
    assert (
        "spec.healthCheckNodePort: Invalid value: 30081: failed to allocate requested HealthCheck NodePort 30081: "
        "provided port is already allocated" in error.message
    )


async def test_types_change_both_ways() -> None:
    s = await server()
    cluster = await s.take(service())
    node_port = deep_copy(cluster)
    node_port["spec"]["type"] = "NodePort"
    await s.take(node_port, cluster)
    assert node_port["spec"]["clusterIP"] == cluster["spec"]["clusterIP"]
    given = node_port["spec"]["ports"][0]["nodePort"]
    assert await s.ports() == {given}
    moved = deep_copy(node_port)
    moved["spec"]["ports"][0]["nodePort"] = 30500
    async with s.allocator.allocated(moved, node_port):
        assert await s.ports() == {given, 30500}, "held until the write is done"
    assert await s.ports() == {30500}
    external = deep_copy(moved)
    external["spec"] = {"type": "ExternalName", "externalName": "x"}
    await s.take(external, moved)
    assert (s.addresses(), await s.ports()) == (set(), set())
    back = deep_copy(cluster)
    back["spec"].pop("clusterIP")
    back["spec"].pop("clusterIPs")
    await s.take(back, external)
    assert s.addresses() == {back["spec"]["clusterIP"]}


async def test_an_update_that_needs_nothing_writes_nothing() -> None:
    s = await server()
    old = await s.take(service(kind="NodePort", ports=[port(80), port(81)]))
    new = deep_copy(old)
    new["spec"]["selector"] = {"c": "d"}
    before = s.store.revision()
    await s.take(new, old)
    assert s.store.revision() == before


async def test_a_failed_write_gives_back_and_dry_run_takes_nothing() -> None:
    s = await server()

    async def fail(obj: Object, old: Object | None = None) -> None:
        async with s.allocator.allocated(obj, old):
            assert s.addresses()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        await fail(service(kind="NodePort"))
    assert (s.addresses(), await s.ports()) == (set(), set())
    before = s.store.revision()
    tried = await s.take(service(kind="NodePort"), dry_run=True)
    assert tried["spec"]["clusterIP"]
    assert tried["spec"]["ports"][0]["nodePort"]
    assert s.store.revision() == before
    kept = await s.take(service(kind="NodePort"))
    changed = deep_copy(kept)
    changed["spec"]["ports"].append(port(81))
    with pytest.raises(OSError, match="full"):
        await fail(changed, kept)
    assert await s.ports() == {kept["spec"]["ports"][0]["nodePort"]}
    wanted = service("w", "NodePort", [port(1, kept["spec"]["ports"][0]["nodePort"])], clusterIPs=kept["spec"]["clusterIPs"])  # fmt: skip
    with pytest.raises(StatusError) as e:
        await s.take(wanted, dry_run=True)
    assert "provided IP is already allocated" in e.value.message
    assert "provided port is already allocated" in e.value.message


async def test_a_write_of_unknown_outcome_keeps_what_it_took() -> None:
    s = await server()
    for error in (StatusError(503, "ServiceUnavailable", "the store failed"), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            async with s.allocator.allocated(service(kind="NodePort")):
                raise error
    assert (len(s.addresses()), len(await s.ports())) == (2, 2)


async def test_a_small_range_runs_out_and_a_further_one_is_used() -> None:
    s = await server(service_cidrs=("10.0.0.0/29",), node_port_range=(30000, 30001))
    seen = [(await s.take(service(f"s{i}")))["spec"]["clusterIP"] for i in range(6)]
    assert sorted(seen) == [f"10.0.0.{n}" for n in range(1, 7)]
    error = await s.refusal(service())
    full = "Internal error occurred: failed to allocate a serviceIP: range is full"
    assert (error.code, error.message) == (500, full)
    ready = {"type": "Ready", "status": "False"}
    await s.add_range("waiting", "10.0.2.0/29", conditions=[ready])
    await s.add_range("six", "2001:db8::/64")
    assert (await s.refusal(service())).message == full
    await s.add_range("more", "10.0.1.0/24")
    further = [(await s.take(service(f"t{i}")))["spec"]["clusterIP"] for i in range(20)]
    assert all(ip.startswith("10.0.1.") and int(ip.split(".")[3]) > 16 for ip in further)
    named = await s.take(service("n", clusterIPs=["10.0.1.1"]))
    assert named["spec"]["clusterIP"] == "10.0.1.1"
    error = await s.refusal(service(kind="NodePort", ports=[port(1), port(2), port(3)]))
    assert error.message == "Internal error occurred: failed to allocate a nodePort: range is full"


# ---- several servers on one store


async def test_two_servers_never_give_the_same() -> None:
    one = await server(service_cidrs=("10.0.0.0/27",), node_port_range=(30000, 30019))
    two = await Server(one.store, service_cidrs=("10.0.0.0/27",), node_port_range=(30000, 30019)).start()
    made = [await s.take(service(f"s{i}", "NodePort")) for i, s in enumerate([one, two] * 10)]
    assert len({m["spec"]["clusterIP"] for m in made}) == 20
    assert {m["spec"]["ports"][0]["nodePort"] for m in made} == set(range(30000, 30020))
    await one.refusal(service("x", "NodePort"))
    await two.allocator.release(made[0])
    again = await one.take(service("x", "NodePort"))
    assert again["spec"]["ports"] == made[0]["spec"]["ports"], "what the other freed is seen before refusing"


async def test_a_server_that_lags_is_told_by_the_store() -> None:
    one = await server()
    two = await Server(one.store).start()
    two.cache.close()  # sees nothing from now on
    await one.take(service("a", "NodePort", [port(80, 30001)], clusterIPs=["10.96.0.9"]))
    error = await two.refusal(service("b", "NodePort", [port(80, 30001)], clusterIPs=["10.96.0.9"]))
    assert "provided IP is already allocated" in error.message
    assert "provided port is already allocated" in error.message
    mine = await two.take(service("c"))
    await two.allocator.release(mine)
    assert one.addresses() == {"10.96.0.9"}, "freed though its cache never showed it"


# ---- repair


async def test_repair_makes_what_is_missing_and_tells_of_clashes() -> None:
    s = await server()
    for name, ip, number in (("a", "10.96.1.1", 30001), ("b", "10.96.1.1", 30001), ("c", "10.99.1.1", 99)):
        await s.save(service(name, "NodePort", [port(80, number)], clusterIP=ip, clusterIPs=[ip]))
    await s.repair.once()
    assert s.told.events == [
        ("a", "ClusterIPNotAllocated", "Cluster IP [IPv4]: 10.96.1.1 is not allocated; repairing"),
        ("b", "ClusterIPAlreadyAllocated", "Cluster IP [IPv4]:10.96.1.1 was assigned to multiple services; please recreate service"),
        ("c", "ClusterIPOutOfRange", "Cluster IP [IPv4]: 10.99.1.1 is not within any configured Service CIDR; please recreate service"),
        ("b", "PortAlreadyAllocated", "Port 30001 was assigned to multiple services; please recreate service"),
        ("c", "PortOutOfRange", "Port 99 is not within the port range 30000-32767; please recreate service"),
    ]  # fmt: skip
    assert (s.addresses(), await s.ports()) == ({"10.96.1.1"}, {30001})
    s.told.events.clear()
    await s.save(service("d", "NodePort", [port(80, 30002)], clusterIP="10.96.1.4", clusterIPs=["10.96.1.4"]))
    await s.repair.once()
    assert ("d", "PortNotAllocated", "Port 30002 is not allocated; repairing") in s.told.events
    assert await s.ports() == {30001, 30002}


async def test_what_no_validation_lets_through_does_not_stop_the_repair() -> None:
    s = await server()
    await s.save(service("a", clusterIP="10.96.1", clusterIPs=["10.96.1"]))
    await s.save(service("b", clusterIP="10.96.1.1", clusterIPs=["10.96.1.1"]))
    await s.repair.once()
    assert [e[:2] for e in s.told.events] == [("a", "ClusterIPNotValid"), ("b", "ClusterIPNotAllocated")]
    assert s.addresses() == {"10.96.1.1"}


async def test_repair_mends_references_and_labels() -> None:
    s = await server()
    await s.save(service("a", clusterIP="10.96.1.1", clusterIPs=["10.96.1.1"]))
    await s.allocator.addresses.create("10.96.1.1", service("gone"))
    await s.repair.once()
    assert [e[1] for e in s.told.events] == ["ClusterIPNotAllocated"]
    assert "has a wrong reference; repairing" in s.told.events[0][2]
    record = s.cache.record(IPADDRESSES, "", "10.96.1.1")
    assert record is not None
    assert record.obj["spec"]["parentRef"]["name"] == "a"
    stripped = deep_copy(record.obj)
    stripped["metadata"]["labels"] = {}
    from sampan.apiserver.records import encode

    await s.store.update(record.key, encode(IPADDRESSES, stripped), record.revision)
    await s.repair.once()
    mended = s.cache.get(IPADDRESSES, "", "10.96.1.1")
    assert mended is not None
    assert len(mended["metadata"]["labels"]) == 2


async def test_what_leaked_is_free_after_its_grace() -> None:
    s = await server()
    await s.take(service("lost", "NodePort"))
    held = await s.save(await s.take(service("kept", "NodePort")))
    odd = deep_copy(held)
    odd["metadata"]["name"] = "kept"
    await s.allocator.addresses.create("10.96.9.9", odd)
    foreign = make("IPAddress", "10.96.9.8", spec={"parentRef": {"resource": "gateways", "name": "g"}})
    await s.registry.put_new(IPADDRESSES, foreign, dry_run=False)
    import time

    s.now = time.time() + 59
    await s.repair.once()
    assert (len(s.addresses()), len(await s.ports())) == (4, 2)
    s.now += 3
    await s.repair.once()
    assert s.addresses() == {held["spec"]["clusterIP"], "10.96.9.8"}, "what others manage is theirs"
    reasons = {e[1]: e[2] for e in s.told.events}
    assert reasons["IPAddressNotAllocated"].endswith(
        "for Service default/lost appears to have leaked: cleaning up"
    )
    assert reasons["IPAddressWrongReference"] == "IPAddress: 10.96.9.9 for Service default/kept has a wrong reference; cleaning up"  # fmt: skip
    assert len(await s.ports()) == 2
    await s.repair.once()
    assert await s.ports() == {held["spec"]["ports"][0]["nodePort"]}


# ---- the bitmap


def test_the_bitmap_reads_back() -> None:
    ports = Ports(30000, 32767)
    for number in (30000, 30777, 32767):
        ports.take(number)
    with pytest.raises(Taken):
        ports.take(30777)
    stored = node_ports.encode(ports)
    assert json.loads(stored)["range"] == "30000-32767"
    assert list(Ports(30000, 32767, node_ports.decode(stored, 30000, 32767))) == [30000, 30777, 32767]
    moved = Ports(30500, 40000, node_ports.decode(stored, 30500, 40000))
    assert list(moved) == [30777, 32767], "the server's settings changed"
    wider = Ports(20000, 30777, node_ports.decode(stored, 20000, 30777))
    assert list(wider) == [30000, 30777]


async def test_changes_that_wait_are_written_together(api: Api) -> None:
    found = api.app._allocator.node_ports
    before = api.store.revision()
    numbers = await asyncio.gather(*(found.change(Ports.take_next) for _ in range(100)))
    assert len(set(numbers)) == 100
    assert api.store.revision() - before <= 3

    def refuse(ports: Ports) -> None:
        ports.take_next()
        raise Taken("no")

    taken = set(await found.read() or ())
    with pytest.raises(Taken, match="no"):
        await found.change(refuse)
    assert set(await found.read() or ()) == taken


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["ClusterIP", "NodePort", "ExternalName", "delete", "fail"]))))  # fmt: skip
def test_what_is_held_is_what_the_services_have(steps: list[tuple[int, str]]) -> None:
    asyncio.run(_walk(steps))


async def _walk(steps: list[tuple[int, str]]) -> None:
    s = await server(service_cidrs=("10.0.0.0/27",), node_port_range=(30000, 30019))
    stored: dict[int, Object] = {}
    for which, action in steps:
        old = stored.get(which)
        if action == "delete":
            if old is not None:
                await s.allocator.release(stored.pop(which))
            continue
        kind = "NodePort" if action == "fail" else action
        new = deep_copy(old) if old is not None else service(f"s{which}")
        spec = new["spec"]
        spec["type"] = kind
        if kind == "ExternalName":
            for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(name, None)
        if kind != "NodePort":
            spec["ports"][0].pop("nodePort", None)
        try:
            async with s.allocator.allocated(new, old):
                if action == "fail":
                    raise OSError
            stored[which] = new
        except OSError:
            pass
    ips = Counter(v["spec"]["clusterIP"] for v in stored.values() if v["spec"].get("clusterIP"))
    ports = Counter(p["nodePort"] for v in stored.values() for p in v["spec"]["ports"] if p.get("nodePort"))
    assert set(ips) == s.addresses()
    assert set(ports) == await s.ports()
    assert all(n == 1 for n in (*ips.values(), *ports.values()))
    s.cache.close()


# ---- through the API


SERVICES_PATH = "/api/v1/namespaces/default/services"
GROUP = "/apis/networking.k8s.io/v1"


def body(name: str, kind: str = "ClusterIP", ports: list[Object] | None = None, **spec: Any) -> Object:
    made = service(name, kind, ports, **spec)
    del made["metadata"]["uid"]
    return made


async def names(api: Api, plural: str) -> set[str]:
    return {o["metadata"]["name"] for o in (await api.ok("GET", f"{GROUP}/{plural}"))["items"]}


async def test_fifty_who_want_the_same_have_one_winner(api: Api) -> None:
    await api.app._registry.store.get("x")
    wishes: list[Callable[[int], Object]] = [
        lambda i: body(f"ip{i}", clusterIP="10.96.0.77", clusterIPs=["10.96.0.77"]),
        lambda i: body(f"port{i}", "NodePort", [port(80, 30777)]),
    ]
    for wish in wishes:
        replies = await asyncio.gather(*(api("POST", SERVICES_PATH, wish(i)) for i in range(50)))
        assert Counter(r.status for r in replies) == {201: 1, 422: 49}
    addresses = await names(api, "ipaddresses")
    services = (await api.ok("GET", "/api/v1/services"))["items"]
    assert addresses == {s["spec"]["clusterIP"] for s in services}, "the losers hold nothing"
    assert set(await api.app._allocator.node_ports.read() or ()) == {30777}


async def test_many_services_have_each_its_own(api: Api) -> None:
    made = await asyncio.gather(*(api.ok("POST", SERVICES_PATH, body(f"s{i}", "NodePort")) for i in range(200)))  # fmt: skip
    assert len({m["spec"]["clusterIP"] for m in made}) == 200
    assert len({m["spec"]["ports"][0]["nodePort"] for m in made}) == 200
    await asyncio.gather(*(api.ok("DELETE", f"{SERVICES_PATH}/s{i}") for i in range(200)))
    assert await names(api, "ipaddresses") == {"10.96.0.1"}
    assert set(await api.app._allocator.node_ports.read() or ()) == set()


async def test_a_name_that_is_there_already_costs_no_address(api: Api) -> None:
    await api.ok("POST", SERVICES_PATH, body("web"))
    reply = await api("POST", SERVICES_PATH, body("web", "NodePort"))
    assert reply.json["reason"] == "AlreadyExists"
    dry = await api.ok("POST", f"{SERVICES_PATH}?dryRun=All", body("dry", "NodePort"))
    assert dry["spec"]["clusterIP"]
    assert len(await names(api, "ipaddresses")) == 2
    assert set(await api.app._allocator.node_ports.read() or ()) == set()


async def test_a_restart_remembers(api: Api) -> None:
    made = await api.ok("POST", SERVICES_PATH, body("web", "NodePort"))
    before = await names(api, "ipaddresses")
    await api.restart()
    assert await names(api, "ipaddresses") == before
    ip, number = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
    reply = await api("POST", SERVICES_PATH, body("b", "NodePort", [port(1, number)], clusterIP=ip, clusterIPs=[ip]))  # fmt: skip
    assert [c["field"] for c in reply.json["details"]["causes"]] == [
        "spec.clusterIPs",
        "spec.ports[0].nodePort",
    ]


async def test_a_start_puts_right_what_a_crash_left(api: Api) -> None:
    made = await api.ok("POST", SERVICES_PATH, body("web", "NodePort"))
    ip = made["spec"]["clusterIP"]
    await api.ok("DELETE", f"{GROUP}/ipaddresses/{ip}")
    await api.restart()
    address = await api.ok("GET", f"{GROUP}/ipaddresses/{ip}")
    assert address["spec"]["parentRef"]["name"] == "web"
    await _until(lambda: _event(api, "ClusterIPNotAllocated"))


async def _event(api: Api, reason: str) -> bool:
    return any(e["reason"] == reason for e in (await api.ok("GET", "/api/v1/events"))["items"])


async def _until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await true():
            await asyncio.sleep(0)


async def test_the_default_range_is_made_at_start_and_again(api: Api) -> None:
    cidr = await api.ok("GET", f"{GROUP}/servicecidrs/kubernetes")
    assert cidr["spec"] == {"cidrs": ["10.96.0.0/16"]}
    (ready,) = cidr["status"]["conditions"]
    assert (ready["type"], ready["status"], ready["message"]) == (
        "Ready",
        "True",
        "Kubernetes default Service CIDR is ready",
    )
    first = await api.ok("GET", f"{GROUP}/ipaddresses/10.96.0.1")
    assert first["spec"]["parentRef"] == {"resource": "services", "namespace": "default", "name": "kubernetes"}  # fmt: skip
    await api.ok("DELETE", f"{GROUP}/servicecidrs/kubernetes")

    async def again() -> bool:
        present = await api("GET", f"{GROUP}/servicecidrs/kubernetes")
        return present.status == 200 and bool(present.json.get("status"))

    await _until(again)


async def test_further_ranges_can_be_asked_for_at_once(api: Api) -> None:
    wanted = body("far", clusterIP="10.200.0.9", clusterIPs=["10.200.0.9"])
    assert (await api("POST", SERVICES_PATH, wanted)).status == 422
    cidr = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24"]}}  # fmt: skip
    await api.ok("POST", f"{GROUP}/servicecidrs", cidr)
    made = await api.ok("POST", SERVICES_PATH, wanted)
    assert made["spec"]["clusterIPs"] == ["10.200.0.9"]
