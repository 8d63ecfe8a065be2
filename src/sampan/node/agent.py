"""The node agent: the parts of one node put together."""

from __future__ import annotations

import asyncio
import logging
import os

from sampan.api.resources import PODS, SERVICES
from sampan.client.events import Recorder
from sampan.client.informer import Informer
from sampan.client.references import ReferencedObjects
from sampan.client.types import Client
from sampan.node.cgroups import PodCgroups
from sampan.node.config import NodeConfig
from sampan.node.context import NodeContext
from sampan.node.guard import PodGuard
from sampan.node.images.types import ImageService
from sampan.node.pod_workers import PodWorkers
from sampan.node.registration import Registration, machine_memory
from sampan.node.runtime.types import RuntimeService
from sampan.node.streams import AgentStreams

log = logging.getLogger(__name__)


class NodeAgent:
    """Runs the pods that are bound to one node (upstream: the kubelet).

    `client` acts as the node; `runtime` and `images` are this node's. All it needs to go on after its own end is in
    the runtime and the API.
    """

    def __init__(
        self,
        client: Client,
        runtime: RuntimeService,
        images: ImageService,
        config: NodeConfig,
        guard: PodGuard | None = None,
    ) -> None:
        self.config = config
        self.runtime = runtime
        cpus = config.cpus or float(len(os.sched_getaffinity(0)))
        memory = config.memory_bytes or machine_memory()
        self.recorder = Recorder(client, "kubelet", config.name)
        self._objects = ReferencedObjects(client, self._objects_changed)
        self._services = Informer(client, SERVICES)
        self._pods = Informer(client, PODS, field_selector=f"spec.nodeName={config.name}")
        self.context = NodeContext(
            config=config,
            client=client,
            runtime=runtime,
            images=images,
            recorder=self.recorder,
            objects=self._objects,
            services=self._services,
            cgroups=PodCgroups(config.cgroup_root),
            cpus=cpus,
            memory=memory,
            guard=guard,
        )
        self.registration = Registration(client, config, images, cpus, memory)
        self.workers = PodWorkers(self.context, self._pods)
        self.streams = AgentStreams(self.context, self.workers)
        """For the node's own server (`NodeServer`)."""

    async def run(self) -> None:
        """Run until cancelled. Cancelling leaves the pods running."""
        self.config.pods.mkdir(parents=True, exist_ok=True)
        self.config.logs.mkdir(parents=True, exist_ok=True)
        await self.runtime.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.recorder.run(), name="events")
                group.create_task(self._services.run(), name="services")
                group.create_task(self._pods.run(), name="pods")
                group.create_task(self._objects.run(), name="references")
                group.create_task(self.registration.run(), name="registration")
                group.create_task(self._tell_ready(), name="ready")
                # Service variables are part of a container's environment: no pod starts without them.
                await self._services.synced.wait()
                group.create_task(self.workers.run(), name="pod workers")
        finally:
            await self._objects.close()
            await self.runtime.close()

    async def _tell_ready(self) -> None:
        self.recorder.event(self.registration.reference(), "Normal", "Starting", "Starting kubelet.")
        await self.registration.ready.wait()
        name = self.config.name
        self.recorder.event(
            self.registration.reference(), "Normal", "NodeReady", f"Node {name} status is now: NodeReady"
        )

    def _objects_changed(self, uid: str) -> None:
        self.workers.objects_changed(uid)
