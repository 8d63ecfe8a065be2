"""Keeping one pod's volumes set up: at once when something that they show changes, and again after failures."""

from __future__ import annotations

import asyncio
import time

from sampan.api.errors import Object
from sampan.api.resources import SERVICEACCOUNTS, Resource
from sampan.node import pods
from sampan.node.context import NodeContext
from sampan.node.pod_tasks import PodTasks
from sampan.node.volumes.pod_volumes import PodVolumes
from sampan.node.volumes.types import VolumeContext

FIRST_RETRY, MOST_RETRY = 0.5, 122.0


class VolumeKeeper:
    """`ready` is set once every volume of the pod has been set up."""

    def __init__(self, node: NodeContext, pod: Object, tasks: PodTasks) -> None:
        self.ready = asyncio.Event()
        self._node = node
        self._pod = pod
        self._ips: tuple[str, ...] = ()
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._stale = True
        self._retry_at = 0.0
        self._failures = 0
        directory = node.config.pod_directory(pods.uid(pod))
        context = VolumeContext(
            pod,
            "",
            directory,
            self._lookup,
            self._request_token,
            node.config.name,
            node.config.ips,
            node.cpus,
            node.memory,
        )
        self.volumes = PodVolumes(directory, context)

    def update(self, pod: Object) -> None:
        """Take the newest state of the pod; what its volumes show of it is brought up to date."""
        old, new = self._pod["metadata"], pod["metadata"]
        if old.get("labels") != new.get("labels") or old.get("annotations") != new.get("annotations"):
            self._stale = True
        self._pod = pod

    def objects_changed(self) -> None:
        """A ConfigMap or Secret that the pod refers to came, changed or went."""
        self._stale = True
        self._retry_at = 0.0

    def ensure(self, ips: tuple[str, ...]) -> None:
        """Begin whatever is due."""
        self._ips = ips
        if self._task is not None:
            return
        moment = time.time()
        if self._retry_at:
            due = moment >= self._retry_at
        else:
            due = self._stale or 0 < self.volumes.refresh_at <= moment
        if due:
            self._task = self._tasks.spawn(self._set_up())

    @property
    def due_at(self) -> float:
        """When `ensure` must be called again (seconds since the epoch); 0 for never."""
        return 0.0 if self._task is not None else self._retry_at or self.volumes.refresh_at

    async def close(self) -> None:
        """Begin nothing more, and wait for what has been begun."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _set_up(self) -> None:
        self._stale = False
        self.volumes.update(self._pod, self._ips)
        try:
            self._node.config.pod_directory(pods.uid(self._pod)).mkdir(parents=True, exist_ok=True)
            failures = await self.volumes.set_up()
            for name, message in failures.items():
                text = f'MountVolume.SetUp failed for volume "{name}" : {message}'
                self._node.pod_event(self._pod, "Warning", "FailedMount", text)
            if failures:
                self._failures += 1
                pause = min(FIRST_RETRY * 2 ** min(self._failures - 1, 10), MOST_RETRY)
                self._retry_at = 0.0 if self._stale else time.time() + pause
            else:
                self._failures, self._retry_at = 0, 0.0
            if self.volumes.ready:
                self.ready.set()
        finally:
            self._task = None
            self._tasks.wake()

    async def _lookup(self, resource: Resource, name: str) -> Object | None:
        return await self._node.objects.get(
            pods.uid(self._pod), resource, self._pod["metadata"]["namespace"], name
        )

    async def _request_token(self, request: Object) -> Object:
        answer = await self._node.client.create(
            SERVICEACCOUNTS,
            request,
            namespace=self._pod["metadata"]["namespace"],
            name=self._pod["spec"].get("serviceAccountName") or "default",
            subresource="token",
        )
        status: Object = answer["status"]
        return status
