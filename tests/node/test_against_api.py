"""The agent against the real API server, over HTTPS and with no more rights than a node has."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.resources import CONFIGMAPS, EVENTS, LEASES, NAMESPACES, NODES, PODS, SERVICEACCOUNTS
from sampan.apiserver.app import App
from sampan.client.access import Access
from sampan.client.https import HttpsClient
from sampan.client.types import Client
from sampan.node.agent import NodeAgent
from sampan.node.cgroups import PodCgroups
from sampan.node.config import NodeConfig
from sampan.node.runtime.cgroup import Cgroups
from sampan.node.runtime.fake import FakeRuntime
from sampan.store.sqlite import open_store
from sampan.transport.http import HttpServer
from sampan.transport.tls import server_context
from tests.apiserver.conftest import config
from tests.node.fakes import FakeImages
from tests.transport.authority import Authority


class Cluster:
    def __init__(self, admin: Client, runtime: FakeRuntime, agent: NodeAgent) -> None:
        self.admin = admin
        self.runtime = runtime
        self.agent = agent

    async def pod(self, name: str, **spec: Any) -> Object:
        spec.setdefault("containers", [{"name": "c", "image": "nginx", "imagePullPolicy": "IfNotPresent"}])
        return await self.admin.create(
            PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"nodeName": "node-1", **spec},
            },
        )

    async def until(self, name: str, check: Any) -> Object | None:
        """Follow a pod until `check` holds for it (None once it is gone)."""
        listed = await self.admin.list(PODS, "default", field_selector=f"metadata.name={name}")
        found = listed.items[0] if listed.items else None
        if check(found):
            return found
        async with asyncio.timeout(10):
            async for event in self.admin.watch(
                PODS,
                "default",
                resource_version=listed.resource_version,
                field_selector=f"metadata.name={name}",
            ):
                found = None if event.type == "DELETED" else event.object
                if event.type != "BOOKMARK" and check(found):
                    return found
        raise AssertionError("the watch ended")


def ready(pod: Object | None) -> bool:
    conditions = ((pod or {}).get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    store = await open_store(tmp_path / "db")
    app = App(store, config())
    await app.start()
    authority = Authority(tmp_path)
    certificate, key = authority.issue("api")
    server = HttpServer(app.handle, ssl_context=server_context(certificate, key, authority.certificate))
    _, port = await server.listen()
    own, own_key = authority.issue("system:node:node-1", ["system:nodes"])
    access = Access(f"https://127.0.0.1:{port}", ca=authority.certificate, certificate=own, key=own_key)
    client, admin = HttpsClient(access), app.client()
    for namespace in ("default", "kube-node-lease"):
        with contextlib.suppress(StatusError):
            await admin.create(
                NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            )
    meta = {"name": "default", "namespace": "default"}
    with contextlib.suppress(StatusError):
        await admin.create(SERVICEACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    ca = {"name": "kube-root-ca.crt", "namespace": "default"}
    with contextlib.suppress(StatusError):
        await admin.create(
            CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": ca, "data": {"ca.crt": "CA"}}
        )
    runtime = FakeRuntime()
    agent = NodeAgent(
        client, runtime, FakeImages("nginx"), NodeConfig(name="node-1", ip="172.30.0.2", root=tmp_path / "n")
    )
    (tmp_path / "no-cgroups").mkdir()
    agent.context.cgroups = PodCgroups("t-node", Cgroups(str(tmp_path / "no-cgroups")))
    task = asyncio.create_task(agent.run())
    async with asyncio.timeout(10):
        await agent.registration.ready.wait()
    yield Cluster(admin, runtime, agent)
    for pod in (await admin.list(PODS)).items:
        await admin.delete(PODS, "default", pod["metadata"]["name"])
        await Cluster(admin, runtime, agent).until(pod["metadata"]["name"], lambda p: p is None)
    async with asyncio.timeout(10):
        while list(agent.workers):
            await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await client.close()
    await server.close()
    await app.close()
    await store.close()


@pytest.mark.root
async def test_a_pod_lives_and_goes(cluster: Cluster) -> None:
    node = await cluster.admin.get(NODES, "", "node-1")
    assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
    async with asyncio.timeout(20):
        while not (leases := (await cluster.admin.list(LEASES, "kube-node-lease")).items):
            await asyncio.sleep(0)
    assert leases[0]["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
    await cluster.pod("web")
    pod = await cluster.until("web", ready)
    assert pod is not None
    assert pod["status"]["phase"] == "Running"
    assert pod["status"]["podIPs"] == [{"ip": pod["status"]["podIP"]}]
    volumes = cluster.agent.config.pod_directory(pod["metadata"]["uid"]) / "volumes"
    (projected,) = (volumes / "kubernetes.io~projected").iterdir()
    assert (projected / "namespace").read_text() == "default"
    assert (projected / "ca.crt").read_text() != ""
    assert (projected / "token").read_text().count(".") == 2
    # A dead sandbox: another address, and only that one in the status.
    (sandbox,) = await cluster.runtime.list_pod_sandboxes()
    cluster.runtime.kill_sandbox(sandbox.id)

    def moved(now: Object | None) -> bool:
        return ready(now) and (now or {})["status"]["podIP"] != pod["status"]["podIP"]

    pod = await cluster.until("web", moved)
    assert pod is not None
    assert pod["status"]["podIPs"] == [{"ip": pod["status"]["podIP"]}]
    await cluster.admin.delete(PODS, "default", "web")
    await cluster.until("web", lambda p: p is None)
    await cluster.agent.recorder.flush()
    events = {(e["reason"], e["message"]) for e in (await cluster.admin.list(EVENTS, "default")).items}
    assert ("Started", "Container started") in events
    assert ("Killing", "Stopping container c") in events


@pytest.mark.root
async def test_not_ready_reasons_come_and_go(cluster: Cluster) -> None:
    reference = {"configMapKeyRef": {"name": "settings", "key": "mode"}}
    container = {
        "name": "c",
        "image": "nginx",
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "MODE", "valueFrom": reference}],
    }
    await cluster.pod("web", containers=[container])

    def refused(pod: Object | None) -> bool:
        statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or [{}]
        waiting = (statuses[0].get("state") or {}).get("waiting") or {}
        return bool(waiting.get("reason") == "CreateContainerConfigError")

    pod = await cluster.until("web", refused)
    assert pod is not None
    conditions = {c["type"]: c for c in pod["status"]["conditions"]}
    assert conditions["Ready"]["message"] == "containers with unready status: [c]"
    await cluster.admin.create(
        CONFIGMAPS,
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "default"},
            "data": {"mode": "a"},
        },
    )
    pod = await cluster.until("web", ready)
    assert pod is not None
    conditions = {c["type"]: c for c in pod["status"]["conditions"]}
    assert not conditions["Ready"].get("message")
    assert not conditions["Ready"].get("reason")


@pytest.mark.root
async def test_a_finished_pod(cluster: Cluster) -> None:
    container = {"name": "c", "image": "nginx", "imagePullPolicy": "IfNotPresent", "command": ["true"]}
    await cluster.pod("job", restartPolicy="Never", containers=[container])
    pod = await cluster.until("job", lambda p: p and p.get("status", {}).get("phase") == "Succeeded")
    assert pod is not None
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
