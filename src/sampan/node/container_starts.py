"""The starts of one pod's containers: which are on their way, which failed and why, and when to try again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sampan.api.errors import Object
from sampan.node import pods
from sampan.node.backoff import show_seconds
from sampan.node.container_start import container_config, create_and_start
from sampan.node.context import NodeContext, StartFailure
from sampan.node.hooks import HookFailure, run_hook
from sampan.node.image_puller import ImagePuller
from sampan.node.images.types import Image
from sampan.node.pod_records import PodRecords
from sampan.node.pod_sandbox import PodSandbox
from sampan.node.pod_tasks import PodTasks
from sampan.node.runtime.types import ContainerState, ContainerStatus, RuntimeFailure
from sampan.node.status import Waiting
from sampan.node.termination import stop_container
from sampan.node.volumes.keeper import VolumeKeeper

log = logging.getLogger(__name__)


class ContainerStarts:
    """`pod()` gives the pod's newest state."""

    def __init__(
        self,
        node: NodeContext,
        puller: ImagePuller,
        pod: Callable[[], Object],
        records: PodRecords,
        sandbox: PodSandbox,
        volumes: VolumeKeeper,
        tasks: PodTasks,
    ) -> None:
        self.waiting: dict[str, Waiting] = {}
        """Why containers do not run, by name."""
        self._node = node
        self._puller = puller
        self._pod = pod
        self._records = records
        self._sandbox = sandbox
        self._volumes = volumes
        self._tasks = tasks
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._committed: set[str] = set()
        """Containers whose start is past the point where it may be cancelled."""
        self._images: dict[str, asyncio.Task[Image]] = {}
        self._not_before: dict[str, float] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._starting

    def __len__(self) -> int:
        return len(self._starting)

    def start_if_due(self, container: Object) -> None:
        """Begin a start, unless it is on its way or must pause."""
        name = container["name"]
        if name in self._starting or self._not_before.get(name, 0.0) > time.time():
            return
        record = self._records.newest(name)
        if (
            record is not None
            and record.state is not ContainerState.CREATED
            and self._in_crash_backoff(name, record)
        ):
            return
        self._starting[name] = self._tasks.spawn(self._start(container))

    def hurry(self) -> None:
        """Something that starts may depend on has changed: pauses that are not for crashes are over."""
        self._not_before.clear()

    def runs(self, name: str) -> None:
        """A container runs: nothing is to be said of its start any more."""
        self.waiting.pop(name, None)
        self._not_before.pop(name, None)

    @property
    def due_at(self) -> float:
        """When the next pause is over (seconds since the epoch); 0 for never."""
        moment = time.time()
        return min((t for t in self._not_before.values() if t > moment), default=0.0)

    async def close(self) -> None:
        """Begin nothing more; wait for starts that are past stopping."""
        for name, task in self._starting.items():
            if name not in self._committed:
                task.cancel()
        for image in self._images.values():
            image.cancel()
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        self.waiting.clear()

    def _in_crash_backoff(self, name: str, record: ContainerStatus) -> bool:
        pod, crashes = self._pod(), self._node.crashes
        key = f"{pods.uid(pod)}_{name}"
        ended = record.finished_at or record.created_at
        remaining = crashes.remaining(key, ended)
        if remaining <= 0:
            crashes.next(key, ended)
            return False
        who = f"container={name} pod={pods.full_name(pod)}"
        pause = show_seconds(crashes.pause(key))
        why = Waiting("CrashLoopBackOff", f"back-off {pause} restarting failed {who}")
        if self.waiting.get(name) != why:
            self.waiting[name] = why
            message = f"Back-off restarting failed container {name} in pod {pods.full_name(pod)}"
            self._node.container_event(pod, name, "Warning", "BackOff", message)
        self._not_before[name] = time.time() + remaining
        return True

    async def _start(self, container: Object) -> None:
        name = container["name"]
        try:
            await self._run(container)
        except StartFailure as e:
            self._not_before[name] = time.time() + e.retry
            if e.reason in ("CreateContainerError", "RunContainerError") and self._sandbox.status:
                await self._records.refresh_all(self._sandbox.status.id, name)
                record = self._records.newest(name)
                if record is not None and record.state is ContainerState.EXITED:
                    # The crash back-off decides about the next try.
                    self._not_before.pop(name, None)
            self.waiting[name] = Waiting(e.reason, e.message)
        except (RuntimeFailure, OSError) as e:
            self._not_before[name] = time.time() + 10
            self.waiting[name] = Waiting("CreateContainerError", str(e))
        finally:
            self._images.pop(name, None)
            self._committed.discard(name)
            self._starting.pop(name, None)
            self._tasks.wake()

    async def _run(self, container: Object) -> None:
        """Image, sandbox and volumes side by side, then create, start, and the postStart hook. Raises StartFailure."""
        name, node = container["name"], self._node
        before = self._records.newest(name)
        image = self._pull(container)
        await self._sandbox.ready.wait()
        await self._volumes.ready.wait()
        try:
            found = await asyncio.shield(image)
        except StartFailure as e:
            node.container_event(self._pod(), name, "Warning", "Failed", f"Error: {e.reason}")
            raise
        pod, sandbox = self._pod(), self._sandbox.status
        if sandbox is None:
            return
        attempt = 0
        if before is not None:
            attempt = before.attempt + (before.state is not ContainerState.CREATED)
        try:
            config = await container_config(
                node, pod, container, attempt, found, sandbox, self._sandbox.ips(pod), self._volumes.volumes
            )
        except StartFailure as e:
            node.container_event(pod, name, "Warning", "Failed", f"Error: {e.message}")
            raise
        self._committed.add(name)
        if before is not None and before.state is ContainerState.CREATED:
            await node.runtime.remove_container(before.id)
        container_id = await create_and_start(node, pod, sandbox, config)
        await self._records.refresh(container_id)
        self._committed.discard(name)
        hook = (container.get("lifecycle") or {}).get("postStart")
        if hook:
            await self._post_start(container, container_id, hook)

    def _pull(self, container: Object) -> asyncio.Task[Image]:
        """The pull (or look-up) of a container's image, begun before anything else is waited for."""
        task = asyncio.get_running_loop().create_task(self._puller.ensure(self._pod(), container))
        self._tasks.own(task)
        self._images[container["name"]] = task
        return task

    async def _post_start(self, container: Object, container_id: str, hook: Object) -> None:
        pod, name = self._pod(), container["name"]
        ip = self._sandbox.ip(pod)
        try:
            await run_hook(self._node, container, container_id, ip, hook)
        except HookFailure as e:
            log.info("postStart hook of %s in %s: %s", name, pods.full_name(pod), e)
            message = "PostStartHook failed"
            self._node.container_event(pod, name, "Warning", "FailedPostStartHook", message)
            record = self._records.newest(name)
            if record is not None and record.id == container_id:
                grace = pods.grace_seconds(pod)
                await stop_container(self._node, pod, record, grace, ip, "FailedPostStartHook")
                await self._records.refresh(container_id)
            raise StartFailure("PostStartHookError", message, 0.0) from None
