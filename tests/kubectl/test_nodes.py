"""cordon, uncordon, taint and drain: a node and the pods that may be on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.kubectl.commands import IMAGE, answers, refused, said
from tests.kubectl.terminal import Terminal
from tests.kubectl.test_workloads import deployment, rolled_out
from tests.real_cluster import Kubectl

NODE = "node-1"


@pytest.fixture(autouse=True)
def node_as_before(kubectl: Kubectl) -> Iterator[None]:
    yield
    kubectl("uncordon", NODE)
    kubectl.run("taint", "node", NODE, "tested-")


def run(kubectl: Kubectl, name: str) -> None:
    """Make a pod that ends at once when told to."""
    said(kubectl, "run", name, f"--image={IMAGE}", "--", "sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")


def unschedulable(kubectl: Kubectl, pod: str) -> str:
    """Wait until the scheduler has given `pod` up for now; what it says."""
    why = 'jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason}=Unschedulable'
    kubectl.wait(f"pod/{pod}", why)
    return kubectl.value(f"pod/{pod}", '.status.conditions[?(@.type=="PodScheduled")].message')


def test_cordon(kubectl: Kubectl) -> None:
    assert said(kubectl, "cordon", NODE) == "node/node-1 cordoned\n"
    assert said(kubectl, "cordon", NODE) == "node/node-1 already cordoned\n"
    assert "Ready,SchedulingDisabled" in said(kubectl, "get", "nodes")
    run(kubectl, "p")
    assert "1 node(s) were unschedulable" in unschedulable(kubectl, "p")
    assert said(kubectl, "uncordon", NODE) == "node/node-1 uncordoned\n"
    kubectl.wait_ready("p")


def test_taint(kubectl: Kubectl) -> None:
    assert said(kubectl, "taint", "nodes", NODE, "tested=a:NoSchedule") == "node/node-1 tainted\n"
    assert "already has tested taint(s) with same effect(s)" in refused(
        kubectl, "taint", "nodes", NODE, "tested=a:NoSchedule"
    )
    run(kubectl, "p")
    assert "1 node(s) had untolerated taint(s)" in unschedulable(kubectl, "p")
    assert (
        said(kubectl, "taint", "nodes", NODE, "tested=b:NoSchedule", "--overwrite")
        == "node/node-1 modified\n"
    )
    assert said(kubectl, "taint", "nodes", NODE, "tested:NoSchedule-") == "node/node-1 untainted\n"
    kubectl.wait_ready("p")
    said(kubectl, "taint", "nodes", NODE, "tested=:NoExecute")
    kubectl.wait("pod/p", "delete")
    assert said(kubectl, "taint", "nodes", NODE, "tested-") == "node/node-1 untainted\n"
    assert refused(kubectl, "taint", "nodes", NODE, "tested-") == 'error: taint "tested" not found\n'


def test_drain(kubectl: Kubectl) -> None:
    deployment(kubectl)
    run(kubectl, "alone")
    kubectl.wait_ready("alone")
    first = said(kubectl, "get", "pods", "-l", "app=web", "-o", "name").strip()
    alone = f"{kubectl.namespace}/alone"
    # "cannot delete cannot delete" is kubectl's own.
    assert f"Pods that declare no controller (use --force to override): {alone}" in refused(
        kubectl, "drain", NODE
    )
    drain = (
        "drain",
        NODE,
        "--force",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--grace-period=1",
        "--timeout=60s",
    )
    told = f"Warning: deleting Pods that declare no controller: {alone}\n"
    out = said(kubectl, *drain, err=told)
    assert f"{first} evicted\n" in out
    assert "pod/alone evicted\n" in out
    assert out.endswith("node/node-1 drained\n")
    kubectl.wait("pod", "jsonpath={.status.phase}=Pending", "-l", "app=web")
    said(kubectl, "uncordon", NODE)
    rolled_out(kubectl)


def test_drain_waits_for_a_disruption_budget(kubectl: Kubectl, on_terminal: Callable[..., Terminal]) -> None:
    """Who counts the budget's pods is the test: its controller does not run here yet."""
    deployment(kubectl)
    answers(kubectl, "create", "pdb", "p", "--selector=app=web", "--min-available=1")
    status = (
        '{"status": {"observedGeneration": 1, "expectedPods": 1, "currentHealthy": 1, "desiredHealthy": 1}}'
    )
    answers(kubectl, "patch", "pdb", "p", "--subresource=status", "--type=merge", "-p", status)
    pod = said(kubectl, "get", "pods", "-l", "app=web", "-o", "name").strip().removeprefix("pod/")
    drain = ("drain", NODE, "--pod-selector=app=web")
    with on_terminal(*drain, columns=300) as terminal:
        terminal.expect(f'error when evicting pods/"{pod}" -n "{kubectl.namespace}" (will retry after 5s): ')
        terminal.expect("Cannot evict pod as it would violate the pod's disruption budget.")
    assert kubectl.value(f"pod/{pod}", ".metadata.deletionTimestamp") == ""
    out = said(kubectl, *drain, "--disable-eviction", "--timeout=30s")
    assert out.endswith(f"pod/{pod} deleted\nnode/node-1 drained\n"), "to delete asks no budget"
