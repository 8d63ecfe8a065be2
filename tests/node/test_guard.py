"""Nothing of a pod runs before whoever guards its addresses has let it in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sampan.api.errors import Object
from sampan.node.runtime.types import SandboxState
from tests.node.harness import Node


class Gate:
    """Lets pods in when `open` is set, or refuses them."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.refusals = 0
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.left: list[str] = []
        self.found: Mapping[str, tuple[str, ...]] | None = None
        self.knocked = asyncio.Event()

    def taken_up(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        self.found = dict(addresses)

    async def admit(self, pod: Object, addresses: tuple[str, ...]) -> None:
        self.asked.append((pod["metadata"]["uid"], addresses))
        self.knocked.set()
        if self.refusals:
            self.refusals -= 1
            raise OSError(22, "the kernel refuses it")
        await self.open.wait()

    def released(self, uid: str) -> None:
        self.left.append(uid)


async def _guarded(node: Node, gate: Gate) -> None:
    await node.stop()
    await node.start()
    node.agent.context.guard = gate


async def test_containers_start_once_the_pod_is_let_in(node: Node) -> None:
    gate = Gate()
    await _guarded(node, gate)
    uid = node.add()["metadata"]["uid"]
    await gate.knocked.wait()
    [sandbox] = await node.runtime.list_pod_sandboxes()
    assert gate.asked == [(uid, sandbox.ips)]
    assert await node.runtime.list_containers() == []
    gate.open.set()
    await node.until_ready()
    assert gate.found == {}
    await _guarded(node, again := Gate())
    await node.until_true(lambda: again.found is not None)
    assert again.found == {uid: sandbox.ips}
    assert again.asked == [], "what runs is not asked about again"
    node.client.graceful_delete("default", "web", 0)
    await node.until_left(uid)
    assert uid in again.left


async def test_a_pod_that_is_not_let_in_has_no_sandbox_and_is_tried_again(node: Node) -> None:
    gate = Gate()
    gate.refusals = 1
    gate.open.set()
    await _guarded(node, gate)
    uid = node.add()["metadata"]["uid"]
    await node.until_ready()
    assert [asked for asked, _ in gate.asked] == [uid, uid]
    assert gate.left == [uid]
    ready = [s for s in await node.runtime.list_pod_sandboxes() if s.state is SandboxState.READY]
    assert len(ready) == 1
    events = [(reason, message) for _, reason, message in await node.events()]
    assert (
        "FailedCreatePodSandBox",
        "Failed to create pod sandbox: [Errno 22] the kernel refuses it",
    ) in events
