"""Services to elements, against the fake and against the kernel: both must end at the same content."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sampan.network.netlink import in_namespace
from sampan.network.nftables import Family
from sampan.proxy.elements import Assigned, difference, render
from sampan.proxy.fake import FakeTable
from sampan.proxy.nftables import NfTables
from sampan.proxy.proxy import oldest_first, service_ranges
from sampan.proxy.rules import Rules
from sampan.proxy.services import Place, targets
from sampan.proxy.slots import assign
from sampan.proxy.types import Backend, Frontend, Layout, Operation, Table, Target

NODE = "172.29.0.2"
LAYOUT = Layout((NODE,), ("10.244.0.0/16",), ("10.96.0.0/16",))


class _Inside:
    """A table whose every call runs in a network namespace of the test's."""

    def __init__(self, netns: str) -> None:
        self._netns = netns
        self._table = in_namespace(netns, NfTables)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *a: in_namespace(self._netns, lambda: getattr(self._table, name)(*a))


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.root)])
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    if request.param == "fake":
        yield FakeTable()
        return
    if os.geteuid() != 0:
        pytest.skip("needs root")
    name = f"t-proxy-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    made = _Inside(f"/run/netns/{name}")
    yield made
    made._table.close()
    subprocess.run(["ip", "netns", "del", name], check=True)


def dump(table: Table) -> str:
    fake = FakeTable()
    fake.elements = table.read()
    return fake.dump()


def service(name: str, ip: str, **spec: Any) -> dict[str, Any]:
    ports = spec.pop("ports", [{"port": 80, "protocol": "TCP"}])
    return {
        "metadata": {"namespace": "default", "name": name},
        "spec": {"clusterIP": ip, "ports": ports, **spec},
    }


def slice_(*addresses: str, port: int = 8080, name: str = "", **conditions: bool) -> dict[str, Any]:
    return {
        "addressType": "IPv4",
        "ports": [{"name": name, "port": port, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [a], "conditions": {"ready": True, **conditions}, "nodeName": "node-1"}
            for a in addresses
        ],
    }


def of(svc: dict[str, Any], *slices: dict[str, Any]) -> Any:
    return targets(svc, slices, Place("node-1", (NODE,), (NODE,)))


def test_a_service_comes_changes_and_goes(table: Table) -> None:
    rules = Rules(table, LAYOUT)
    rules.start({})
    web = service(
        "web", "10.96.0.7", type="NodePort", ports=[{"port": 80, "protocol": "TCP", "nodePort": 30080}]
    )
    rules.update({"default/web": of(web, slice_("10.244.0.2", "10.244.0.3"))})
    assert dump(table) == "\n".join(
        [
            "endpoints 10.96.0.7:80/TCP 0 : 10.244.0.2:8080",
            "endpoints 10.96.0.7:80/TCP 1 : 10.244.0.3:8080",
            "endpoints 172.29.0.2:30080/TCP 0 : 10.244.0.2:8080",
            "endpoints 172.29.0.2:30080/TCP 1 : 10.244.0.3:8080",
            "hairpin 10.244.0.2",
            "hairpin 10.244.0.3",
            "services 10.96.0.7:80/TCP : 2 slots",
            "services 172.29.0.2:30080/TCP : 2 slots",
        ]
    )
    rules.update({"default/web": of(web, slice_("10.244.0.3", "10.244.0.9"))})
    assert "10.96.0.7:80/TCP 0 : 10.244.0.9:8080" in dump(table)
    assert "10.96.0.7:80/TCP 1 : 10.244.0.3:8080" in dump(table)
    rules.update({"default/web": of(web)})
    assert dump(table) == "rejected 10.96.0.7:80/TCP\nrejected 172.29.0.2:30080/TCP"
    rules.update({"default/web": {}})
    assert dump(table) == ""


