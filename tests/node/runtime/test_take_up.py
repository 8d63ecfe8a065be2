"""What a runtime finds again after its process was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from sampan.node.runtime.process import start_ticks
from sampan.node.runtime.types import ContainerState, RuntimeFailure, SandboxState

from .conftest import Place
from .contract import container, started

pytestmark = pytest.mark.root


async def test_what_runs_goes_on_and_is_known(place: Place) -> None:
    first = await place.runtime()
    sandbox = await first.run_pod_sandbox(place.sandbox(labels={"a": "b"}))
    id = await started(first, sandbox.id, container("cat", stdin=True, stdin_once=True))
    before = await first.container_status(id)
    await first.close()
    second = await place.runtime()
    assert await second.list_pod_sandboxes() == [sandbox]
    assert await second.list_containers() == [before]
    assert (await second.exec_sync(id, ["echo", "x"])).stdout == b"x\n"
    process = await second.attach(id)
    assert process.stdin
    process.stdin.write_eof()
    async with asyncio.timeout(10):
        event = await anext(second.events())
    assert (event.kind, event.id) == ("container-exited", id)
    assert (await second.container_status(id)).exit_code == 0
    await process.close()


async def test_what_ended_meanwhile_is_told(place: Place) -> None:
    first = await place.runtime()
    sandbox = await first.run_pod_sandbox(place.sandbox())
    id = await started(first, sandbox.id, container("sh", "-c", "read line; exit 5", stdin=True))
    process = await first.attach(id)
    pidfd = os.pidfd_open(first._containers[id].record.conmon.pid)
    for runtime in place.runtimes:
        await runtime.close()
    assert process.stdin
    process.stdin.write(b"\n")
    loop = asyncio.get_running_loop()
    gone = loop.create_future()
    loop.add_reader(pidfd, lambda: gone.done() or gone.set_result(None))
    async with asyncio.timeout(10):
        await gone
    loop.remove_reader(pidfd)
    os.close(pidfd)
    second = await place.runtime()
    async with asyncio.timeout(10):
        event = await anext(second.events())
    status = await second.container_status(id)
    assert (event.id, status.exit_code, status.reason) == (id, 5, "Error")
    await process.close()


async def test_a_supervisor_that_died(place: Place) -> None:
    runtime = await place.runtime()
    sandbox = await runtime.run_pod_sandbox(place.sandbox())
    id = await started(runtime, sandbox.id, container("sleep", "1000"))
    pid = (await runtime.container_status(id)).pid
    runtime._containers[id].record.conmon.kill(signal.SIGKILL)
    async with asyncio.timeout(10):
        await anext(runtime.events())
    status = await runtime.container_status(id)
    assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, 255, "Unknown")
    await runtime.remove_container(id)
    assert start_ticks(pid) == 0


async def test_after_the_hosts_restart(place: Place) -> None:
    first = await place.runtime()
    sandbox = await first.run_pod_sandbox(place.sandbox())
    id = await started(first, sandbox.id, container("sleep", "1000"))
    await first.stop_container(id, 0)
    await first.close()
    # The records are those of another boot, with pids that are others' now.
    for record in Path(place.directory, "state").glob("*/*/record.json"):
        text = record.read_text().replace('"CONTAINER_EXITED"', '"CONTAINER_RUNNING"')
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        record.write_text(text.replace(boot, "another"))
    (Path(place.directory, "run/exits") / id).unlink()
    os.kill(sandbox.pid, signal.SIGKILL)
    second = await place.runtime()
    assert (await second.pod_sandbox_status(sandbox.id)).state is SandboxState.NOT_READY
    assert (await second.container_status(id)).exit_code == 255


async def test_an_interrupted_create_leaves_nothing(place: Place) -> None:
    runtime = await place.runtime()
    sandbox = await runtime.run_pod_sandbox(place.sandbox())
    id = await runtime.create_container(sandbox.id, container("true"))
    Path(place.directory, "state/containers", id, "record.json").unlink()
    await runtime.close()
    second = await place.runtime()
    assert await second.list_containers() == []
    assert not Path(place.directory, "state/containers", id).exists()


async def test_an_interrupted_start_is_an_end(place: Place) -> None:
    runtime = await place.runtime()
    sandbox = await runtime.run_pod_sandbox(place.sandbox())
    id = await started(runtime, sandbox.id, container("sleep", "1000"))
    pid = (await runtime.container_status(id)).pid
    record = Path(place.directory, "state/containers", id, "record.json")
    record.write_text(record.read_text().replace('"CONTAINER_RUNNING"', '"CONTAINER_CREATED"'))
    await runtime.close()
    second = await place.runtime()
    status = await second.container_status(id)
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 255)
    assert start_ticks(pid) == 0


@pytest.mark.parametrize("step", ["sandbox", "create", "start", "running", "remove"])
@pytest.mark.parametrize("after", [0, 0.001, 0.004, 0.01])
async def test_killed_at_any_moment(place: Place, rootfs: str, step: str, after: float) -> None:
    """What a killed process leaves is either whole or can be removed; the fixture sees that nothing stays."""
    victim = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("victim.py")),
        place.directory,
        rootfs,
        place.cgroup,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert victim.stdout
    async with asyncio.timeout(20):
        running, line = 0, ""
        while running < 2 or line != step:
            line = (await victim.stdout.readline()).decode().strip()
            assert line, "the victim ended by itself"
            running += line == "running"
    await asyncio.sleep(after)  # not to wait for anything: the moment is the test's parameter
    victim.kill()
    await victim.wait()
    runtime = await place.runtime()
    sandboxes = {sandbox.id: sandbox.state for sandbox in await runtime.list_pod_sandboxes()}
    containers = await runtime.list_containers()
    assert len([one for one in containers if one.state is ContainerState.RUNNING]) >= 1
    for one in containers:
        assert one.sandbox_id in sandboxes
        if one.state is ContainerState.RUNNING:
            assert sandboxes[one.sandbox_id] is SandboxState.READY
            try:
                assert (await runtime.exec_sync(one.id, ["echo", "alive"])).stdout == b"alive\n"
            except RuntimeFailure:
                # The victim may have told it to stop just before it was killed itself.
                assert (await runtime.container_status(one.id)).state is ContainerState.EXITED
    for id in sandboxes:
        await runtime.remove_pod_sandbox(id)
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if place.directory.encode() in process.read_bytes():
                await _ended(int(process.parent.name))


async def _ended(pid: int) -> None:
    """Return once a process that is on its way out has ended; fail if it stays."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, gone.set)
        async with asyncio.timeout(20):
            await gone.wait()
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
