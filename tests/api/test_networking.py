"""The kinds of networking.k8s.io: each case is a change of a good object and what upstream says about it."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api import decoding, defaults, resources, schema, strategy, support, tables, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import INGRESSES, IPADDRESSES, NETWORKPOLICIES, SERVICECIDRS, Resource
from sampan.api.validation import formats

from .test_validation import changed, problems, ready

POLICY: Object = {
    "metadata": {"name": "p"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [
            {"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}]}
        ],
        "egress": [{"to": [{"namespaceSelector": {}, "podSelector": {}}], "ports": [{"port": "dns"}]}],
    },
}
CIDR: Object = {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24", "2001:db8::/64"]}}
ADDRESS: Object = {
    "metadata": {"name": "10.96.0.7"},
    "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}},
}
IN, BLOCK = "spec/ingress/0/", "spec/ingress/0/from/1/ipBlock"
CASES: list[tuple[Resource, Object, str, object, list[str]]] = [
    (NETWORKPOLICIES, POLICY, "spec/podSelector", "~", []),
    (NETWORKPOLICIES, POLICY, "spec/podSelector/matchLabels", {"a": "b c"},
     ['spec.podSelector.matchLabels: Invalid value: "b c": a valid label must be an empty string or consist of']),
    (NETWORKPOLICIES, POLICY, "spec/policyTypes", ["Ingress", "Both"], ['spec.policyTypes[1]: Unsupported value: "Both": supported values: "Ingress", "Egress"']),
    (NETWORKPOLICIES, POLICY, "spec/policyTypes", ["Ingress", "Egress", "Ingress"],
     ['spec.policyTypes: Invalid value: ["Ingress","Egress","Ingress"]: may not specify more than two policyTypes']),
    (NETWORKPOLICIES, POLICY, IN + "ports/0", {"protocol": "ICMP", "port": 1},
     ['spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"']),
    (NETWORKPOLICIES, POLICY, IN + "ports/0/port", 0, ["spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
    (NETWORKPOLICIES, POLICY, IN + "ports/0/port", "a_b", ['spec.ingress[0].ports[0].port: Invalid value: "a_b": must contain only alpha-numeric characters']),
    (NETWORKPOLICIES, POLICY, IN + "ports/0/endPort", 79, ["spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`"]),
    (NETWORKPOLICIES, POLICY, IN + "ports/0/endPort", 90, []),
    (NETWORKPOLICIES, POLICY, "spec/egress/0/ports/0/endPort", 90, ["spec.egress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric"]),
    (NETWORKPOLICIES, POLICY, IN + "ports/0", {"endPort": 9}, ["spec.ingress[0].ports[0].endPort: Invalid value: 9: may not be specified when `port` is not specified"]),
    (NETWORKPOLICIES, POLICY, IN + "from/0", {}, ["spec.ingress[0].from[0]: Required value: must specify a peer"]),
    (NETWORKPOLICIES, POLICY, IN + "from/1/podSelector", {}, ["spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer"]),
    (NETWORKPOLICIES, POLICY, BLOCK, {"cidr": ""}, ["spec.ingress[0].from[1].ipBlock.cidr: Required value"]),
    (NETWORKPOLICIES, POLICY, BLOCK, {"cidr": "10.0.0.0"}, ['spec.ingress[0].from[1].ipBlock.cidr: Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)']),
    (NETWORKPOLICIES, POLICY, BLOCK, {"cidr": "10.0.0.0/255.0.0.0"}, ['spec.ingress[0].from[1].ipBlock.cidr: Invalid value: "10.0.0.0/255.0.0.0": must be a valid CIDR value']),
    (NETWORKPOLICIES, POLICY, BLOCK + "/except", ["10.1.0.0/16"], []),
    (NETWORKPOLICIES, POLICY, BLOCK + "/except", ["10.0.0.0/8", "11.0.0.0/16", "x"],
     ['spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`',
      'spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`',
      'spec.ingress[0].from[1].ipBlock.except[2]: Invalid value: "x": must be a valid CIDR value']),
    (SERVICECIDRS, CIDR, "spec/cidrs", [], ["spec.cidrs: Required value: at least one CIDR required"]),
    (SERVICECIDRS, CIDR, "spec/cidrs", ["10.0.0.0/24", "10.1.0.0/24", "::/64"],
     ['spec.cidrs: Invalid value: {"cidrs":["10.0.0.0/24","10.1.0.0/24","::/64"]}: may only hold up to 2 values']),
    (SERVICECIDRS, CIDR, "spec/cidrs", ["10.0.0.0/24", "10.1.0.0/24"],
     ['spec.cidrs: Invalid value: ["10.0.0.0/24","10.1.0.0/24"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64']),
    (SERVICECIDRS, CIDR, "spec/cidrs", ["10.0.0.1/24"], ['spec.cidrs[0]: Invalid value: "10.0.0.1/24": must not have bits set beyond the prefix length']),
    (SERVICECIDRS, CIDR, "spec/cidrs", ["10.0.000.0/24"], ['spec.cidrs[0]: Invalid value: "10.0.000.0/24": must not have leading 0s in IP or prefix length']),
    (SERVICECIDRS, CIDR, "spec/cidrs", ["10.0.0.0/255.255.255.0"], ['spec.cidrs[0]: Invalid value: "10.0.0.0/255.255.255.0": must be a valid CIDR value']),
    (SERVICECIDRS, CIDR, "spec/cidrs", ["2001:DB8::/64"], ['spec.cidrs[0]: Invalid value: "2001:DB8::/64": must be in canonical form ("2001:db8::/64")']),
    (SERVICECIDRS, CIDR, "metadata/name", "A", ['metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of']),
    (IPADDRESSES, ADDRESS, "metadata/name", "10.96.0.07", ['metadata.name: Invalid value: "10.96.0.07": must not have leading 0s']),
    (IPADDRESSES, ADDRESS, "metadata/name", "web", ['metadata.name: Invalid value: "web": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)']),
    (IPADDRESSES, ADDRESS, "metadata/name", "2001:db8:0:0::1", ['metadata.name: Invalid value: "2001:db8:0:0::1": must be in canonical form ("2001:db8::1")']),
    (IPADDRESSES, ADDRESS, "metadata/name", "::ffff:1.2.3.4", ['metadata.name: Invalid value: "::ffff:1.2.3.4": must not be an IPv4-mapped IPv6 address']),
    (IPADDRESSES, ADDRESS, "metadata/name", "2001:db8::1", []),
    (IPADDRESSES, ADDRESS, "metadata/name", "fe80::1%eth0", ['metadata.name: Invalid value: "fe80::1%eth0": must be a valid IP address']),
    (SERVICECIDRS, CIDR, "spec/cidrs", ["fe80::%1/64"], ['spec.cidrs[0]: Invalid value: "fe80::%1/64": must be a valid CIDR value']),
    (IPADDRESSES, ADDRESS, "spec/parentRef", "~", ["spec.parentRef: Required value"]),
    (IPADDRESSES, ADDRESS, "spec/parentRef", {"group": "a/b", "resource": "", "namespace": "..", "name": "a%"},
     ['spec.parentRef.group: Invalid value: "a/b": a lowercase RFC 1123 subdomain', "spec.parentRef.resource: Required value",
      "spec.parentRef.name: Invalid value: \"a%\": may not contain '%'", "spec.parentRef.namespace: Invalid value: \"..\": may not be '..'"]),
]  # fmt: skip


@pytest.mark.parametrize("good", [(NETWORKPOLICIES, POLICY), (SERVICECIDRS, CIDR), (IPADDRESSES, ADDRESS)])
def test_good_objects(good: tuple[Resource, Object]) -> None:
    assert problems(*good) == []


@pytest.mark.parametrize(("resource", "obj", "path", "value", "texts"), CASES)
def test_rules(resource: Resource, obj: Object, path: str, value: object, texts: list[str]) -> None:
    given = changed(obj, path, value)
    given.setdefault("metadata", {}).setdefault("namespace", "default" if resource.namespaced else "")
    assert decoding.check(schema.node(resource.definition), given) == [] or not texts or resource is IPADDRESSES  # fmt: skip
    defaults.apply(resource, given)
    strategy.prepare_create(resource, given)
    found = [str(p) for p in validation.create(resource, given)]
    assert len(found) == len(texts), found
    for said, text in zip(found, texts, strict=True):
        assert said.startswith(text)


@pytest.mark.parametrize(
    ("resource", "obj", "path", "value", "texts"),
    [
        (IPADDRESSES, ADDRESS, "spec/parentRef/name", "db", ["spec.parentRef: Invalid value: "]),
        (IPADDRESSES, ADDRESS, "metadata/labels", {"a": "b"}, []),
        (SERVICECIDRS, CIDR, "spec/cidrs/1", "2001:db9::/64", ['spec.cidrs[1]: Invalid value: "2001:db9::/64": field is immutable']),
        (SERVICECIDRS, CIDR, "spec/cidrs", ["10.200.0.0/24"], ['spec.cidrs: Invalid value: ["10.200.0.0/24"]: field is immutable']),
        (SERVICECIDRS, changed(CIDR, "spec/cidrs", ["10.0.0.0/8"]), "spec/cidrs", ["10.0.0.0/8", "2001:db8::/64"], []),
        (SERVICECIDRS, changed(CIDR, "spec/cidrs", ["10.0.0.0/8"]), "spec/cidrs", ["10.0.0.0/9", "11.0.0.0/8"],
         ['spec.cidrs[0]: Invalid value: "10.0.0.0/9": field is immutable', "spec.cidrs: Invalid value: "]),
        (NETWORKPOLICIES, POLICY, "spec/ingress/0/from/0", {}, ["spec.ingress[0].from[0]: Required value: must specify a peer"]),
    ],
)  # fmt: skip
def test_updates(resource: Resource, obj: Object, path: str, value: object, texts: list[str]) -> None:
    old = ready(resource, obj)
    assert validation.update(resource, deep_copy(old), old) == []
    new = changed(old, path, value)
    strategy.prepare_update(resource, new, old)
    found = [str(p) for p in validation.update(resource, new, old)]
    assert len(found) == len(texts), found
    for said, text in zip(found, texts, strict=True):
        assert said.startswith(text)


def test_an_ingress_status_names_no_address_as_host() -> None:
    old = ready(INGRESSES, {"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 1}}}}})  # fmt: skip
    new = deep_copy(old)
    new["status"] = {"loadBalancer": {"ingress": [{"hostname": "1.2.3.4"}, {"ip": "x"}]}}
    assert [str(p) for p in validation.update(INGRESSES, new, old, "status")] == [
        'status.loadBalancer.ingress[0].hostname: Invalid value: "1.2.3.4": must be a DNS name, not an IP address',
        'status.loadBalancer.ingress[1].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
    ]


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({}, ["Ingress"]),
        ({"egress": []}, ["Ingress"]),
        ({"egress": [{}]}, ["Ingress", "Egress"]),
        ({"egress": [{}], "policyTypes": ["Egress"]}, ["Egress"]),
    ],
)
def test_a_policy_says_which_way_it_works(spec: Object, types: list[str]) -> None:
    obj = {"metadata": {"name": "p"}, "spec": deep_copy(spec)}
    defaults.apply(NETWORKPOLICIES, obj)
    assert obj["spec"]["policyTypes"] == types


def test_a_policy_is_supported_and_counts_generations() -> None:
    old = ready(NETWORKPOLICIES, POLICY)
    assert old["spec"]["ingress"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]
    assert old["metadata"]["generation"] == 1
    assert support.unsupported(NETWORKPOLICIES, old) == ([], [])
    new = changed(old, "spec/policyTypes", ["Egress"])
    strategy.prepare_update(NETWORKPOLICIES, new, old)
    assert new["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("resource", "obj", "row"),
    [
        (NETWORKPOLICIES, POLICY, ["p", "app=web", "60m"]),
        (NETWORKPOLICIES, {"metadata": {"name": "p"}, "spec": {}}, ["p", "<none>", "60m"]),
        (NETWORKPOLICIES, {"metadata": {"name": "p"}, "spec": {"podSelector": {"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]}}},
         ["p", "a in (x,y),b=1", "60m"]),
        (SERVICECIDRS, CIDR, ["more", "10.200.0.0/24,2001:db8::/64", "60m"]),
        (IPADDRESSES, ADDRESS, ["10.96.0.7", "services/default/web"]),
        (IPADDRESSES, {"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": {"group": "g.io", "resource": "Gateways", "name": "g"}}},
         ["10.0.0.1", "gateways.g.io/g"]),
    ],
)  # fmt: skip
def test_rows(resource: Resource, obj: Object, row: list[Any]) -> None:
    given = changed(obj, "metadata/creationTimestamp", "2025-12-31T23:00:00Z")
    assert tables.render(resource, [given], now=1767225600.0)["rows"][0]["cells"] == row


def test_they_are_rows_of_the_group() -> None:
    assert resources.lookup("networking.k8s.io", "v1", "ipaddresses") is IPADDRESSES
    assert (IPADDRESSES.short_names, SERVICECIDRS.namespaced) == (("ip",), False)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("0123456789abcdefF:./% ١"), max_size=24))
def test_any_text_is_an_address_or_a_problem(text: str) -> None:
    for check, parse in ((formats.canonical_ip, ipaddress.ip_address), (formats.canonical_cidr, ipaddress.ip_network)):  # fmt: skip
        if check(text) == ():
            assert str(parse(text)) == text
