"""The default RuntimeService: sandboxes of our own, containers by conmon and crun (or runc). No daemon.

Everything is on disk (`records`), in /proc and in conmon's exit files; this object is only a picture of it, made
again by `start`. Ends are told by pidfd: of the pause process for a sandbox, of conmon for a container.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from sampan.linux.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, unmount
from sampan.network.host_ports import HostPorts
from sampan.network.types import NetworkError, PodNetwork
from sampan.node.images.types import Image
from sampan.node.runtime import conmon, execution, pause, rootfs, spec
from sampan.node.runtime.cgroup import Cgroups
from sampan.node.runtime.check import Programs, find_programs
from sampan.node.runtime.messages import from_log
from sampan.node.runtime.port import connect
from sampan.node.runtime.process import Child, ProcessId, Watch, run
from sampan.node.runtime.records import ContainerRecord, SandboxRecord, Shelf
from sampan.node.runtime.types import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    ExecResult,
    NotFound,
    Process,
    Resources,
    RuntimeEvent,
    RuntimeFailure,
    SandboxConfig,
    SandboxStatus,
)
from sampan.node.runtime.user import check_non_root

Result = TypeVar("Result")

START_FAILED = 128
"""The exit code of a container whose process could not be started, as containerd has it."""
LOST = 255
"""The exit code of a container of which nobody saw the end."""
SHM_SIZE = "64m"


def stop_signal(name: str) -> int:
    """The number of `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`; SIGTERM where it is none."""
    text = name.upper().strip()
    if text.isdigit():
        return int(text)
    text = text if text.startswith("SIG") else f"SIG{text}"
    base, plus, offset = text.partition("+")
    with suppress(KeyError, ValueError):
        return signal.Signals[base].value + (int(offset) if plus else 0)
    return signal.SIGTERM


class _Container:
    def __init__(self, record: ContainerRecord) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.watch: Watch | Child | None = None
        """Of its conmon."""
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class _Sandbox:
    def __init__(self, record: SandboxRecord) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.watch: Watch | None = None


class OciRuntime:
    """A RuntimeService. Keeps what must stay in `state` and sockets, mounts and namespaces in `run`.

    `images` is `ImageService.image_status`. Pods without a `cgroup_parent` of their own get one below
    `cgroup_parent`. The agent's process needs a mount namespace in which crun works; see `check`.
    """

    def __init__(
        self,
        *,
        state: str,
        run: str,
        images: Callable[[str], Awaitable[Image | None]],
        network: PodNetwork,
        host_ports: HostPorts | None = None,
        programs: Programs | None = None,
        cgroup_parent: str = "/sampan",
    ) -> None:
        self.programs = programs or find_programs()
        self.cgroups = Cgroups()
        self._run = run
        self._images = images
        self._network = network
        self._host_ports = host_ports
        self._cgroup_parent = "/" + cgroup_parent.strip("/")
        self._sandbox_shelf = Shelf(f"{state}/sandboxes")
        self._container_shelf = Shelf(f"{state}/containers")
        self._sandboxes: dict[str, _Sandbox] = {}
        self._containers: dict[str, _Container] = {}
        self._events: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._held = spec.held_capabilities()
        self._least_oom_score_adj = -1000
        if "SYS_RESOURCE" not in self._held:
            with open("/proc/self/oom_score_adj") as file:
                self._least_oom_score_adj = int(file.read())
        # A root of its own: another node on this machine has containers too.
        self._options: tuple[str, ...] = ("--root", f"{run}/{self.programs.runtime_name}")
        if self.programs.runtime_name == "crun":
            self._options += ("--cgroup-manager", "cgroupfs")

    # Life

    async def start(self) -> None:
        for directory in (
            self._sandbox_shelf.path,
            self._container_shelf.path,
            *(f"{self._run}/{name}" for name in ("exits", "netns", "shm", "exec")),
        ):
            os.makedirs(directory, mode=0o711, exist_ok=True)
        for left in os.scandir(f"{self._run}/exec"):
            shutil.rmtree(left.path, ignore_errors=True)
        for record in self._sandbox_shelf.read(SandboxRecord):
            self._sandboxes[record.id] = sandbox = _Sandbox(record)
            if record.ready:
                self._watch_sandbox(sandbox)
        await self._forward_again()
        for kept in self._container_shelf.read(ContainerRecord):
            self._containers[kept.id] = container = _Container(kept)
            await self._take_up(container)
        for id in set(self._container_shelf.ids()) - set(self._containers):
            await self._discard(id)
        for id in set(self._sandbox_shelf.ids()) - set(self._sandboxes):
            self._sandbox_shelf.remove(id)

    async def _forward_again(self) -> None:
        """Have the node's ports lead to the pods that there are, and no others."""
        if self._host_ports is None:
            return
        records = [s.record for s in self._sandboxes.values() if s.record.ready and s.record.netns]
        await self._host_ports.start({r.id: (r.ips, r.config.port_mappings) for r in records})

    async def _take_up(self, container: _Container) -> None:
        record = container.record
        if record.state is ContainerState.RUNNING:
            self._watch_container(container, record.conmon.open())
        elif record.state is ContainerState.EXITED:
            container.ended.set_result(record.exit_code)
        elif os.path.exists(f"{self._bundle(record.id)}/conmon.log"):
            # Its start was interrupted: nobody knows how far it came, and it may still go on.
            conmon.kill(record.id)
            await self._delete(record.id)
            self.cgroups.kill(record.cgroup)
            self._finish(container, LOST, "Unknown", "the start of the container was interrupted")

    async def close(self) -> None:
        watches: list[Watch | Child | None] = [sandbox.watch for sandbox in self._sandboxes.values()]
        watches += [container.watch for container in self._containers.values()]
        for watch in watches:
            if watch:
                watch.close()

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        while True:
            yield await self._events.get()

    # Sandboxes

    async def run_pod_sandbox(self, config: SandboxConfig) -> SandboxStatus:
        return await _to_its_end(self._run_pod_sandbox(config))

    async def _run_pod_sandbox(self, config: SandboxConfig) -> SandboxStatus:
        id = secrets.token_hex(32)
        cgroup = config.cgroup_parent or f"{self._cgroup_parent}/pod{config.uid}"
        record = SandboxRecord(id=id, config=config, created_at=time.time(), cgroup=cgroup)
        if config.network == "pod":
            record.netns = f"{self._run}/netns/{id}"
        directory = self._sandbox_shelf.create(record)
        self._sandboxes[id] = sandbox = _Sandbox(record)
        try:
            self.cgroups.create(cgroup)
            with open(f"{directory}/hostname", "w") as file:
                file.write(f"{config.hostname}\n")
            if config.ipc == "pod":
                os.mkdir(self._shm(record), 0o755)
                mount(
                    "shm",
                    self._shm(record),
                    "tmpfs",
                    MS_NOSUID | MS_NODEV | MS_NOEXEC,
                    f"mode=1777,size={SHM_SIZE}",
                )
            pid = await pause.start(config, self.programs.pause, record.netns)
            record.pause = ProcessId.of(pid)
            # Not ready before it has its address: should we die here, who takes up finds only what to undo.
            self._sandbox_shelf.write(record)
            # It is not moved into the pod's cgroup: it uses nothing, and a move waits for all processors (10 ms).
            if config.network == "pod":
                record.ips = (await self._network.attach(id, record.netns)).ips
                if self._host_ports is not None:
                    await self._host_ports.add(id, record.ips, config.port_mappings)
            record.ready = True
            self._sandbox_shelf.write(record)
            self._watch_sandbox(sandbox)
        except (OSError, NetworkError, RuntimeFailure) as error:
            await self.remove_pod_sandbox(id)
            raise RuntimeFailure(
                f"failed to create pod sandbox: {error}", "FailedCreatePodSandBox"
            ) from error
        return record.status()

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        await _to_its_end(self._stop_pod_sandbox(sandbox_id))

    async def _stop_pod_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        async with sandbox.lock:
            for container in self._of(sandbox_id):
                await self._kill(container)
            record = sandbox.record
            if sandbox.watch:
                sandbox.watch.close()
                sandbox.watch = None
            if record.netns:
                try:
                    if self._host_ports is not None:
                        await self._host_ports.remove(sandbox_id)
                    await self._network.detach(sandbox_id, record.netns)
                except NetworkError as error:
                    raise RuntimeFailure(f"failed to stop pod sandbox: {error}") from error
            await self._end_pause(record)
            if record.netns:
                unmount(record.netns)
                with suppress(FileNotFoundError):
                    os.unlink(record.netns)
            if record.config.ipc == "pod":
                unmount(self._shm(record))
                with suppress(FileNotFoundError):
                    os.rmdir(self._shm(record))
            record.ready = False
            self._sandbox_shelf.write(record)

    async def _end_pause(self, record: SandboxRecord) -> None:
        if not record.pause.pid and record.netns:
            # We were killed between its start and writing down its pid: it is who has the namespace.
            record.pause = pause.find(record.netns)
        descriptor = record.pause.open()
        if descriptor is None:
            return
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        Watch(descriptor, ended.set_result)
        record.pause.kill()
        await ended

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for container in self._of(sandbox_id):
            await self.remove_container(container.record.id)
        await self.stop_pod_sandbox(sandbox_id)
        self._sandboxes.pop(sandbox_id, None)
        # Another attempt of the same pod may be in the cgroup already; then it stays.
        self.cgroups.remove(sandbox.record.cgroup)
        self._sandbox_shelf.remove(sandbox_id)

    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        return self._sandbox(sandbox_id).record.status()

    async def list_pod_sandboxes(self) -> list[SandboxStatus]:
        return [sandbox.record.status() for sandbox in self._sandboxes.values()]

    # Containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        return await _to_its_end(self._create_container(sandbox_id, config))

    async def _create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        sandbox = self._sandbox(sandbox_id).record
        if not sandbox.ready or not sandbox.pause.alive():
            raise RuntimeFailure(f"sandbox container {sandbox_id} is not running", "CreateContainerError")
        image = await self._images(config.image)
        if image is None:
            raise RuntimeFailure(f'image "{config.image}": not found', "CreateContainerError")
        check_non_root(config, image.config, sandbox.config)
        self.cgroups.expect_moves()
        id = secrets.token_hex(32)
        record = ContainerRecord(
            id=id,
            sandbox_id=sandbox_id,
            config=config,
            image=image.tags[0] if image.tags else config.image,
            image_id=image.digests[0] if image.digests else image.id,
            stop_signal=stop_signal(config.stop_signal or image.config.stop_signal or "SIGTERM"),
            cgroup=f"{sandbox.cgroup}/{id}",
            log_path=os.path.join(sandbox.config.log_directory, config.log_path),
            created_at=time.time(),
        )
        try:
            await asyncio.to_thread(self._prepare, sandbox, record, image)
        except (OSError, LookupError) as error:
            await self._discard(id)
            raise RuntimeFailure(f"failed to create container: {error}", "CreateContainerError") from error
        except BaseException:
            await self._discard(id)
            raise
        self._containers[id] = _Container(record)
        return id

    def _prepare(self, sandbox: SandboxRecord, record: ContainerRecord, image: Image) -> None:
        """Make the bundle: root filesystem, configuration, directories. Blocks."""
        directory = self._bundle(record.id)
        os.makedirs(directory, mode=0o711)
        root = rootfs.mount_overlay(image.layers, directory)
        security = record.config.security
        user = rootfs.find_user(root, image.config.user, security.user, security.group)
        for volume in image.config.volumes:
            rootfs.make_directory(root, volume)
        rootfs.make_directory(root, record.config.working_dir or image.config.working_dir or "/")
        configuration = spec.build(
            record.config, image.config, user, self._surroundings(sandbox, record, root)
        )
        with open(f"{directory}/config.json", "w") as file:
            json.dump(configuration, file)
        os.makedirs(os.path.dirname(record.log_path), exist_ok=True)
        # Last: only what is whole is taken up after a crash.
        self._container_shelf.write(record)

    def _surroundings(self, sandbox: SandboxRecord, record: ContainerRecord, root: str) -> spec.Surroundings:
        config = sandbox.config
        processes = f"/proc/{sandbox.pause.pid}/ns"
        namespaces = {
            "network": sandbox.netns,
            "uts": f"{processes}/uts" if config.network == "pod" else "",
            "ipc": f"{processes}/ipc" if config.ipc == "pod" else "",
        }
        if config.pid != "container":
            namespaces["pid"] = f"{processes}/pid" if config.pid == "pod" else ""
        return spec.Surroundings(
            root=root,
            hostname=config.hostname or os.uname().nodename,
            namespaces=namespaces,
            shm=self._shm(sandbox),
            cgroup=record.cgroup,
            cgroup_version=self.cgroups.version,
            limits_swap=self.cgroups.limits_swap(),
            capabilities=self._held,
            least_oom_score_adj=self._least_oom_score_adj,
            hostname_file=f"{self._sandbox_shelf.directory(sandbox.id)}/hostname"
            if config.network == "pod"
            else "",
        )

    async def start_container(self, container_id: str) -> None:
        await _to_its_end(self._start_container(container_id))

    async def _start_container(self, container_id: str) -> None:
        container = self._container(container_id)
        async with container.lock:
            record = container.record
            if record.state is not ContainerState.CREATED:
                raise RuntimeFailure(f"container {container_id} is not in created state", "RunContainerError")
            try:
                child, pid = await conmon.create(self._launch(record))
            except (RuntimeFailure, OSError) as error:
                message = f"OCI runtime create failed: {from_log(str(error), self._program(record))}"
                await self._delete(container_id)
                self._finish(container, START_FAILED, "StartError", message)
                raise RuntimeFailure(message, "RunContainerError") from error
            record.conmon = ProcessId.of(child.pid)
            record.process = ProcessId.of(pid)
            record.started_at = time.time()
            result = await run([self.programs.runtime, *self._options, "start", container_id])
            if result.code:
                text = result.stderr.decode(errors="replace")
                message = f"OCI runtime start failed: {from_log(text, self._program(record))}"
                await self._delete(container_id)
                await child.wait()
                self._finish(container, START_FAILED, "StartError", message)
                raise RuntimeFailure(message, "RunContainerError")
            record.state = ContainerState.RUNNING
            self._container_shelf.write(record)
            container.watch = child
            child.done.add_done_callback(lambda _: self._conmon_ended(container))

    def _program(self, record: ContainerRecord) -> str:
        """The name of what the container runs, for messages."""
        with open(f"{self._bundle(record.id)}/config.json") as file:
            return str(json.load(file)["process"]["args"][0])

    def _launch(self, record: ContainerRecord) -> conmon.Launch:
        config = record.config
        return conmon.Launch(
            conmon=self.programs.conmon,
            runtime=self.programs.runtime,
            runtime_arguments=self._options,
            id=record.id,
            name=config.name,
            bundle=self._bundle(record.id),
            exits=f"{self._run}/exits",
            log_path=record.log_path,
            stdin=config.stdin,
            stdin_once=config.stdin_once,
            tty=config.tty,
        )

    def _watch_container(self, container: _Container, descriptor: int | None) -> None:
        if descriptor is None:
            self._conmon_ended(container)
        else:
            container.watch = Watch(descriptor, lambda _: self._conmon_ended(container))

    def _conmon_ended(self, container: _Container) -> None:
        record = container.record
        if record.state is not ContainerState.RUNNING:
            return
        told = conmon.exit_code(f"{self._run}/exits", record.id)
        # Processes beside the first one go with their pid namespace, unless they share it with others.
        sandbox = self._sandboxes.get(record.sandbox_id)
        if told is None or sandbox is None or sandbox.record.config.pid != "container":
            self.cgroups.kill(record.cgroup)
        if told is None:
            self._finish(container, LOST, "Unknown", "nobody saw the end of the container")
            return
        code, when = told
        if code and self.cgroups.out_of_memory(record.cgroup):
            self._finish(container, code, "OOMKilled", "", when)
        else:
            self._finish(container, code, "Error" if code else "Completed", "", when)

    def _finish(
        self, container: _Container, code: int, reason: str, message: str, when: float | None = None
    ) -> None:
        record = container.record
        record.state = ContainerState.EXITED
        record.exit_code = code
        record.reason = reason
        record.message = message
        record.finished_at = when or time.time()
        self._container_shelf.write(record)
        if not container.ended.done():
            container.ended.set_result(code)
        self._events.put_nowait(RuntimeEvent("container-exited", record.id, record.sandbox_id))

    async def stop_container(self, container_id: str, timeout: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.record.state is not ContainerState.RUNNING:
            return
        if timeout > 0:
            container.record.process.kill(container.record.stop_signal)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await asyncio.shield(container.ended)
        await self._kill(container)

    async def _kill(self, container: _Container) -> None:
        async with container.lock:
            if container.record.state is ContainerState.RUNNING:
                container.record.process.kill()
                self.cgroups.kill(container.record.cgroup)
                await asyncio.shield(container.ended)

    async def remove_container(self, container_id: str) -> None:
        await _to_its_end(self._remove_container(container_id))

    async def _remove_container(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        await self._kill(container)
        async with container.lock:
            if self._containers.pop(container_id, None) is None:
                return
            record = container.record
            if record.state is not ContainerState.CREATED:
                await self._delete(container_id)
            await self._discard(container_id)
            self.cgroups.remove(record.cgroup)

    async def _delete(self, id: str) -> None:
        """Let the OCI runtime forget the container and kill what is left of it."""
        await run([self.programs.runtime, *self._options, "delete", "--force", id])

    async def _discard(self, id: str) -> None:
        """Remove a container's files and mounts."""

        def work() -> None:
            rootfs.unmount_overlay(self._bundle(id))
            self._container_shelf.remove(id)
            with suppress(FileNotFoundError):
                os.unlink(f"{self._run}/exits/{id}")

        await asyncio.to_thread(work)

    async def container_status(self, container_id: str) -> ContainerStatus:
        return self._container(container_id).record.status()

    async def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]:
        return [
            container.record.status()
            for container in self._containers.values()
            if sandbox_id in ("", container.record.sandbox_id)
        ]

    async def update_container_resources(self, container_id: str, resources: Resources) -> None:
        container = self._running(container_id)
        wanted = spec.linux_resources(resources, self.cgroups.limits_swap())
        descriptor = os.memfd_create("resources")
        try:
            os.write(descriptor, json.dumps(wanted).encode())
            path = f"/proc/{os.getpid()}/fd/{descriptor}"
            result = await run(
                [self.programs.runtime, *self._options, "update", "--resources", path, container_id]
            )
        finally:
            os.close(descriptor)
        if result.code:
            raise RuntimeFailure(f"failed to update resources: {from_log(result.stderr.decode())}")
        container.record.config = replace(container.record.config, resources=resources)
        self._container_shelf.write(container.record)

    async def reopen_container_log(self, container_id: str) -> None:
        conmon.reopen_log(self._bundle(self._running(container_id).record.id))

    # Streams

    async def exec_sync(
        self, container_id: str, command: Sequence[str], timeout: float = 0, limit: int = 16 * 1024
    ) -> ExecResult:
        process = await self.exec(container_id, command, stdin=False, tty=False)
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(timeout or None):
                stdout, stderr, code = await asyncio.gather(
                    _bounded(process.stdout, limit), _bounded(process.stderr, limit), process.wait()
                )
        finally:
            await process.close()
        return ExecResult(code, stdout, stderr)

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Process:
        self._running(container_id)
        if not command:
            raise RuntimeFailure("you must specify at least one command for the container")
        with open(f"{self._bundle(container_id)}/config.json") as file:
            configuration: dict[str, Any] = json.load(file)
        return await execution.start(
            [self.programs.runtime, *self._options],
            container_id,
            spec.exec_process(configuration, command, tty),
            f"{self._run}/exec",
            stdin=stdin,
            console_socket=self.programs.runtime_name == "crun",
        )

    async def attach(self, container_id: str) -> Process:
        container = self._running(container_id)
        config = container.record.config
        return conmon.attach(self._bundle(container_id), container.ended, stdin=config.stdin, tty=config.tty)

    async def open_port(
        self, sandbox_id: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        record = self._sandbox(sandbox_id).record
        if not record.ready:
            raise RuntimeFailure(f"sandbox {sandbox_id} is not running")
        return await connect(record.netns, port)

    # Inside

    def _bundle(self, id: str) -> str:
        return self._container_shelf.directory(id)

    def _shm(self, record: SandboxRecord) -> str:
        return f"{self._run}/shm/{record.id}" if record.config.ipc == "pod" else "/dev/shm"

    def _of(self, sandbox_id: str) -> list[_Container]:
        return [one for one in self._containers.values() if one.record.sandbox_id == sandbox_id]

    def _sandbox(self, id: str) -> _Sandbox:
        if sandbox := self._sandboxes.get(id):
            return sandbox
        raise NotFound(f'an error occurred when try to find sandbox "{id}": not found')

    def _container(self, id: str) -> _Container:
        if container := self._containers.get(id):
            return container
        raise NotFound(f'an error occurred when try to find container "{id}": not found')

    def _running(self, id: str) -> _Container:
        container = self._container(id)
        if container.record.state is not ContainerState.RUNNING:
            raise RuntimeFailure(f"container {id} is not running: it is in {container.record.state} state")
        return container

    def _watch_sandbox(self, sandbox: _Sandbox) -> None:
        descriptor = sandbox.record.pause.open()
        if descriptor is None:
            self._pause_ended(sandbox)
        else:
            sandbox.watch = Watch(descriptor, lambda _: self._pause_ended(sandbox))

    def _pause_ended(self, sandbox: _Sandbox) -> None:
        record = sandbox.record
        record.ready = False
        sandbox.watch = None
        self._sandbox_shelf.write(record)
        self._events.put_nowait(RuntimeEvent("sandbox-died", record.id, record.id))


async def _to_its_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Do all of it even when the caller is cancelled: half a step would leave what nobody knows of."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the caller no longer asks
        raise


async def _bounded(reader: asyncio.StreamReader, limit: int) -> bytes:
    """The first `limit` bytes; the rest is read and dropped, so that the writer can go on."""
    kept = bytearray()
    while data := await reader.read(64 * 1024):
        kept += data[: limit - len(kept)]
    return bytes(kept)
