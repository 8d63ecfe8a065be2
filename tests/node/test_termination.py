"""How containers end: how long they get, and what they leave to be told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sampan.node.container_start import TERMINATION_FILE, TERMINATION_POLICY, termination_message
from tests.node.harness import Node
from tests.node.test_probes import PROBE, Switch, pod


@pytest.fixture
def graces(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each container got that was stopped."""
    given: list[float] = []
    stop = node.runtime.stop_container

    async def note(container_id: str, timeout: float) -> None:
        given.append(round(timeout))
        await stop(container_id, timeout)

    monkeypatch.setattr(node.runtime, "stop_container", note)
    return given


@pytest.mark.parametrize(("own", "given"), [(None, 30), (7, 7), (1, 1)])
async def test_a_probe_has_a_grace_period_of_its_own(
    node: Node, graces: list[float], own: int | None, given: int
) -> None:
    switch = Switch(node)
    probe: dict[str, Any] = dict(PROBE) if own is None else {**PROBE, "terminationGracePeriodSeconds": own}
    node.add(containers=pod(livenessProbe=probe), terminationGracePeriodSeconds=30)
    await node.until_ready()
    switch.good = False
    await node.until(lambda: node.container().get("restartCount") == 1)
    assert graces[0] == given


async def test_every_container_gets_two_seconds_at_least(node: Node, graces: list[float]) -> None:
    node.add()
    await node.until_ready()
    node.client.graceful_delete("default", "web", 1)
    await node.until(lambda: node.pod() is None)
    assert graces == [2]


async def test_a_container_is_ready_until_it_has_ended_unless_its_probe_says_otherwise(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no other pod is ready, connections still lead to one that ends."""
    switch = Switch(node)
    node.add(containers=pod(readinessProbe=PROBE, livenessProbe=PROBE))
    await node.until_ready()
    told, may_end, stop = asyncio.Event(), asyncio.Event(), node.runtime.stop_container

    async def slowly(container_id: str, timeout: float) -> None:
        told.set()
        await may_end.wait()
        await stop(container_id, timeout)

    monkeypatch.setattr(node.runtime, "stop_container", slowly)
    node.client.graceful_delete("default", "web", 30)
    await told.wait()
    assert node.condition("Ready")["status"] == "True"
    switch.good = False
    await node.until(lambda: node.condition("Ready")["status"] == "False")
    switch.good = True
    await node.until_ready()
    assert node.container()["restartCount"] == 0, "it is not restarted any more"
    may_end.set()
    await node.until(lambda: node.pod() is None)


def test_messages(tmp_path: Path) -> None:
    file, log = tmp_path / "message", tmp_path / "0.log"
    file.write_text("")
    stamp = "2026-11-24T00:00:00.000000000Z stdout"
    log.write_text("".join(f"{stamp} F line {n}\n" for n in range(100)) + f"{stamp} P no end\n")

    def told(policy: str, exit_code: int) -> str:
        annotations = {TERMINATION_FILE: str(file), TERMINATION_POLICY: policy}
        return termination_message(annotations, exit_code, tmp_path, "0.log")

    assert told("File", 1) == ""
    assert told("FallbackToLogsOnError", 0) == ""
    tail = told("FallbackToLogsOnError", 1).splitlines()
    assert (len(tail), tail[0], tail[-1]) == (80, "line 21", "no end")
    file.write_text("x" * 5000)
    assert told("FallbackToLogsOnError", 1) == "x" * 4096
    assert termination_message({}, 1, tmp_path, "0.log") == ""
