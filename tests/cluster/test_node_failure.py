"""A node that is cut off: NotReady, its pods replaced elsewhere, no traffic to it, nobody twice; and all well when it is back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sampan.network import host
from tests.cluster.test_lifecycle import ROOT, Owner, owner, pytestmark  # noqa: F401
from tests.cluster.test_services import SERVER
from tests.real_cluster import fetch

_CONTAINER = {"name": "server", "image": "training/webapp", "command": ["python3", "-c", SERVER]}
_WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": {"matchLabels": {"app": "web"}},
                        # A node that is cut off must not keep its replacement from being scheduled.
                        "nodeTaintsPolicy": "Honor",
                    }
                ],
                "containers": [_CONTAINER],
            },
        },
    },
}
_ONLY_ONE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "only-one"},
    "spec": {
        "nodeName": "node-3",
        "terminationGracePeriodSeconds": 1,
        "tolerations": [],
        "containers": [_CONTAINER],
    },
}


@pytest.mark.timeout(180)
def test_a_node_that_is_cut_off_and_comes_back(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    owner.run(
        "up", "--name", name, "--nodes", "3", "--node-monitor-grace-period", "3s",
        "--default-unreachable-toleration-seconds", "1", "--default-not-ready-toleration-seconds", "1",
    )  # fmt: skip
    owner.run("image", "build", str(ROOT / "images/webapp"), "--name", name)

    def kubectl(*arguments: str, input: str = "") -> str:
        return owner.kubectl(name, *arguments, input=input)

    def pods() -> list[Any]:
        return list(json.loads(kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"])

    kubectl("apply", "-f", "-", input=json.dumps(_WEB))
    kubectl("apply", "-f", "-", input=json.dumps(_ONLY_ONE))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("wait", "--for=condition=Ready", "pod/only-one", "--timeout=60s")
    # One on each node, as was asked.
    assert sorted(p["spec"]["nodeName"] for p in pods()) == ["node-1", "node-2", "node-3"]
    kubectl("expose", "deployment", "web", "--port=8080", "--type=NodePort")
    port = kubectl("get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}")
    address = kubectl("get", "node", "node-1", "-o", "jsonpath={.status.addresses[0].address}")
    lost = next(p["metadata"]["name"] for p in pods() if p["spec"]["nodeName"] == "node-3")

    cable = host.host_link_of(Path(f"/run/netns/sampan-{name}-node-3"))
    subprocess.run(["ip", "link", "set", cable, "down"], check=True)
    kubectl("wait", "--for=condition=Ready=Unknown", "node/node-3", "--timeout=30s")
    node = json.loads(kubectl("get", "node", "node-3", "-o", "json"))
    ready = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["reason"], ready["message"]) == (
        "NodeStatusUnknown",
        "Kubelet stopped posting node status.",
    )
    kubectl(
        "wait",
        "--for=jsonpath={.spec.taints[?(@.effect=='NoExecute')].key}=node.kubernetes.io/unreachable",
        "node/node-3",
        "--timeout=30s",
    )
    # Its pod is deleted and cannot go, for nobody can say that it ended; another one runs elsewhere.
    kubectl("wait", "--for=jsonpath={.metadata.deletionTimestamp}", f"pod/{lost}", "--timeout=30s")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("wait", "--for=jsonpath={.metadata.deletionTimestamp}", "pod/only-one", "--timeout=30s")
    running = [p for p in pods() if not p["metadata"].get("deletionTimestamp")]
    assert sorted({p["spec"]["nodeName"] for p in running}) == ["node-1", "node-2"]
    assert {fetch(f"http://{address}:{port}/").strip() for _ in range(30)} == {
        p["metadata"]["name"] for p in running
    }
    # Whoever needs a name to be there once only cannot have it twice.
    again = subprocess.run(
        ["kubectl", "--context", f"sampan-{name}", "create", "-f", "-"],
        env=owner.environment, input=json.dumps(_ONLY_ONE), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'object is being deleted: pods "only-one" already exists' in again.stderr

    subprocess.run(["ip", "link", "set", cable, "up"], check=True)
    kubectl("wait", "--for=condition=Ready=True", "node/node-3", "--timeout=60s")
    kubectl("wait", "--for=delete", f"pod/{lost}", "pod/only-one", "--timeout=60s")
    watch = f"kubectl --context sampan-{name} get node node-3 -w -o jsonpath='{{.spec.taints}}{{\"\\n\"}}'"
    gone = subprocess.run(
        ["timeout", "30", "bash", "-c", f"grep -m1 -v key < <({watch})"], env=owner.environment, check=False
    )
    assert gone.returncode == 0, "the taints stay"
    kubectl("create", "-f", "-", input=json.dumps(_ONLY_ONE))
    kubectl("wait", "--for=condition=Ready", "pod/only-one", "--timeout=60s")
    kubectl("scale", "deployment/web", "--replicas=6")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert "node-3" in {p["spec"]["nodeName"] for p in pods()}
    assert len({fetch(f"http://{address}:{port}/") for _ in range(100)}) == 6
