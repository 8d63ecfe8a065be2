"""The controllers on a real API server core in this process, with its store in memory and no nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy, now
from sampan.api.resources import DEPLOYMENTS, EVENTS, NODES, PODS, SERVICES, Resource
from sampan.apiserver.app import App
from sampan.client.types import STRATEGIC_MERGE_PATCH, Client
from sampan.controllers.manager import Manager
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config

SECONDS = 10


class Cluster:
    """The API under test, with short words for what tests do to it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._address = 0

    async def all(self, resource: Resource, namespace: str = "default", labels: str = "") -> list[Object]:
        return list((await self.client.list(resource, namespace, label_selector=labels)).items)

    async def until(
        self,
        resource: Resource,
        holds: Callable[[list[Object]], Any],
        namespace: str = "default",
    ) -> list[Object]:
        """Wait, by the API's own watch, until the objects of a resource are as they should be."""
        found = await self.client.list(resource, namespace)
        present = {(o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in found.items}
        if holds(list(present.values())):
            return list(present.values())
        try:
            async with asyncio.timeout(SECONDS):
                async for event in self.client.watch(
                    resource, namespace, resource_version=found.resource_version
                ):
                    if event.type == "BOOKMARK":
                        continue
                    key = (event.object["metadata"].get("namespace"), event.object["metadata"]["name"])
                    if event.type == "DELETED":
                        present.pop(key, None)
                    else:
                        present[key] = event.object
                    if holds(list(present.values())):
                        return list(present.values())
        except TimeoutError:
            pass
        raise AssertionError(f"{resource.plural} stayed as they are: {list(present.values())}")

    async def event(self, reason: str, message: str = "") -> Object:
        def wanted(e: Object) -> bool:
            return e["reason"] == reason and message in e["message"]

        return next(e for e in await self.until(EVENTS, lambda all_: any(map(wanted, all_))) if wanted(e))

    async def pods(self, count: int, labels: str = "") -> list[Object]:
        """Wait for so many pods that are not on their way out."""
        key, _, value = labels.partition("=")

        def chosen(pods: list[Object]) -> list[Object]:
            return [
                p
                for p in pods
                if not p["metadata"].get("deletionTimestamp")
                and (not key or (p["metadata"].get("labels") or {}).get(key) == value)
            ]

        return chosen(await self.until(PODS, lambda pods: len(chosen(pods)) == count))

    async def run(self, pod: Object, node: str = "n1", *, ready: bool = True, ip: str = "") -> Object:
        """What a node would do with a pod: bind it, give it an address (or several, by commas), say that it is ready."""
        meta = pod["metadata"]
        if not pod["spec"].get("nodeName"):
            binding = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": meta["name"]},
                "target": {"kind": "Node", "name": node},
            }
            await self.client.create(
                PODS, binding, namespace=meta["namespace"], name=meta["name"], subresource="binding"
            )
        self._address += 1
        address = ip or f"10.244.0.{self._address}"
        status = {
            "phase": "Running",
            "podIP": address.split(",")[0],
            "podIPs": [{"ip": one} for one in address.split(",")],
            "conditions": [
                {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now()}
            ],
        }
        return await self.client.patch(
            PODS,
            meta["namespace"],
            meta["name"],
            {"status": status},
            content_type=STRATEGIC_MERGE_PATCH,
            subresource="status",
        )

    async def kubelet(self) -> None:
        """A node that runs every pod and lets every pod go, until cancelled."""
        found = await self.client.list(PODS)
        for pod in found.items:
            await self._tend(pod)
        async for event in self.client.watch(PODS, resource_version=found.resource_version):
            if event.type in ("ADDED", "MODIFIED"):
                await self._tend(event.object)

    async def _tend(self, pod: Object) -> None:
        meta = pod["metadata"]
        try:
            if meta.get("deletionTimestamp"):
                await self.client.delete(PODS, meta["namespace"], meta["name"], grace_period_seconds=0)
            elif not pod["spec"].get("nodeName"):
                await self.run(pod)
        except StatusError as e:
            if e.code not in (404, 409):
                raise

    async def node(
        self, name: str = "n1", *, ready: str = "True", labels: dict[str, str] | None = None
    ) -> Object:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels or {}},
            "status": {
                "capacity": {"cpu": "4", "memory": "4Gi", "pods": "110"},
                "conditions": [
                    {"type": t, "status": s, "lastHeartbeatTime": now(), "lastTransitionTime": now()}
                    for t, s in (
                        ("Ready", ready),
                        ("MemoryPressure", "False"),
                        ("DiskPressure", "False"),
                        ("PIDPressure", "False"),
                    )
                ],
            },
        }
        return await self.client.create(NODES, node)

    async def change(self, resource: Resource, obj: Object, change: Callable[[Object], Any]) -> Object:
        """Update an object from its newest state."""
        meta = obj["metadata"]
        while True:
            fresh = deep_copy(await self.client.get(resource, meta.get("namespace", ""), meta["name"]))
            change(fresh)
            try:
                return await self.client.update(resource, fresh)
            except StatusError as e:
                if e.code != 409:
                    raise


def pod_template(image: str = "nginx:1", labels: dict[str, str] | None = None, **spec: Any) -> Object:
    return {
        "metadata": {"labels": labels or {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}], **spec},
    }


def deployment(replicas: int = 3, image: str = "nginx:1", **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": pod_template(image),
            **spec,
        },
    }


def pod(
    name: str, labels: dict[str, str] | None = None, owners: list[Object] | None = None, **spec: Any
) -> Object:
    made: Object = {"name": name, "namespace": "default", "labels": labels or {}}
    if owners:
        made["ownerReferences"] = owners
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": made,
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}], **spec},
    }


def service(name: str = "web", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec},
    }


@pytest.fixture
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """The API alone, for tests that watch controllers start; with the settings that it is parametrized with."""
    app = App(MemoryStore(), config(**getattr(request, "param", {})))
    await app.start()
    yield app.client()
    await app.close()


@contextlib.asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run something as long as the block lasts; its failure is the test's."""
    task = asyncio.ensure_future(work)
    try:
        yield
        assert not task.done(), task.exception() if not task.cancelled() else "cancelled"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def cluster(api: Client) -> AsyncIterator[Cluster]:
    """The API with all controllers; pods can be made."""
    from sampan.api.resources import SERVICEACCOUNTS

    made = Cluster(api)
    async with running(Manager(api, cluster_ca="THE CA").run()):
        await made.until(SERVICEACCOUNTS, lambda all_: all_)
        yield made


__all__ = ["DEPLOYMENTS", "SERVICES", "Cluster", "deployment", "pod", "pod_template", "running", "service"]