def test_one_changed_endpoint_is_all_that_a_transaction_carries() -> None:
    table = FakeTable()
    rules = Rules(table, LAYOUT)
    addresses = [f"10.244.0.{n}" for n in range(2, 22)]
    rules.start(
        {f"default/s{n}": of(service(f"s{n}", f"10.96.1.{n}"), slice_(*addresses)) for n in range(50)}
    )
    rules.update({"default/s7": of(service("s7", "10.96.1.7"), slice_(*addresses[1:], "10.244.9.9"))})
    assert [(o.verb, o.set) for o in table.transactions[-1]] == [
        ("delete", "endpoints"), ("add", "endpoints"), ("add", "hairpin"),
    ]  # fmt: skip


def test_an_address_passes_from_one_service_to_another_in_one_batch(table: Table) -> None:
    rules = Rules(table, LAYOUT)
    rules.start({"default/a": of(service("a", "10.96.0.7"), slice_("10.244.0.2"))})
    rules.update({"default/b": of(service("b", "10.96.0.7"), slice_("10.244.0.3")), "default/a": {}})
    assert "10.96.0.7:80/TCP 0 : 10.244.0.3:8080" in dump(table)


def test_of_two_services_with_one_address_the_first_has_it_until_it_gives_it_up(table: Table) -> None:
    told: list[tuple[str, str, str]] = []
    rules = Rules(table, LAYOUT, lambda frontend, owner, key: told.append((str(frontend), owner, key)))
    claims = {
        key: of(service(key, f"10.96.0.{n}", externalIPs=["192.0.2.1"]), slice_(f"10.244.0.{n}"))
        for n, key in enumerate(("a", "b", "c"), 2)
    }
    rules.start({})
    for key, found in claims.items():
        rules.update({key: found})
    assert told == [("192.0.2.1:80/TCP", "a", "b"), ("192.0.2.1:80/TCP", "a", "c")]

    def behind() -> str:
        return next(
            row.split(" : ")[1] for row in dump(table).splitlines() if "endpoints 192.0.2.1:80/TCP 0" in row
        )

    rules.update(claims)
    assert (behind(), len(told)) == ("10.244.0.2:8080", 2), "it is told once"
    rules.update({"b": {}})
    rules.update({"a": {}})
    assert behind() == "10.244.0.4:8080"
    rules.update(
        {"c": of(service("c", "10.96.0.4"), slice_("10.244.0.4")), "a": claims["a"], "b": claims["b"]}
    )
    assert behind() == "10.244.0.2:8080"
    # In one go with whoever claims it anew.
    rules.update({"a": {}, "c": claims["c"]})
    assert behind() == "10.244.0.4:8080"
    rules.update({"c": {}})
    assert behind() == "10.244.0.3:8080"
    fresh = FakeTable()
    Rules(fresh, LAYOUT).start({"b": claims["b"]})
    assert dump(table) == fresh.dump()


