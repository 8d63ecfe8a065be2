"""The pods of this node: one worker each, told of what concerns it.

The API's watch, the runtime's events and changes of referenced objects come in here and go to the worker of the pod
that they are about. What the runtime has but the API has not is ended.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterator
from weakref import WeakValueDictionary

from sampan.api.errors import Object
from sampan.client.informer import Informer
from sampan.node import pods
from sampan.node.context import NodeContext
from sampan.node.image_puller import ImagePuller
from sampan.node.pod_lifecycle import PodLifecycle
from sampan.node.runtime.types import ContainerStatus, RuntimeEvent, SandboxState, SandboxStatus
from sampan.node.volumes.pod_volumes import remove_pod_directory

log = logging.getLogger(__name__)


class PodWorkers:
    def __init__(self, node: NodeContext, informer: Informer) -> None:
        self._node = node
        self._informer = informer
        self._puller = ImagePuller(node)
        self._workers: dict[str, PodLifecycle] = {}
        self._group: asyncio.TaskGroup | None = None
        self._sandboxes: dict[str, list[SandboxStatus]] = defaultdict(list)
        self._containers: dict[str, list[ContainerStatus]] = defaultdict(list)
        self._ended: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def get(self, uid: str) -> PodLifecycle | None:
        return self._workers.get(uid)

    def find(self, namespace: str, name: str) -> PodLifecycle | None:
        """The worker of a pod by name; of several (one ending, one new) the one in the API."""
        found = [
            w
            for w in self._workers.values()
            if w.pod["metadata"]["name"] == name and w.pod["metadata"]["namespace"] == namespace
        ]
        return min(found, key=lambda w: w.gone) if found else None

    def __iter__(self) -> Iterator[PodLifecycle]:
        return iter(list(self._workers.values()))

    def ended(self, container_id: str) -> asyncio.Event:
        """Set when a container that runs now ends; kept for as long as someone holds it."""
        event = self._ended.get(container_id)
        if event is None:
            event = self._ended[container_id] = asyncio.Event()
        return event

    async def run(self) -> None:
        """Take up what runs, wait for the API's word, then work until cancelled. The runtime must have been started."""
        for sandbox in await self._node.runtime.list_pod_sandboxes():
            self._sandboxes[sandbox.uid].append(sandbox)
        if self._node.guard is not None:
            ready = (s for group in self._sandboxes.values() for s in group if s.state is SandboxState.READY)
            self._node.guard.taken_up({s.uid: s.ips for s in ready})
        by_sandbox = {s.id: uid for uid, group in self._sandboxes.items() for s in group}
        for container in await self._node.runtime.list_containers():
            if container.sandbox_id in by_sandbox:
                self._containers[by_sandbox[container.sandbox_id]].append(container)
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._follow_runtime())
            # Until the API has told what should run, nothing that runs is touched.
            await self._informer.synced.wait()
            self._informer.add_handler(self._pod_changed)
            self._end_strangers()
            self._clean_up_orphans()

    def objects_changed(self, uid: str) -> None:
        """An object that a pod refers to came, changed or went."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.objects_changed()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and (new is None or pods.uid(new) != pods.uid(old)):
            worker = self._workers.get(pods.uid(old))
            if worker is not None:
                worker.remove(old)
        if new is None:
            return
        worker = self._workers.get(pods.uid(new))
        if worker is None:
            self._begin(new)
        else:
            worker.update(new)

    def _begin(self, pod: Object) -> PodLifecycle:
        assert self._group is not None
        uid = pods.uid(pod)
        worker = PodLifecycle(
            self._node, self._puller, pod, self._sandboxes.pop(uid, []), self._containers.pop(uid, [])
        )
        self._workers[uid] = worker
        self._group.create_task(self._work(worker))
        return worker

    async def _work(self, worker: PodLifecycle) -> None:
        try:
            await worker.run()
        finally:
            if self._workers.get(worker.uid) is worker:
                del self._workers[worker.uid]
                self._node.objects.release(worker.uid)

    async def _follow_runtime(self) -> None:
        async for event in self._node.runtime.events():
            self._runtime_event(event)

    def _runtime_event(self, event: RuntimeEvent) -> None:
        ended = self._ended.pop(event.id, None)
        if ended is not None:
            ended.set()
        for worker in self._workers.values():
            if worker.owns(event.sandbox_id):
                if event.kind == "sandbox-died":
                    worker.sandbox_died(event.id)
                else:
                    worker.container_exited(event.id)
                return

    def _end_strangers(self) -> None:
        """Pods that the runtime has and the API has not were deleted while we were away."""
        for uid in list(self._sandboxes):
            sandbox = self._sandboxes[uid][-1]
            log.info("pod %s/%s is gone from the API: ending it", sandbox.namespace, sandbox.name)
            pod: Object = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "namespace": sandbox.namespace,
                    "name": sandbox.name,
                    "uid": uid,
                },
                "spec": {"containers": [], "restartPolicy": "Never"},
            }
            self._begin(pod).remove(pod)

    def _clean_up_orphans(self) -> None:
        """Directories, logs and cgroups of pods that are neither in the API nor in the runtime."""
        known = set(self._workers)
        directory = self._node.config.pods
        for entry in directory.iterdir() if directory.is_dir() else ():
            if entry.name not in known:
                try:
                    remove_pod_directory(entry)
                except OSError as e:
                    log.warning("%s: %s", entry, e)
        logs = self._node.config.logs
        for entry in logs.iterdir() if logs.is_dir() else ():
            if entry.name.rpartition("_")[2] not in known:
                shutil.rmtree(entry, ignore_errors=True)
        for path in self._node.cgroups.left_over(known):
            self._node.cgroups.remove(path)
