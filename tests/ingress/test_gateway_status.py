"""Gateways as values: what their listeners come to, and what is told of Gateways, routes and classes. The cases are those of upstream's
conformance tests, which are named at each; the objects are our own."""

from __future__ import annotations

import pytest

from sampan.api.errors import Object
from sampan.api.resources import GATEWAYS
from sampan.ingress import gateway_controller, gateway_status, gateways, own_objects
from sampan.ingress.door_slices import endpoint_slice
from tests.ingress.gateway_objects import (
    BEFORE,
    NOW,
    Cluster,
    cluster,
    gateway,
    http,
    said,
    service,
    tls,
    tls_secret,
    web,
)


def test_status_of_a_gateway() -> None:
    """GatewayWithAttachedRoutes, GatewayObservedGenerationBump, GatewayModifyListeners."""
    status = cluster(web(), web("other", 8080)).status({"web": 2})
    assert status["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]
    assert said(status["conditions"]) == {"Accepted": "True Accepted", "Programmed": "True Programmed"}
    one, two = status["listeners"]
    assert (one["name"], one["attachedRoutes"], two["attachedRoutes"]) == ("web", 2, 0)
    assert [k["kind"] for k in one["supportedKinds"]] == ["HTTPRoute", "GRPCRoute"]
    assert said(one["conditions"]) == {
        "Accepted": "True Accepted", "Conflicted": "False NoConflicts", "Programmed": "True Programmed",
        "ResolvedRefs": "True ResolvedRefs",
    }  # fmt: skip
    waiting = cluster().status(addresses=())
    assert said(waiting["conditions"])["Programmed"] == "False AddressNotAssigned"
    assert said(waiting["listeners"][0]["conditions"])["Programmed"] == "False Pending"


def test_conditions_keep_their_time_and_their_neighbours() -> None:
    """GatewayPreserveForeignConditions."""
    world = cluster()
    foreign = {
        "type": "example.com/Checked",
        "status": "True",
        "reason": "A",
        "message": "",
        "lastTransitionTime": BEFORE,
    }
    old = [{**c, "lastTransitionTime": BEFORE} for c in world.status()["conditions"]]
    world.gateways[0]["status"] = {"conditions": [foreign, *old]}
    listener = {"name": "web", "conditions": [foreign]}
    world.gateways[0]["status"]["listeners"] = [listener, {"name": "gone", "conditions": [foreign]}]
    conditions = world.status()["conditions"]
    assert conditions == [foreign, *old]
    (one,) = world.status()["listeners"]
    assert one["conditions"][0] == foreign
    assert len(one["conditions"]) == 5
    changed = {c["type"]: c["lastTransitionTime"] for c in world.status(addresses=())["conditions"]}
    assert changed == {"example.com/Checked": BEFORE, "Accepted": BEFORE, "Programmed": NOW}


def test_what_was_not_looked_at_yet_is_not_called_observed() -> None:
    """GatewayObservedGenerationBump, HTTPRouteObservedGenerationBump: a verdict is on the state that was read, whatever came meanwhile."""
    world, route = cluster(), http()
    state, route_state = world.state(), world.route(route)
    newer = gateway(web(), web("new", 8080))
    newer["metadata"]["generation"] = 4
    status = gateway_status.gateway_status(newer, state, {}, ("192.0.2.1",), True, NOW)
    assert [one["name"] for one in status["listeners"]] == ["web"]
    route["metadata"]["generation"] = 4
    (parent,) = gateway_status.route_status(route, route_state, NOW)["parents"]
    for conditions in (status["conditions"], status["listeners"][0]["conditions"], parent["conditions"]):
        assert {c["observedGeneration"] for c in conditions} == {3}


@pytest.mark.parametrize(
    ("kinds", "reason", "left"),
    [
        ([{"kind": "TCPRoute"}], "InvalidRouteKinds", []),
        ([{"kind": "TCPRoute"}, {"kind": "HTTPRoute"}], "InvalidRouteKinds", ["HTTPRoute"]),
        ([{"kind": "HTTPRoute", "group": "example.com"}], "InvalidRouteKinds", []),
        (
            [{"kind": "HTTPRoute"}, {"kind": "HTTPRoute", "group": "example.com"}],
            "InvalidRouteKinds",
            ["HTTPRoute"],
        ),
        ([{"kind": "GRPCRoute"}, {"kind": "GRPCRoute"}], "ResolvedRefs", ["GRPCRoute"]),
        ([{"kind": "GRPCRoute"}], "ResolvedRefs", ["GRPCRoute"]),
    ],
)
def test_kinds_of_routes(kinds: list[Object], reason: str, left: list[str]) -> None:
    """GatewayInvalidRouteKind."""
    (listener,) = cluster(web(allowedRoutes={"kinds": kinds})).status()["listeners"]
    assert said(listener["conditions"])["ResolvedRefs"].endswith(reason)
    assert [k["kind"] for k in listener["supportedKinds"]] == left


def test_protocols() -> None:
    """GatewayInvalidListenersUnsupportedProtocol, and HTTP and HTTPS on one port."""
    world = cluster(web(), {"name": "tcp", "port": 90, "protocol": "TCP"}, web("a", 443), tls("b"))
    world.secrets.append(tls_secret("infra", "pair", "example.com"))
    status = world.status()
    assert said(status["conditions"])["Accepted"] == "True ListenersNotValid"
    found = {one["name"]: said(one["conditions"]) for one in status["listeners"]}
    assert found["tcp"]["Accepted"] == "False UnsupportedProtocol"
    assert found["a"]["Conflicted"] == found["b"]["Conflicted"] == "True ProtocolConflict"
    assert found["a"]["Accepted"] == found["b"]["Accepted"] == "False Invalid"
    assert found["a"]["Programmed"] == "False Invalid"
    assert found["web"]["Programmed"] == "True Programmed"
    status = cluster({"name": "tcp", "port": 90, "protocol": "TCP"}).status()
    assert said(status["conditions"]) == {
        "Accepted": "False ListenersNotValid",
        "Programmed": "False Invalid",
    }
    assert status["listeners"][0]["supportedKinds"] == []


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"addresses": [{"type": "Hostname", "value": "a.b"}]}, "UnsupportedAddress"),
        ({"tls": {"frontend": {"default": {}}}}, "Invalid"),
        (
            {"addresses": [{"type": "example.com/x", "value": "a"}, {"value": "192.0.2.1"}]},
            "UnsupportedAddress",
        ),
        (
            {"infrastructure": {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "c"}}},
            "InvalidParameters",
        ),
    ],
)
def test_gateways_that_cannot_be_had(spec: Object, reason: str) -> None:
    """GatewayStaticAddresses' first step, GatewayInvalidParametersRef."""
    status = cluster(**spec).status()
    assert said(status["conditions"]) == {"Accepted": f"False {reason}", "Programmed": "False Invalid"}


