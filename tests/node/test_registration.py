"""The Node object and its Lease."""

from __future__ import annotations

from sampan.api.resources import LEASES, NODES
from tests.node.harness import Node


async def test_a_node_registers(node: Node) -> None:
    found = await node.until(lambda: node.client.find(NODES, "", "node-1"))
    assert found["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
    assert found["metadata"]["labels"]["kubernetes.io/os"] == "linux"
    assert found["spec"] == {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}
    status = found["status"]
    assert status["addresses"] == [
        {"type": "InternalIP", "address": "172.30.0.2"},
        {"type": "Hostname", "address": "node-1"},
    ]
    assert set(status["capacity"]) >= {"cpu", "memory", "pods", "ephemeral-storage"}
    assert status["capacity"]["pods"] == status["allocatable"]["pods"] == "110"
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert status["nodeInfo"]["kubeletVersion"] == "v1.36.2+sampan"
    assert [(c["type"], c["status"], c["reason"]) for c in status["conditions"]] == [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ]
    lease = await node.until(lambda: node.client.find(LEASES, "kube-node-lease", "node-1"))
    assert lease["spec"]["holderIdentity"] == "node-1"
    assert lease["spec"]["leaseDurationSeconds"] == 40
    await node.agent.registration.ready.wait()
    await node.until(
        lambda: any(
            e["reason"] == "NodeReady" and e["message"] == "Node node-1 status is now: NodeReady"
            for e in node.client.objects["events"].values()
        )
    )


async def test_an_agent_that_comes_back_keeps_what_users_set(node: Node) -> None:
    await node.agent.registration.ready.wait()
    await node.until(lambda: node.client.find(LEASES, "kube-node-lease", "node-1"))
    await node.stop()
    found = dict(node.client.find(NODES, "", "node-1") or {})
    found["metadata"] = {**found["metadata"], "labels": {**found["metadata"]["labels"], "disk": "ssd"}}
    found["spec"] = {**found["spec"], "unschedulable": True}
    before = {c["type"]: c["lastTransitionTime"] for c in found["status"]["conditions"]}
    node.client.put(NODES, found)
    await node.start()
    await node.agent.registration.ready.wait()
    now = node.client.find(NODES, "", "node-1") or {}
    assert now["metadata"]["labels"]["disk"] == "ssd"
    assert now["spec"]["unschedulable"] is True
    assert {c["type"]: c["lastTransitionTime"] for c in now["status"]["conditions"]} == before


async def test_a_node_that_was_deleted_registers_again(node: Node) -> None:
    await node.agent.registration.ready.wait()
    node.client.remove(NODES, "", "node-1")
    node.agent.registration.changed()
    await node.until(lambda: node.client.find(NODES, "", "node-1"))
