"""The probes of all running containers of one pod."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from sampan.api.errors import Object
from sampan.node import pods
from sampan.node.context import NodeContext
from sampan.node.pod_records import PodRecords
from sampan.node.pod_tasks import PodTasks
from sampan.node.probes import ContainerProbes, Kind
from sampan.node.runtime.types import ContainerState, ContainerStatus


class PodProbes:
    """`unhealthy(record, kind)` is called when a container must be restarted because of its startup or liveness probe."""

    def __init__(
        self,
        node: NodeContext,
        records: PodRecords,
        tasks: PodTasks,
        unhealthy: Callable[[ContainerStatus, Kind], None],
    ) -> None:
        self._node = node
        self._records = records
        self._tasks = tasks
        self._unhealthy = unhealthy
        self._probes: dict[str, ContainerProbes] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def get(self, record: ContainerStatus) -> ContainerProbes | None:
        """The probes of this very container."""
        probes = self._probes.get(record.name)
        return probes if probes is not None and probes.container_id == record.id else None

    def started(self, name: str) -> bool:
        """Whether the container of a name runs and has passed its startup probe."""
        record = self._records.newest(name)
        probes = self.get(record) if record is not None else None
        return probes is not None and probes.started

    def ensure(self, pod: Object, pod_ip: str) -> None:
        """Have every running container probed as the pod says."""
        for container in pods.all_containers(pod):
            record = self._records.newest(container["name"])
            if record is None or record.state is not ContainerState.RUNNING or self.get(record):
                continue
            self.stop(record.name)
            told = _told(pod, record)
            probes = ContainerProbes(
                self._node,
                pod,
                container,
                record.id,
                pod_ip,
                record.started_at,
                changed=self._tasks.wake,
                unhealthy=partial(self._unhealthy, record),
                ready=bool(told.get("ready")),
                started=bool(told.get("started")),
            )
            self._probes[record.name] = probes
            if probes.has_any():
                self._running[record.name] = self._tasks.spawn(probes.run())

    def end(self, pod: Object, pod_ip: str) -> None:
        """The pod is ending: nothing is restarted any more, but whether its containers are ready counts until they have
        ended, for connections still lead to them where nobody else is ready."""
        self.ensure(pod, pod_ip)
        for name, probes in self._probes.items():
            task = self._running.pop(name, None)
            if task is not None:
                task.cancel()
            if probes.started and probes.has("readiness"):
                self._running[name] = self._tasks.spawn(probes.run_readiness())

    def stop(self, name: str, container_id: str = "") -> None:
        """Probe the container of a name (if it is that one) no longer."""
        probes = self._probes.get(name)
        if probes is None or container_id not in ("", probes.container_id):
            return
        del self._probes[name]
        task = self._running.pop(name, None)
        if task is not None:
            task.cancel()

    def stop_all(self) -> None:
        for name in list(self._probes):
            self.stop(name)


def _told(pod: Object, record: ContainerStatus) -> Object:
    """What the API was last told of this very container: after our own restart it stays what it was."""
    for group in ("containerStatuses", "initContainerStatuses"):
        for status in (pod.get("status") or {}).get(group) or ():
            if status["name"] == record.name and str(status.get("containerID", "")).endswith(record.id):
                return status  # type: ignore[no-any-return]
    return {}
