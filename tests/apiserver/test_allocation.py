from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.apiserver.allocation import ServiceAllocator

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


def allocator(**settings: object) -> ServiceAllocator:
    return ServiceAllocator(config(**settings))


def port(number: int, node_port: int = 0, protocol: str = "TCP") -> Object:
    return {"port": number, "protocol": protocol, **({"nodePort": node_port} if node_port else {})}


def refusal(alloc: ServiceAllocator, obj: Object, old: Object | None = None) -> StatusError:
    held = (dict(alloc._addresses.owners), dict(alloc._ports.owners))
    with pytest.raises(StatusError) as e:
        alloc.allocate(obj, old)
    assert (alloc._addresses.owners, alloc._ports.owners) == held, "a refusal takes nothing"
    return e.value


def test_a_cluster_ip_comes_from_the_upper_band() -> None:
    alloc = allocator()
    seen = set()
    for _ in range(300):
        made = service()
        alloc.allocate(made).commit()
        spec = made["spec"]
        assert (spec["clusterIPs"], spec["ipFamilies"]) == ([spec["clusterIP"]], ["IPv4"])
        assert spec["ipFamilyPolicy"] == "SingleStack"
        a, b, c, d = map(int, spec["clusterIP"].split("."))
        assert (a, b) == (10, 96)
        assert c * 256 + d > 256
        seen.add(spec["clusterIP"])
    assert len(seen) == 300


def test_what_is_asked_for() -> None:
    alloc = allocator()
    alloc.allocate(service(clusterIP="10.96.0.5", clusterIPs=["10.96.0.5"])).commit()
    again = service("other", clusterIP="10.96.0.5", clusterIPs=["10.96.0.5"])
    assert refusal(alloc, again).message == (
        'Service "other" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.5"]: '
        "failed to allocate IP 10.96.0.5: provided IP is already allocated"
    )
    for outside in ("10.97.0.1", "10.96.0.0", "10.96.255.255"):
        error = refusal(alloc, service(clusterIPs=[outside], clusterIP=outside))
        assert "is not in the valid range. The range of valid IPs is 10.96.0.0/16" in error.message


def test_headless_and_external_name() -> None:
    alloc = allocator()
    headless = service(clusterIP="None")
    alloc.allocate(headless).commit()
    assert (headless["spec"]["clusterIP"], headless["spec"]["clusterIPs"]) == ("None", ["None"])
    assert headless["spec"]["ipFamilies"] == ["IPv4"]
    bare = service(clusterIP="None", selector=None)
    alloc.allocate(bare).commit()
    assert (bare["spec"]["ipFamilyPolicy"], bare["spec"]["ipFamilies"]) == (
        "RequireDualStack",
        ["IPv4", "IPv6"],
    )
    external = service(kind="ExternalName", externalName="example.org")
    alloc.allocate(external).commit()
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & set(external["spec"])
    assert not alloc._addresses.owners


def test_families_that_the_cluster_has_not() -> None:
    alloc = allocator()
    assert (
        "this cluster is not configured for dual-stack services"
        in refusal(alloc, service(ipFamilyPolicy="RequireDualStack")).message
    )
    assert (
        'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'
        in refusal(alloc, service(ipFamilies=["IPv6"])).message
    )
    either = service(ipFamilyPolicy="PreferDualStack")
    alloc.allocate(either)
    assert either["spec"]["ipFamilies"] == ["IPv4"]


def test_node_ports() -> None:
    alloc = allocator()
    made = service(kind="NodePort", ports=[port(80), port(443, 30443)])
    alloc.allocate(made).commit()
    first, second = (p["nodePort"] for p in made["spec"]["ports"])
    assert second == 30443
    assert 30086 <= first <= 32767
    assert (
        "spec.ports[0].nodePort: Invalid value: 30443: provided port is already allocated"
        in refusal(alloc, service("b", "NodePort", [port(1, 30443)])).message
    )
    assert (
        "spec.ports[0].nodePort: Invalid value: 37844: provided port is not in the valid range. "
        "The range of valid ports is 30000-32767"
        in refusal(alloc, service("b", "NodePort", [port(1, 37844)])).message
    )


def test_every_problem_at_once() -> None:
    alloc = allocator()
    taken = service(kind="NodePort", ports=[port(80, 30001)], clusterIPs=["10.96.0.7"])
    alloc.allocate(taken).commit()
    wanted = service(
        "b", "NodePort", [port(80, 30001), port(81, 99), port(82, 30002)], clusterIPs=["10.96.0.7"]
    )
    error = refusal(alloc, wanted)
    assert error.details is not None
    assert [c["field"] for c in error.details["causes"]] == [
        "spec.clusterIPs",
        "spec.ports[0].nodePort",
        "spec.ports[1].nodePort",
    ]


def test_one_port_over_tcp_and_udp_has_one_node_port() -> None:
    alloc = allocator()
    dns = service(kind="NodePort", ports=[port(53), port(53, protocol="UDP")])
    alloc.allocate(dns).commit()
    assert len({p["nodePort"] for p in dns["spec"]["ports"]}) == 1
    named = service(kind="NodePort", ports=[port(53, 30053), port(53, 30053, "UDP")])
    alloc.allocate(named).commit()
    alloc.release(named)
    assert 30053 not in alloc._ports.owners


