"""Routes as values: who attaches where, and what is routed. The cases are those of upstream's conformance tests, which are named at each; the
objects are our own."""

from __future__ import annotations

import pytest

from sampan.api import validation
from sampan.api.errors import Object
from sampan.api.resources import HTTPROUTES
from sampan.ingress import gateway_status
from sampan.ingress.gateways import hosts
from sampan.ingress.route_options import Redirect, Rewrite, Timeouts
from sampan.ingress.types import Condition, Host, HostKind, Path, PathKind
from tests.ingress.gateway_objects import (
    NOW,
    accepted,
    cluster,
    grant,
    http,
    made,
    rule,
    said,
    service,
    tls,
    tls_secret,
    web,
)


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
        ({"sectionName": "web", "port": 81}, "False NoMatchingParent"),
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


def test_words_about_parents_stay_at_their_places() -> None:
    theirs = {"parentRef": {"name": "g"}, "controllerName": "example.com/x", "conditions": []}
    gone = {"parentRef": {"name": "gone"}, "controllerName": "sampan.io/gateway-controller", "conditions": []}
    route = http()
    state = cluster().route(route)
    (ours,) = gateway_status.route_status(route, state, NOW)["parents"]
    for before, after in (
        ([ours, theirs], [ours, theirs]),
        ([theirs, ours], [theirs, ours]),
        ([gone, theirs, gone], [theirs, ours]),
        ([theirs], [theirs, ours]),
    ):
        route["status"] = {"parents": before}
        assert gateway_status.route_status(route, state, NOW) == {"parents": after}
    assert gateway_status.route_status(route, None, NOW) == {"parents": [theirs]}


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


def test_all_references_that_lead_nowhere_are_told() -> None:
    """The reason is that of the first."""
    far = {"name": "s", "port": 80, "namespace": "other"}
    state = cluster().route(http(rule({"name": "nosvc", "port": 80}), rule({"name": "s", "port": 1}, far)))
    assert state.resolved.reason == "BackendNotFound"
    assert state.resolved.message.split("; ") == [
        "rules[0].backendRefs[0]: there is no Service infra/nosvc",
        "rules[1].backendRefs[0]: Service infra/s has no port 1",
        "rules[1].backendRefs[1]: no ReferenceGrant in other allows HTTPRoutes of infra to refer to Service s",
    ]


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


def test_routes_of_one_age() -> None:
    """They go by the letters of `namespace/name`, where a dash comes before the slash."""
    world = cluster(web(allowedRoutes={"namespaces": {"from": "All"}}))
    found = [world.route(http(namespace=ns)).contribution.routes[0] for ns in ("a", "a-b", "a0")]
    assert [r.source.namespace for r in sorted(found, key=lambda r: r.precedence)] == ["a-b", "a", "a0"]


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
    assert [str(r.place.path) for r in found] == ["/a.B/C", "/a.B", "/", "/"]
    assert found[2].conditions == (Condition("path", "path", "/[^/]+/C", True),)
    assert found[2].precedence < found[3].precedence
    assert {t.backend.policy.protocol for r in found for t in r.targets} == {"h2c"}
    assert found[0].source.kind == "GRPCRoute"


def test_a_service_that_says_that_it_speaks_grpc() -> None:
    world = cluster()
    world.services[0] = service(appProtocol="grpc")
    spec = {"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]}
    for route in (made("GRPCRoute", "infra", "r", spec), http()):
        state = world.route(route)
        assert state.resolved.status
        assert {b.policy.protocol for r in state.contribution.routes for b in r.backends} == {"h2c"}


def test_a_grpc_route_without_rules_is_for_no_request() -> None:
    """Only HTTPRoutes have a rule where none is written."""
    state = cluster().route(made("GRPCRoute", "infra", "r", {"parentRefs": [{"name": "g"}]}))
    assert (accepted(state), state.contribution.routes) == (["True Accepted"], ())


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
    ever = Timeouts(response=2_000_000_000)
    for limits, expected in (
        ({}, None),
        ({"request": "0s"}, ever),
        ({"request": "0s", "backendRequest": "0s"}, ever),
        ({"request": "0s", "backendRequest": "1s"}, Timeouts(response=1000)),
        ({"request": "1s", "backendRequest": "0s"}, Timeouts(response=1000)),
        ({"request": "99999h"}, ever),
    ):
        (route,) = cluster().route(http(rule(timeouts=limits))).contribution.routes
        assert route.options.timeouts == expected


def test_headers_whose_names_differ_in_case_only() -> None:
    """They are one header: the first entry counts, and the others are as if they were not there."""
    twice = [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}, {"name": "X-B", "value": "3"}]
    for kind in ("request", "response"):
        changes = {"set": twice, "add": twice, "remove": ["x-c", "X-D"]}
        filters = [{"type": f"{kind.title()}HeaderModifier", f"{kind}HeaderModifier": changes}]
        (route,) = cluster().route(http(rule(filters=filters))).contribution.routes
        found = route.options.request_headers if kind == "request" else route.options.response_headers
        assert [(c.verb, c.name, c.value) for c in found] == [
            ("set", "X-A", "1"), ("set", "X-B", "3"), ("add", "X-A", "1"), ("add", "X-B", "3"),
            ("remove", "x-c", ""), ("remove", "X-D", ""),
        ]  # fmt: skip