def test_a_new_start_changes_only_what_differs(table: Table) -> None:
    state = {
        f"default/s{n}": of(service(f"s{n}", f"10.96.1.{n}"), slice_("10.244.0.2", "10.244.0.3"))
        for n in range(20)
    }
    assert Rules(table, LAYOUT).start(state) == 20 * 3 + 2
    before = dump(table)
    assert Rules(table, LAYOUT).start(state) == 0
    del state["default/s3"]
    assert Rules(table, LAYOUT).start(state) == 3
    assert len(before.splitlines()) - len(dump(table).splitlines()) == 3


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_fixed_part_is_made_anew_not_twice() -> None:
    name = f"t-proxy-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    table = _Inside(f"/run/netns/{name}")

    def listed() -> str:
        command = ["ip", "netns", "exec", name, "nft", "-s", "list", "ruleset"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    try:
        table.prepare(LAYOUT)
        once = listed()
        table.prepare(LAYOUT)
        assert listed() == once
        table.prepare(dataclasses.replace(LAYOUT, affinities=(10800,)))
        assert "chain remember-10800" in listed()
        table.prepare(LAYOUT)
        assert "chain remember-10800" not in listed()
    finally:
        table._table.close()
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_further_ranges_are_seen_to() -> None:
    name = f"t-proxy-ranges-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        table = _Inside(f"/run/netns/{name}")
        rules = Rules(table, LAYOUT)
        rules.start({"default/a": of(service("a", "10.96.0.5"), slice_("10.244.0.3"))})
        before = dump(table)
        further = ("10.200.0.0/24", "10.200.0.0/16", "10.96.0.0/16")
        rules.set_service_ranges(service_ranges(("10.96.0.0/16",), further))
        shown = subprocess.run(["ip", "netns", "exec", name, "nft", "list", "chain", "ip", "sampan", "unserved"], capture_output=True, text=True, check=True).stdout  # fmt: skip
        assert "ip daddr { 10.96.0.0/16, 10.200.0.0/16 } reject with tcp reset" in shown
        assert dump(table) == before
        table._table.close()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_what_somebody_else_changed_in_our_table_is_put_right(table: Table) -> None:
    rules = Rules(table, LAYOUT)
    web = service("web", "10.96.0.7")
    rules.start({"default/web": of(web, slice_("10.244.0.2"))})
    key = next(iter(table.read()[Family.IP, "hairpin"]))
    table.apply([Operation("delete", Family.IP, "hairpin", key)])
    rules.update({"default/web": of(web, slice_("10.244.0.5"))})
    fresh = FakeTable()
    Rules(fresh, LAYOUT).start({"default/web": of(web, slice_("10.244.0.5"))})
    assert dump(table) == fresh.dump()


def test_affinity_and_local_policy_have_their_own_sets(table: Table) -> None:
    rules = Rules(table, LAYOUT)
    rules.start({})
    web = service(
        "web", "10.96.0.7", type="NodePort", sessionAffinity="ClientIP", externalTrafficPolicy="Local",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 77}},
        ports=[{"port": 80, "protocol": "TCP", "nodePort": 30080}],
    )  # fmt: skip
    there = slice_("10.244.1.1")
    there["endpoints"][0]["nodeName"] = "node-2"
    rules.update({"default/web": of(web, slice_("10.244.0.2"), there)})
    text = dump(table)
    assert "affinity 10.96.0.7:80/TCP : 77 s" in text
    assert "services 172.29.0.2:30080/TCP : 1 slots, keeps source, others inside, affinity" in text
    assert "services-inside 172.29.0.2:30080/TCP : 2 slots" in text
    assert "endpoints 172.29.0.2:30080/TCP inside 1 : 10.244.1.1:8080" in text
    assert "services 10.96.0.7:80/TCP : 2 slots, affinity" in text


def test_a_start_gives_an_address_to_the_older_service() -> None:
    """Not to the one whose name comes first: it could have been made to take the address."""
    made = [
        service(name, f"10.96.0.{n}", externalIPs=["192.0.2.1"]) for n, name in enumerate(("a", "web"), 1)
    ]
    for one, moment in zip(made, ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"), strict=True):
        one["metadata"]["creationTimestamp"] = moment
    addresses = {"a": "10.244.0.2", "web": "10.244.0.1"}
    rules = Rules(table := FakeTable(), LAYOUT)
    names = [s["metadata"]["name"] for s in oldest_first(made)]
    assert names == ["web", "a"]
    rules.start({name: of(made[name == "web"], slice_(addresses[name])) for name in names})
    assert "endpoints 192.0.2.1:80/TCP 0 : 10.244.0.1:8080" in table.dump()


def test_of_a_thousand_endpoints_the_change_of_one_renders_its_own_slots() -> None:
    backends = tuple(Backend(f"10.244.{i // 250}.{i % 250 + 1}", 80) for i in range(1000))
    changed = (*backends[:500], Backend("10.244.9.1", 80), *backends[501:])
    frontend, old, new = Frontend("10.96.0.5", "TCP", 80), Target("a/b", backends), Target("a/b", changed)
    was = Assigned(assign((), backends, sticky=False))
    now = Assigned(assign(was.outside, changed, sticky=False))
    before, after = render(frontend, old, was, unlike=now), render(frontend, new, now, unlike=was)
    assert len(before) < 12
    assert len(after) < 12
    assert difference(before, after) == difference(render(frontend, old, was), render(frontend, new, now))
