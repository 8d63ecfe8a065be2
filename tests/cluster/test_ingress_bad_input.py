"""Hosts and paths that could break out of a line of configuration: refused all at once, nothing half applied; what the API allows is taken literally."""

from __future__ import annotations

import json

import pytest

from sampan.api.errors import Object
from tests.cluster.front_door import NEEDED, FrontDoor
from tests.ingress.objects import Rule
from tests.real_cluster import SAMPAN, run

pytestmark = NEEDED
SUBDOMAIN = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
WILDCARD = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain"
CONTROL = "must not contain control characters"
BAD_HOSTS = {
    "a\nb.org": SUBDOMAIN,
    "a\x00b.org": SUBDOMAIN,
    "a b.org": SUBDOMAIN,
    'a"b.org': SUBDOMAIN,
    "a'b.org": SUBDOMAIN,
    "a#b.org": SUBDOMAIN,
    "a\\b.org": SUBDOMAIN,
    "a{b}.org": SUBDOMAIN,
    "UPPER.org": SUBDOMAIN,
    "a..org": SUBDOMAIN,
    "a.org:80": SUBDOMAIN,
    "*a.org": WILDCARD,
    "*.*.org": WILDCARD,
    "a.*.org": WILDCARD,
    "192.0.2.1": "must be a DNS name, not an IP address",
    f"{'a' * 250}.org": "must be no more than 253 bytes",
}
BAD_PATHS = {
    "/a\nb": CONTROL,
    "/a\x00b": CONTROL,
    "/a\rb": CONTROL,
    "a": "must be an absolute path",
    "": "must be an absolute path",
    "/a//b": "must not contain '//'",
    "/a/./b": "must not contain '/./'",
    "/a/../b": "must not contain '/../'",
    "/a%2fb": "must not contain '%2f'",
    "/a%2Fb": "must not contain '%2F'",
    "/a/..": "cannot end with '/..'",
    "/a/.": "cannot end with '/.'",
}
# Odd ones that are allowed, and a request that each is for.
ODD_PATHS = {
    "/a b": "/a%20b",
    '/"q"': "/%22q%22",
    "/'s'": "/'s'",
    "/#h": "/%23h",
    "/back\\slash": "/back%5Cslash",
    "/{$(x)}": "/%7B$(x)%7D",
    "/é": "/%C3%A9",
    "/%41": "/A",
    "/a;b=c,d": "/a;b=c,d",
    "/%[env(PATH)]": "/%25%5Benv(PATH)%5D",
}


@pytest.fixture(scope="module")
def door(front_door: FrontDoor) -> FrontDoor:
    front_door.run_apps("web", "odd")
    front_door.apply(front_door.ingress("good", [("good.org", "/", "Prefix", "web")]))
    front_door.until("good.org", "/", "200 web ")
    return front_door


def bad(door: FrontDoor, name: str) -> Object:
    rules: list[Rule] = [(host, "/", "Prefix", "web") for host in BAD_HOSTS]
    rules += [("paths.org", path, "Exact", "web") for path in BAD_PATHS]
    made = door.ingress(name, [("half.org", "/", "Prefix", "web"), *rules])
    made["spec"]["tls"] = [{"hosts": ["tls\n.org"], "secretName": "a b"}]
    made["spec"]["ingressClassName"] = "sam pan"
    made["spec"]["defaultBackend"] = {"service": {"name": "web\n", "port": {"name": "No Port"}}}
    return made


def told(refusal: str) -> None:
    """Everything that is wrong is in it."""
    for i, (host, message) in enumerate(BAD_HOSTS.items(), 1):
        assert f"spec.rules[{i}].host: Invalid value: {json.dumps(host)}: {message}" in refusal
    for i, (path, message) in enumerate(BAD_PATHS.items(), 1 + len(BAD_HOSTS)):
        assert f"spec.rules[{i}].http.paths[0].path: Invalid value: {json.dumps(path)}: {message}" in refusal
    for field in (
        "spec.tls[0].hosts[0]",
        "spec.tls[0].secretName",
        "spec.ingressClassName",
        "spec.defaultBackend.service.name",
        "spec.defaultBackend.service.port.name",
    ):
        assert f"{field}: Invalid value: " in refusal


def test_everything_is_told_at_once_and_nothing_is_done(door: FrontDoor) -> None:
    kubectl = door.kubectl
    refused = kubectl.run("create", "-f", "-", stdin=json.dumps(bad(door, "bad")))
    assert refused.code == 1
    assert 'The Ingress "bad" is invalid' in refused.err
    told(refused.err)
    assert "NotFound" in kubectl.run("get", "ingress", "bad").err
    # Nor is an Ingress changed by what is no good.
    before = kubectl.value("ingress/good", ".metadata.resourceVersion")
    refused = kubectl.run("replace", "-f", "-", stdin=json.dumps(bad(door, "good")))
    assert refused.code == 1
    told(refused.err)
    assert kubectl.value("ingress/good", ".metadata.resourceVersion") == before
    door.apply(door.ingress("marker", [("marker.org", "/", "Prefix", "web")]))
    door.until("marker.org", "/", "200 web ")
    assert door.ask("good.org").app == "web"
    assert door.ask("half.org").status == "404"
    routes = run([SAMPAN, "ingress", "routes", "--name", door.cluster.name]).out
    assert "half.org" not in routes
    assert "paths.org" not in routes


def test_odd_paths_are_taken_literally(door: FrontDoor) -> None:
    rules: list[Rule] = [("odd.org", path, "Prefix", "odd") for path in ODD_PATHS]
    door.apply(door.ingress("odd", [*rules, ("odd.org", "/", "Prefix", "web")]))
    door.until("odd.org", "/", "200 web ")
    for path, asked in ODD_PATHS.items():
        door.until("odd.org", asked, "200 odd ")
        assert door.ask("odd.org", f"{asked}x").app == "web", path
    assert "Warning" not in door.kubectl("events", "--for", "ingress/odd")
