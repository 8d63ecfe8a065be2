"""Gateways as values: what their listeners come to, and what is told of Gateways, routes and classes. The cases are those of upstream's
conformance tests, which are named at each; the objects are our own."""

from __future__ import annotations

import pytest

from sampan.api.errors import Object
from sampan.api.resources import GATEWAYS
from sampan.ingress import certificates, gateway_controller, gateway_status, gateways
from tests.ingress.gateway_objects import (
    BEFORE,
    NOW,
    Cluster,
    cluster,
    gateway,
    grant,
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


def test_certificates() -> None:
    """GatewaySecretReferenceGrantSpecific, GatewaySecretMissingReferenceGrant, GatewayInvalidTLSConfiguration, HTTPRouteHTTPSListener."""
    there = {"certificateRefs": [{"name": "pair", "namespace": "other"}]}
    world = cluster(tls(hostname="a.example.com", tls=there))
    state = world.state()
    assert (state.listeners[0].resolved.reason, state.ports) == ("RefNotPermitted", ())
    assert said(world.status()["listeners"][0]["conditions"])["Programmed"] == "False Invalid"
    world.grants.append(grant("Gateway", "infra", "Secret"))
    assert world.state().listeners[0].resolved.reason == "InvalidCertificateRef"
    world.secrets.append(tls_secret("other", "pair", "a.example.com"))
    state = world.state()
    assert state.listeners[0].resolved.status
    service = {"spec": {"ports": [{"port": 443, "nodePort": 31000}]}}
    found = gateways.contribution(state, service)
    (listener,) = found.listeners
    assert (listener.port, listener.public_port, listener.tls, listener.scope) == (
        31000,
        443,
        True,
        "infra/g:443",
    )
    assert [(c.scope, str(c.host)) for c in found.certificates] == [
        ("infra/g:443", "a.example.com"),
        ("infra/g:443", "*"),  # for who asks for none of its hosts
    ]
    world.gateways[0]["spec"]["listeners"][0]["tls"]["options"] = {"example.com/a": "b"}
    assert said(world.status()["listeners"][0]["conditions"])["Accepted"] == "False Invalid"
    world.secrets[0]["data"]["tls.key"] = "bm9uZQ=="
    assert said(world.status()["listeners"][0]["conditions"])["ResolvedRefs"] == "False InvalidCertificateRef"


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ({"name": "good"}, "True ResolvedRefs"),
        ({"name": "nothing"}, "False InvalidCertificateRef"),
        ({"name": "good", "group": "example.com"}, "False InvalidCertificateRef"),
        ({"name": "good", "kind": "Certificate"}, "False InvalidCertificateRef"),
        ({"name": "torn"}, "False InvalidCertificateRef"),
        ({"name": "opaque"}, "False InvalidCertificateRef"),
        ({"name": "good", "namespace": "infra"}, "True ResolvedRefs"),
        ({"name": "good", "namespace": "other"}, "False RefNotPermitted"),
        ({"name": "nothing", "namespace": "other"}, "False RefNotPermitted"),
    ],
)
def test_references_to_certificates(ref: Object, expected: str) -> None:
    """GatewayInvalidTLSConfiguration, GatewaySecretMissingReferenceGrant, GatewaySecretMissingReferencedSecret."""
    world = cluster(web(), tls(tls={"certificateRefs": [ref]}))
    world.secrets += [tls_secret(where, "good", "a.example.com") for where in ("infra", "other")]
    torn, opaque = tls_secret("infra", "torn", "a"), tls_secret("infra", "opaque", "a")
    torn["data"]["tls.crt"], opaque["type"] = "Tm8gUEVNLg==", "Opaque"
    world.secrets += [torn, opaque]
    status = world.status()
    _, found = (said(one["conditions"]) for one in status["listeners"])
    assert (found["Accepted"], found["ResolvedRefs"]) == ("True Accepted", expected)
    assert found["Programmed"] == ("True Programmed" if expected.startswith("True") else "False Invalid")
    assert said(status["conditions"]) == {"Accepted": "True Accepted", "Programmed": "True Programmed"}
    # One that is good beside it is shown all the same.
    refs = world.gateways[0]["spec"]["listeners"][1]["tls"]["certificateRefs"]
    refs.append({"name": "good", "kind": "Secret", "group": ""})
    found = said(world.status()["listeners"][1]["conditions"])
    assert (found["Programmed"], found["ResolvedRefs"]) == ("True Programmed", expected)


