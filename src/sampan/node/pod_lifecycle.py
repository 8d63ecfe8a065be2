"""One pod on this node, from its arrival to its end: the difference between what the pod says and what runs, undone.

`sync` is called whenever something may have changed: the pod, a container, a probe's result, an object that a volume
refers to, a pause that is over. It looks at everything, starts what is to be started as tasks of its own (sandbox,
volumes and images side by side), and never waits for them; each wakes it when done.
Upstream: `pod_workers.go`, `kuberuntime_manager.go` (computePodActions), `kubelet.go` (SyncPod).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from sampan.api.errors import Object, StatusError
from sampan.api.objects import now, parse_time
from sampan.api.resources import PODS, SERVICEACCOUNTS, Resource
from sampan.client.types import ConnectionLost
from sampan.node import pods
from sampan.node.backoff import show_seconds
from sampan.node.container_start import container_config, create_and_start, termination_message
from sampan.node.context import NodeContext, StartFailure
from sampan.node.hooks import HookFailure, run_hook
from sampan.node.hosts import write_pod_files
from sampan.node.image_puller import ImagePuller
from sampan.node.images.types import Image
from sampan.node.probes import ContainerProbes, Kind
from sampan.node.runtime.types import (
    ContainerState,
    ContainerStatus,
    NotFound,
    RuntimeFailure,
    SandboxState,
    SandboxStatus,
)
from sampan.node.sandboxes import sandbox_config
from sampan.node.status import CONTAINER_ID_PREFIX, PodView, Waiting, pod_status
from sampan.node.status_writer import StatusWriter
from sampan.node.termination import stop_container, stop_pod_containers
from sampan.node.volumes.pod_volumes import PodVolumes
from sampan.node.volumes.types import VolumeContext

log = logging.getLogger(__name__)

FIRST_RETRY, MOST_RETRY = 0.5, 122.0
"""Pauses between tries of sandbox and volumes, in seconds."""


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
        self.node = node
        self.pod = pod
        self.uid = pods.uid(pod)
        self.gone = False
        """The pod is no longer in the API: end it, and tell nobody."""
        self.containers: dict[str, list[ContainerStatus]] = {}
        """The runtime's records by name, newest first."""
        self._messages: dict[str, str] = _told_messages(pod)
        self.sandbox: SandboxStatus | None = None
        self._puller = puller
        self._old_sandboxes = sorted(sandboxes, key=lambda s: s.attempt)
        if self._old_sandboxes:
            self.sandbox = self._old_sandboxes.pop()
        for record in sorted(containers, key=lambda c: (c.attempt, c.created_at), reverse=True):
            self.containers.setdefault(record.name, []).append(record)
            if record.state is ContainerState.EXITED:
                self._messages[record.id] = self._message(record)
        self.status = StatusWriter(node.client, pod)
        self._wakeup = asyncio.Event()
        self._wakeup.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._committed: set[str] = set()
        """Containers whose start is past the point where it may be cancelled."""
        self._stopping: set[str] = set()
        self._waiting: dict[str, Waiting] = {}
        self._not_before: dict[str, float] = {}
        self._probes: dict[str, ContainerProbes] = {}
        self._probe_tasks: dict[str, asyncio.Task[None]] = {}
        self._images: dict[str, asyncio.Task[Image]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._sandbox_ready = asyncio.Event()
        self._sandbox_task: asyncio.Task[None] | None = None
        self._sandbox_not_before = 0.0
        self._sandbox_failures = 0
        self._volumes_ready = asyncio.Event()
        self._volumes_task: asyncio.Task[None] | None = None
        self._volumes_stale = True
        self._volume_retry = 0.0
        self._volume_failures = 0
        self._volume_messages: dict[str, str] = {}
        self._termination: asyncio.Task[None] | None = None
        self._termination_grace = 0.0
        self._terminated = False
        self._finished = False
        self._failed: Waiting | None = None
        self._start_time = (pod.get("status") or {}).get("startTime") or now()
        self._cgroup = ""
        self._volumes = PodVolumes(
            node.config.pod_directory(self.uid),
            VolumeContext(
                pod,
                "",
                node.config.pod_directory(self.uid),
                self._lookup,
                self._request_token,
                node.config.name,
                node.config.ip,
                node.cpus,
                node.memory,
            ),
        )
        if self.sandbox is not None and self.sandbox.state is SandboxState.READY:
            self._sandbox_ready.set()

    # What others tell.

    def update(self, pod: Object) -> None:
        """The pod has changed in the API."""
        if pod["metadata"].get("labels") != self.pod["metadata"].get("labels") or pod["metadata"].get(
            "annotations"
        ) != self.pod["metadata"].get("annotations"):
            self._volumes_stale = True
        self.pod = pod
        self.status.observe(pod)
        self.wake()

    def remove(self, last: Object) -> None:
        """The pod is gone from the API."""
        self.pod = last
        self.gone = True
        self.wake()

    def objects_changed(self) -> None:
        """A ConfigMap or Secret that the pod refers to came, changed or went."""
        self._volumes_stale = True
        self._volume_retry = 0.0
        self._not_before.clear()
        self.wake()

    def container_exited(self, container_id: str) -> None:
        self._spawn(self._refresh(container_id))

    def sandbox_died(self, sandbox_id: str) -> None:
        if self.sandbox is not None and self.sandbox.id == sandbox_id:
            self._sandbox_ready.clear()
            self._spawn(self._refresh_sandbox())

    def owns(self, sandbox_id: str) -> bool:
        """Whether a sandbox is this pod's."""
        return any(s.id == sandbox_id for s in (self.sandbox, *self._old_sandboxes) if s is not None)

    def wake(self) -> None:
        self._wakeup.set()

    @property
    def ips(self) -> tuple[str, ...]:
        if pods.host_network(self.pod):
            return (self.node.config.ip,)
        return self.sandbox.ips if self.sandbox is not None else ()

    # The loop.

    async def run(self) -> None:
        writer = asyncio.get_running_loop().create_task(self.status.run())
        try:
            while True:
                await self._wakeup.wait()
                self._wakeup.clear()
                if self._finished:
                    break
                try:
                    self._sync()
                except Exception:
                    log.exception("pod %s", pods.full_name(self.pod))
                    self._wake_at(time.time() + FIRST_RETRY)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            tasks = [*self._tasks, *self._images.values(), writer]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _sync(self) -> None:
        if self._termination is None:
            if self.gone or pods.is_deleted(self.pod) or pods.is_terminal(self.pod):
                self._terminate(pods.grace_seconds(self.pod))
            elif self._past_deadline():
                message = "Pod was active on the node longer than the specified deadline"
                self.node.pod_event(self.pod, "Normal", "DeadlineExceeded", message)
                self._failed = Waiting("DeadlineExceeded", message)
                self._terminate(pods.grace_seconds(self.pod))
            elif self._work_done():
                self._terminate(pods.grace_seconds(self.pod))
            else:
                self._sync_running()
        else:
            self._hurry_termination()
        self._publish()

    def _sync_running(self) -> None:
        self._ensure_volumes()
        self._ensure_sandbox()
        for container in self._to_start():
            self._start(container)
        self._ensure_probes()
        self._plan_wakeup()

    def _publish(self) -> None:
        if self.gone or self._finished:
            return
        status = self.current()["status"]
        self.status.set(status, urgent=self._is_urgent(status))

    def current(self) -> Object:
        """The pod with its status as it is now, told to the API or not."""
        return {**self.pod, "status": pod_status({**self.pod, "status": self.status.known}, self.view())}

    def view(self) -> PodView:
        """What is known of the pod now, for its status."""
        started, ready = {}, {}
        for name, records in self.containers.items():
            probes = self._probes.get(name)
            # While its postStart hook runs a container counts as not started.
            current = probes is not None and probes.container_id == records[0].id
            if probes is not None and current and name not in self._starting:
                started[name], ready[name] = probes.started, probes.ready
        return PodView(
            host_ip=self.node.config.ip,
            sandbox_ready=self._sandbox_ready.is_set() and not self._terminated,
            ips=self.ips,
            containers=self.containers,
            waiting=self._waiting,
            started=started,
            ready=ready,
            messages=self._messages,
            start_time=self._start_time,
            # A pod is not called failed before its containers have ended.
            failed=self._failed if self._terminated else None,
            terminated=self._terminated,
        )

    def _is_urgent(self, status: Object) -> bool:
        """Whether someone waits for this status: only steps on the way to something may be held back."""
        if not self._starting or self._termination is not None:
            return bool(self.containers) or self._terminated or bool(self._waiting)
        if any(w.reason for w in self._waiting.values()):
            return True
        ready = {c["type"]: c["status"] for c in status["conditions"]}.get("Ready")
        known = {c["type"]: c["status"] for c in self.status.known.get("conditions") or ()}.get("Ready")
        return known is not None and ready != known

    # Deciding.

    def _past_deadline(self) -> bool:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        return seconds is not None and time.time() >= parse_time(self._start_time) + seconds

    def _newest(self, name: str) -> ContainerStatus | None:
        records = self.containers.get(name)
        return records[0] if records else None

    def _work_done(self) -> bool:
        """Whether every container has ended for good (or an init container failed for good)."""
        if self._starting:
            return False
        for c in pods.init_containers(self.pod):
            newest = self._newest(c["name"])
            if pods.is_sidecar(c) or newest is None or newest.state is not ContainerState.EXITED:
                continue
            if newest.exit_code and not pods.should_restart(self.pod, c, newest.exit_code, init=True):
                return True
        for c in pods.containers(self.pod):
            newest = self._newest(c["name"])
            if newest is None or newest.state is not ContainerState.EXITED:
                return False
            if pods.should_restart(self.pod, c, newest.exit_code):
                return False
        return True

    def _to_start(self) -> list[Object]:
        """The containers to be started now: the next init container, or all main ones side by side."""
        out: list[Object] = []
        any_main = any(self._newest(c["name"]) for c in pods.containers(self.pod))
        for c in pods.init_containers(self.pod):
            newest, name = self._newest(c["name"]), c["name"]
            if pods.is_sidecar(c):
                if newest is None or newest.state is not ContainerState.RUNNING:
                    out += [c] if self._may_start(c) else []
                    if not any_main:
                        return out
                    continue
                probes = self._probes.get(name)
                if not any_main and (probes is None or not probes.started):
                    self._ensure_probes()
                    probes = self._probes.get(name)
                    if probes is None or not probes.started:
                        return out
                continue
            if any_main:
                continue
            if newest is not None and newest.state is ContainerState.EXITED and newest.exit_code == 0:
                continue
            if newest is not None and newest.state is ContainerState.RUNNING:
                return out
            return out + ([c] if self._may_start(c, init=True) else [])
        for c in pods.containers(self.pod):
            if self._may_start(c):
                out.append(c)
        for c in pods.ephemeral_containers(self.pod):
            if self._newest(c["name"]) is None and self._may_start(c):
                out.append(c)
        return out

    def _may_start(self, container: Object, *, init: bool = False) -> bool:
        name = container["name"]
        if name in self._starting or name in self._stopping:
            return False
        newest = self._newest(name)
        if newest is not None and newest.state is ContainerState.RUNNING:
            return False
        if self._not_before.get(name, 0.0) > time.time():
            return False
        if newest is None or newest.state is ContainerState.CREATED:
            return True
        if not pods.should_restart(self.pod, container, newest.exit_code, init=init):
            return False
        return not self._in_crash_backoff(name, newest)

    def _in_crash_backoff(self, name: str, newest: ContainerStatus) -> bool:
        crashes, key = self.node.crashes, f"{self.uid}_{name}"
        ended = newest.finished_at or newest.created_at
        remaining = crashes.remaining(key, ended)
        if remaining <= 0:
            crashes.next(key, ended)
            return False
        who = f"container={name} pod={pods.full_name(self.pod)}"
        message = f"back-off {show_seconds(crashes.pause(key))} restarting failed {who}"
        if self._waiting.get(name) != Waiting("CrashLoopBackOff", message):
            self._waiting[name] = Waiting("CrashLoopBackOff", message)
            self.node.container_event(
                self.pod,
                name,
                "Warning",
                "BackOff",
                f"Back-off restarting failed container {name} in pod {pods.full_name(self.pod)}",
            )
        self._not_before[name] = time.time() + remaining
        return True

    def _plan_wakeup(self) -> None:
        times = [t for t in self._not_before.values() if t > time.time()]
        if self._sandbox_not_before > time.time():
            times.append(self._sandbox_not_before)
        if self._volume_retry:
            times.append(self._volume_retry)
        elif self._volumes.refresh_at and self._volumes_task is None:
            times.append(self._volumes.refresh_at)
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline is not None:
            times.append(parse_time(self._start_time) + deadline)
        if times:
            self._wake_at(min(times))

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, when - time.time()) + 0.001, self.wake)

    # Sandbox and volumes.

    def _ensure_sandbox(self) -> None:
        if self._sandbox_task is not None or time.time() < self._sandbox_not_before:
            return
        if self.sandbox is not None and self.sandbox.state is SandboxState.READY:
            return
        if self.sandbox is not None and pods.restart_policy(self.pod) == "Never" and self.containers:
            # It had its one life: what still runs is ended, and the pod with it.
            self._sandbox_task = self._spawn(self._stop_running(self.sandbox.id))
            return
        self._sandbox_task = self._spawn(self._make_sandbox())

    async def _make_sandbox(self) -> None:
        node, attempt = self.node, 0
        try:
            if self.sandbox is not None:
                attempt = self.sandbox.attempt + 1
                message = "Pod sandbox changed, it will be killed and re-created."
                node.pod_event(self.pod, "Normal", "SandboxChanged", message)
                await self._stop_running(self.sandbox.id)
                await node.runtime.stop_pod_sandbox(self.sandbox.id)
                self._old_sandboxes.append(self.sandbox)
            self._cgroup = node.cgroups.create(self.pod)
            config = sandbox_config(self.pod, node.config, attempt, self._cgroup)
            node.config.pod_directory(self.uid).mkdir(parents=True, exist_ok=True)
            self.sandbox = await node.runtime.run_pod_sandbox(config)
            write_pod_files(self.pod, node.config, self.ips)
            self._sandbox_failures = 0
            self._not_before.clear()
            self._sandbox_ready.set()
        except (RuntimeFailure, OSError) as e:
            log.warning("sandbox of %s: %s", pods.full_name(self.pod), e)
            node.pod_event(
                self.pod, "Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {e}"
            )
            self._sandbox_failures += 1
            pause = min(FIRST_RETRY * 2 ** min(self._sandbox_failures, 10), MOST_RETRY)
            self._sandbox_not_before = time.time() + pause
        finally:
            self._sandbox_task = None
            self.wake()

    async def _refresh_sandbox(self) -> None:
        if self.sandbox is None:
            return
        try:
            self.sandbox = await self.node.runtime.pod_sandbox_status(self.sandbox.id)
        except NotFound:
            self.sandbox = None
        self.wake()

    def _ensure_volumes(self) -> None:
        if self._volumes_task is not None:
            return
        moment = time.time()
        due = self._volumes.refresh_at and moment >= self._volumes.refresh_at
        if self._volume_retry:
            if moment < self._volume_retry:
                return
        elif not (self._volumes_stale or due):
            return
        self._volumes_task = self._spawn(self._set_up_volumes())

    async def _set_up_volumes(self) -> None:
        self._volumes_stale = False
        self._volumes.update(self.pod, self.ips)
        try:
            self.node.config.pod_directory(self.uid).mkdir(parents=True, exist_ok=True)
            failures = await self._volumes.set_up()
            for name, message in failures.items():
                self.node.pod_event(
                    self.pod,
                    "Warning",
                    "FailedMount",
                    f'MountVolume.SetUp failed for volume "{name}" : {message}',
                )
            if failures:
                self._volume_failures += 1
                pause = min(FIRST_RETRY * 2 ** min(self._volume_failures - 1, 10), MOST_RETRY)
                self._volume_retry = 0.0 if self._volumes_stale else time.time() + pause
            else:
                self._volume_failures, self._volume_retry = 0, 0.0
            if self._volumes.ready:
                self._volumes_ready.set()
        finally:
            self._volumes_task = None
            self.wake()

    async def _lookup(self, resource: Resource, name: str) -> Object | None:
        return await self.node.objects.get(self.uid, resource, self.pod["metadata"]["namespace"], name)

    async def _request_token(self, request: Object) -> Object:
        spec, namespace = self.pod["spec"], self.pod["metadata"]["namespace"]
        answer = await self.node.client.create(
            SERVICEACCOUNTS,
            request,
            namespace=namespace,
            name=spec.get("serviceAccountName") or "default",
            subresource="token",
        )
        status: Object = answer["status"]
        return status

    # Starting containers.

    def _start(self, container: Object) -> None:
        name = container["name"]
        task = self._spawn(self._start_container(container))
        self._starting[name] = task

    async def _start_container(self, container: Object) -> None:
        name, node = container["name"], self.node
        newest = self._newest(name)
        failure: Waiting | None = None
        try:
            image = self._image(container)
            await self._sandbox_ready.wait()
            await self._volumes_ready.wait()
            try:
                found = await asyncio.shield(image)
            except StartFailure as e:
                node.container_event(self.pod, name, "Warning", "Failed", f"Error: {e.reason}")
                raise
            sandbox = self.sandbox
            if sandbox is None:
                return
            attempt = 0
            if newest is not None:
                attempt = newest.attempt + (newest.state is not ContainerState.CREATED)
            try:
                config = await container_config(
                    node, self.pod, container, attempt, found, sandbox, self.ips, self._volumes
                )
            except StartFailure as e:
                node.container_event(self.pod, name, "Warning", "Failed", f"Error: {e.message}")
                raise
            self._committed.add(name)
            if newest is not None and newest.state is ContainerState.CREATED:
                await node.runtime.remove_container(newest.id)
            container_id = await create_and_start(node, self.pod, sandbox, config)
            await self._refresh(container_id)
            self._committed.discard(name)
            hook = (container.get("lifecycle") or {}).get("postStart")
            if hook:
                await self._post_start(container, container_id, hook)
        except StartFailure as e:
            failure = Waiting(e.reason, e.message)
            self._not_before[name] = time.time() + e.retry
            if e.reason in ("CreateContainerError", "RunContainerError"):
                await self._refresh_all(name)
                if (record := self._newest(name)) and record.state is ContainerState.EXITED:
                    # The crash back-off decides about the next try.
                    self._not_before.pop(name, None)
        except (RuntimeFailure, OSError) as e:
            failure = Waiting("CreateContainerError", str(e))
            self._not_before[name] = time.time() + 10
        finally:
            self._images.pop(name, None)
            self._committed.discard(name)
            self._starting.pop(name, None)
            if failure is not None:
                self._waiting[name] = failure
            self.wake()

    def _image(self, container: Object) -> asyncio.Task[Image]:
        """The pull (or look-up) of a container's image, begun before anything else is waited for."""
        task = asyncio.get_running_loop().create_task(self._puller.ensure(self.pod, container))
        task.add_done_callback(_retrieve)
        self._images[container["name"]] = task
        return task

    async def _post_start(self, container: Object, container_id: str, hook: Object) -> None:
        try:
            await run_hook(self.node, container, container_id, self.ips[0] if self.ips else "", hook)
        except HookFailure as e:
            log.info("postStart hook of %s in %s: %s", container["name"], pods.full_name(self.pod), e)
            message = "PostStartHook failed"
            self.node.container_event(self.pod, container["name"], "Warning", "FailedPostStartHook", message)
            record = self._newest(container["name"])
            if record is not None and record.id == container_id:
                await stop_container(
                    self.node,
                    self.pod,
                    record,
                    pods.grace_seconds(self.pod),
                    self.ips[0] if self.ips else "",
                    "FailedPostStartHook",
                )
                await self._refresh(container_id)
            raise StartFailure("PostStartHookError", message, 0.0) from None

    # Records of containers.

    async def _refresh(self, container_id: str) -> None:
        """Read one container's state from the runtime."""
        try:
            record = await self.node.runtime.container_status(container_id)
        except NotFound:
            for records in self.containers.values():
                records[:] = [r for r in records if r.id != container_id]
            self.containers = {k: v for k, v in self.containers.items() if v}
        else:
            self._take(record)
        self.wake()

    async def _refresh_all(self, name: str = "") -> None:
        """Read the state of all containers of the present sandbox (or those of one name)."""
        if self.sandbox is not None:
            for record in await self.node.runtime.list_containers(self.sandbox.id):
                if not name or record.name == name:
                    self._take(record)

    def _take(self, record: ContainerStatus) -> None:
        records = self.containers.setdefault(record.name, [])
        records[:] = sorted(
            [*(r for r in records if r.id != record.id), record],
            key=lambda r: (r.attempt, r.created_at),
            reverse=True,
        )
        if record.state is ContainerState.RUNNING:
            self._waiting.pop(record.name, None)
            self._not_before.pop(record.name, None)
            self._drop_old(record.name)
            self._ensure_probes()
        elif record.state is ContainerState.EXITED:
            self._messages[record.id] = self._message(record)
            self._stop_probes(record.name, record.id)

    def _message(self, record: ContainerStatus) -> str:
        """The termination message of a container that ended; the file it was in may be gone when it was told before."""
        return self._messages.get(record.id) or termination_message(
            record.annotations, record.exit_code, self.node.config.log_directory(self.pod), record.log_path
        )

    def _drop_old(self, name: str) -> None:
        """Keep the newest container and the one before; older ones are removed with their logs."""
        records = self.containers[name]
        for old in records[2:]:
            self._messages.pop(old.id, None)
            self._spawn(self._remove_container(old))
        del records[2:]

    async def _remove_container(self, record: ContainerStatus) -> None:
        try:
            await self.node.runtime.remove_container(record.id)
        except RuntimeFailure as e:
            log.warning("container %s: %s", record.id, e)
        if record.log_path:
            (self.node.config.log_directory(self.pod) / record.log_path).unlink(missing_ok=True)

    # Probes.

    def _ensure_probes(self) -> None:
        if self._termination is not None:
            return
        for container in pods.all_containers(self.pod):
            name = container["name"]
            record = self._newest(name)
            if record is None or record.state is not ContainerState.RUNNING:
                continue
            probes = self._probes.get(name)
            if probes is not None and probes.container_id == record.id:
                continue
            self._stop_probes(name)
            told = self._told(name, record.id)
            probes = ContainerProbes(
                self.node,
                self.pod,
                container,
                record.id,
                self.ips[0] if self.ips else "",
                record.started_at,
                changed=self.wake,
                unhealthy=partial(self._unhealthy, name, record.id),
                ready=bool(told.get("ready")),
                started=bool(told.get("started")),
            )
            self._probes[name] = probes
            if probes.has_any():
                self._probe_tasks[name] = self._spawn(probes.run())

    def _told(self, name: str, container_id: str) -> Object:
        """What the API was last told of this very container (after our own restart it stays what it was)."""
        for group in ("containerStatuses", "initContainerStatuses"):
            for status in (self.pod.get("status") or {}).get(group) or ():
                if status["name"] == name and str(status.get("containerID", "")).endswith(container_id):
                    return status  # type: ignore[no-any-return]
        return {}

    def _stop_probes(self, name: str, container_id: str = "") -> None:
        probes = self._probes.get(name)
        if probes is None or (container_id and probes.container_id != container_id):
            return
        del self._probes[name]
        task = self._probe_tasks.pop(name, None)
        if task is not None:
            task.cancel()

    def _unhealthy(self, name: str, container_id: str, kind: Kind) -> None:
        record = self._newest(name)
        container = pods.container(self.pod, name)
        if record is None or record.id != container_id or container is None or self._termination is not None:
            return
        own = container[f"{kind}Probe"].get("terminationGracePeriodSeconds")
        grace = float(own) if own is not None else pods.grace_seconds(self.pod)
        message = f"Container {name} failed {kind} probe, will be restarted"

        async def stop() -> None:
            try:
                ip = self.ips[0] if self.ips else ""
                await stop_container(self.node, self.pod, record, grace, ip, message, exact=own is not None)
                await self._refresh(container_id)
            finally:
                self._stopping.discard(name)
                self.wake()

        self._stopping.add(name)
        self._spawn(stop())

    # The end.

    async def _stop_running(self, sandbox_id: str) -> None:
        """End what still runs in a sandbox that died."""
        for records in list(self.containers.values()):
            for record in list(records):
                if record.sandbox_id == sandbox_id and record.state is ContainerState.RUNNING:
                    self._stop_probes(record.name)
                    await self._stop_now(record.id, 0)
                    await self._refresh(record.id)

    def _terminate(self, grace: float) -> None:
        self._termination_grace = grace
        self._termination = self._spawn(self._end())
        self._termination.add_done_callback(lambda _: self.wake())

    def _hurry_termination(self) -> None:
        """The pod was deleted (again) with less grace while it is ending."""
        if not (self.gone or pods.is_deleted(self.pod)):
            return
        if self._terminated:
            if self._termination is not None and self._termination.done():
                # It had ended by itself before; now it goes from the API too.
                self._termination = self._spawn(self._leave())
                self._termination.add_done_callback(lambda _: self.wake())
            return
        grace = pods.grace_seconds(self.pod)
        if grace < self._termination_grace:
            self._termination_grace = grace
            for records in self.containers.values():
                if records[0].state is ContainerState.RUNNING:
                    self._spawn(self._stop_now(records[0].id, grace))

    async def _stop_now(self, container_id: str, grace: float) -> None:
        try:
            await self.node.runtime.stop_container(container_id, grace)
        except RuntimeFailure as e:
            log.warning("container %s: %s", container_id, e)

    async def _end(self) -> None:
        """Stop everything of the pod, then, if it is deleted, remove it from here and from the API."""
        for name in list(self._probes):
            self._stop_probes(name)
        waited = []
        for name, task in list(self._starting.items()):
            if name not in self._committed:
                task.cancel()
            waited.append(task)
        for image in self._images.values():
            image.cancel()
        if self._sandbox_task is not None:
            waited.append(self._sandbox_task)
        if self._volumes_task is not None:
            self._volumes_task.cancel()
            waited.append(self._volumes_task)
        await asyncio.gather(*waited, return_exceptions=True)
        await self._retry(self._refresh_all)
        records = [r[0] for r in self.containers.values()]
        ip = self.ips[0] if self.ips else ""
        await stop_pod_containers(self.node, self.pod, records, self._termination_grace, ip)
        for record in records:
            if record.state is not ContainerState.EXITED:
                await self._refresh(record.id)
        self._waiting.clear()
        self._terminated = True
        self._publish()
        await self._retry(self._release_resources)
        if self.gone or pods.is_deleted(self.pod):
            await self._leave()

    async def _release_resources(self) -> None:
        """Free what a pod that runs no more needs no longer: network, volumes, cgroup. Its logs stay."""
        runtime = self.node.runtime
        for sandbox in [*self._old_sandboxes, *([self.sandbox] if self.sandbox else [])]:
            await runtime.stop_pod_sandbox(sandbox.id)
        self._sandbox_ready.clear()
        self._volumes.tear_down()
        self.node.objects.release(self.uid)
        self.node.cgroups.remove(self._cgroup or self.node.cgroups.path(self.pod))

    async def _leave(self) -> None:
        """Remove the pod's last traces from the runtime and, with its final status told, from the API."""
        if not self.gone:
            self._publish()
            await self.status.flush()
            await self._retry(self._delete_from_api)
        await self._retry(self._remove_from_runtime)
        self._finished = True
        self.wake()

    async def _delete_from_api(self) -> None:
        meta = self.pod["metadata"]
        try:
            await self.node.client.delete(
                PODS, meta["namespace"], meta["name"], grace_period_seconds=0, uid=self.uid
            )
        except StatusError as e:
            if e.code not in (404, 409):
                raise

    async def _remove_from_runtime(self) -> None:
        for sandbox in [*self._old_sandboxes, *([self.sandbox] if self.sandbox else [])]:
            await self.node.runtime.remove_pod_sandbox(sandbox.id)
        self.node.crashes.forget(self.uid + "_")
        self._puller.forget(self.uid)
        shutil.rmtree(self.node.config.log_directory(self.pod), ignore_errors=True)

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
            pause = min(pause * 2, 30.0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as a task of this pod's; what it raises is logged and wakes the worker."""
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("pod %s", pods.full_name(self.pod))
            self.wake()


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


def _retrieve(task: asyncio.Task[Image]) -> None:
    """Mark a task's exception as seen, though nobody may wait for it any more."""
    if not task.cancelled():
        task.exception()
