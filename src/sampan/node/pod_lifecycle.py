"""One pod on this node, from its arrival to its end: the difference between what the pod says and what runs, undone.

`_sync` is called whenever something may have changed: the pod, a container, a probe's result, an object that a volume
refers to, a pause that is over. It looks at everything, begins what is to be begun (sandbox, volumes and images side
by side), and never waits for it; whatever was begun wakes it when done.
Upstream: `pod_workers.go`, `kuberuntime_manager.go` (SyncPod), `kubelet.go` (SyncPod, SyncTerminatingPod).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable

from sampan.api.errors import Object, StatusError
from sampan.api.objects import now, parse_time
from sampan.api.resources import PODS
from sampan.client.types import ConnectionLost
from sampan.node import pods
from sampan.node.container_starts import ContainerStarts
from sampan.node.context import NodeContext
from sampan.node.image_puller import ImagePuller
from sampan.node.pod_actions import wanted, work_done
from sampan.node.pod_probes import PodProbes
from sampan.node.pod_records import PodRecords
from sampan.node.pod_sandbox import PodSandbox
from sampan.node.pod_tasks import PodTasks
from sampan.node.probes import Kind
from sampan.node.runtime.types import ContainerState, ContainerStatus, RuntimeFailure, SandboxStatus
from sampan.node.status import PodView, Waiting, pod_status
from sampan.node.status_writer import StatusWriter
from sampan.node.termination import stop_container, stop_pod_containers
from sampan.node.volumes.keeper import VolumeKeeper

log = logging.getLogger(__name__)

FIRST_RETRY, MOST_RETRY = 0.5, 30.0


class PodLifecycle:
    """The worker of one pod. `run()` returns when nothing of the pod is left on this node."""

    def __init__(
        self,
        node: NodeContext,
        puller: ImagePuller,
        pod: Object,
        sandboxes: list[SandboxStatus],
        containers: list[ContainerStatus],
    ) -> None:
        self.pod = pod
        self.uid = pods.uid(pod)
        self.gone = False
        """The pod is no longer in the API: end it, and tell nobody."""
        self._node = node
        self._puller = puller
        self._status = StatusWriter(node.client, pod)
        self._tasks = PodTasks(pods.full_name(pod))
        self._records = PodRecords(node, pod, containers, self._tasks, self._record_changed)
        self._volumes = VolumeKeeper(node, pod, self._tasks)
        self._sandbox = PodSandbox(
            node, sandboxes, self._tasks, self._stop_running, lambda: self._starts.hurry()
        )
        self._starts = ContainerStarts(
            node, puller, lambda: self.pod, self._records, self._sandbox, self._volumes, self._tasks
        )
        self._probes = PodProbes(node, self._records, self._tasks, self._unhealthy)
        self._stopping: set[str] = set()
        """Containers that are being ended, to be started again."""
        self._timer: asyncio.TimerHandle | None = None
        self._start_time = (pod.get("status") or {}).get("startTime") or now()
        self._termination: asyncio.Task[None] | None = None
        self._termination_grace = 0.0
        self._failed: Waiting | None = None
        self._terminated = False
        self._finished = False

    @property
    def sandbox(self) -> SandboxStatus | None:
        """The pod's present sandbox."""
        return self._sandbox.status

    def owns(self, sandbox_id: str) -> bool:
        """Whether a sandbox is this pod's."""
        return self._sandbox.owns(sandbox_id)

    # What others tell.

    def update(self, pod: Object) -> None:
        """The pod has changed in the API."""
        self.pod = pod
        self._volumes.update(pod)
        self._status.observe(pod)
        self._tasks.wake()

    def remove(self, last: Object) -> None:
        """The pod is gone from the API."""
        self.pod = last
        self.gone = True
        self._tasks.wake()

    def objects_changed(self) -> None:
        """A ConfigMap or Secret that the pod refers to came, changed or went."""
        self._volumes.objects_changed()
        self._starts.hurry()
        self._tasks.wake()

    def container_exited(self, container_id: str) -> None:
        self._tasks.spawn(self._records.refresh(container_id))

    def sandbox_died(self, sandbox_id: str) -> None:
        self._sandbox.died(sandbox_id)

    # The loop.

    async def run(self) -> None:
        self._tasks.own(asyncio.get_running_loop().create_task(self._status.run()))
        self._tasks.wake()
        try:
            while True:
                await self._tasks.wakeup.wait()
                self._tasks.wakeup.clear()
                if self._finished:
                    break
                try:
                    self._sync()
                except Exception:  # one pod's trouble is not the node's; it is tried again
                    log.exception("pod %s", pods.full_name(self.pod))
                    self._wake_at(time.time() + FIRST_RETRY)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._tasks.close()

    def _sync(self) -> None:
        if self._termination is not None:
            self._sync_terminating()
        elif self.gone or pods.is_deleted(self.pod) or pods.is_terminal(self.pod):
            self._terminate()
        elif self._past_deadline():
            message = "Pod was active on the node longer than the specified deadline"
            self._node.pod_event(self.pod, "Normal", "DeadlineExceeded", message)
            self._failed = Waiting("DeadlineExceeded", message)
            self._terminate()
        elif not self._starts and work_done(self.pod, self._records.newest):
            self._terminate()
        else:
            self._sync_running()
        self._publish()

    def _sync_running(self) -> None:
        self._volumes.ensure(self._sandbox.ips(self.pod))
        self._sandbox.ensure(self.pod, had_containers=bool(self._records.by_name))
        self._probes.ensure(self.pod, self._sandbox.ip(self.pod))
        for container in wanted(self.pod, self._records.newest, self._probes.started):
            if container["name"] not in self._stopping:
                self._starts.start_if_due(container)
        times = [self._starts.due_at, self._sandbox.due_at, self._volumes.due_at]
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline is not None:
            times.append(parse_time(self._start_time) + deadline)
        if any(times):
            self._wake_at(min(t for t in times if t))

    def _past_deadline(self) -> bool:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        return seconds is not None and time.time() >= parse_time(self._start_time) + seconds

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, when - time.time()) + 0.001, self._tasks.wake)

    # The status.

    def current(self) -> Object:
        """The pod with its status as it is now, told to the API or not."""
        return {**self.pod, "status": pod_status({**self.pod, "status": self._status.known}, self._view())}

    def _view(self) -> PodView:
        started, ready = {}, {}
        for record in self._records.all_newest():
            probes = self._probes.get(record)
            # While its postStart hook runs a container counts as not started.
            if probes is not None and record.name not in self._starts:
                started[record.name], ready[record.name] = probes.started, probes.ready
        return PodView(
            host_ips=self._node.config.ips,
            sandbox_ready=self._sandbox.ready.is_set() and not self._terminated,
            ips=self._sandbox.ips(self.pod),
            containers=self._records.by_name,
            waiting=self._starts.waiting,
            started=started,
            ready=ready,
            messages=self._records.messages,
            start_time=self._start_time,
            # A pod is not called failed before its containers have ended.
            failed=self._failed if self._terminated else None,
            terminated=self._terminated,
        )

    def _publish(self) -> None:
        if self.gone or self._finished:
            return
        status = self.current()["status"]
        self._status.set(status, urgent=self._is_urgent(status))

    def _is_urgent(self, status: Object) -> bool:
        """Whether someone waits for this status: only steps on the way to something may be held back."""
        if not self._starts or self._termination is not None:
            return bool(self._records.by_name) or self._terminated or bool(self._starts.waiting)
        if self._starts.waiting:
            return True
        ready = {c["type"]: c["status"] for c in status["conditions"]}.get("Ready")
        known = {c["type"]: c["status"] for c in self._status.known.get("conditions") or ()}.get("Ready")
        return known is not None and ready != known

    # Containers.

    def _record_changed(self, record: ContainerStatus) -> None:
        if record.state is ContainerState.RUNNING:
            self._starts.runs(record.name)
            if self._termination is None:
                self._probes.ensure(self.pod, self._sandbox.ip(self.pod))
        elif record.state is ContainerState.EXITED:
            self._probes.stop(record.name, record.id)

    def _unhealthy(self, record: ContainerStatus, kind: Kind) -> None:
        container = pods.container(self.pod, record.name)
        if container is None or self._termination is not None:
            return
        own = container[f"{kind}Probe"].get("terminationGracePeriodSeconds")
        grace = float(own) if own is not None else pods.grace_seconds(self.pod)
        message = f"Container {record.name} failed {kind} probe, will be restarted"

        async def stop() -> None:
            try:
                ip = self._sandbox.ip(self.pod)
                await stop_container(self._node, self.pod, record, grace, ip, message, exact=own is not None)
                await self._records.refresh(record.id)
            finally:
                self._stopping.discard(record.name)
                self._tasks.wake()

        self._stopping.add(record.name)
        self._tasks.spawn(stop())

    async def _stop_running(self, sandbox_id: str) -> None:
        """End what still runs in a sandbox that died."""
        for record in self._records.running(sandbox_id):
            self._probes.stop(record.name)
            await self._stop_now(record.id, 0)
            await self._records.refresh(record.id)

    async def _stop_now(self, container_id: str, grace: float) -> None:
        try:
            await self._node.runtime.stop_container(container_id, grace)
        except RuntimeFailure as e:
            log.warning("container %s: %s", container_id, e)

    # The end.

    def _terminate(self) -> None:
        self._termination_grace = pods.grace_seconds(self.pod)
        self._termination = self._ending(self._end)

    def _ending(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                while True:
                    try:
                        await work()
                        return
                    except Exception:
                        # A pod that cannot end would stay for ever: every step may be done again.
                        log.exception("pod %s does not end", pods.full_name(self.pod))
                        await asyncio.sleep(FIRST_RETRY)
            finally:
                self._tasks.wake()

        return self._tasks.spawn(run())

    def _sync_terminating(self) -> None:
        """The pod is ending or has ended: has it been deleted since, or again with less grace?"""
        if self._termination is None or not (self.gone or pods.is_deleted(self.pod)):
            return
        if self._terminated:
            if self._termination.done():
                self._termination = self._ending(self._leave)
            return
        grace = pods.grace_seconds(self.pod)
        if grace < self._termination_grace:
            self._termination_grace = grace
            for record in self._records.running():
                self._tasks.spawn(self._stop_now(record.id, grace))

    async def _end(self) -> None:
        """Stop everything of the pod, then, if it is deleted, remove it from here and from the API."""
        self._probes.end(self.pod, self._sandbox.ip(self.pod))
        await self._starts.close()
        await self._sandbox.close()
        await self._volumes.close()
        await self._retry(self._read_all)
        running = self._records.running()
        ip = self._sandbox.ip(self.pod)
        await stop_pod_containers(self._node, self.pod, running, self._termination_grace, ip)
        self._probes.stop_all()
        for record in running:
            await self._records.refresh(record.id)
        self._terminated = True
        self._publish()
        await self._retry(self._release)
        if self.gone or pods.is_deleted(self.pod):
            await self._leave()

    async def _read_all(self) -> None:
        if self._sandbox.status is not None:
            await self._records.refresh_all(self._sandbox.status.id)

    async def _release(self) -> None:
        """Free what a pod that runs no more needs no longer: network, volumes, cgroup. Its logs stay."""
        await self._sandbox.stop(self.pod)
        # In a thread: an emptyDir may hold more files than a loop can wait for.
        await asyncio.to_thread(self._volumes.volumes.tear_down)
        self._node.objects.release(self.uid)
        self._sandbox.remove_cgroup(self.pod)

    async def _leave(self) -> None:
        """Remove the pod's last traces from the runtime and, with its final status told, from the API."""
        if not self.gone:
            self._publish()
            await self._status.flush()
            await self._retry(self._delete_from_api)
        await self._retry(self._sandbox.remove)
        self._node.crashes.forget(self.uid + "_")
        self._puller.forget(self.uid)
        await asyncio.to_thread(shutil.rmtree, self._node.config.log_directory(self.pod), ignore_errors=True)
        self._finished = True

    async def _delete_from_api(self) -> None:
        meta = self.pod["metadata"]
        try:
            await self._node.client.delete(
                PODS, meta["namespace"], meta["name"], grace_period_seconds=0, uid=self.uid
            )
        except StatusError as e:
            if e.code not in (404, 409):
                raise

    async def _retry(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` until it succeeds: nothing of a pod may stay because of one failure."""
        pause = FIRST_RETRY
        while True:
            try:
                await work()
                return
            except (RuntimeFailure, OSError, ConnectionLost, StatusError) as e:
                log.warning("pod %s: %s", pods.full_name(self.pod), e)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MOST_RETRY)
