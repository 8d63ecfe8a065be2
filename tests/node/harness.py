"""A node agent on an API and a runtime in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sampan.api.errors import Object
from sampan.api.resources import EVENTS, PODS
from sampan.node.agent import NodeAgent
from sampan.node.cgroups import PodCgroups
from sampan.node.config import NodeConfig
from sampan.node.runtime.cgroup import Cgroups
from sampan.node.runtime.fake import FakeRuntime
from sampan.node.runtime.types import ContainerState, ContainerStatus
from tests.node.fakes import FakeClient, FakeImages


class Node:
    """What a test holds of a node: the agent and the three things it stands between."""

    def __init__(self, root: Path) -> None:
        self.client = FakeClient()
        self.runtime = FakeRuntime()
        self.images = FakeImages("nginx", "busybox")
        self.root = root
        self.agent: NodeAgent
        self._task: asyncio.Task[None] | None = None
        self.now = 0.0

    async def start(self) -> None:
        config = NodeConfig(name="node-1", ip="172.30.0.2", root=self.root, pod_cidrs=("10.244.0.0/24",))
        self.agent = NodeAgent(self.client, self.runtime, self.images, config)
        (self.root / "no-cgroups").mkdir(exist_ok=True)
        self.agent.context.cgroups = PodCgroups("t-node", Cgroups(str(self.root / "no-cgroups")))
        for backoff in (self.agent.context.crashes, self.agent.context.pulls):
            backoff.clock = lambda: time.time() + self.now
        self._task = asyncio.create_task(self.agent.run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def add(self, name: str = "web", namespace: str = "default", **spec: Any) -> Object:
        """Bind a pod to the node."""
        spec.setdefault("containers", [{"name": "c", "image": "nginx"}])
        meta: dict[str, Any] = {
            "name": name,
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "generation": 1,
        }
        for key in ("labels", "annotations"):
            if key in spec:
                meta[key] = spec.pop(key)
        return self.client.put(PODS, {"metadata": meta, "spec": {"nodeName": "node-1", **spec}})

    def pod(self, name: str = "web", namespace: str = "default") -> Object | None:
        return self.client.find(PODS, namespace, name)

    def status(self, name: str = "web") -> Object:
        return (self.pod(name) or {}).get("status") or {}

    def condition(self, type_: str, name: str = "web") -> Object:
        return next((c for c in self.status(name).get("conditions", []) if c["type"] == type_), {})

    def container(self, name: str = "c", pod: str = "web") -> Object:
        status = self.status(pod)
        all_ = status.get("containerStatuses", []) + status.get("initContainerStatuses", [])
        return next((s for s in all_ if s["name"] == name), {})

    async def until(self, check: Callable[[], Any], seconds: float = 5.0) -> Any:
        return await self.client.wait_for(check, seconds)

    async def until_ready(self, name: str = "web") -> None:
        await self.until(lambda: self.condition("Ready", name).get("status") == "True")

    async def until_waiting(self, reason: str, container: str = "c", pod: str = "web") -> Object:
        def check() -> Object | None:
            waiting = self.container(container, pod).get("state", {}).get("waiting", {})
            return waiting if waiting.get("reason") == reason else None

        found: Object = await self.until(check)
        return found

    async def until_true(self, check: Callable[[], Any]) -> None:
        """Until something that the API is not told of has happened."""
        async with asyncio.timeout(20):
            while not check():
                await asyncio.sleep(0)

    async def until_left(self, uid: str) -> None:
        """Until nothing of a pod is left on the node."""
        await self.until_true(lambda: self.agent.workers.get(uid) is None)

    async def running(self, name: str = "c") -> ContainerStatus:
        return next(
            c
            for c in await self.runtime.list_containers()
            if c.name == name and c.state is ContainerState.RUNNING
        )

    async def events(self) -> list[tuple[str, str, str]]:
        await self.agent.recorder.flush()
        return [(e["type"], e["reason"], e["message"]) for e in self.client.objects[EVENTS.key_stem].values()]
