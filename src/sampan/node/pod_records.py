"""The runtime's records of one pod's containers, by name, and what the ended ones left to be told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from sampan.api.errors import Object
from sampan.node.container_start import termination_message
from sampan.node.context import NodeContext
from sampan.node.pod_tasks import PodTasks
from sampan.node.runtime.types import ContainerState, ContainerStatus, NotFound, RuntimeFailure
from sampan.node.status import CONTAINER_ID_PREFIX

log = logging.getLogger(__name__)

KEPT = 2
"""The newest container of a name, and the one before for `kubectl logs --previous`."""


class PodRecords:
    """`changed(record)` is called for each record that was read again."""

    def __init__(
        self,
        node: NodeContext,
        pod: Object,
        records: Iterable[ContainerStatus],
        tasks: PodTasks,
        changed: Callable[[ContainerStatus], None],
    ) -> None:
        self.by_name: dict[str, list[ContainerStatus]] = {}
        """Newest first."""
        self.messages: dict[str, str] = _told_messages(pod)
        """Termination messages by container id."""
        self._node = node
        self._tasks = tasks
        self._changed = changed
        self._logs = node.config.log_directory(pod)
        for record in records:
            self._put(record)

    def newest(self, name: str) -> ContainerStatus | None:
        records = self.by_name.get(name)
        return records[0] if records else None

    def all_newest(self) -> list[ContainerStatus]:
        return [records[0] for records in self.by_name.values()]

    def running(self, sandbox_id: str = "") -> list[ContainerStatus]:
        """The running containers (of one sandbox)."""
        return [
            r
            for records in self.by_name.values()
            for r in records
            if r.state is ContainerState.RUNNING and sandbox_id in ("", r.sandbox_id)
        ]

    async def refresh(self, container_id: str) -> None:
        """Read one container's state from the runtime."""
        try:
            record = await self._node.runtime.container_status(container_id)
        except NotFound:
            for name in list(self.by_name):
                self.by_name[name] = [r for r in self.by_name[name] if r.id != container_id]
                if not self.by_name[name]:
                    del self.by_name[name]
        else:
            self._take(record)
        self._tasks.wake()

    async def refresh_all(self, sandbox_id: str, name: str = "") -> None:
        """Read the state of all containers of a sandbox (or those of one name)."""
        for record in await self._node.runtime.list_containers(sandbox_id):
            if name in ("", record.name):
                self._take(record)

    def _take(self, record: ContainerStatus) -> None:
        self._put(record)
        if record.state is ContainerState.RUNNING:
            self._drop_old(record.name)
        self._changed(record)

    def _put(self, record: ContainerStatus) -> None:
        records = self.by_name.setdefault(record.name, [])
        records[:] = sorted(
            [*(r for r in records if r.id != record.id), record],
            key=lambda r: (r.attempt, r.created_at),
            reverse=True,
        )
        if record.state is ContainerState.EXITED and not self.messages.get(record.id):
            # Once told it stays: the file that it was in goes with the pod's directory.
            self.messages[record.id] = termination_message(
                record.annotations, record.exit_code, self._logs, record.log_path
            )

    def _drop_old(self, name: str) -> None:
        records = self.by_name[name]
        for old in records[KEPT:]:
            self.messages.pop(old.id, None)
            self._tasks.spawn(self._remove(old))
        del records[KEPT:]

    async def _remove(self, record: ContainerStatus) -> None:
        try:
            await self._node.runtime.remove_container(record.id)
        except RuntimeFailure as e:
            log.warning("container %s: %s", record.id, e)
        if record.log_path:
            (self._logs / record.log_path).unlink(missing_ok=True)


def _told_messages(pod: Object) -> dict[str, str]:
    """Termination messages that the pod's status already has, by container id."""
    out = {}
    status = pod.get("status") or {}
    for group in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for container in status.get(group) or ():
            for state in ("state", "lastState"):
                ended = (container.get(state) or {}).get("terminated") or {}
                if ended.get("message") and ended.get("containerID"):
                    out[ended["containerID"].removeprefix(CONTAINER_ID_PREFIX)] = ended["message"]
    return out
