"""The kinds of the Gateway API: each case is a change of a good object and what upstream's CustomResourceDefinitions say about it."""

from __future__ import annotations

import pytest

from sampan.api import conversion, decoding, schema, strategy, tables, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import (
    GATEWAYCLASSES,
    GATEWAYS,
    GATEWAYS_V1BETA1,
    GRPCROUTES,
    HTTPROUTES,
    REFERENCEGRANTS,
    RESOURCES,
    Resource,
)

from .test_validation import changed, problems, ready

CLASS: Object = {"metadata": {"name": "c"}, "spec": {"controllerName": "example.com/gateways"}}
GATEWAY: Object = {
    "metadata": {"name": "g"},
    "spec": {
        "gatewayClassName": "c",
        "listeners": [
            {"name": "web", "port": 80, "protocol": "HTTP", "hostname": "*.example.com"},
            {
                "name": "tls",
                "port": 443,
                "protocol": "HTTPS",
                "tls": {"certificateRefs": [{"name": "pair"}]},
                "allowedRoutes": {"namespaces": {"from": "All"}, "kinds": [{"kind": "HTTPRoute"}]},
            },
        ],
    },
}
HTTP: Object = {
    "metadata": {"name": "r"},
    "spec": {
        "parentRefs": [{"name": "g"}],
        "hostnames": ["a.example.com"],
        "rules": [
            {
                "matches": [
                    {
                        "path": {"type": "PathPrefix", "value": "/api"},
                        "headers": [{"name": "x", "value": "1"}],
                    }
                ],
                "filters": [
                    {
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]},
                    }
                ],
                "backendRefs": [{"name": "s", "port": 80}],
            }
        ],
    },
}
GRPC: Object = {
    "metadata": {"name": "r"},
    "spec": {
        "rules": [
            {
                "matches": [{"method": {"service": "a.B", "method": "C"}}],
                "backendRefs": [{"name": "s", "port": 80}],
            }
        ]
    },
}
GRANT: Object = {
    "metadata": {"name": "g"},
    "spec": {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "a"}],
        "to": [{"group": "", "kind": "Service"}],
    },
}
L, R = "spec/listeners/", "spec/rules/0/"
M, F, B = R + "matches/0/", R + "filters", R + "backendRefs/0/"
LISTENERS = 'spec.listeners: Invalid value: "array": '
PATH = 'spec.rules[0].matches[0].path: Invalid value: "object": '
FILTER = 'spec.rules[0].filters[0]: Invalid value: "object": '
RULE = 'spec.rules[0]: Invalid value: "object": '
REPLACE = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}
REDIRECT = {"type": "RequestRedirect", "requestRedirect": {"path": REPLACE}}
CASES: list[tuple[Resource, Object, str, object, list[str]]] = [
    (CLASS_ := GATEWAYCLASSES, CLASS, "spec/controllerName", "example.com/a/b", []),
    (CLASS_, CLASS, "spec/controllerName", "~", ["spec.controllerName: Required value"]),
    (CLASS_, CLASS, "spec/controllerName", "nodomain", ['spec.controllerName: Invalid value: "nodomain": spec.controllerName in body should match']),
    (CLASS_, CLASS, "spec/controllerName", "example.com/a\n", ["spec.controllerName in body should match"]),
    (CLASS_, CLASS, "spec/description", "x" * 65, ["spec.description: Too long: may not be more than 64 bytes"]),
    (CLASS_, CLASS, "spec/parametersRef", {"group": "", "kind": "ConfigMap"}, ["spec.parametersRef.name: Required value"]),
    (GATEWAYS, GATEWAY, "spec/gatewayClassName", "", ["spec.gatewayClassName in body should be at least 1 chars long"]),
    (GATEWAYS, GATEWAY, "spec/listeners", [], ["spec.listeners: Invalid value: 0: spec.listeners in body should have at least 1 items"]),
    (GATEWAYS, GATEWAY, L + "0/port", 0, ["spec.listeners[0].port: Invalid value: 0: spec.listeners[0].port in body should be greater than or equal to 1"]),
    (GATEWAYS, GATEWAY, L + "0/port", 65536, ["should be less than or equal to 65535"]),
    (GATEWAYS, GATEWAY, L + "0/name", "tls", ['spec.listeners[1]: Duplicate value: {"name":"tls"}']),
    (GATEWAYS, GATEWAY, L + "0/hostname", "*", ["spec.listeners[0].hostname in body should match"]),
    (GATEWAYS, GATEWAY, L + "0/hostname", "a.*.example.com", ["spec.listeners[0].hostname in body should match"]),
    (GATEWAYS, GATEWAY, L + "0/tls", {"certificateRefs": [{"name": "a"}]}, [LISTENERS + "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']"]),
    (GATEWAYS, GATEWAY, L + "1/tls", {"mode": "Passthrough"}, [LISTENERS + "tls mode must be Terminate for protocol HTTPS"]),
    (GATEWAYS, GATEWAY, L + "1/tls", {}, ['spec.listeners[1].tls: Invalid value: "object": certificateRefs or options must be specified when mode is Terminate']),
    (GATEWAYS, GATEWAY, L + "1", {"name": "t", "port": 443, "protocol": "TLS"}, [LISTENERS + "tls mode must be set for protocol TLS"]),
    (GATEWAYS, GATEWAY, L + "1", {"name": "t", "port": 1, "protocol": "TCP", "hostname": "a"}, [LISTENERS + "hostname must not be specified for protocols ['TCP', 'UDP']"]),
    (GATEWAYS, GATEWAY, L + "1", {"name": "t", "port": 80, "protocol": "HTTP", "hostname": "*.example.com"},
     [LISTENERS + "Combination of port, protocol and hostname must be unique for each listener"]),
    (GATEWAYS, GATEWAY, L + "1/allowedRoutes/namespaces/from", "None", ['spec.listeners[1].allowedRoutes.namespaces.from: Unsupported value: "None": supported values: "All", "Selector", "Same"']),
    (GATEWAYS, GATEWAY, "spec/addresses", [{"value": "192.0.2.1"}, {"value": "192.0.2.1"}], ['spec.addresses: Invalid value: "array": IPAddress values must be unique']),
    (GATEWAYS, GATEWAY, "spec/addresses", [{"value": "nowhere"}], ['spec.addresses[0].value: Invalid value: "nowhere"']),
    (GATEWAYS, GATEWAY, "spec/addresses", [{"type": "Hostname", "value": "A"}], ["Hostname value must be empty or contain only valid characters"]),
    (GATEWAYS, GATEWAY, "spec/infrastructure/labels", {"a b": "c"}, ["Label keys must be in the form of an optional DNS subdomain prefix"]),
    (HTTPROUTES, HTTP, "spec/hostnames", ["a", "*.b"], []),
    (HTTPROUTES, HTTP, "spec/hostnames", ["192.0.2.1:80"], ["spec.hostnames[0] in body should match"]),
    (HTTPROUTES, HTTP, "spec/hostnames", ["a"] * 17, ["spec.hostnames: Too many: 17: must have at most 16 items"]),
    (HTTPROUTES, HTTP, "spec/parentRefs", [{"name": "g"}, {"name": "g", "sectionName": "a"}], ["sectionName must be specified when parentRefs includes 2 or more references to the same parent"]),
    (HTTPROUTES, HTTP, "spec/parentRefs", [{"name": "g"}, {"name": "g"}], ["sectionName must be unique when parentRefs includes 2 or more references to the same parent"]),
    (HTTPROUTES, HTTP, "spec/parentRefs", [{"name": "g", "sectionName": "a"}, {"name": "g", "sectionName": "b"}, {"name": "h"}], []),
    (HTTPROUTES, HTTP, M + "path/value", "api", [PATH + "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']"]),
    (HTTPROUTES, HTTP, M + "path/value", "/a//b", [PATH + "must not contain '//' when type one of ['Exact', 'PathPrefix']"]),
    (HTTPROUTES, HTTP, M + "path/value", "/a/../b", [PATH + "must not contain '/../'"]),
    (HTTPROUTES, HTTP, M + "path/value", "/a/..", [PATH + "must not end with '/..'"]),
    (HTTPROUTES, HTTP, M + "path/value", "/a%2Fb", [PATH + "must not contain '%2F'"]),
    (HTTPROUTES, HTTP, M + "path/value", "/a b", [PATH + "must only contain valid characters"]),
    (HTTPROUTES, HTTP, M + "path/value", "/a\n", [PATH + "must only contain valid characters"]),
    (HTTPROUTES, HTTP, M + "path", {"type": "RegularExpression", "value": ".*"}, []),
    (HTTPROUTES, HTTP, M + "path/type", "Prefix", ['spec.rules[0].matches[0].path.type: Unsupported value: "Prefix"']),
    (HTTPROUTES, HTTP, M + "method", "get", ['spec.rules[0].matches[0].method: Unsupported value: "get"']),
    (HTTPROUTES, HTTP, M + "headers/0/name", "a b", ["spec.rules[0].matches[0].headers[0].name in body should match"]),
    (HTTPROUTES, HTTP, M + "headers/0/name", "a:b", ["spec.rules[0].matches[0].headers[0].name in body should match"]),
    (HTTPROUTES, HTTP, M + "queryParams", [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}], ['spec.rules[0].matches[0].queryParams[1]: Duplicate value: {"name":"a"}']),
    (HTTPROUTES, HTTP, F, [{"type": "URLRewrite"}], [FILTER + "filter.urlRewrite must be specified for URLRewrite filter.type"]),
    (HTTPROUTES, HTTP, F + "/0/type", "ResponseHeaderModifier",
     [FILTER + "filter.responseHeaderModifier must be specified for ResponseHeaderModifier filter.type",
      FILTER + "filter.requestHeaderModifier must be nil if the filter.type is not RequestHeaderModifier"]),
    (HTTPROUTES, HTTP, F, [HTTP["spec"]["rules"][0]["filters"][0]] * 2, ['spec.rules[0].filters: Invalid value: "array": RequestHeaderModifier filter cannot be repeated']),
    (HTTPROUTES, HTTP, F, [REDIRECT, {"type": "URLRewrite", "urlRewrite": {}}], ["May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both",
      RULE + "RequestRedirect filter must not be used together with backendRefs"]),
    (HTTPROUTES, HTTP, F, [REDIRECT], [RULE + "RequestRedirect filter must not be used together with backendRefs"]),
    (HTTPROUTES, HTTP, R.rstrip("/"), {"filters": [REDIRECT]}, []),
    (HTTPROUTES, HTTP, R.rstrip("/"), {"matches": [{}, {}], "filters": [REDIRECT]},
     [RULE + "When using RequestRedirect filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified"]),
    (HTTPROUTES, HTTP, R.rstrip("/"), {"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 300}}]},
     ['requestRedirect.statusCode: Unsupported value: 300: supported values: "301", "302"']),
    (HTTPROUTES, HTTP, F, [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replacePrefixMatch": "/"}}}],
     ["replaceFullPath must be specified when type is set to 'ReplaceFullPath'", "type must be 'ReplacePrefixMatch' when replacePrefixMatch is set"]),
    (HTTPROUTES, HTTP, F, [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 1}, "percent": 1, "fraction": {"numerator": 1}}}],
     ["Only one of percent or fraction may be specified in HTTPRequestMirrorFilter"]),
    (HTTPROUTES, HTTP, F, [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m"}, "fraction": {"numerator": 101}}}],
     ["numerator must be less than or equal to denominator", "Must have port for Service reference"]),
    (HTTPROUTES, HTTP, F, [{"type": "CORS", "cors": {f"allow{what}": ["*", also] for what, also in (("Origins", "https://a.test"), ("Methods", "GET"), ("Headers", "a"))}}],
     [f'spec.rules[0].filters[0].cors.allow{what}: Invalid value: "array": Allow{what} cannot contain \'*\' alongside other {others}'
      for what, others in (("Origins", "origins"), ("Methods", "methods"), ("Headers", "methods"))]),
    (HTTPROUTES, HTTP, B + "port", "~", ['spec.rules[0].backendRefs[0]: Invalid value: "object": Must have port for Service reference']),
    (HTTPROUTES, HTTP, B + "weight", -1, ["should be greater than or equal to 0"]),
    (HTTPROUTES, HTTP, R + "timeouts", {"request": "1s", "backendRequest": "1m"}, ["backendRequest timeout cannot be longer than request timeout"]),
    (HTTPROUTES, HTTP, R + "timeouts", {"request": "0s", "backendRequest": "1m30s"}, []),
    (HTTPROUTES, HTTP, R + "timeouts", {"request": "1.5s"}, ["spec.rules[0].timeouts.request in body should match"]),
    (HTTPROUTES, HTTP, "spec/rules", [{"matches": [{}] * 64}] * 3, ["the total number of matches across all rules in a route must be less than 128"]),
    (HTTPROUTES, HTTP, "spec/rules", [{"name": "a"}, {"name": "a"}], ["Rule name must be unique within the route"]),
    (HTTPROUTES, HTTP, "spec/rules", [], ["spec.rules in body should have at least 1 items"]),
    (GRPCROUTES, GRPC, "spec/rules", [], []),
    (GRPCROUTES, GRPC, M + "method", {}, ["One or both of 'service' or 'method' must be specified"]),
    (GRPCROUTES, GRPC, M + "method/service", "a/b", ["service must only contain valid characters"]),
    (GRPCROUTES, GRPC, M + "method/method", "9", ["method must only contain valid characters"]),
    (GRPCROUTES, GRPC, M + "method", {"type": "RegularExpression", "method": ".*"}, []),
    (GRPCROUTES, GRPC, F, [{"type": "URLRewrite"}], ['spec.rules[0].filters[0].type: Unsupported value: "URLRewrite"']),
    (REFERENCEGRANTS, GRANT, "spec/from", [], ["spec.from in body should have at least 1 items"]),
    (REFERENCEGRANTS, GRANT, "spec/to/0/kind", "~", ["spec.to[0].kind: Required value"]),
    (REFERENCEGRANTS, GRANT, "spec/from/0/namespace", "A_", ["spec.from[0].namespace in body should match"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("resource", "obj", "path", "value", "expected"),
    CASES,
    ids=[f"{c[0].kind}-{c[2]}-{i}" for i, c in enumerate(CASES)],
)
def test_rules(resource: Resource, obj: Object, path: str, value: object, expected: list[str]) -> None:
    found = problems(resource, changed(obj, path, value))
    assert len(found) == len(expected), found
    for one in expected:
        assert any(one in f for f in found), (one, found)


@pytest.mark.parametrize(
    ("resource", "obj"),
    [
        (GATEWAYCLASSES, CLASS),
        (GATEWAYS, GATEWAY),
        (HTTPROUTES, HTTP),
        (GRPCROUTES, GRPC),
        (REFERENCEGRANTS, GRANT),
    ],
    ids=lambda x: getattr(x, "kind", ""),
)
def test_good_ones(resource: Resource, obj: Object) -> None:
    assert problems(resource, obj) == []


def test_defaults() -> None:
    route = ready(HTTPROUTES, {"spec": {"parentRefs": [{"name": "g"}]}})["spec"]
    assert route["parentRefs"] == [{"name": "g", "group": "gateway.networking.k8s.io", "kind": "Gateway"}]
    assert route["rules"] == [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]
    rule = {
        "filters": [{"type": "RequestRedirect", "requestRedirect": {}}],
        "backendRefs": [{"name": "s", "port": 1}],
    }
    rule = ready(HTTPROUTES, {"spec": {"rules": [rule]}})["spec"]["rules"][0]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert rule["filters"][0]["requestRedirect"] == {"statusCode": 302}
    assert rule["backendRefs"] == [{"name": "s", "port": 1, "group": "", "kind": "Service", "weight": 1}]
    listener = ready(GATEWAYS, GATEWAY)["spec"]["listeners"][1]
    assert listener["tls"] == {
        "mode": "Terminate",
        "certificateRefs": [{"name": "pair", "group": "", "kind": "Secret"}],
    }
    assert listener["allowedRoutes"]["kinds"] == [{"kind": "HTTPRoute", "group": "gateway.networking.k8s.io"}]
    assert ready(GATEWAYS, GATEWAY)["spec"]["listeners"][0]["allowedRoutes"] == {
        "namespaces": {"from": "Same"}
    }
    grpc = ready(GRPCROUTES, GRPC)["spec"]["rules"][0]
    assert grpc["matches"][0]["method"]["type"] == "Exact"
    assert "rules" not in ready(GRPCROUTES, {"spec": {}})["spec"]


def test_status() -> None:
    """It begins with what the definitions say, its writer's is looked at, and it is nobody else's."""
    gateway = ready(GATEWAYS, {**GATEWAY, "status": {"addresses": [{"value": "192.0.2.9"}]}})
    assert [(c["type"], c["status"], c["reason"]) for c in gateway["status"]["conditions"]] == [
        ("Accepted", "Unknown", "Pending"), ("Programmed", "Unknown", "Pending"),
    ]  # fmt: skip
    assert "addresses" not in gateway["status"]
    assert [c["type"] for c in ready(GATEWAYCLASSES, CLASS)["status"]["conditions"]] == ["Accepted"]
    assert "status" not in ready(HTTPROUTES, HTTP)
    written = deep_copy(gateway)
    written["status"]["conditions"][0]["reason"] = "no word"
    (found,) = [str(p) for p in validation.update(GATEWAYS, written, gateway, "status")]
    assert "status.conditions[0].reason in body should match" in found
    new = changed(gateway, "spec/gatewayClassName", "other")
    new["status"] = {}
    strategy.prepare_update(GATEWAYS, new, gateway)
    assert (new["metadata"]["generation"], new["status"]) == (2, gateway["status"])


def test_the_controller_of_a_class_stays() -> None:
    old = ready(GATEWAYCLASSES, CLASS)
    old["metadata"]["resourceVersion"] = "1"
    new = changed(old, "spec/controllerName", "example.com/other")
    (found,) = [str(p) for p in validation.update(GATEWAYCLASSES, new, old)]
    assert found == 'spec.controllerName: Invalid value: "string": Value is immutable'


@pytest.mark.parametrize("row", GATEWAYS_V1BETA1, ids=lambda row: row.kind)
def test_objects_of_the_older_version(row: Resource) -> None:
    """Its fields are the same, and what is stored is v1."""
    hub = next(r for r in RESOURCES if r.kind == row.kind and not r.storage)
    example = {"GatewayClass": CLASS, "Gateway": GATEWAY, "HTTPRoute": HTTP, "ReferenceGrant": GRANT}[
        row.kind
    ]
    given = {**example, "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": row.kind}
    assert decoding.check(schema.node(row.definition), given) == []
    assert decoding.check(schema.node(row.definition), {**given, "spec": {"oops": 1}})
    stored = conversion.kept(row, hub, given)
    assert stored == {**given, "apiVersion": "gateway.networking.k8s.io/v1"}
    assert conversion.shown(row, stored) == given


def test_tables() -> None:
    gateway = ready(GATEWAYS, GATEWAY)
    gateway["status"]["addresses"] = [{"value": "192.0.2.1"}, {"value": "192.0.2.2"}]
    gateway["metadata"]["creationTimestamp"] = "1970-01-01T00:00:00Z"
    (row,) = tables.render(GATEWAYS, [gateway], now=60)["rows"]
    assert row["cells"] == ["g", "c", "192.0.2.1 192.0.2.2", "Unknown", "60s"]
    route = ready(HTTPROUTES, HTTP)
    route["metadata"]["creationTimestamp"] = "1970-01-01T00:00:00Z"
    (row,) = tables.render(HTTPROUTES, [route], now=60)["rows"]
    assert row["cells"] == ["r", '["a.example.com"]', "60s"]
