"""What Kubernetes' project tests of an ingress controller (kubernetes-sigs/ingress-controller-conformance), and the documentation's table of paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster import acme
from tests.cluster.front_door import NEEDED, FrontDoor, ask, eventually, tls_secret
from tests.real_cluster import run

pytestmark = NEEDED
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
# What the rules of each host are, by path, type and application.
RULES = {
    "exact-path-rules": [("/foo", "Exact", "one")],
    "prefix-path-rules": [
        ("/foo", "Prefix", "one"),
        ("/aaa/bbb", "Prefix", "two"),
        ("/aaa", "Prefix", "three"),
    ],
    "mixed-path-rules": [("/foo", "Prefix", "one"), ("/foo", "Exact", "two")],
    "trailing-slash-path-rules": [("/aaa/bbb/", "Prefix", "one"), ("/foo/", "Exact", "two")],
    "root-path-rules": [
        ("/", "Prefix", "one"),
        ("/aaa", "Prefix", "two"),
        ("/aaa/bbb", "Prefix", "three"),
    ],
    "element-path-rules": [("/aaa/bb", "Prefix", "one"), ("/foo/", "Prefix", "two")],
    "own-path-rules": [
        ("/api", "ImplementationSpecific", "one"),
        ("/bar/*", "ImplementationSpecific", "two"),
    ],
}
REQUESTS = [
    ("exact-path-rules", "/foo", "one"),
    ("exact-path-rules", "/foo?q=/bar", "one"),
    ("exact-path-rules", "/foo/", ""),
    ("exact-path-rules", "/FOO", ""),
    ("exact-path-rules", "/bar", ""),
    ("exact-path-rules", "/", ""),
    ("prefix-path-rules", "/foo", "one"),
    ("prefix-path-rules", "/foo/", "one"),
    ("prefix-path-rules", "/FOO", ""),
    ("prefix-path-rules", "/aaa/bbb", "two"),
    ("prefix-path-rules", "/aaa/bbb/", "two"),
    ("prefix-path-rules", "/aaa/bbb/ccc", "two"),
    ("prefix-path-rules", "/aaa/bbbxyz", "three"),
    ("prefix-path-rules", "/aaa/ccc", "three"),
    ("prefix-path-rules", "/aaaccc", ""),
    ("prefix-path-rules", "/ccc", ""),
    ("mixed-path-rules", "/foo", "two"),
    ("mixed-path-rules", "/foo/", "one"),
    ("mixed-path-rules", "/foo/x", "one"),
    ("trailing-slash-path-rules", "/aaa/bbb", "one"),
    ("trailing-slash-path-rules", "/aaa/bbb/", "one"),
    ("trailing-slash-path-rules", "/foo/", "two"),
    ("trailing-slash-path-rules", "/foo", ""),
    ("trailing-slash-path-rules", "/foo/x", ""),
    ("root-path-rules", "/aaa/bbb", "three"),
    ("root-path-rules", "/aaa/ccc", "two"),
    ("root-path-rules", "/ccc", "one"),
    ("root-path-rules", "/", "one"),
    ("element-path-rules", "/aaa/bbb", ""),
    ("element-path-rules", "/aaa/bb/b", "one"),
    ("element-path-rules", "/foo", "two"),
    ("own-path-rules", "/api/v1", "one"),
    ("own-path-rules", "/apis", ""),
    ("own-path-rules", "/bar/x", "two"),
    ("own-path-rules", "/barn", ""),
]


@pytest.fixture(scope="module")
def door(front_door: FrontDoor) -> FrontDoor:
    front_door.run_apps("one", "two", "three")
    rules = [(host, *rule) for host, paths in RULES.items() for rule in paths]
    front_door.apply(front_door.ingress("path-rules", rules))
    assert front_door.wait_address("path-rules") == front_door.address
    front_door.until("own-path-rules", "/api", "200 one ")
    return front_door


@pytest.mark.parametrize(("host", "path", "app"), REQUESTS)
def test_path_rules(door: FrontDoor, host: str, path: str, app: str) -> None:
    answer = door.ask(host, path)
    assert answer.status == ("200" if app else "404"), answer
    if app:
        assert answer.app == app
        assert answer.body.endswith(f" GET {host} {path}")


def test_host_rules(door: FrontDoor, tmp_path: Path) -> None:
    ca = acme.Authority()
    door.apply(tls_secret("conformance-tls", *ca.pair("foo.bar.com")))
    rules = [("*.foo.com", "/", "Prefix", "one"), ("foo.bar.com", "/", "Prefix", "two")]
    made = door.ingress(
        "host-rules", rules, tls=[{"hosts": ["foo.bar.com"], "secretName": "conformance-tls"}]
    )
    made["spec"]["rules"][1]["http"]["paths"][0]["backend"]["service"]["port"] = {"name": "http"}
    door.apply(made)
    door.until("foo.bar.com", "/", "200 two ")
    assert door.ask("foo.bar.com").body.endswith(" GET foo.bar.com /")
    assert door.ask("FOO.bar.COM").app == "two"
    trusted = "--cacert", str(acme.write(ca, tmp_path / "ca.pem"))
    # curl compares the certificate's name with the host's.
    secure = door.until("foo.bar.com", "/", "200 two ", *trusted, scheme="https")
    assert secure.body.endswith(" GET foo.bar.com /")
    assert door.ask("bar.foo.com", "/", *trusted, scheme="https").status == "000"
    wild = door.ask("bar.foo.com")
    assert (wild.app, wild.body.split()[-2]) == ("one", "bar.foo.com")
    for host in ("subdomain.bar.com", "baz.bar.foo.com", "foo.com", "xfoo.com"):
        assert door.ask(host).status == "404", host


@pytest.mark.parametrize("replicas", [2, 6])
def test_load_balancing(door: FrontDoor, replicas: int) -> None:
    """Requests are spread over all pods, and over those that come later too."""
    if not door.kubectl.run("get", "deployment", "many").out:
        door.run_apps("many")
        door.apply(door.ingress("load-balancing", [("load-balancing", "/", "Prefix", "many")]))
    door.kubectl("scale", "deployment/many", f"--replicas={replicas}")
    door.kubectl("rollout", "status", "deployment/many", "--timeout=60s")

    def spread() -> Counter[str]:
        urls = ["-w", "\n", "--connect-to", f"::{door.address}:", "http://load-balancing/[1-120]"]
        return Counter(line.split()[1] for line in run(["curl", "-s", *urls]).out.splitlines())

    seen = eventually(spread, lambda found: len(found) == replicas)
    assert set(seen) == set(
        door.kubectl("get", "pods", "-l", "app=many", "-o", "jsonpath={..metadata.name}").split()
    )
    seen = spread()
    assert seen.total() == 120
    assert min(seen.values()) >= 120 / replicas / 2, seen


def test_default_backend(door: FrontDoor) -> None:
    """An Ingress with nothing but a default backend gets all that nobody else wants."""
    door.apply(door.ingress("default-backend", default="one"))
    assert door.wait_address("default-backend") == door.address
    door.until("my-host", "/", "200 one ")
    for method, host, path in (
        ("GET", "my-host", "/"),
        ("GET", "my-host", "/sub-path"),
        ("POST", "some-host", "/"),
        ("PUT", door.address, "/resource"),
        ("DELETE", "some-host", "/resource"),
        ("PATCH", "my-host", "/resource"),
        ("OPTIONS", "my-host", "/resource"),
        ("GET", "exact-path-rules", "/bar"),
    ):
        answer = door.ask(host, path, "-X", method, "-w", "\n%{http_version}\n%{http_code}")
        assert answer.status == "200", (method, host, path)
        assert answer.location == "1.1"
        assert answer.body.startswith("one ")
        assert answer.body.endswith(f" {method} {host} {path}")
    assert door.ask("my-host", "/", "--http1.0", "-H", "Host:").app == "one"
    door.kubectl("delete", "ingress", "default-backend")
    door.until("my-host", "/", "404")


@contextmanager
def class_of(door: FrontDoor, name: str, controller: str, **spec: object) -> Iterator[None]:
    made = {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name}}
    door.apply(made | {"spec": {"controller": controller, **spec}})
    try:
        yield
    finally:
        door.kubectl("delete", "ingressclass", name)


def test_only_classes_of_ours_are_served(door: FrontDoor) -> None:
    old = "kubernetes.io/ingress.class"
    hosts = {
        n: [(f"{n}.class", "/", "Prefix", "one")] for n in ("field", "noted", "far", "far-noted", "none")
    }
    with class_of(door, "foreign", "example.com/other"):
        door.apply(
            door.ingress("far", hosts["far"], ingressClassName="foreign"),
            door.ingress("far-noted", hosts["far-noted"], annotations={old: "foreign"}),
            door.ingress("none", hosts["none"], ingressClassName="some-invalid-class-name"),
            door.ingress("field", hosts["field"], ingressClassName="sampan"),
            door.ingress("noted", hosts["noted"], annotations={old: "sampan"}),
        )
        for name in ("field", "noted"):
            assert door.wait_address(name) == door.address
            door.until(f"{name}.class", "/", "200 one ")
        for name in ("far", "far-noted", "none"):
            assert door.ask(f"{name}.class").status == "404"
            assert door.kubectl.value(f"ingress/{name}", ".status.loadBalancer") == "{}"
            assert "No events" in door.kubectl.run("events", "--for", f"ingress/{name}").err
        assert door.kubectl.value("ingress/noted", ".spec.ingressClassName") == ""
        # An Ingress changes hands.
        door.kubectl("patch", "ingress", "far", "-p", '{"spec": {"ingressClassName": "sampan"}}')
        door.until("far.class", "/", "200 one ")
        door.kubectl("patch", "ingress", "far", "-p", '{"spec": {"ingressClassName": "foreign"}}')
        door.until("far.class", "/", "404")
    # A class that comes later.
    with class_of(door, "some-invalid-class-name", "sampan.io/ingress"):
        door.until("none.class", "/", "200 one ")
        assert door.wait_address("none") == door.address
    door.until("none.class", "/", "404")


def test_parameters_of_a_class_are_not_ignored_silently(door: FrontDoor) -> None:
    parameters = {"apiGroup": "example.com", "kind": "Settings", "name": "mine"}
    with class_of(door, "tuned", "sampan.io/ingress", parameters=parameters):
        tuned = door.ingress("tuned", [("tuned.class", "/", "Prefix", "one")], ingressClassName="tuned")
        door.apply(tuned)
        told = door.wait_event("tuned", "NotSupported")
        assert (
            told
            == "spec.ingressClassName: IngressClass tuned has parameters, Settings mine: they are not supported"
        )
        door.until("tuned.class", "/", "200 one ")


def test_the_default_class_is_as_annotations_say(door: FrontDoor) -> None:
    def created(name: str) -> str:
        """The class that an Ingress of no class has got."""
        door.kubectl("create", "ingress", name, f"--rule={name}.class/*=one:80")
        return door.kubectl.value(f"ingress/{name}", ".spec.ingressClassName")

    assert created("first") == "sampan"
    door.until("first.class", "/", "200 one ")
    door.kubectl("annotate", "ingressclass", "sampan", "--overwrite", f"{DEFAULT_CLASS}=false")
    try:
        assert created("second") == ""
        assert door.kubectl("get", "ingress", "second", "--no-headers").split()[1] == "<none>"
        with class_of(door, "newer", "example.com/other"):
            door.kubectl("annotate", "ingressclass", "newer", f"{DEFAULT_CLASS}=true")
            assert created("third") == "newer"
            # Of two that say so the newer one.
            door.kubectl("annotate", "ingressclass", "sampan", "--overwrite", f"{DEFAULT_CLASS}=true")
            assert created("fourth") == "newer"
        assert created("fifth") == "sampan"
    finally:
        door.kubectl("annotate", "ingressclass", "sampan", "--overwrite", f"{DEFAULT_CLASS}=true")
    door.until("fifth.class", "/", "200 one ")
    for name in ("second", "third", "fourth"):
        assert ask(door.address, f"{name}.class").status == "404"
        assert door.kubectl.value(f"ingress/{name}", ".status.loadBalancer") == "{}"
