"""Annotations of Ingresses on a real cluster, through kubectl: what is asked for is done, and what is refused is told."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from shutil import which

import pytest

from sampan.cluster import config as configuration
from tests.cluster.test_ingress import app
from tests.real_cluster import ROOT, Cluster, Kubectl, missing, run, sampan

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]
# Of `secret`, by openssl passwd -6.
HASH = "$6$salt$egUxKNxDs8kPfh8iPMNcosMhb2eWah6d3R44JDm5Rj/j/XWR5E33QPd0YmHXoDHOIDR6kL5D3JcQcz0O8FHE00"


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("ingress")
    config_file, name = home / "kubeconfig", f"pytest-ingo-{os.getpid()}"
    try:
        sampan("up", "--name", name, kubeconfig=config_file)
        sampan("image", "build", str(ROOT / "images/busybox"), "--name", name, kubeconfig=config_file)
        cluster = Cluster(configuration.existing(name))
        kubectl = cluster.kubectl()
        for one in ("web", "new"):
            kubectl("apply", "-f", "-", stdin=app(one))
        kubectl("wait", "deployment", "--all", "--for=condition=Available", "--timeout=60s")
        yield cluster
    finally:
        if configuration.load(name) is not None:
            sampan("delete", "--name", name, kubeconfig=config_file)


@pytest.fixture
def kubectl(owner: Cluster) -> Kubectl:
    return owner.kubectl()


class Site:
    """One Ingress of a host of its own."""

    def __init__(self, kubectl: Kubectl, host: str) -> None:
        self.kubectl, self.host, self.address = kubectl, host, ""

    def have(self, rule: str, *annotations: str, name: str = "") -> None:
        name = name or self.host.partition(".")[0]
        flags = [f"--annotation={a}" for a in annotations]
        self.kubectl("create", "ingress", name, f"--rule={self.host}{rule}", *flags)
        where = "jsonpath={.status.loadBalancer.ingress[0].ip}"
        self.kubectl("wait", f"ingress/{name}", f"--for={where}", "--timeout=30s")
        self.address = self.kubectl("get", "ingress", name, "-o", where).strip()

    def ask(self, path: str = "/", *more: str) -> tuple[str, str]:
        """Status and body."""
        asked = ["curl", "-s", "-m", "5", "-w", "\n%{http_code}", "-H", f"Host: {self.host}", *more]
        body, _, status = run([*asked, f"http://{self.address}{path}"]).out.rpartition("\n")
        return status, body.strip()

    def until(self, status: str, path: str = "/", *more: str) -> str:
        """Ask until the status is so; the body."""
        deadline = time.monotonic() + 20
        while True:
            got, body = self.ask(path, *more)
            if got == status:
                return body
            assert time.monotonic() < deadline, (got, body)
            time.sleep(0.05)


def events(kubectl: Kubectl, name: str, reason: str) -> str:
    """The messages of an Ingress's events of one reason, once there are some."""
    deadline = time.monotonic() + 20
    selector = f"involvedObject.kind=Ingress,involvedObject.name={name},reason={reason}"
    while True:
        found = kubectl("get", "events", "--field-selector", selector, "-o", "jsonpath={.items[*].message}")
        if found.strip():
            return found
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_path_is_rewritten(kubectl: Kubectl) -> None:
    site = Site(kubectl, "rewrite.test")
    site.have("/old=web:80", "sampan.io/rewrite=/bar/index.html")
    assert site.until("200", "/old").startswith("web-")
    kubectl("annotate", "ingress", "rewrite", "--overwrite", "sampan.io/rewrite=/nothing")
    site.until("404", "/old")


def test_users_come_from_a_secret_that_changes(kubectl: Kubectl) -> None:
    site = Site(kubectl, "users.test")
    site.have("/*=web:80", "sampan.io/basic-auth-secret=people")
    site.until("503")
    assert "there is no Secret default/people; nobody is let in" in events(
        kubectl, "users", "InvalidAnnotation"
    )
    kubectl("create", "secret", "generic", "people", f"--from-literal=auth=ann:{HASH}")
    site.until("401")
    site.until("200", "/", "-u", "ann:secret")
    assert site.ask("/", "-u", "ann:wrong")[0] == "401"
    kubectl("patch", "secret", "people", "-p", f'{{"stringData": {{"auth": "bob:{HASH}"}}}}')
    site.until("200", "/", "-u", "bob:secret")
    assert site.ask("/", "-u", "ann:secret")[0] == "401"


def test_a_client_has_so_many_requests(kubectl: Kubectl) -> None:
    site = Site(kubectl, "rate.test")
    site.have("/*=web:80", "nginx.ingress.kubernetes.io/limit-rpm=3")
    site.until("200")
    assert "429" in [site.ask()[0] for _ in range(4)]


def test_a_canary_gets_who_asks_for_it(kubectl: Kubectl) -> None:
    site = Site(kubectl, "canary.test")
    site.have("/*=web:80")
    site.until("200")
    site.have("/*=new:80", "sampan.io/canary-header=X-New", name="canary-new")
    deadline = time.monotonic() + 20
    while not site.ask("/", "-H", "X-New: always")[1].startswith("new-"):
        assert time.monotonic() < deadline
    assert {site.ask()[1].partition("-")[0] for _ in range(5)} == {"web"}


def test_a_snippet_is_refused_and_told(kubectl: Kubectl) -> None:
    site = Site(kubectl, "snippet.test")
    site.have("/*=web:80", "nginx.ingress.kubernetes.io/configuration-snippet=return 418;")
    site.until("200")
    assert "snippets of configuration are refused" in events(kubectl, "snippet", "UnsupportedAnnotation")