def test_addresses_that_a_gateway_asks_for() -> None:
    """GatewayStaticAddresses: one that cannot be had is told, and so is that there is one alone."""
    for asked, given, programmed in (
        (["192.0.2.1"], "192.0.2.1", "True Programmed"),
        (["2001:DB8:0::1"], "2001:db8::1", "True Programmed"),
        (["192.0.2.1"], "", "False AddressNotUsable"),
        (["192.0.2.1"], "192.0.2.9", "False AddressNotUsable"),
        (["192.0.2.7", "192.0.2.1"], "", "False AddressNotUsable"),
        (["192.0.2.1", "192.0.2.7"], "192.0.2.1", "False AddressNotUsable"),
        ([None], "192.0.2.1", "True Programmed"),
        ([], "", "False AddressNotAssigned"),
    ):
        spec = [{"value": a} if a else {} for a in asked]
        status = cluster(addresses=spec).status(addresses=(given,) if given else ())
        assert said(status["conditions"]) == {"Accepted": "True Accepted", "Programmed": programmed}


def test_the_service_of_a_gateway() -> None:
    """GatewayInfrastructure, GatewayOptionalAddressValue, GatewayNameMaximumLength."""
    obj = gateway(web(), web("b", 80, hostname="a"), web("c", 8080), infrastructure={"labels": {"a": "b"}, "annotations": {"c": "d"}},
                  addresses=[{"value": "192.0.2.7"}])  # fmt: skip
    state = gateways.read(obj, lambda ns, n: None, lambda *a: False)
    made = gateway_controller.service(obj, state)
    assert [(p["port"], p["name"]) for p in made["spec"]["ports"]] == [(80, "port-80"), (8080, "port-8080")]
    assert made["spec"]["loadBalancerIP"] == "192.0.2.7"
    assert made["metadata"]["labels"] == {"a": "b", "gateway.networking.k8s.io/gateway-name": "g"}
    assert made["metadata"]["annotations"] == {"c": "d"}
    assert made["metadata"]["ownerReferences"][0]["uid"] == obj["metadata"]["uid"]
    names = ["g" * 253, "g" * 252 + "h", "a.b", "a-b"]
    given = [gateways.service_name(n) for n in names]
    assert len(set(given)) == len(given)
    assert all(len(n) <= 63 and "." not in n for n in given)


