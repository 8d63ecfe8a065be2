"""1.5.4 Ingress, exactly as printed: foo.mydomain.com to foo, mydomain.com/bar/... to bar, everything else to other; one address."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import which

import pytest

from tests.cluster.front_door import app, until
from tests.lesson.manifests import AS_PRINTED, LESSON
from tests.real_cluster import Cluster, Kubectl

pytestmark = pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed")


@pytest.mark.parametrize(
    "manifest", [AS_PRINTED / "my-ingress.yaml", LESSON / "my-ingress.yaml"], ids=["as printed", "put right"]
)
def test_one_address_for_three_services(kubectl: Kubectl, cluster: Cluster, manifest: Path) -> None:
    for name in ("foo", "bar", "other"):
        deployment, service = app(name)
        service["spec"]["ports"] = [{"port": 8080}]
        for made in (deployment, service):
            kubectl("apply", "-f", "-", stdin=json.dumps(made))
    done = kubectl.run("apply", "-f", manifest)
    assert done.code == 0, done.err
    assert ("use networking.k8s.io/v1 Ingress" in done.err) is (manifest == AS_PRINTED / "my-ingress.yaml")
    kubectl.wait("deployment", "condition=Available", "--all")
    where = ".status.loadBalancer.ingress[0].ip"
    kubectl.wait("ingress/my-ingress", f"jsonpath={{{where}}}")
    address = kubectl.value("ingress/my-ingress", where)
    for host, path, who in (
        ("foo.mydomain.com", "/", "foo"),
        ("foo.mydomain.com", "/bar/x", "foo"),
        ("mydomain.com", "/bar/", "bar"),
        ("mydomain.com", "/bar/path", "bar"),
        ("mydomain.com", "/", "other"),
        ("mydomain.com", "/barn", "other"),
        ("elsewhere.org", "/bar/x", "other"),
    ):
        until(address, host, path, f"200 {who} ")
    row = kubectl("get", "ingress", "my-ingress", "--no-headers").split()
    assert row[:4] == ["my-ingress", "sampan", "foo.mydomain.com,mydomain.com", address]
