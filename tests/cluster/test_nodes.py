"""Several nodes on one machine: pods reach each other without translation, every node opens the same port."""

from __future__ import annotations

import json

import pytest

from tests.cluster.test_lifecycle import ROOT, Owner, owner, pytestmark  # noqa: F401
from tests.cluster.test_services import SERVER
from tests.real_cluster import fetch


def _pod(name: str, node: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {"name": "server", "image": "training/webapp", "command": ["python3", "-c", SERVER]},
                    {"name": "shell", "image": "busybox", "command": ["sleep", "100000"]},
                ],
            },
        }
    )


@pytest.mark.timeout(120)
def test_pods_of_two_nodes_and_the_port_that_both_open(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    owner.run("up", "--name", name, "--nodes", "2")
    owner.run("image", "build", str(ROOT / "images/busybox"), str(ROOT / "images/webapp"), "--name", name)
    nodes = json.loads(owner.kubectl(name, "get", "nodes", "-o", "json"))["items"]
    addresses = {n["metadata"]["name"]: n["status"]["addresses"][0]["address"] for n in nodes}
    assert sorted(addresses) == ["node-1", "node-2"]
    for number, node in enumerate(sorted(addresses), 1):
        owner.kubectl(name, "apply", "-f", "-", input=_pod(f"web-{number}", node))
    owner.kubectl(name, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    ips = owner.kubectl(name, "get", "pods", "-o", "jsonpath={.items[*].status.podIP}").split()
    assert ips[0].rpartition(".")[0] != ips[1].rpartition(".")[0], "each node has a range of its own"
    said = owner.kubectl(
        name, "exec", "web-1", "-c", "shell", "--", "wget", "-q", "-O", "-", f"http://{ips[1]}:8080/"
    )
    assert said == "web-2\n"
    owner.kubectl(name, "expose", "pod", "web-2", "--port=8080", "--type=NodePort", "--name=web")
    owner.kubectl(name, "patch", "service", "web", "-p", '{"spec":{"selector":{"app":"web"}}}')
    port = owner.kubectl(name, "get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}")
    for address in addresses.values():
        assert {fetch(f"http://{address}:{port}/") for _ in range(20)} == {"web-1\n", "web-2\n"}, address