def test_filters_of_backends() -> None:
    """HTTPRouteBackendRequestHeaderModifier, HTTPRouteRequestHeaderModifierBackendWeights: those of the rule first, then its own."""

    def header(name: str, value: str) -> Object:
        return {
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": name, "value": value}]},
        }

    one = {"name": "s", "port": 80, "filters": [header("backend", "s")]}
    two = {"name": "t", "port": 80, "weight": 3}
    (alone,) = cluster().route(http(rule(one, filters=[header("all", "1")]))).contribution.routes
    assert [(c.name, c.value) for c in alone.options.request_headers] == [("all", "1"), ("backend", "s")]
    assert alone.targets[0].options is None
    given = rule(one, two, filters=[header("all", "1")], timeouts={"request": "1s"})
    (route,) = cluster().route(http(given)).contribution.routes
    assert [(c.name, c.value) for c in route.options.request_headers] == [("all", "1")]
    first, second = route.targets
    assert first.options is not None
    assert [(c.name, c.value) for c in first.options.request_headers] == [("all", "1"), ("backend", "s")]
    assert first.options.timeouts == route.options.timeouts == Timeouts(response=1000)
    assert (second.options, second.weight) == (None, 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Redirect(port=8080)),
        ({"hostname": "h.org", "statusCode": 301}, Redirect(hostname="h.org", port=8080, status=301)),
        ({"scheme": "https"}, Redirect(scheme="https")),
        ({"port": 8443}, Redirect(port=8443)),
        ({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}, Redirect(port=8080, path="/x")),
        (
            {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/50% %41"}},
            Redirect(port=8080, path="/50%25%20%41"),
        ),
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
        (rule(filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Content-length"]}}]), "Content-length is not changed: it says where a body ends"),
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
    assert accepted(alone) == ["False UnsupportedValue"]
    assert [(r.targets, r.status) for r in alone.contribution.routes] == [((), 500)]


def test_a_match_that_cannot_be_had_is_for_no_request() -> None:
    """The rule's other matches are answered with 500, other rules go on: it is not for all requests of the host."""
    bad: list[Object] = [
        {"path": {"type": "RegularExpression", "value": "("}},
        {"path": {"value": "/x"}, "headers": [{"name": "a", "value": "(", "type": "RegularExpression"}]},
    ]
    state = cluster().route(http(rule(matches=[bad[0], {"path": {"value": "/y"}}, bad[1]]), rule()))
    assert accepted(state) == ["True Accepted"]
    assert state.invalid is not None
    assert "it is no regular expression" in state.invalid.message
    found = state.contribution.routes
    assert [(str(r.place.path), r.status, bool(r.targets)) for r in found] == [
        ("/y", 500, False),
        ("/", 500, True),
    ]
    assert found[0].source.field == "spec.rules[0].matches[1]"
    for one in bad:
        alone = cluster().route(http(rule(matches=[one])))
        assert (accepted(alone), alone.contribution.routes) == (["False UnsupportedValue"], ())


def test_what_is_said_is_no_longer_than_the_api_takes() -> None:
    """Of long values that are cited there would else be no status at all."""
    changes = {"set": [{"name": "a", "value": "\x01" * 4096}]}
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": changes}]
    route = http(*(rule(filters=filters) for _ in range(4)))
    status = gateway_status.route_status(route, cluster().route(route), NOW)
    assert status["parents"][0]["conditions"][0]["message"].startswith("Dropped Rule 0: filters: ")
    new = {**route, "status": status}
    assert not validation.update(HTTPROUTES, new, route, "status")


# ---- Gateways
