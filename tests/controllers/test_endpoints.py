"""EndpointSlices, Endpoints and their mirror."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import ENDPOINTS, ENDPOINTSLICES, PODS, SERVICES
from sampan.controllers.endpointslice import endpoints, layout
from sampan.controllers.endpointslice.endpoints import shape_of
from tests.controllers.conftest import Cluster, pod, service

OURS = "endpointslice-controller.k8s.io"


def of(slices: list[Object], name: str = "web", manager: str = OURS) -> list[Object]:
    labels = {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": manager}
    return [s for s in slices if labels.items() <= (s["metadata"].get("labels") or {}).items()]


def addresses(slices: list[Object], **conditions: bool) -> set[str]:
    return {
        a
        for s in of(slices)
        for e in s.get("endpoints") or ()
        if all(e["conditions"].get(k) is v for k, v in conditions.items())
        for a in e["addresses"]
    }


async def test_a_pod_becomes_an_endpoint_and_leaves(cluster: Cluster) -> None:
    await cluster.node("n1", labels={"topology.kubernetes.io/zone": "z1"})
    await cluster.client.create(SERVICES, service())
    [one] = of(await cluster.until(ENDPOINTSLICES, of))
    assert not one.get("endpoints")
    p = await cluster.client.create(PODS, pod("a", {"app": "web"}))
    p = await cluster.run(p, ip="10.244.0.9", ready=False)
    await cluster.until(ENDPOINTSLICES, lambda all_: addresses(all_, ready=False) == {"10.244.0.9"})
    await cluster.run(p, ip="10.244.0.9")
    slices = of(
        await cluster.until(ENDPOINTSLICES, lambda all_: addresses(all_, ready=True) == {"10.244.0.9"})
    )
    [one] = slices
    assert one["addressType"] == "IPv4"
    assert one["ports"] == [{"name": "", "port": 80, "protocol": "TCP"}]
    [endpoint] = one["endpoints"]
    assert endpoint["nodeName"] == "n1"
    assert endpoint["zone"] == "z1"
    assert endpoint["targetRef"]["name"] == "a"
    assert endpoint["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert one["metadata"]["ownerReferences"][0]["kind"] == "Service"
    await cluster.client.delete(PODS, "default", "a")
    await cluster.until(
        ENDPOINTSLICES,
        lambda all_: addresses(all_, ready=False, serving=True, terminating=True) == {"10.244.0.9"},
    )
    await cluster.client.delete(PODS, "default", "a", grace_period_seconds=0)
    await cluster.until(ENDPOINTSLICES, lambda all_: not addresses(all_))


async def test_endpoints_object_tells_the_same(cluster: Cluster) -> None:
    await cluster.node()
    await cluster.client.create(SERVICES, service())
    for name, ready in (("a", True), ("b", False)):
        p = await cluster.client.create(PODS, pod(name, {"app": "web"}))
        await cluster.run(p, ready=ready)

    def whole(all_: list[Object]) -> bool:
        found = [e for e in all_ if e["metadata"]["name"] == "web" and e.get("subsets")]
        subset = found[0]["subsets"][0] if found else {}
        return bool(subset.get("addresses") and subset.get("notReadyAddresses"))

    found = next(e for e in await cluster.until(ENDPOINTS, whole) if e["metadata"]["name"] == "web")
    [subset] = found["subsets"]
    assert subset["ports"] == [{"port": 80, "protocol": "TCP"}]
    assert [a["targetRef"]["name"] for a in subset["addresses"]] == ["a"]
    assert [a["targetRef"]["name"] for a in subset["notReadyAddresses"]] == ["b"]
    await cluster.client.delete(SERVICES, "default", "web")
    await cluster.until(ENDPOINTS, lambda all_: all(e["metadata"]["name"] != "web" for e in all_))
    await cluster.until(ENDPOINTSLICES, lambda all_: not of(all_))


async def test_a_named_port_of_two_numbers_makes_two_slices(cluster: Cluster) -> None:
    await cluster.node()
    await cluster.client.create(SERVICES, service(ports=[{"port": 80, "targetPort": "http"}]))
    for name, number in (("a", 8080), ("b", 9090)):
        container = {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": number}]}
        p = await cluster.client.create(PODS, pod(name, {"app": "web"}, containers=[container]))
        await cluster.run(p)
    slices = await cluster.until(
        ENDPOINTSLICES,
        lambda all_: sorted(p["port"] for s in of(all_) for p in s.get("ports") or ()) == [8080, 9090],
    )
    assert len(of(slices)) == 2


async def test_headless_with_hostname_and_unready_addresses(cluster: Cluster) -> None:
    await cluster.client.create(
        SERVICES, service("db", clusterIP="None", publishNotReadyAddresses=True, ports=[])
    )
    p = await cluster.client.create(PODS, pod("a", {"app": "web"}, hostname="db-0", subdomain="db"))
    await cluster.run(p, ready=False)
    slices = await cluster.until(ENDPOINTSLICES, lambda all_: any(s.get("endpoints") for s in of(all_, "db")))
    [one] = of(slices, "db")
    assert one["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert one["endpoints"][0]["hostname"] == "db-0"
    assert one["endpoints"][0]["conditions"] == {"ready": True, "serving": False, "terminating": False}


async def test_a_slice_spoilt_by_hand_is_mended(cluster: Cluster) -> None:
    await cluster.client.create(SERVICES, service())
    [one] = of(await cluster.until(ENDPOINTSLICES, of))
    await cluster.change(
        ENDPOINTSLICES, one, lambda s: s.update(endpoints=[{"addresses": ["10.1.1.1"], "conditions": {}}])
    )
    await cluster.until(ENDPOINTSLICES, lambda all_: of(all_) and not addresses(all_))
    await cluster.client.delete(ENDPOINTSLICES, "default", one["metadata"]["name"])
    await cluster.until(
        ENDPOINTSLICES,
        lambda all_: of(all_) and of(all_)[0]["metadata"]["uid"] != one["metadata"]["uid"],
    )


async def test_endpoints_made_by_hand_are_mirrored(cluster: Cluster) -> None:
    without = service("ext")
    del without["spec"]["selector"]
    await cluster.client.create(SERVICES, without)
    made = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "ext", "namespace": "default"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 5432}]}],
    }
    await cluster.client.create(ENDPOINTS, made)
    manager = "endpointslicemirroring-controller.k8s.io"
    slices = await cluster.until(ENDPOINTSLICES, lambda all_: of(all_, "ext", manager))
    [one] = of(slices, "ext", manager)
    assert one["endpoints"] == [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}]
    assert one["ports"][0]["port"] == 5432
    await cluster.client.delete(ENDPOINTS, "default", "ext")
    await cluster.until(ENDPOINTSLICES, lambda all_: not of(all_, "ext", manager))


async def test_mirrored_slices_follow_labels_and_annotations_and_both_families(cluster: Cluster) -> None:
    without = service("ext", ipFamilies=["IPv4"])
    del without["spec"]["selector"]
    await cluster.client.create(SERVICES, without)
    made = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "ext", "namespace": "default", "labels": {"a": "1"}, "annotations": {"n": "1"}},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "ports": [{"port": 5432}]}],
    }
    await cluster.client.create(ENDPOINTS, made)
    manager = "endpointslicemirroring-controller.k8s.io"
    slices = await cluster.until(ENDPOINTSLICES, lambda all_: len(of(all_, "ext", manager)) == 2)
    assert {s["addressType"]: s["endpoints"][0]["addresses"] for s in of(slices, "ext", manager)} == {
        "IPv4": ["192.0.2.1"],
        "IPv6": ["2001:db8::1"],
    }
    await cluster.change(
        ENDPOINTS, made, lambda e: e["metadata"].update(labels={"a": "2"}, annotations={"n": "2"})
    )

    def told(slices: list[Object]) -> bool:
        metas = [s["metadata"] for s in of(slices, "ext", manager)]
        return all(m["labels"]["a"] == "2" and m.get("annotations") == {"n": "2"} for m in metas)

    await cluster.until(ENDPOINTSLICES, told)


async def test_of_a_subset_a_thousand_addresses_are_mirrored(cluster: Cluster) -> None:
    without = service("many")
    del without["spec"]["selector"]
    await cluster.client.create(SERVICES, without)
    given = [{"ip": f"192.0.{n // 250}.{n % 250}"} for n in range(1003)]
    meta = {"name": "many", "namespace": "default"}
    made = {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": [{"addresses": given, "ports": [{"port": 80}]}]}  # fmt: skip
    await cluster.client.create(ENDPOINTS, made)
    manager = "endpointslicemirroring-controller.k8s.io"
    slices = of(await cluster.until(ENDPOINTSLICES, lambda all_: of(all_, "many", manager)), "many", manager)
    assert [len(s["endpoints"]) for s in slices] == [1000]
    event = await cluster.event("TooManyAddressesToMirror")
    assert event["involvedObject"]["kind"] == "Endpoints"
    assert event["message"] == (
        "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 3 addresses were skipped"
    )


BOTH = {"service_cidrs": ("10.96.0.0/16", "fd00:96::/112")}


@pytest.mark.parametrize("api", [BOTH], indirect=True)
async def test_two_families_have_slices_of_their_own(cluster: Cluster) -> None:
    await cluster.node()
    await cluster.client.create(SERVICES, service(ipFamilyPolicy="PreferDualStack"))
    p = await cluster.client.create(PODS, pod("a", {"app": "web"}))
    await cluster.run(p, ip="10.244.0.9,fd00:244::9")
    # A pod of one family is an endpoint of that one alone.
    p = await cluster.client.create(PODS, pod("b", {"app": "web"}))
    await cluster.run(p, ip="10.244.0.10")

    def by_family(slices: list[Object]) -> dict[str, set[str]]:
        return {
            s["addressType"]: {a for e in s.get("endpoints") or () for a in e["addresses"]}
            for s in of(slices)
        }

    both = {"IPv4": {"10.244.0.9", "10.244.0.10"}, "IPv6": {"fd00:244::9"}}
    await cluster.until(ENDPOINTSLICES, lambda all_: by_family(all_) == both)
    await cluster.change(SERVICES, service(), lambda s: s["spec"].update(ipFamilyPolicy="SingleStack"))
    await cluster.until(ENDPOINTSLICES, lambda all_: by_family(all_) == {"IPv4": both["IPv4"]})
    # The Endpoints of before slices has the primary family.
    found = await cluster.until(ENDPOINTS, lambda all_: any(e.get("subsets") for e in all_))
    [subset] = next(e for e in found if e["metadata"]["name"] == "web")["subsets"]
    assert {a["ip"] for a in subset["addresses"]} == both["IPv4"]


@pytest.mark.parametrize(
    ("wish", "hints"),
    [
        ("PreferSameZone", {"forZones": [{"name": "z1"}]}),
        ("PreferClose", {"forZones": [{"name": "z1"}]}),
        ("PreferSameNode", {"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]}),
        (None, None),
    ],
)
async def test_hints_say_for_whom_an_endpoint_is_near(
    cluster: Cluster, wish: str | None, hints: Object | None
) -> None:
    await cluster.node("n1", labels={"topology.kubernetes.io/zone": "z1"})
    await cluster.client.create(SERVICES, service(trafficDistribution=wish))
    for name, ready in (("a", True), ("b", False)):
        p = await cluster.client.create(PODS, pod(name, {"app": "web"}))
        await cluster.run(p, ready=ready)

    def both(all_: list[Object]) -> list[Object]:
        found = [e for s in of(all_) for e in s.get("endpoints") or ()]
        return sorted(found, key=lambda e: str(e["targetRef"]["name"])) if len(found) == 2 else []

    ready_one, unready = both(await cluster.until(ENDPOINTSLICES, both))
    assert ready_one.get("hints") == hints
    assert "hints" not in unready, "nothing is sent to it, wherever it is"


async def test_the_slices_of_a_service_that_was_before_are_not_those_of_the_next(cluster: Cluster) -> None:
    await cluster.node()
    made = await cluster.client.create(SERVICES, service())
    [mine] = of(await cluster.until(ENDPOINTSLICES, of))
    before = deep_copy(mine)
    before["metadata"] = {k: before["metadata"][k] for k in ("namespace", "labels", "ownerReferences")}
    before["metadata"] |= {"name": "web-before"}
    before["metadata"]["ownerReferences"][0]["uid"] = "another"
    before["endpoints"] = [{"addresses": ["10.244.0.99"], "conditions": {"ready": True}}]
    await cluster.client.create(ENDPOINTSLICES, before)
    slices = await cluster.until(ENDPOINTSLICES, lambda all_: [s["metadata"]["name"] for s in of(all_)] == [mine["metadata"]["name"]])  # fmt: skip
    assert of(slices)[0]["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]


async def test_a_pod_on_the_nodes_network_is_an_endpoint_at_the_nodes_address(cluster: Cluster) -> None:
    await cluster.node()
    await cluster.client.create(SERVICES, service())
    p = await cluster.client.create(PODS, pod("a", {"app": "web"}, hostNetwork=True))
    await cluster.run(p, ip="172.29.0.2")
    await cluster.until(ENDPOINTSLICES, lambda all_: addresses(all_, ready=True) == {"172.29.0.2"})


def test_of_many_pods_only_the_changed_one_is_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    svc = service(ipFamilies=["IPv4"])
    pods = [{**pod(f"p{n}"), "status": {"phase": "Running", "podIP": f"10.244.0.{n}"}} for n in range(100)]
    for n, p in enumerate(pods):
        p["metadata"]["uid"] = str(n)
    node: Object = {"metadata": {"labels": {"topology.kubernetes.io/zone": "z1"}}}
    asked: list[str] = []
    made = endpoints._endpoint

    def noting(service: Object, pod: Object, zone: str, address: str) -> Object:
        asked.append(address)
        return made(service, pod, zone, address)

    monkeypatch.setattr(endpoints, "_endpoint", noting)
    computed = endpoints.Computed()
    first = computed.wanted(svc, pods, lambda name: node)
    assert len(asked) == 100
    asked.clear()
    pods[7] = deep_copy(pods[7])
    again = computed.wanted(svc, pods, lambda name: deep_copy(node))
    assert (asked, again) == (["10.244.0.7"], first)
    # Another zone or another Service is another matter.
    node["metadata"]["labels"] = {}
    assert computed.wanted(svc, pods, lambda name: node) == endpoints.Computed().wanted(
        svc, pods, lambda name: node
    )
    asked.clear()
    computed.wanted(deep_copy(svc), pods, lambda name: node)
    assert len(asked) == 100


# ---- layout


def endpoint(n: int) -> Object:
    return {
        "addresses": [f"10.0.{n // 250}.{n % 250}"],
        "conditions": {"ready": True},
        "targetRef": {"uid": str(n)},
    }


PORTS: list[Object] = [{"name": "", "port": 80, "protocol": "TCP"}]


def holding(name: str, numbers: Any) -> Object:
    return {
        "metadata": {"name": name},
        "addressType": "IPv4",
        "ports": PORTS,
        "endpoints": [endpoint(n) for n in numbers],
    }


def planned(numbers: Any, slices: list[Object]) -> layout.Plan:
    return layout.plan({("IPv4", shape_of(PORTS)): (PORTS, [endpoint(n) for n in numbers])}, ["IPv4"], slices)


def test_at_most_a_hundred_in_a_slice() -> None:
    made = planned(range(250), [])
    assert [len(c["endpoints"]) for c in made.create] == [100, 100, 50]


def test_one_change_is_one_write() -> None:
    full, half = holding("full", range(100)), holding("half", range(100, 150))
    made = planned([*range(50), *range(51, 151)], [full, half])
    assert not made.create
    assert not made.delete
    # The slice that loses one takes in the new one.
    assert [(one["metadata"]["name"], len(parts)) for one, parts in made.update] == [("full", 100)]
    assert planned(range(150), [full, half]) == layout.Plan(keep=[full, half])


def test_an_empty_service_keeps_one_slice_without_ports() -> None:
    made = planned([], [holding("a", range(3))])
    assert not made.create
    assert [parts for _, parts in made.update] == [[]] or made.delete
    bare = layout.plan({}, ["IPv4"], [holding("a", range(3))])
    assert [c["ports"] for c in bare.create] == [[]]
    assert [d["metadata"]["name"] for d in bare.delete] == ["a"]
