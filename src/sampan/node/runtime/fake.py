"""An in-memory RuntimeService for fast tests: the same contract, no kernel.

Containers run *programs*: coroutines that get their arguments and streams and return an exit code. A handful of
busybox-like ones (`sleep`, `true`, `false`, `echo`, `cat`, `sh -c "exit N"`) are there from the start; tests add
others to `FakeRuntime.programs`. `finish`, `kill_sandbox` and `fail_next` make things happen from outside, `calls`
records what was asked.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

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
    SandboxState,
    SandboxStatus,
)


class MemoryTransport(asyncio.WriteTransport):
    """What is written arrives in a StreamReader of the same process."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__()
        self._reader = reader
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closed:
            self._reader.feed_data(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._closed:
            self._reader.feed_eof()

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self.write_eof()
            self._closed = True


def memory_writer(reader: asyncio.StreamReader) -> asyncio.StreamWriter:
    """A StreamWriter whose data `reader` gets."""
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    return asyncio.StreamWriter(MemoryTransport(reader), protocol, None, asyncio.get_running_loop())


@dataclass
class Call:
    """The streams and arguments of one run of a program."""

    args: tuple[str, ...]
    stdin: asyncio.StreamReader
    stdout: list[asyncio.StreamReader]
    """Every reader that follows the output; attach adds one."""
    stderr: list[asyncio.StreamReader]
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        for reader in self.stdout:
            reader.feed_data(data)

    def write_error(self, data: bytes) -> None:
        for reader in self.stderr:
            reader.feed_data(data)


Program = Callable[[Call], Awaitable[int]]


async def _sleep(call: Call) -> int:
    seconds = call.args[1] if len(call.args) > 1 else "inf"
    if re.fullmatch(r"[\d.]+", seconds):
        await asyncio.sleep(float(seconds))
        return 0
    await asyncio.Event().wait()
    return 0


async def _true(call: Call) -> int:
    return 0


async def _false(call: Call) -> int:
    return 1


async def _echo(call: Call) -> int:
    call.write((" ".join(call.args[1:]) + "\n").encode())
    return 0


async def _cat(call: Call) -> int:
    while data := await call.stdin.read(65536):
        call.write(data)
    return 0


async def _sh(call: Call) -> int:
    script = call.args[2] if len(call.args) > 2 else ""
    if found := re.fullmatch(r"exit (\d+)", script):
        return int(found[1])
    call.write_error(f"sh: the fake cannot run {script!r}\n".encode())
    return 127


def _name(program: str) -> str:
    return program.rsplit("/", 1)[-1]


class _Container:
    def __init__(self, id: str, sandbox_id: str, config: ContainerConfig, log_path: str) -> None:
        self.config = config
        self.status = ContainerStatus(
            id=id,
            sandbox_id=sandbox_id,
            name=config.name,
            attempt=config.attempt,
            state=ContainerState.CREATED,
            created_at=time.time(),
            started_at=0,
            finished_at=0,
            exit_code=0,
            reason="",
            message="",
            image=config.image,
            image_id=config.image,
            pid=0,
            log_path=log_path,
            labels=dict(config.labels),
            annotations=dict(config.annotations),
        )
        self.call: Call | None = None
        self.task: asyncio.Task[int] | None = None
        self.ended = asyncio.Event()


class FakeProcess:
    """A Process of the fake."""

    def __init__(self, call: Call, task: asyncio.Task[int], *, stdin: bool, tty: bool, owner: bool) -> None:
        self._call = call
        self._task = task
        self._owner = owner
        self.stdout: asyncio.StreamReader | None = asyncio.StreamReader()
        self.stderr: asyncio.StreamReader | None = None if tty else asyncio.StreamReader()
        self.stdin: asyncio.StreamWriter | None = memory_writer(call.stdin) if stdin else None
        call.stdout.append(self.stdout)
        if self.stderr:
            call.stderr.append(self.stderr)
        task.add_done_callback(lambda _: self._end())

    def _end(self) -> None:
        for reader in (self.stdout, self.stderr):
            if reader:
                reader.feed_eof()

    async def wait(self) -> int:
        await asyncio.wait([self._task])
        return 137 if self._task.cancelled() else self._task.result()

    def resize(self, columns: int, rows: int) -> None:
        self._call.sizes.append((columns, rows))

    async def close(self) -> None:
        if self._owner:
            self._task.cancel()
            await asyncio.wait([self._task])
        elif self.stdout in self._call.stdout:
            self._call.stdout.remove(self.stdout)
            if self.stderr in self._call.stderr:
                self._call.stderr.remove(self.stderr)
            self._end()


class FakeRuntime:
    """A RuntimeService in memory; see the module."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        """(method, sandbox or container id; the name while there is no id yet), in order."""
        self.programs: dict[str, Program] = {
            "sleep": _sleep,
            "true": _true,
            "false": _false,
            "echo": _echo,
            "cat": _cat,
            "sh": _sh,
        }
        self.default: Program = _sleep
        """What runs where a container names no command."""
        self.pod_configs: dict[str, SandboxConfig] = {}
        self.ports: dict[tuple[str, int], Program] = {}
        """What answers at (sandbox id, port) for `open_port`."""
        self._sandboxes: dict[str, SandboxStatus] = {}
        self._containers: dict[str, _Container] = {}
        self._failures: dict[str, list[Exception]] = {}
        self._events: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._serial = itertools.count(1)
        self._tasks: set[asyncio.Task[int]] = set()

    # What tests do from outside

    def fail_next(self, method: str, error: Exception) -> None:
        """The next call of `method` raises `error`; several may wait."""
        self._failures.setdefault(method, []).append(error)

    def finish(self, container_id: str, exit_code: int = 0, reason: str = "", message: str = "") -> None:
        """The container's process ends by itself."""
        self._finish(self._container(container_id), exit_code, reason, message)

    def kill_sandbox(self, sandbox_id: str) -> None:
        """The sandbox's pause process dies."""
        self._sandboxes[sandbox_id] = replace(self._sandbox(sandbox_id), state=SandboxState.NOT_READY, pid=0)
        self._events.put_nowait(RuntimeEvent("sandbox-died", sandbox_id, sandbox_id))

    def config(self, container_id: str) -> ContainerConfig:
        """What the container was made from."""
        return self._container(container_id).config

    # RuntimeService

    async def start(self) -> None:
        self._called("start", "")

    async def close(self) -> None:
        self._called("close", "")

    async def run_pod_sandbox(self, config: SandboxConfig) -> SandboxStatus:
        self._called("run_pod_sandbox", config.name)
        number = next(self._serial)
        id = f"{number:064x}"
        status = SandboxStatus(
            id=id,
            namespace=config.namespace,
            name=config.name,
            uid=config.uid,
            attempt=config.attempt,
            state=SandboxState.READY,
            created_at=time.time(),
            ips=(f"10.244.0.{number % 250 + 2}",) if config.network == "pod" else (),
            pid=100_000 + number,
            netns=f"/run/netns/{id}" if config.network == "pod" else "",
            labels=dict(config.labels),
            annotations=dict(config.annotations),
        )
        self._sandboxes[id] = status
        self.pod_configs[id] = config
        return status

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        self._called("stop_pod_sandbox", sandbox_id)
        for container in self._of(sandbox_id):
            if container.status.state is ContainerState.RUNNING:
                self._finish(container, 137)
        if status := self._sandboxes.get(sandbox_id):
            self._sandboxes[sandbox_id] = replace(status, state=SandboxState.NOT_READY, pid=0, ips=())

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        self._called("remove_pod_sandbox", sandbox_id)
        await self.stop_pod_sandbox(sandbox_id)
        for container in self._of(sandbox_id):
            await self.remove_container(container.status.id)
        self._sandboxes.pop(sandbox_id, None)
        self.pod_configs.pop(sandbox_id, None)

    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        return self._sandbox(sandbox_id)

    async def list_pod_sandboxes(self) -> list[SandboxStatus]:
        return list(self._sandboxes.values())

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        self._called("create_container", config.name)
        if self._sandbox(sandbox_id).state is not SandboxState.READY:
            raise RuntimeFailure(f"sandbox {sandbox_id} is not running", "CreateContainerError")
        id = f"{next(self._serial):064x}"
        log_path = f"{self.pod_configs[sandbox_id].log_directory}/{config.log_path}"
        self._containers[id] = _Container(id, sandbox_id, config, log_path)
        return id

    async def start_container(self, container_id: str) -> None:
        self._called("start_container", container_id)
        container = self._container(container_id)
        if container.status.state is not ContainerState.CREATED:
            raise RuntimeFailure(f"container {container_id} is not in created state", "RunContainerError")
        args = (*(container.config.command or ()), *(container.config.args or ()))
        program = self.programs.get(_name(args[0])) if args else self.default
        if program is None:
            message = f'exec: "{args[0]}": executable file not found in $PATH'
            self._finish(container, 128, "StartError", message)
            raise RuntimeFailure(message, "RunContainerError")
        stdin = asyncio.StreamReader()
        if not container.config.stdin:
            stdin.feed_eof()
        container.call = Call(args, stdin, [], [])
        container.status = replace(
            container.status,
            state=ContainerState.RUNNING,
            started_at=time.time(),
            pid=200_000 + next(self._serial),
        )
        container.task = self._run(program, container.call)
        container.task.add_done_callback(
            lambda task: self._finish(container, 137 if task.cancelled() else task.result())
        )

    async def stop_container(self, container_id: str, timeout: float) -> None:
        self._called("stop_container", container_id)
        container = self._containers.get(container_id)
        if container and container.status.state is ContainerState.RUNNING:
            name = container.config.stop_signal or "SIGTERM"
            self._finish(container, 128 + signal.Signals[name].value)

    async def remove_container(self, container_id: str) -> None:
        self._called("remove_container", container_id)
        container = self._containers.get(container_id)
        if container and container.status.state is ContainerState.RUNNING:
            self._finish(container, 137)
        self._containers.pop(container_id, None)

    async def container_status(self, container_id: str) -> ContainerStatus:
        return self._container(container_id).status

    async def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]:
        return [
            container.status
            for container in self._containers.values()
            if sandbox_id in ("", container.status.sandbox_id)
        ]

    async def update_container_resources(self, container_id: str, resources: Resources) -> None:
        self._called("update_container_resources", container_id)
        container = self._container(container_id)
        container.config = replace(container.config, resources=resources)

    async def reopen_container_log(self, container_id: str) -> None:
        self._called("reopen_container_log", container_id)
        self._running(container_id)

    async def exec_sync(
        self, container_id: str, command: Sequence[str], timeout: float = 0, limit: int = 16 * 1024
    ) -> ExecResult:
        self._called("exec_sync", container_id)
        process = await self.exec(container_id, command, stdin=False, tty=False)
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(timeout or None):
                code = await process.wait()
        except TimeoutError:
            await process.close()
            raise
        return ExecResult(code, (await process.stdout.read())[:limit], (await process.stderr.read())[:limit])

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Process:
        self._called("exec", container_id)
        self._running(container_id)
        program = self.programs.get(_name(command[0]))
        if program is None:
            raise RuntimeFailure(f'exec: "{command[0]}": executable file not found in $PATH')
        reader = asyncio.StreamReader()
        if not stdin:
            reader.feed_eof()
        call = Call(tuple(command), reader, [], [])
        return FakeProcess(call, self._run(program, call), stdin=stdin, tty=tty, owner=True)

    async def attach(self, container_id: str) -> Process:
        self._called("attach", container_id)
        container = self._running(container_id)
        assert container.call is not None
        assert container.task is not None
        return FakeProcess(
            container.call,
            container.task,
            stdin=container.config.stdin,
            tty=container.config.tty,
            owner=False,
        )

    async def open_port(
        self, sandbox_id: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._called("open_port", sandbox_id)
        program = self.ports.get((self._sandbox(sandbox_id).id, port))
        if program is None:
            raise ConnectionRefusedError(
                f"connect to localhost:{port} inside {sandbox_id}: connection refused"
            )
        ours, theirs = asyncio.StreamReader(), asyncio.StreamReader()
        self._run(program, Call((), theirs, [ours], [])).add_done_callback(lambda _: ours.feed_eof())
        return ours, memory_writer(theirs)

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        while True:
            yield await self._events.get()

    # Inside

    def _called(self, method: str, id: str) -> None:
        self.calls.append((method, id))
        if waiting := self._failures.get(method):
            raise waiting.pop(0)

    def _sandbox(self, id: str) -> SandboxStatus:
        if status := self._sandboxes.get(id):
            return status
        raise NotFound(f"sandbox {id} not found")

    def _container(self, id: str) -> _Container:
        if container := self._containers.get(id):
            return container
        raise NotFound(f"container {id} not found")

    def _running(self, id: str) -> _Container:
        container = self._container(id)
        if container.status.state is not ContainerState.RUNNING:
            raise RuntimeFailure(f"container {id} is not running")
        return container

    def _of(self, sandbox_id: str) -> list[_Container]:
        return [one for one in self._containers.values() if one.status.sandbox_id == sandbox_id]

    def _run(self, program: Program, call: Call) -> asyncio.Task[int]:
        async def run() -> int:
            return await program(call)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _finish(self, container: _Container, exit_code: int, reason: str = "", message: str = "") -> None:
        if container.status.state is ContainerState.EXITED:
            return
        container.status = replace(
            container.status,
            state=ContainerState.EXITED,
            finished_at=time.time(),
            exit_code=exit_code,
            reason=reason or ("Error" if exit_code else "Completed"),
            message=message,
            pid=0,
        )
        if container.task:
            container.task.cancel()
        container.ended.set()
        self._events.put_nowait(
            RuntimeEvent("container-exited", container.status.id, container.status.sandbox_id)
        )