def test_a_load_balancer_may_do_without_node_ports() -> None:
    alloc = allocator()
    made = service(kind="LoadBalancer", allocateLoadBalancerNodePorts=False, ports=[port(80), port(81, 30081)])  # fmt: skip
    alloc.allocate(made).commit()
    assert [p.get("nodePort") for p in made["spec"]["ports"]] == [None, 30081]
    local = service(kind="LoadBalancer", externalTrafficPolicy="Local")
    alloc.allocate(local).commit()
    assert local["spec"]["healthCheckNodePort"] in alloc._ports.owners


def test_types_change_both_ways() -> None:
    alloc = allocator()
    cluster = service()
    alloc.allocate(cluster).commit()
    node_port = deep_copy(cluster)
    node_port["spec"]["type"] = "NodePort"
    with alloc.allocate(node_port, cluster):
        pass
    assert node_port["spec"]["clusterIP"] == cluster["spec"]["clusterIP"]
    given = node_port["spec"]["ports"][0]["nodePort"]
    assert given in alloc._ports.owners
    moved = deep_copy(node_port)
    moved["spec"]["ports"][0]["nodePort"] = 30500
    with alloc.allocate(moved, node_port):
        assert given in alloc._ports.owners, "held until the write is done"
    assert set(alloc._ports.owners) == {30500}
    external = deep_copy(moved)
    external["spec"] = {"type": "ExternalName", "externalName": "x"}
    with alloc.allocate(external, moved):
        pass
    assert not alloc._addresses.owners
    assert not alloc._ports.owners
    back = deep_copy(cluster)
    back["spec"].pop("clusterIP")
    back["spec"].pop("clusterIPs")
    with alloc.allocate(back, external):
        pass
    assert back["spec"]["clusterIP"] in alloc._addresses.owners


def test_a_failed_write_gives_back_and_dry_run_takes_nothing() -> None:
    alloc = allocator()
    made = service(kind="NodePort")
    with pytest.raises(OSError, match="full"), alloc.allocate(made):
        raise OSError("full")
    assert not alloc._addresses.owners
    tried = service(kind="NodePort")
    with alloc.allocate(tried, dry_run=True):
        pass
    assert tried["spec"]["clusterIP"]
    assert tried["spec"]["ports"][0]["nodePort"]
    assert not alloc._addresses.owners
    assert not alloc._ports.owners
    kept = service(kind="NodePort")
    alloc.allocate(kept).commit()
    changed = deep_copy(kept)
    changed["spec"]["ports"].append(port(81))
    with pytest.raises(OSError, match="full"), alloc.allocate(changed, kept):
        raise OSError("full")
    assert set(alloc._ports.owners) == {kept["spec"]["ports"][0]["nodePort"]}


def test_rebuild_finds_clashes_and_the_older_service_wins() -> None:
    old = service("old", "NodePort", [port(80, 30001)], clusterIP="10.96.1.1", clusterIPs=["10.96.1.1"])
    new = service("new", "NodePort", [port(80, 30001)], clusterIP="10.96.1.1", clusterIPs=["10.96.1.1"])
    odd = service("odd", clusterIP="10.99.1.1", clusterIPs=["10.99.1.1"])
    for obj, when in ((old, "2026-01-01T00:00:00Z"), (new, "2026-01-02T00:00:00Z"), (odd, "2026-01-03T00:00:00Z")):  # fmt: skip
        obj["metadata"]["creationTimestamp"] = when
    alloc = allocator()
    clashes = alloc.rebuild([odd, new, old])
    assert [(c.name, c.reason) for c in clashes] == [
        ("new", "ClusterIPAlreadyAllocated"),
        ("new", "PortAlreadyAllocated"),
        ("odd", "ClusterIPOutOfRange"),
    ]
    alloc.release(new)
    assert alloc._addresses.owners == {"10.96.1.1": old["metadata"]["uid"]}, "what is another's stays"


def test_a_small_range_runs_out() -> None:
    alloc = allocator(service_cidr="10.0.0.0/29", node_port_range=(30000, 30001))
    seen = []
    for _ in range(6):
        made = service()
        alloc.allocate(made).commit()
        seen.append(made["spec"]["clusterIP"])
    assert sorted(seen) == [f"10.0.0.{n}" for n in range(1, 7)]
    error = refusal(alloc, service())
    assert (error.code, error.message) == (
        500,
        "Internal error occurred: failed to allocate a serviceIP: range is full",
    )
    alloc.rebuild([])
    error = refusal(alloc, service(kind="NodePort", ports=[port(1), port(2), port(3)]))
    assert error.message == "Internal error occurred: failed to allocate a nodePort: range is full"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["ClusterIP", "NodePort", "ExternalName", "delete", "fail"]))))  # fmt: skip
def test_what_is_held_is_what_the_services_have(steps: list[tuple[int, str]]) -> None:
    alloc = allocator(service_cidr="10.0.0.0/27", node_port_range=(30000, 30019))
    stored: dict[int, Object] = {}
    for which, action in steps:
        old = stored.get(which)
        if action == "delete":
            if old is not None:
                alloc.release(stored.pop(which))
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
            with alloc.allocate(new, old):
                if action == "fail":
                    raise OSError
            stored[which] = new
        except OSError:
            pass
    ips = Counter(s["spec"]["clusterIP"] for s in stored.values() if s["spec"].get("clusterIP"))
    ports = Counter(p["nodePort"] for s in stored.values() for p in s["spec"]["ports"] if p.get("nodePort"))
    assert set(ips) == set(alloc._addresses.owners)
    assert set(ports) == set(alloc._ports.owners)
    assert all(n == 1 for n in (*ips.values(), *ports.values()))
    assert alloc.rebuild(stored.values()) == []
