"""1.5.3 A node that takes no new pods: cordon, uncordon, and the taint that the lesson's author used before."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.real_cluster import Cluster, Kubectl


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    """The only node; takes pods again afterwards, whatever happened."""
    name = cluster.config.nodes[0]
    yield name
    kubectl = cluster.kubectl()
    kubectl.run("uncordon", name)
    kubectl.run("taint", "node", name, "lesson-")


def run_pod(kubectl: Kubectl, name: str) -> None:
    kubectl("run", name, "--image=busybox", "--restart=Never", "--", "true")


def assert_not_scheduled(kubectl: Kubectl, pod: str, why: str) -> None:
    kubectl.wait(f"pod/{pod}", "condition=PodScheduled=false")
    condition = kubectl.value(f"pod/{pod}", '.status.conditions[?(@.type=="PodScheduled")]')
    assert '"reason":"Unschedulable"' in condition
    assert f"0/1 nodes are available: {why}." in condition
    assert kubectl("get", "pod", pod, "--no-headers").split()[2] == "Pending"
    seen = kubectl.watch(
        f"events --field-selector involvedObject.name={pod},reason=FailedScheduling",
        "{{.object.message}}",
        bool,
    )
    assert seen.startswith(f"0/1 nodes are available: {why}.")
    assert "FailedScheduling" in kubectl("describe", "pod", pod)


def test_cordon_and_uncordon(kubectl: Kubectl, node: str) -> None:
    run_pod(kubectl, "before")
    kubectl.wait("pod/before", "jsonpath={.status.phase}=Succeeded")
    assert kubectl("cordon", node) == f"node/{node} cordoned\n"
    assert kubectl("cordon", node) == f"node/{node} already cordoned\n"
    assert kubectl("get", "node", node, "--no-headers").split()[1] == "Ready,SchedulingDisabled"
    described = kubectl("describe", "node", node)
    assert re.search(r"^Unschedulable: +true$", described, re.MULTILINE)
    assert "node.kubernetes.io/unschedulable:NoSchedule" in described
    run_pod(kubectl, "waits")
    assert_not_scheduled(kubectl, "waits", "1 node(s) were unschedulable")
    assert kubectl("uncordon", node) == f"node/{node} uncordoned\n"
    kubectl.wait("pod/waits", "jsonpath={.status.phase}=Succeeded")
    assert kubectl("get", "node", node, "--no-headers").split()[1] == "Ready"


def test_taint_and_toleration(kubectl: Kubectl, node: str) -> None:
    assert kubectl("taint", "node", node, "lesson=yes:NoSchedule") == f"node/{node} tainted\n"
    run_pod(kubectl, "waits")
    assert_not_scheduled(kubectl, "waits", "1 node(s) had untolerated taint(s)")
    overrides = '{"spec": {"tolerations": [{"key": "lesson", "operator": "Exists"}]}}'
    kubectl("run", "tolerant", "--image=busybox", "--restart=Never", f"--overrides={overrides}", "--", "true")
    kubectl.wait("pod/tolerant", "jsonpath={.status.phase}=Succeeded")
    assert kubectl("taint", "node", node, "lesson-") == f"node/{node} untainted\n"
    kubectl.wait("pod/waits", "jsonpath={.status.phase}=Succeeded")
