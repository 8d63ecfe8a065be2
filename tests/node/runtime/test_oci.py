"""The OCI runtime with real namespaces, conmon and crun (or runc)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sampan.node.runtime.types import ContainerConfig, ContainerState

from .conftest import Place

pytestmark = pytest.mark.root


def shell(script: str, **more: object) -> ContainerConfig:
    return ContainerConfig(
        name="main",
        attempt=0,
        image="busybox",
        command=["sh", "-c", script],
        log_path="main/0.log",
        **more,  # type: ignore[arg-type]
    )


async def test_a_container_runs_writes_its_log_and_ends(place: Place) -> None:
    runtime = await place.runtime()
    sandbox = await runtime.run_pod_sandbox(place.sandbox())
    id = await runtime.create_container(sandbox.id, shell("echo hello from $(hostname); exit 3"))
    await runtime.start_container(id)
    async with asyncio.timeout(10):
        event = await anext(runtime.events())
    assert (event.kind, event.id) == ("container-exited", id)
    status = await runtime.container_status(id)
    assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, 3, "Error")
    log = Path(place.directory, "logs/pod/main/0.log").read_text()
    assert log.split(" ", 1)[1] == "stdout F hello from pod\n"