def test_gateways_have_no_slice_in_common() -> None:
    """Not where one is called as another one's slice for IPv6 would be: they would take it from each other for ever."""
    services = [gateways.service_name(n) for n in ("a", "a-ipv6", "a-ipv6-ipv6")]
    slices = [endpoint_slice([], "infra", s, [], family) for s in services for family in ("IPv4", "IPv6")]
    assert len({one["metadata"]["name"] for one in slices}) == 6


def test_class() -> None:
    """GatewayClassObservedGenerationBump, GatewayClassSupportedVersionCondition (as far as there are no CRDs); features are sorted."""
    obj = own_objects.gateway_class()
    obj["metadata"]["generation"] = 3
    status = gateway_status.class_status(obj, NOW)
    assert said(status["conditions"]) == {
        "Accepted": "True Accepted",
        "SupportedVersion": "True SupportedVersion",
    }
    names = [f["name"] for f in status["supportedFeatures"]]
    assert names == sorted(names)
    obj["spec"]["parametersRef"] = {"group": "", "kind": "ConfigMap", "name": "c"}
    assert said(gateway_status.class_status(obj, NOW)["conditions"])["Accepted"] == "False InvalidParameters"
    # Nor is a Gateway of it as if nothing had been asked for.
    one, nobody = gateway(), Cluster()
    state = gateways.read(one, lambda ns, n: None, nobody.granted, of_class=gateways.class_verdict(obj))
    assert (state.accepted.reason, state.ports) == ("InvalidParameters", ())
    assert state.accepted.message.startswith("GatewayClass sampan: parametersRef: ConfigMap c")


def test_every_status_fits_the_schema() -> None:
    from sampan.api import validation

    obj = gateway(web(), tls())
    world = Cluster([obj], [service()])
    obj["status"] = world.status({"web": 1})
    obj["metadata"]["resourceVersion"] = "1"
    assert [str(p) for p in validation.update(GATEWAYS, obj, obj, "status")] == []


def test_hosts_of_several_certificates() -> None:
    """GatewayOverlappingTLSConfigHostnames: a condition that is there only where it is true."""
    hosts = {"a": "*.example.com", "b": "bar.bar.example.com", "c": "example.com", "d": "other.org"}
    made_of = [tls(name, hostname=host) for name, host in hosts.items()]
    secrets = [tls_secret("infra", "pair", "*.example.com")]
    one = cluster(*made_of, web(hostname="x.example.com"), tls("e", hostname="y.example.com", port=8443))
    one.secrets += secrets
    conditions = {
        listener["name"]: {c["type"]: (c["status"], c["reason"]) for c in listener["conditions"]}
        for listener in one.status()["listeners"]
    }
    overlap = ("True", "OverlappingHostnames")
    assert {n: c.get("OverlappingTLSConfig") for n, c in conditions.items()} == {
        "a": overlap, "b": overlap, "c": None, "d": None, "web": None, "e": None,
    }  # fmt: skip
    one.gateways[0]["status"] = one.status()
    one.gateways[0]["spec"]["listeners"][1]["hostname"] = "bar.org"
    again = {c["type"] for listener in one.status()["listeners"] for c in listener["conditions"]}
    assert "OverlappingTLSConfig" not in again
