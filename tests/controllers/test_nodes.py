"""Nodes that fall silent, taints, evictions and pods without a node. Clocks are moved by shortening the periods."""

from __future__ import annotations

import asyncio

import pytest

from sampan.api.errors import Object
from sampan.api.objects import condition, condition_true, now, now_micro
from sampan.api.resources import LEASES, NODES, PODS
from sampan.client.types import STRATEGIC_MERGE_PATCH
from sampan.controllers import node_lifecycle, pod_gc
from tests.controllers.conftest import Cluster, pod, running

NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


def taints(nodes: list[Object], name: str = "n1") -> set[tuple[str, str]]:
    node = next(n for n in nodes if n["metadata"]["name"] == name)
    return {(t["key"], t["effect"]) for t in node["spec"].get("taints") or ()}


async def set_ready(cluster: Cluster, status: str, name: str = "n1") -> None:
    patch = {
        "status": {
            "conditions": [
                {"type": "Ready", "status": status, "lastHeartbeatTime": now(), "lastTransitionTime": now()}
            ]
        }
    }
    await cluster.client.patch(
        NODES, "", name, patch, content_type=STRATEGIC_MERGE_PATCH, subresource="status"
    )


async def test_a_ready_node_loses_its_first_taint(cluster: Cluster) -> None:
    made = await cluster.node()
    assert taints([made]) == {(NOT_READY, "NoSchedule")}
    await cluster.until(NODES, lambda all_: not taints(all_), "")
    await cluster.event("RegisteredNode", "Node n1 event: Registered Node n1 in Controller")


async def test_cordon(cluster: Cluster) -> None:
    made = await cluster.node()
    await cluster.change(NODES, made, lambda n: n["spec"].update(unschedulable=True))
    await cluster.until(
        NODES, lambda all_: taints(all_) == {("node.kubernetes.io/unschedulable", "NoSchedule")}, ""
    )
    await cluster.change(NODES, made, lambda n: n["spec"].pop("unschedulable"))
    await cluster.until(NODES, lambda all_: not taints(all_), "")


async def test_a_node_not_ready_evicts_while_another_is_well(cluster: Cluster) -> None:
    await cluster.node("n1")
    await cluster.node("n2")
    await cluster.until(NODES, lambda all_: not taints(all_, "n1") and not taints(all_, "n2"), "")
    await set_ready(cluster, "False")
    both = {(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")}
    await cluster.until(NODES, lambda all_: taints(all_) == both, "")
    await set_ready(cluster, "False", "n2")
    # Nobody is well: it may be us who cannot see, and nobody is driven away.
    await cluster.until(NODES, lambda all_: taints(all_) == {(NOT_READY, "NoSchedule")}, "")
    await set_ready(cluster, "True")
    await cluster.until(NODES, lambda all_: not taints(all_, "n1") and taints(all_, "n2") == both, "")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_lifecycle, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(pod_gc, "QUARANTINE_SECONDS", 0.1)


async def test_silence(quick: None, cluster: Cluster) -> None:
    await cluster.node()
    p = await cluster.run(await cluster.client.create(PODS, pod("a")))
    assert condition_true(p, "Ready")
    [node] = await cluster.until(
        NODES, lambda all_: (condition(all_[0], "Ready") or {}).get("status") == "Unknown", ""
    )
    ready = condition(node, "Ready")
    assert ready is not None
    assert (ready["reason"], ready["message"]) == (
        "NodeStatusUnknown",
        "Kubelet stopped posting node status.",
    )
    await cluster.until(NODES, lambda all_: taints(all_) == {(UNREACHABLE, "NoSchedule")}, "")
    await cluster.until(PODS, lambda all_: not condition_true(all_[0], "Ready"))
    await cluster.event("NodeNotReady", "Node n1 status is now: NodeNotReady")
    await set_ready(cluster, "True")
    await cluster.until(NODES, lambda all_: not taints(all_), "")


async def test_a_lease_is_a_sign_of_life(quick: None, cluster: Cluster) -> None:
    await cluster.node()
    lease = await cluster.client.create(
        LEASES,
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "n1", "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": now_micro()},
        },
    )

    async def renew() -> None:
        while True:
            await cluster.change(LEASES, lease, lambda o: o["spec"].update(renewTime=now_micro()))
            await asyncio.sleep(0.1)

    def unknown(nodes: list[Object]) -> set[str]:
        return {
            n["metadata"]["name"] for n in nodes if (condition(n, "Ready") or {}).get("status") == "Unknown"
        }

    async with running(renew()):
        await cluster.node("n2")  # which has no Lease
        assert unknown(await cluster.until(NODES, unknown, "")) == {"n2"}
    await cluster.until(NODES, lambda all_: unknown(all_) == {"n1", "n2"}, "")


async def taint(cluster: Cluster, node: Object, *wanted: Object) -> None:
    await cluster.change(NODES, node, lambda n: n["spec"].update(taints=list(wanted)))


async def test_no_execute_drives_away_who_does_not_tolerate(cluster: Cluster) -> None:
    node = await cluster.node()
    mine = {"key": "mine", "operator": "Exists", "effect": "NoExecute"}
    for name, tolerations in (
        ("none", []),
        ("ever", [mine]),
        ("while", [{**mine, "tolerationSeconds": 1}]),
    ):
        await cluster.run(await cluster.client.create(PODS, pod(name, tolerations=tolerations)))
    await taint(cluster, node, {"key": "mine", "effect": "NoExecute"})

    def going(pods: list[Object]) -> set[str]:
        return {p["metadata"]["name"] for p in pods if p["metadata"].get("deletionTimestamp")}

    pods = await cluster.until(PODS, lambda all_: "none" in going(all_))
    assert going(pods) == {"none"}
    gone = condition(next(p for p in pods if p["metadata"]["name"] == "none"), "DisruptionTarget")
    assert gone is not None
    assert gone["reason"] == "DeletionByTaintManager"
    await cluster.event("TaintManagerEviction", "Marking for deletion Pod default/none")
    pods = await cluster.until(PODS, lambda all_: "while" in going(all_))
    assert going(pods) == {"none", "while"}


async def test_a_taint_that_goes_in_time_spares_the_pod(cluster: Cluster) -> None:
    node = await cluster.node()
    waits = {"key": "mine", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 100}
    await cluster.run(await cluster.client.create(PODS, pod("a", tolerations=[waits])))
    await cluster.run(await cluster.client.create(PODS, pod("b")))
    await taint(cluster, node, {"key": "mine", "effect": "NoExecute"})
    await cluster.event("TaintManagerEviction", "Marking for deletion Pod default/b")
    await taint(cluster, node)
    await cluster.event("TaintManagerEviction", "Cancelling deletion of Pod default/a")


async def test_pods_of_a_gone_node_are_removed(quick: None, cluster: Cluster) -> None:
    await cluster.node("n1")
    await cluster.node("n2")
    await cluster.run(await cluster.client.create(PODS, pod("lost")), "n2")
    await cluster.run(await cluster.client.create(PODS, pod("kept")), "n1")
    await cluster.client.delete(NODES, "", "n2")
    pods = await cluster.until(PODS, lambda all_: len(all_) == 1)
    assert pods[0]["metadata"]["name"] == "kept"
