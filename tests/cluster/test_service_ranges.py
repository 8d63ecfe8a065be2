"""A further range of Service addresses: given out, reached from everywhere, and kept as long as it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lesson.manifests import LESSON
from tests.real_cluster import Cluster, Kubectl, curl, fetch

PREFIX = f"10.231.{os.getpid() % 250}"
NAME = f"range-{os.getpid()}"
CONNECTION_REFUSED = 7


@pytest.fixture
def app(kubectl: Kubectl) -> Iterator[Kubectl]:
    manifest = (
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\n"
        f"metadata: {{name: {NAME}}}\nspec: {{cidrs: [{PREFIX}.0/24]}}\n"
    )
    kubectl("apply", "-f", "-", stdin=manifest)
    kubectl("wait", f"servicecidr/{NAME}", "--for=condition=Ready", "--timeout=20s")
    yield kubectl
    kubectl("delete", "service", "far", "--ignore-not-found")
    kubectl("delete", "servicecidr", NAME, "--ignore-not-found", "--wait=false")


def test_a_further_range(app: Kubectl, cluster: Cluster) -> None:
    app.apply(LESSON / "my-app.yaml")
    address = f"{PREFIX}.20"
    app("expose", "deployment", "my-app", "--name=far", "--port=80", f"--cluster-ip={address}")
    app.wait_endpoints("far", 3)
    parent = app("get", "ipaddress", address, "-o=custom-columns=P:.spec.parentRef.name", "--no-headers")
    assert parent.strip() == "far"
    assert f"{PREFIX}.0/24" in app("get", "servicecidr", NAME)
    assert fetch(f"http://{address}/").startswith("Hello my-app-"), "from the host"
    inside = cluster.in_node("curl", "--silent", "--noproxy", "*", "--max-time", "5", f"http://{address}/")
    assert inside.out.startswith("Hello my-app-"), "from a node"
    app("run", "client", "--image=busybox", "--restart=Never", "--", "wget", "-q", "-O", "-", f"http://{address}/")  # fmt: skip
    app.wait("pod/client", "jsonpath={.status.phase}=Succeeded")
    assert app("logs", "client").startswith("Hello my-app-"), "from a pod"
    assert curl(f"http://{PREFIX}.21/").code == CONNECTION_REFUSED, "nobody has that address"
    app("delete", "servicecidr", NAME, "--wait=false")
    app.wait(f"servicecidr/{NAME}", "condition=Ready=False")
    refused = app.run("create", "service", "clusterip", "late", "--tcp=80", f"--clusterip={PREFIX}.30")
    assert "failed to allocate IP" in refused.err
    assert fetch(f"http://{address}/").startswith("Hello my-app-"), "what is there goes on"
