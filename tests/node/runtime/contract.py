"""What every RuntimeService must do. Subclasses give a fixture `runtime` (started) and `sandbox_config`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sampan.node.runtime.types import (
    ContainerConfig,
    ContainerState,
    NotFound,
    Resources,
    RuntimeFailure,
    RuntimeService,
    SandboxConfig,
    SandboxState,
)


def container(*command: str, name: str = "main", **more: Any) -> ContainerConfig:
    return ContainerConfig(
        name=name, attempt=0, image="busybox", command=command, log_path=f"{name}/0.log", **more
    )


async def started(runtime: RuntimeService, sandbox_id: str, config: ContainerConfig) -> str:
    id = await runtime.create_container(sandbox_id, config)
    await runtime.start_container(id)
    return id


class RuntimeContract:
    @pytest.fixture
    async def sandbox_id(self, runtime: RuntimeService, sandbox_config: SandboxConfig) -> str:
        return (await runtime.run_pod_sandbox(sandbox_config)).id

    async def test_sandbox_life(self, runtime: RuntimeService, sandbox_config: SandboxConfig) -> None:
        made = await runtime.run_pod_sandbox(sandbox_config)
        assert made.state is SandboxState.READY
        assert made.ips
        assert made.pid > 0
        assert made.netns
        assert (made.namespace, made.name, made.uid) == (
            sandbox_config.namespace,
            sandbox_config.name,
            sandbox_config.uid,
        )
        assert made.labels == sandbox_config.labels
        assert await runtime.list_pod_sandboxes() == [made]
        assert await runtime.pod_sandbox_status(made.id) == made
        await runtime.stop_pod_sandbox(made.id)
        assert (await runtime.pod_sandbox_status(made.id)).state is SandboxState.NOT_READY
        with pytest.raises(RuntimeFailure):
            await runtime.create_container(made.id, container("true"))
        await runtime.stop_pod_sandbox(made.id)
        await runtime.remove_pod_sandbox(made.id)
        assert await runtime.list_pod_sandboxes() == []
        with pytest.raises(NotFound):
            await runtime.pod_sandbox_status(made.id)

    async def test_what_is_gone_can_be_stopped_and_removed(self, runtime: RuntimeService) -> None:
        await runtime.stop_pod_sandbox("none")
        await runtime.remove_pod_sandbox("none")
        await runtime.stop_container("none", 1)
        await runtime.remove_container("none")
        with pytest.raises(NotFound):
            await runtime.container_status("none")
        with pytest.raises(NotFound):
            await runtime.start_container("none")
        with pytest.raises(NotFound):
            await runtime.create_container("none", container("true"))

    async def test_container_life(
        self, runtime: RuntimeService, sandbox_id: str, sandbox_config: SandboxConfig
    ) -> None:
        id = await runtime.create_container(sandbox_id, container("sleep", "1000", labels={"a": "b"}))
        status = await runtime.container_status(id)
        assert (status.state, status.sandbox_id, status.name) == (ContainerState.CREATED, sandbox_id, "main")
        assert status.labels == {"a": "b"}
        assert status.log_path == f"{sandbox_config.log_directory}/main/0.log"
        await runtime.start_container(id)
        status = await runtime.container_status(id)
        assert status.state is ContainerState.RUNNING
        assert status.pid > 0
        assert status.started_at >= status.created_at > 0
        assert await runtime.list_containers(sandbox_id) == [status] == await runtime.list_containers()
        with pytest.raises(RuntimeFailure):
            await runtime.start_container(id)
        await runtime.stop_container(id, 0)
        status = await runtime.container_status(id)
        assert status.state is ContainerState.EXITED
        assert status.exit_code > 128
        assert status.reason == "Error"
        assert status.finished_at >= status.started_at
        await runtime.remove_container(id)
        assert await runtime.list_containers() == []

    @pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (3, "Error")])
    async def test_an_end_is_an_event(
        self, runtime: RuntimeService, sandbox_id: str, code: int, reason: str
    ) -> None:
        id = await started(runtime, sandbox_id, container("sh", "-c", f"exit {code}"))
        async with asyncio.timeout(10):
            event = await anext(runtime.events())
        assert (event.kind, event.id, event.sandbox_id) == ("container-exited", id, sandbox_id)
        status = await runtime.container_status(id)
        assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, code, reason)

    async def test_a_command_that_is_not_there(self, runtime: RuntimeService, sandbox_id: str) -> None:
        id = await runtime.create_container(sandbox_id, container("no-such-program"))
        message = 'exec: "no-such-program": executable file not found in \\$PATH'
        with pytest.raises(RuntimeFailure, match=message) as caught:
            await runtime.start_container(id)
        assert caught.value.reason == "RunContainerError"
        status = await runtime.container_status(id)
        assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, 128, "StartError")
        assert 'exec: "no-such-program": executable file not found in $PATH' in status.message
        await runtime.remove_container(id)

    async def test_exec_sync(self, runtime: RuntimeService, sandbox_id: str) -> None:
        id = await started(runtime, sandbox_id, container("sleep", "1000"))
        result = await runtime.exec_sync(id, ["echo", "a", "b"])
        assert (result.exit_code, result.stdout, result.stderr) == (0, b"a b\n", b"")
        assert (await runtime.exec_sync(id, ["sh", "-c", "exit 7"])).exit_code == 7
        assert (await runtime.exec_sync(id, ["echo", "long"], limit=2)).stdout == b"lo"
        with pytest.raises(RuntimeFailure, match="executable file not found"):
            await runtime.exec_sync(id, ["no-such-program"])
        with pytest.raises(TimeoutError):
            await runtime.exec_sync(id, ["sleep", "1000"], timeout=0.2)

    async def test_exec_with_input(self, runtime: RuntimeService, sandbox_id: str) -> None:
        id = await started(runtime, sandbox_id, container("sleep", "1000"))
        process = await runtime.exec(id, ["cat"], stdin=True, tty=False)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        big = bytes(range(256)) * 4096
        process.stdin.write(big)
        process.stdin.write_eof()
        async with asyncio.timeout(10):
            assert await process.stdout.read() == big
            assert await process.stderr.read() == b""
            assert await process.wait() == 0
        await process.close()

    async def test_closing_ends_the_command(self, runtime: RuntimeService, sandbox_id: str) -> None:
        id = await started(runtime, sandbox_id, container("sleep", "1000"))
        process = await runtime.exec(id, ["sleep", "1000"], stdin=False, tty=False)
        assert process.stdin is None
        await process.close()
        async with asyncio.timeout(10):
            assert await process.wait() == 137
        assert (await runtime.container_status(id)).state is ContainerState.RUNNING

    async def test_attach(self, runtime: RuntimeService, sandbox_id: str) -> None:
        id = await started(runtime, sandbox_id, container("cat", stdin=True, stdin_once=True))
        process = await runtime.attach(id)
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"hello\n")
        async with asyncio.timeout(10):
            assert await process.stdout.readline() == b"hello\n"
            process.stdin.write_eof()
            assert await process.wait() == 0
        await process.close()

    async def test_detaching_leaves_the_container(self, runtime: RuntimeService, sandbox_id: str) -> None:
        id = await started(runtime, sandbox_id, container("cat", stdin=True))
        for _ in range(2):
            process = await runtime.attach(id)
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"again\n")
            async with asyncio.timeout(10):
                assert await process.stdout.readline() == b"again\n"
            await process.close()
        assert (await runtime.container_status(id)).state is ContainerState.RUNNING

    async def test_nothing_runs_in_what_has_ended(self, runtime: RuntimeService, sandbox_id: str) -> None:
        id = await started(runtime, sandbox_id, container("true"))
        async with asyncio.timeout(10):
            await anext(runtime.events())
        for attempt in (
            runtime.exec_sync(id, ["true"]),
            runtime.exec(id, ["true"], stdin=False, tty=False),
            runtime.attach(id),
            runtime.reopen_container_log(id),
        ):
            with pytest.raises(RuntimeFailure):
                await attempt

    async def test_resources_can_change(self, runtime: RuntimeService, sandbox_id: str) -> None:
        id = await started(runtime, sandbox_id, container("sleep", "1000"))
        await runtime.update_container_resources(id, Resources(cpu_shares=512, memory_bytes=64 << 20))
        await runtime.reopen_container_log(id)

    async def test_removing_a_sandbox_removes_its_containers(
        self, runtime: RuntimeService, sandbox_id: str
    ) -> None:
        await started(runtime, sandbox_id, container("sleep", "1000"))
        await runtime.create_container(sandbox_id, container("true", name="other"))
        await runtime.remove_pod_sandbox(sandbox_id)
        assert await runtime.list_containers() == []
        assert await runtime.list_pod_sandboxes() == []
