"""Services over the API: types that change both ways, what is allocated and given back, upstream's words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.apiserver.app import App
from sampan.store.sqlite import open_store

from .conftest import Api, config

SERVICES = "/api/v1/namespaces/default/services"
MERGE = "application/merge-patch+json"


@pytest.fixture
async def small(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Api]:
    """An API with few addresses and node ports, of the families that it is parametrized with."""
    store = await open_store(tmp_path / "db")
    app = App(store, config(node_port_range=(30000, 30009), **getattr(request, "param", {})))
    await app.start()
    yield Api(app, store, tmp_path)
    await app.close()
    await store.close()


def service(name: str = "web", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec},
    }


async def patch(api: Api, patch: Object, name: str = "web") -> Object:
    found: Object = await api.ok("PATCH", f"{SERVICES}/{name}", patch, content_type=MERGE)
    return found


async def held(api: Api) -> set[str]:
    """The addresses that Services of the default namespace have, but for the API's own."""
    listed = await api.ok("GET", "/apis/networking.k8s.io/v1/ipaddresses")
    return {i["metadata"]["name"] for i in listed["items"] if i["spec"]["parentRef"]["name"] != "kubernetes"}


async def test_types_change_both_ways_and_give_back_what_they_had(small: Api) -> None:
    made = await small.ok("POST", SERVICES, service())
    address = made["spec"]["clusterIP"]
    assert await held(small) == {address}

    spec = (await patch(small, {"spec": {"type": "NodePort"}}))["spec"]
    node_port = spec["ports"][0]["nodePort"]
    assert (spec["clusterIP"], spec["externalTrafficPolicy"]) == (address, "Cluster")

    spec = (await patch(small, {"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}}))["spec"]
    health = spec["healthCheckNodePort"]
    assert (spec["ports"][0]["nodePort"], spec["allocateLoadBalancerNodePorts"]) == (node_port, True)
    assert 30000 <= health <= 30009
    assert health != node_port
    ingress = {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}}
    await small.ok("PATCH", f"{SERVICES}/web/status", ingress, content_type=MERGE)

    # Its health check port is free again, and what the load balancer said is gone with it.
    whole = await patch(small, {"spec": {"type": "NodePort"}})
    assert "healthCheckNodePort" not in whole["spec"]
    assert "allocateLoadBalancerNodePorts" not in whole["spec"]
    assert whole["status"] == {"loadBalancer": {}}
    await small.ok(
        "POST", SERVICES, service("taker", type="NodePort", ports=[{"port": 80, "nodePort": health}])
    )

    spec = (await patch(small, {"spec": {"type": "ClusterIP"}}))["spec"]
    assert spec["clusterIP"] == address
    assert "nodePort" not in spec["ports"][0]
    assert "externalTrafficPolicy" not in spec
    await small.ok(
        "POST", SERVICES, service("next", type="NodePort", ports=[{"port": 80, "nodePort": node_port}])
    )

    spec = (await patch(small, {"spec": {"type": "ExternalName", "externalName": "example.org"}}))["spec"]
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & set(spec)
    assert address not in await held(small)
    spec = (await patch(small, {"spec": {"type": "ClusterIP", "externalName": None}}))["spec"]
    assert (spec["clusterIPs"], spec["ipFamilies"]) == ([spec["clusterIP"]], ["IPv4"])
    assert spec["clusterIP"] in await held(small)


async def test_a_service_cannot_become_headless_and_not_the_other_way_round(small: Api) -> None:
    await small.ok("POST", SERVICES, service())
    reply = await small("PATCH", f"{SERVICES}/web", {"spec": {"clusterIP": "None"}}, content_type=MERGE)
    assert reply.status == 422
    assert reply.json["message"] == (
        'Service "web" is invalid: spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set'
    )
    await small.ok("POST", SERVICES, service("bare", clusterIP="None"))
    reply = await small("PATCH", f"{SERVICES}/bare", {"spec": {"type": "NodePort"}}, content_type=MERGE)
    assert "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services" in reply.json["message"]  # fmt: skip


async def test_node_ports_stay_with_the_names_of_their_ports(small: Api) -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    made = await small.ok("POST", SERVICES, service(type="NodePort", ports=ports))
    had = {p["name"]: p["nodePort"] for p in made["spec"]["ports"]}
    changed = service(type="NodePort", ports=[{"name": "b", "port": 8081}, {"name": "c", "port": 80}])
    put = await small.ok("PUT", f"{SERVICES}/web", changed)
    assert {p["name"]: p["nodePort"] for p in put["spec"]["ports"]}["b"] == had["b"]
    assert put["spec"]["ports"][1]["nodePort"] not in (had["b"], None)


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        (
            {"ipFamilies": ["IPv6"]},
            422,
            'Service "web" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster',
        ),
        (
            {"ipFamilyPolicy": "RequireDualStack"},
            422,
            'Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured '
            "for dual-stack services",
        ),
        (
            {"clusterIP": "2001:db8::1"},
            422,
            'Service "web" is invalid: spec.clusterIPs[0]: Invalid value: ["2001:db8::1"]: IPv6 is not configured on this '
            "cluster",
        ),
        (
            {"clusterIP": "10.97.0.1"},
            422,
            'Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.97.0.1"]: failed to allocate IP 10.97.0.1: the '
            "provided network does not match the current range",
        ),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 29999}]},
            422,
            'Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 29999: provided port is not in the valid range. '
            "The range of valid ports is 30000-30009",
        ),
        (
            {"type": "NodePort", "ports": [{"name": f"p{n}", "port": n} for n in range(1, 12)]},
            500,
            "Internal error occurred: failed to allocate a nodePort: range is full",
        ),
    ],
)
async def test_what_a_cluster_of_one_family_says(small: Api, spec: Object, code: int, message: str) -> None:
    reply = await small("POST", SERVICES, service(**spec))
    assert (reply.status, reply.json["message"]) == (code, message)
    assert not await held(small)


BOTH = {"service_cidrs": ("10.96.0.0/24", "fd00:96::/112")}


@pytest.mark.parametrize("small", [BOTH], indirect=True)
async def test_two_families_over_the_api(small: Api) -> None:
    made = await small.ok("POST", SERVICES, service(ipFamilyPolicy="PreferDualStack", type="NodePort"))
    assert made["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert await held(small) == set(made["spec"]["clusterIPs"])
    down = await patch(small, {"spec": {"ipFamilyPolicy": "SingleStack"}})
    assert (down["spec"]["clusterIPs"], down["spec"]["ipFamilies"]) == (
        made["spec"]["clusterIPs"][:1],
        ["IPv4"],
    )
    assert await held(small) == {down["spec"]["clusterIP"]}
    up = await patch(small, {"spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}})
    assert up["spec"]["clusterIP"] == down["spec"]["clusterIP"]
    reply = await small(
        "PATCH", f"{SERVICES}/web", {"spec": {"ipFamilies": ["IPv6", "IPv4"]}}, content_type=MERGE
    )
    assert (
        'spec.ipFamilies[0]: Invalid value: ["IPv6","IPv4"]: may not change once set' in reply.json["message"]
    )
    shown = await small.ok("GET", f"{SERVICES}/web", accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert shown["rows"][0]["cells"][2] == up["spec"]["clusterIP"], "kubectl shows the primary one"
    await small.ok("DELETE", f"{SERVICES}/web")
    assert not await held(small)


async def test_endpoints_are_deprecated(small: Api) -> None:
    reply = await small("GET", "/api/v1/namespaces/default/endpoints")
    assert reply.warnings == [
        '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    ]
