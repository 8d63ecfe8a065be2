"""The sandbox of one pod: made when it is needed, made anew when it died.

Upstream: `kuberuntime_manager.go` (podSandboxChanged, createPodSandbox).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from sampan.api.errors import Object
from sampan.node import pods
from sampan.node.context import NodeContext
from sampan.node.hosts import write_pod_files
from sampan.node.pod_tasks import PodTasks
from sampan.node.runtime.types import NotFound, RuntimeFailure, SandboxState, SandboxStatus
from sampan.node.sandboxes import sandbox_config

log = logging.getLogger(__name__)

FIRST_RETRY, MOST_RETRY = 0.5, 122.0


class PodSandbox:
    """`stop_containers(sandbox id)` ends what still runs in a sandbox that died; `made()` is called for a new one."""

    def __init__(
        self,
        node: NodeContext,
        sandboxes: Iterable[SandboxStatus],
        tasks: PodTasks,
        stop_containers: Callable[[str], Awaitable[None]],
        made: Callable[[], None],
    ) -> None:
        self.ready = asyncio.Event()
        self.status: SandboxStatus | None = None
        """The newest one."""
        self._node = node
        self._tasks = tasks
        self._stop_containers = stop_containers
        self._made = made
        self._old = sorted(sandboxes, key=lambda s: s.attempt)
        if self._old:
            self.status = self._old.pop()
            if self.status.state is SandboxState.READY:
                self.ready.set()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._cgroup = ""

    def owns(self, sandbox_id: str) -> bool:
        return any(s.id == sandbox_id for s in self._all())

    def ips(self, pod: Object) -> tuple[str, ...]:
        """The pod's addresses, primary first; none before there is a sandbox."""
        if pods.host_network(pod):
            return self._node.config.ips
        return self.status.ips if self.status is not None else ()

    def ip(self, pod: Object) -> str:
        ips = self.ips(pod)
        return ips[0] if ips else ""

    @property
    def due_at(self) -> float:
        """When the next try is due (seconds since the epoch); 0 for never."""
        return self._not_before if self._not_before > time.time() else 0.0

    def died(self, sandbox_id: str) -> None:
        """The runtime says that a sandbox is dead."""
        if self.status is not None and self.status.id == sandbox_id:
            self.ready.clear()
            self._tasks.spawn(self._refresh())

    def ensure(self, pod: Object, *, had_containers: bool) -> None:
        """Begin to make a sandbox if there is none that lives."""
        if self._task is not None or time.time() < self._not_before:
            return
        if self.status is not None and self.status.state is SandboxState.READY:
            return
        if self.status is not None and had_containers and pods.restart_policy(pod) == "Never":
            # It had its one life: what still runs is ended, and the pod with it.
            self._task = self._tasks.spawn(self._abandon(self.status.id))
        else:
            self._task = self._tasks.spawn(self._make(pod))

    async def close(self) -> None:
        """Begin nothing more; wait for what has been begun."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def stop(self, pod: Object) -> None:
        """Stop all sandboxes of the pod: its addresses are free then. Raises RuntimeFailure."""
        for sandbox in self._all():
            await self._node.runtime.stop_pod_sandbox(sandbox.id)
        self.ready.clear()
        if self._node.guard is not None:
            self._node.guard.released(pods.uid(pod))

    async def remove(self) -> None:
        """Remove all sandboxes and with them the records of their containers. Raises RuntimeFailure."""
        for sandbox in self._all():
            await self._node.runtime.remove_pod_sandbox(sandbox.id)

    def remove_cgroup(self, pod: Object) -> None:
        self._node.cgroups.remove(self._cgroup or self._node.cgroups.path(pod))

    def _all(self) -> list[SandboxStatus]:
        return [*self._old, *([self.status] if self.status is not None else [])]

    async def _abandon(self, sandbox_id: str) -> None:
        await self._stop_containers(sandbox_id)
        self._tasks.wake()

    async def _make(self, pod: Object) -> None:
        node, attempt = self._node, 0
        try:
            if self.status is not None:
                attempt = self.status.attempt + 1
                message = "Pod sandbox changed, it will be killed and re-created."
                node.pod_event(pod, "Normal", "SandboxChanged", message)
                await self._stop_containers(self.status.id)
                await node.runtime.stop_pod_sandbox(self.status.id)
                self._old.append(self.status)
                self.status = None
            self._cgroup = node.cgroups.create(pod)
            config = sandbox_config(pod, node.config, attempt, self._cgroup)
            node.config.pod_directory(pods.uid(pod)).mkdir(parents=True, exist_ok=True)
            self.status = await self._admitted(pod, await node.runtime.run_pod_sandbox(config))
            write_pod_files(pod, node.config, self.ips(pod))
            self._failures = 0
            self._made()
            self.ready.set()
        except (RuntimeFailure, OSError) as e:
            log.warning("sandbox of %s: %s", pods.full_name(pod), e)
            if self.status is None and self._old:
                # The number of the next try goes on from the last that there was.
                self.status = self._old.pop()
            message = f"Failed to create pod sandbox: {e}"
            node.pod_event(pod, "Warning", "FailedCreatePodSandBox", message)
            self._failures += 1
            self._not_before = time.time() + min(FIRST_RETRY * 2 ** min(self._failures, 10), MOST_RETRY)
        finally:
            self._task = None
            self._tasks.wake()

    async def _admitted(self, pod: Object, made: SandboxStatus) -> SandboxStatus:
        """A sandbox whose addresses are guarded. Raises RuntimeFailure or OSError; then there is none."""
        if self._node.guard is not None:
            try:
                await self._node.guard.admit(pod, made.ips)
            except BaseException:
                await self._node.runtime.remove_pod_sandbox(made.id)
                self._node.guard.released(pods.uid(pod))
                raise
        return made

    async def _refresh(self) -> None:
        if self.status is None:
            return
        try:
            self.status = await self._node.runtime.pod_sandbox_status(self.status.id)
        except NotFound:
            self.status = None
        self._tasks.wake()
