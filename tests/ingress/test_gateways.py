"""Gateways and routes as values: who attaches where, what is routed, what is told. The cases are those of upstream's conformance tests, which are
named at each; the objects are our own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from sampan.api import defaults
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import GATEWAYS, by_kind
from sampan.ingress import gateway_controller, gateway_references, gateway_routes, gateway_status, gateways
from sampan.ingress.gateway_routes import RouteState, World
from sampan.ingress.gateways import GatewayState, hosts
from sampan.ingress.types import Condition, Host, HostKind, Path, PathKind, Redirect, Rewrite, Timeouts

from .test_certificates import make, secret

NOW, BEFORE = "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"
_numbers = itertools.count()


@dataclass
class Cluster:
    """Objects of a cluster, and what they come to."""

    gateways: list[Object] = field(default_factory=list)
    services: list[Object] = field(default_factory=list)
    secrets: list[Object] = field(default_factory=list)
    grants: list[Object] = field(default_factory=list)
    labels: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def granted(self, kind: str, namespace: str, to_kind: str, to_namespace: str, to_name: str) -> bool:
        grants = [g for g in self.grants if g["metadata"]["namespace"] == to_namespace]
        return gateway_references.granted(grants, kind, namespace, to_kind, to_name)

    def gateway(self, namespace: str = "infra", name: str = "g") -> GatewayState | None:
        found = _find(self.gateways, namespace, name)
        if found is None:
            return None
        return gateways.read(found, lambda ns, n: _find(self.secrets, ns, n), self.granted)

    def route(self, route: Object) -> RouteState:
        world = World(
            self.gateway,
            lambda ns, n: _find(self.services, ns, n),
            self.granted,
            lambda ns: self.labels.get(ns),
        )
        return gateway_routes.read(route, world)

    def state(self) -> GatewayState:
        found = self.gateway()
        assert found is not None
        return found

    def status(
        self, attached: Mapping[str, int] | None = None, addresses: tuple[str, ...] = ("192.0.2.1",)
    ) -> Object:
        return gateway_status.gateway_status(
            self.gateways[0], self.state(), attached or {}, addresses, True, NOW
        )


def _find(objects: list[Object], namespace: str, name: str) -> Object | None:
    return next(
        (o for o in objects if (o["metadata"]["namespace"], o["metadata"]["name"]) == (namespace, name)), None
    )


def made(kind: str, namespace: str, name: str, spec: Object, version: str = "v1") -> Object:
    obj: Object = {
        "apiVersion": f"gateway.networking.k8s.io/{version}",
        "kind": kind,
        "metadata": {
            "namespace": namespace, "name": name, "uid": f"u{next(_numbers)}", "generation": 3, "creationTimestamp": BEFORE,
        },
        "spec": deep_copy(spec),
    }  # fmt: skip
    resource = by_kind(obj["apiVersion"], kind)
    assert resource is not None
    defaults.apply(resource, obj)
    return obj


def gateway(*listeners: Object, **spec: object) -> Object:
    return made(
        "Gateway", "infra", "g", {"gatewayClassName": "sampan", "listeners": listeners or [web()], **spec}
    )


def web(name: str = "web", port: int = 80, **more: object) -> Object:
    return {"name": name, "port": port, "protocol": "HTTP", **more}


def tls(name: str = "tls", **more: object) -> Object:
    return {
        "name": name,
        "port": 443,
        "protocol": "HTTPS",
        "tls": {"certificateRefs": [{"name": "pair"}]},
        **more,
    }


def http(*rules: Object, namespace: str = "infra", **spec: object) -> Object:
    ref = {"name": "g", "namespace": "infra"}
    return made("HTTPRoute", namespace, "r", {"parentRefs": [ref], "rules": rules or [rule()], **spec})


def rule(*backends: Object, **more: object) -> Object:
    return {"backendRefs": backends or [{"name": "s", "port": 80}], **more}


def service(name: str = "s", namespace: str = "infra", **port: object) -> Object:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"port": 80, "protocol": "TCP", **port}]},
    }


def grant(kind: str, namespace: str, to_kind: str, to_name: str = "", in_: str = "other") -> Object:
    to: Object = {"group": "", "kind": to_kind, **({"name": to_name} if to_name else {})}
    of = {"group": "gateway.networking.k8s.io", "kind": kind, "namespace": namespace}
    return made("ReferenceGrant", in_, "grant", {"from": [of], "to": [to]})


def cluster(*listeners: Object, **more: object) -> Cluster:
    return Cluster([gateway(*listeners, **more)], [service(), service("t")])


def tls_secret(namespace: str, name: str, host: str) -> Object:
    return {**secret(*make(host)), "metadata": {"namespace": namespace, "name": name}}


def accepted(state: RouteState) -> list[str]:
    return [f"{p.accepted.status} {p.accepted.reason}" for p in state.parents]


def said(conditions: list[Object]) -> dict[str, str]:
    assert all(c["observedGeneration"] == 3 for c in conditions)
    return {c["type"]: f"{c['status']} {c['reason']}" for c in conditions}


# ---- attachment


def test_a_listener_that_is_refused_serves_nothing_by_another_one() -> None:
    broken = tls("broken", hostname="a.example.com")
    broken["tls"] = {"certificateRefs": [{"name": "none"}]}
    there = cluster(broken, tls("good"))
    there.secrets.append(tls_secret("infra", "pair", "a.example.com"))
    route = http(parentRefs=[{"name": "g", "sectionName": "broken"}])
    assert not there.route(route).contribution.routes
    assert there.route(http(parentRefs=[{"name": "g", "sectionName": "good"}])).contribution.routes


def test_a_simple_route() -> None:
    """HTTPRouteSimpleSameNamespace."""
    state = cluster().route(http())
    assert accepted(state) == ["True Accepted"]
    (route,) = state.contribution.routes
    assert (route.place.scope, route.place.host, route.place.path) == (
        "infra/g:80/web",
        Host(HostKind.ANY),
        Path(PathKind.PREFIX, ""),
    )
    assert [str(t.backend.port) for t in route.targets] == ["infra/s:80"]
    status = gateway_status.route_status(http(), state, NOW)
    (parent,) = status["parents"]
    assert parent["controllerName"] == "sampan.io/gateway-controller"
    assert said(parent["conditions"]) == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}


@pytest.mark.parametrize(
    ("allowed", "labels", "expected"),
    [
        ({}, {}, "False NotAllowedByListeners"),
        ({"from": "Same"}, {}, "False NotAllowedByListeners"),
        ({"from": "All"}, {}, "True Accepted"),
        ({"from": "Selector", "selector": {"matchLabels": {"web": "yes"}}}, {"web": "yes"}, "True Accepted"),
        ({"from": "Selector", "selector": {"matchLabels": {"web": "yes"}}}, {"web": "no"}, "False NotAllowedByListeners"),
    ],
)  # fmt: skip
def test_namespaces(allowed: Object, labels: dict[str, str], expected: str) -> None:
    """HTTPRouteCrossNamespace, HTTPRouteInvalidCrossNamespaceParentRef, GatewayWithAttachedRoutes."""
    world = cluster(web(allowedRoutes={"namespaces": allowed} if allowed else {}))
    world.labels["apps"] = labels
    world.services.append(service(namespace="apps"))
    state = world.route(http(namespace="apps"))
    assert accepted(state) == [expected]
    assert bool(state.contribution.routes) == expected.startswith("True")


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ({"sectionName": "web"}, "True Accepted"),
        ({"sectionName": "nothing"}, "False NoMatchingParent"),
        ({"port": 80}, "True Accepted"),
        ({"port": 82}, "False NoMatchingParent"),
        ({"sectionName": "grpc"}, "False NotAllowedByListeners"),
    ],
)
def test_sections_ports_and_kinds(ref: Object, expected: str) -> None:
    """HTTPRouteInvalidParentRefNotMatchingSectionName, HTTPRouteInvalidParentRefSectionNameNotMatchingPort, HTTPRouteDisallowedKind."""
    world = cluster(web(), web("grpc", 81, allowedRoutes={"kinds": [{"kind": "GRPCRoute"}]}))
    assert accepted(world.route(http(parentRefs=[{"name": "g", **ref}]))) == [expected]


def test_parents_that_are_none_of_ours() -> None:
    state = cluster().route(
        http(parentRefs=[{"name": "other"}, {"group": "", "kind": "Service", "name": "s"}])
    )
    assert (state.parents, state.contribution.routes) == ([], ())
    theirs = {"parentRef": {"name": "other"}, "controllerName": "example.com/x", "conditions": []}
    obj = {**http(), "status": {"parents": [theirs]}}
    assert gateway_status.route_status(obj, state, NOW) == {"parents": [theirs]}


@pytest.mark.parametrize(
    ("listener", "route", "expected"),
    [
        ("", [], ["*"]),
        ("", ["a.example.com", "A.example.com"], ["a.example.com"]),
        ("a.example.com", [], ["a.example.com"]),
        ("a.example.com", ["*.example.com"], ["a.example.com"]),
        ("a.example.com", ["b.example.com"], []),
        ("*.example.com", ["a.example.com", "a.b.example.com", "example.com", "other.org"], ["a.example.com", "a.b.example.com"]),
        ("*.example.com", ["*.b.example.com"], ["*.b.example.com"]),
        ("*.b.example.com", ["*.example.com"], ["*.b.example.com"]),
        ("*.example.com", ["*.com"], ["*.example.com"]),
        ("*.example.com", ["wrongexample.com"], []),
    ],
)  # fmt: skip
def test_hosts_in_common(listener: str, route: list[str], expected: list[str]) -> None:
    """HTTPRouteHostnameIntersection, HTTPRouteListenerHostnameMatching."""
    found = hosts(listener, route)
    assert [str(h) for h in found] == expected
    assert all((h.kind is HostKind.SUFFIX) == h.name.startswith("*.") for h in found)


def test_no_host_in_common() -> None:
    state = cluster(web(hostname="a.example.com")).route(http(hostnames=["b.example.com"]))
    assert accepted(state) == ["False NoMatchingListenerHostname"]
    assert state.contribution.routes == ()


# ---- references


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ({"name": "nothing", "port": 80}, "BackendNotFound"),
        ({"name": "s", "port": 81}, "BackendNotFound"),
        ({"name": "s", "kind": "Thing", "group": "example.com"}, "InvalidKind"),
        ({"name": "s", "port": 80, "namespace": "other"}, "RefNotPermitted"),
        ({"name": "udp", "port": 80}, "UnsupportedProtocol"),
        ({"name": "odd", "port": 80}, "UnsupportedProtocol"),
    ],
)
def test_references_that_lead_nowhere(ref: Object, expected: str) -> None:
    """HTTPRouteInvalidBackendRefUnknownKind, HTTPRouteInvalidNonExistentBackendRef, HTTPRouteInvalidCrossNamespaceBackendRef,
    HTTPRoutePartiallyInvalidViaInvalidReferenceGrant."""
    world = cluster()
    world.services += [
        service("udp", protocol="UDP"),
        service("odd", appProtocol="example.com/x"),
        service(namespace="other"),
    ]
    state = world.route(http(rule(ref), rule(matches=[{"path": {"value": "/good"}}])))
    assert accepted(state) == ["True Accepted"]
    assert (state.resolved.status, state.resolved.reason) == (False, expected)
    bad, good = state.contribution.routes
    assert (bad.targets, bad.status, bad.lost) == ((), 500, 1)
    assert good.targets


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (grant("HTTPRoute", "infra", "Service"), True),
        (grant("HTTPRoute", "infra", "Service", "s"), True),
        (grant("HTTPRoute", "infra", "Service", "another"), False),
        (grant("HTTPRoute", "elsewhere", "Service"), False),
        (grant("GRPCRoute", "infra", "Service"), False),
        (grant("HTTPRoute", "infra", "Secret"), False),
        (grant("HTTPRoute", "infra", "Service", in_="third"), False),
    ],
)
def test_grants(given: Object, allowed: bool) -> None:
    """HTTPRouteReferenceGrant, HTTPRouteInvalidReferenceGrant."""
    world = cluster()
    world.services.append(service(namespace="other"))
    world.grants.append(given)
    state = world.route(http(rule({"name": "s", "port": 80, "namespace": "other"})))
    assert state.resolved.status == allowed
    assert bool(state.contribution.routes[0].targets) == allowed


def test_weights() -> None:
    """HTTPRouteWeight, and the share of what cannot be had."""
    backends = [
        {"name": "s", "port": 80, "weight": 70},
        {"name": "t", "port": 80, "weight": 0},
        {"name": "nothing", "port": 80, "weight": 30},
    ]
    (route,) = cluster().route(http(rule(*backends))).contribution.routes
    assert [(t.backend.port.service, t.weight) for t in route.targets] == [("s", 70), ("t", 0)]
    assert (route.lost, route.status) == (30, 500)


# ---- matches


def test_matches() -> None:
    """HTTPRouteMatching, HTTPRouteHeaderMatching, HTTPRouteMethodMatching, HTTPRouteQueryParamMatching, HTTPRouteExactPathMatching."""
    matches = [
        {"path": {"type": "Exact", "value": "/one"}},
        {"path": {"value": "/two/"}, "method": "POST"},
        {"path": {"type": "RegularExpression", "value": "/[a-z]+"}},
        {"headers": [{"name": "Version", "value": "two"}, {"name": "version", "value": "three"}]},
        {"queryParams": [{"name": "animal", "value": "w.*", "type": "RegularExpression"}]},
    ]  # fmt: skip
    found = cluster().route(http(rule(matches=matches))).contribution.routes
    assert [r.place.path for r in found] == [
        Path(PathKind.EXACT, "/one"), Path(PathKind.PREFIX, "/two"), Path(PathKind.REGEX, "^(?:/[a-z]+)$"),
        Path(PathKind.PREFIX, ""), Path(PathKind.PREFIX, ""),
    ]  # fmt: skip
    assert [r.method for r in found] == ["", "POST", "", "", ""]
    assert found[3].conditions == (Condition("header", "version", "two"),)
    assert found[4].conditions == (Condition("query", "animal", "w.*", True),)
    assert found[1].source.field == "spec.rules[0].matches[1]"


def test_precedence() -> None:
    """HTTPRouteMatchingAcrossRoutes, HTTPRoutePathMatchOrder: method, then headers, then query, then age, then order."""
    one, two = {"name": "a", "value": "1"}, {"name": "b", "value": "1"}
    rules = [
        rule(matches=[{}]),
        rule(matches=[{"queryParams": [one, two]}]),
        rule(matches=[{"headers": [one]}]),
        rule(matches=[{"headers": [one, two]}]),
        rule(matches=[{"method": "GET"}]),
        rule(matches=[{"headers": [one], "queryParams": [one]}]),
    ]
    older, younger = http(*rules), http(rule(matches=[{"headers": [one, two]}]))
    younger["metadata"]["creationTimestamp"] = NOW
    found = [*cluster().route(younger).contribution.routes, *cluster().route(older).contribution.routes]
    order = sorted(found, key=lambda r: (not r.conditional, r.precedence))
    assert [r.source.field[11:12] for r in order] == ["4", "3", "0", "5", "2", "1", "0"]
    assert order[2].precedence[3] == NOW


def test_grpc() -> None:
    """GRPCExactMethodMatching, GRPCRouteHeaderMatching, GRPCRouteListenerHostnameMatching, GRPCRouteWeight."""
    matches = [
        {"method": {"service": "a.B", "method": "C"}},
        {"method": {"service": "a.B"}},
        {"method": {"method": "C"}},
        {"headers": [{"name": "v", "value": "1"}]},
    ]
    ref = {"name": "g"}
    spec = {"parentRefs": [ref], "rules": [{"matches": matches, "backendRefs": [{"name": "s", "port": 80}]}]}
    state = cluster().route(made("GRPCRoute", "infra", "r", spec))
    found = state.contribution.routes
    assert [str(r.place.path) for r in found] == ["/a.B/C", "/a.B", "^/[^/]+/C$", "/"]
    assert {t.backend.policy.protocol for r in found for t in r.targets} == {"h2c"}
    assert found[0].source.kind == "GRPCRoute"


# ---- filters


def test_filters() -> None:
    """HTTPRouteRequestHeaderModifier, HTTPRouteResponseHeaderModification, HTTPRouteRewritePath, HTTPRouteRewriteHost, HTTPRouteTimeoutRequest."""
    filters: list[Object] = [
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "1"}], "remove": ["b"]}},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "c", "value": "2"}]}},
        {"type": "URLRewrite", "urlRewrite": {"hostname": "h.org", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new/"}}},
    ]  # fmt: skip
    given = rule(
        filters=filters,
        matches=[{"path": {"value": "/old"}}],
        timeouts={"request": "1m", "backendRequest": "500ms"},
    )
    (route,) = cluster().route(http(given)).contribution.routes
    assert [(c.verb, c.name, c.value) for c in route.options.request_headers] == [
        ("set", "a", "1"),
        ("remove", "b", ""),
    ]
    assert [(c.verb, c.name, c.value) for c in route.options.response_headers] == [("add", "c", "2")]
    assert route.options.rewrite == Rewrite("h.org", None, "/new")
    assert route.options.timeouts == Timeouts(response=500)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Redirect(port=8080)),
        ({"hostname": "h.org", "statusCode": 301}, Redirect(hostname="h.org", port=8080, status=301)),
        ({"scheme": "https"}, Redirect(scheme="https")),
        ({"port": 8443}, Redirect(port=8443)),
        ({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}, Redirect(port=8080, path="/x")),
        ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}, Redirect(port=8080, prefix="")),
    ],
)
def test_redirects(given: Object, expected: Redirect) -> None:
    """HTTPRouteRedirectHostAndStatus, HTTPRouteRedirectPath, HTTPRouteRedirectPort, HTTPRouteRedirectScheme."""
    rules = {"filters": [{"type": "RequestRedirect", "requestRedirect": given}]}
    (route,) = cluster(web(port=8080)).route(http(rules)).contribution.routes
    assert route.options.redirect == expected


MIRROR = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "s", "port": 80}}}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (rule(filters=[{"type": "ExtensionRef", "extensionRef": {"group": "a", "kind": "b", "name": "c"}}]), "ExtensionRef is not supported"),
        (rule(matches=[{"path": {"type": "RegularExpression", "value": "("}}]), "it is no regular expression"),
        (rule({"name": "s", "port": 80, "filters": [MIRROR]}, {"name": "t", "port": 80}), "for a single backend only"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_had(bad: Object, why: str) -> None:
    """HTTPRoutePartiallyInvalid...: said by condition, answered with 500; the others go on."""
    state = cluster().route(http(bad, rule(matches=[{"path": {"value": "/good"}}])))
    assert accepted(state) == ["True Accepted"]
    assert state.invalid is not None
    assert state.invalid.message.startswith("Dropped Rule 0: ")
    assert why in state.invalid.message
    refused, good = state.contribution.routes
    assert (refused.targets, refused.status) == ((), 500)
    assert good.targets
    (parent,) = gateway_status.route_status(http(), state, NOW)["parents"]
    assert said(parent["conditions"])["PartiallyInvalid"] == "True UnsupportedValue"
    alone = cluster().route(http(bad))
    assert (accepted(alone), alone.contribution.routes) == (["False UnsupportedValue"], ())


# ---- Gateways


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
    conditions = world.status()["conditions"]
    assert conditions == [foreign, *old]
    changed = {c["type"]: c["lastTransitionTime"] for c in world.status(addresses=())["conditions"]}
    assert changed == {"example.com/Checked": BEFORE, "Accepted": BEFORE, "Programmed": NOW}


@pytest.mark.parametrize(
    ("kinds", "reason", "left"),
    [
        ([{"kind": "TCPRoute"}], "InvalidRouteKinds", []),
        ([{"kind": "TCPRoute"}, {"kind": "HTTPRoute"}], "InvalidRouteKinds", ["HTTPRoute"]),
        ([{"kind": "HTTPRoute", "group": "example.com"}], "InvalidRouteKinds", []),
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
    assert found["a"]["Programmed"] == "False Invalid"
    assert found["web"]["Programmed"] == "True Programmed"


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
    assert [(c.scope, str(c.host)) for c in found.certificates] == [("infra/g:443", "a.example.com")]
    world.gateways[0]["spec"]["listeners"][0]["tls"]["options"] = {"example.com/a": "b"}
    assert said(world.status()["listeners"][0]["conditions"])["Accepted"] == "False Invalid"
    world.secrets[0]["data"]["tls.key"] = "bm9uZQ=="
    assert said(world.status()["listeners"][0]["conditions"])["ResolvedRefs"] == "False InvalidCertificateRef"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"addresses": [{"type": "Hostname", "value": "a.b"}]}, "UnsupportedAddress"),
        ({"tls": {"frontend": {"default": {}}}}, "Invalid"),
        ({"addresses": [{"value": "192.0.2.1"}, {"value": "192.0.2.2"}]}, "UnsupportedAddress"),
        (
            {"infrastructure": {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "c"}}},
            "InvalidParameters",
        ),
    ],
)
def test_gateways_that_cannot_be_had(spec: Object, reason: str) -> None:
    """GatewayStaticAddresses, GatewayInvalidParametersRef."""
    status = cluster(**spec).status()
    assert said(status["conditions"]) == {"Accepted": f"False {reason}", "Programmed": "False Invalid"}


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
    """GatewayClassObservedGenerationBump; SupportedFeatures is sorted."""
    obj = gateway_controller.gateway_class()
    obj["metadata"]["generation"] = 3
    status = gateway_status.class_status(obj, NOW)
    assert said(status["conditions"]) == {"Accepted": "True Accepted"}
    names = [f["name"] for f in status["supportedFeatures"]]
    assert names == sorted(names)
    obj["spec"]["parametersRef"] = {"group": "", "kind": "ConfigMap", "name": "c"}
    assert said(gateway_status.class_status(obj, NOW)["conditions"]) == {
        "Accepted": "False InvalidParameters"
    }


def test_every_status_fits_the_schema() -> None:
    from sampan.api import validation

    obj = gateway(web(), tls())
    world = Cluster([obj], [service()])
    obj["status"] = world.status({"web": 1})
    obj["metadata"]["resourceVersion"] = "1"
    assert [str(p) for p in validation.update(GATEWAYS, obj, obj, "status")] == []