def _odd_grant(end: str, **given: str) -> Object:
    made = grant("Gateway", "infra", "Secret", "pair")
    made["spec"][end][0] |= given
    return made


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (grant("Gateway", "infra", "Secret", "pair"), True),
        (grant("Gateway", "infra", "Secret"), True),
        (_odd_grant("to", name=""), True),
        (grant("Gateway", "infra", "Secret", "pair", in_="third"), False),
        (_odd_grant("from", group="example.com"), False),
        (_odd_grant("from", kind="HTTPRoute"), False),
        (_odd_grant("from", namespace="third"), False),
        (_odd_grant("to", group="example.com"), False),
        (_odd_grant("to", kind="Service"), False),
        (_odd_grant("to", name="another"), False),
    ],
)
def test_grants_for_secrets(given: Object, allowed: bool) -> None:
    """GatewaySecretReferenceGrantSpecific, GatewaySecretReferenceGrantAllInNamespace, GatewaySecretInvalidReferenceGrant."""
    world = cluster(tls(tls={"certificateRefs": [{"name": "pair", "namespace": "other"}]}))
    world.secrets.append(tls_secret("other", "pair", "a.example.com"))
    world.grants.append(given)
    (listener,) = world.status()["listeners"]
    expected = "True ResolvedRefs" if allowed else "False RefNotPermitted"
    assert said(listener["conditions"])["ResolvedRefs"] == expected


CERTIFICATES = {
    "xyz": ["*.xyz.example.com"], "test": ["*.test.example.com"], "wide": ["*.example.com"],
    "deep": ["A.b.example.com"], "odd": ["*", "*.*.example.com", "a_b.example.com", "good.example.com"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("listeners", "shown"),
    [
        # HTTPSListenerMultiTLSCertsLongestMatchingSNI
        (
            [("*.example.com", "xyz test wide")],
            {"*.xyz.example.com": "xyz", "*.test.example.com": "test", "*.example.com": "wide", "": "wide"},
        ),
        # A wildcard of a listener stands for several labels: for none of these is the node's own shown.
        ([("*.example.com", "wide")], {"*.example.com": "wide", "": "wide"}),
        ([("*.example.com", "deep")], {"a.b.example.com": "deep", "*.example.com": "deep", "": "deep"}),
        # The first that is for the host, or else the first.
        ([("a.example.com", "test wide")], {"a.example.com": "wide", "": "wide"}),
        ([("example.org", "test wide")], {"example.org": "test", "": "test"}),
        # Of a name that another listener is more like its certificates go first.
        (
            [("*.example.com", "wide"), ("", "deep"), ("a.b.example.com", "test")],
            {"*.example.com": "wide", "a.b.example.com": "test", "": "deep"},
        ),
        (
            [("", "xyz"), ("*.example.com", "wide")],
            {"*.example.com": "wide", "": "xyz"},
        ),
        ([("", "deep")], {"a.b.example.com": "deep", "": "deep"}),
        # Names that cannot be asked for.
        ([("", "odd")], {"good.example.com": "odd", "": "odd"}),
    ],
)  # fmt: skip
def test_which_certificate_is_shown(listeners: list[tuple[str, str]], shown: dict[str, str]) -> None:
    given = [
        tls(f"l{i}", tls={"certificateRefs": [{"name": n} for n in names.split()]})
        | ({"hostname": host} if host else {})
        for i, (host, names) in enumerate(listeners)
    ]
    world = cluster(*given)
    world.secrets += [tls_secret("infra", name, *names) for name, names in CERTIFICATES.items()]
    found = gateways.contribution(world.state(), {"spec": {"ports": [{"port": 443, "nodePort": 31000}]}})
    chains = {certificates.pair(s)[0]: s["metadata"]["name"] for s in world.secrets}
    assert {c.host.name: chains[c.chain] for c in found.certificates} == shown


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


def test_class() -> None:
    """GatewayClassObservedGenerationBump, GatewayClassSupportedVersionCondition (as far as there are no CRDs); features are sorted."""
    obj = gateway_controller.gateway_class()
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
