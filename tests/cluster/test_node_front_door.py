"""The front door of a machine that joined is as the cluster's class says at the moment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sampan.api.front_doors import Terms
from sampan.api.resources import INGRESSCLASSES, NODES
from sampan.client.types import MERGE_PATCH
from sampan.cluster import node_front_door
from sampan.cluster.node_parts import NodePlace
from sampan.ingress.own_objects import ingress_class
from tests.controllers.conftest import api, running

__all__ = ["api"]
pytestmark = pytest.mark.timeout(60)


def place(root: Path) -> NodePlace:
    return NodePlace(
        name="edge", addresses=("192.0.2.1",), pod_cidrs=(), cluster_pod_cidrs=(), service_cidrs=(), dns_addresses=(),
        root=root, run=root, cgroup="", images=root, registries=root, certificate=root, key=root, client_ca=root,
        ingress_log=root / "log", ingress_as_told=True,
    )  # fmt: skip


class Ready:
    """A registration that is done."""

    def __init__(self) -> None:
        self.node: dict[str, Any] = {}
        self.ready = asyncio.Event()
        self.ready.set()


async def test_it_follows_the_class(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def open_(client: Any, place: NodePlace, log_file: Path, proxy_protocol: bool) -> None:
        seen.put_nowait(f"open {proxy_protocol}")
        try:
            await asyncio.Event().wait()
        finally:
            seen.put_nowait("left open")

    async def shut(place: NodePlace) -> None:
        seen.put_nowait("shut")

    monkeypatch.setattr(node_front_door, "_open", open_)
    monkeypatch.setattr(node_front_door, "_shut", shut)
    await api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge"}})

    async def told(why: str) -> None:
        """Until the Node says that it does not serve, and why."""
        async with asyncio.timeout(10):
            while why not in str(await api.get(NODES, "", "edge")):
                await asyncio.sleep(0.01)

    async def say(terms: Terms, **more: str) -> None:
        change = {"metadata": {"annotations": {**terms.annotations(), **more}}}
        await api.patch(INGRESSCLASSES, "", "sampan", change, content_type=MERGE_PATCH)

    async with running(node_front_door.run(api, place(tmp_path), Ready())):  # type: ignore[arg-type]
        assert await seen.get() == "shut"
        await told(node_front_door.NONE_THERE)
        await api.create(INGRESSCLASSES, ingress_class())
        assert await seen.get() == "open False"
        await say(Terms(), other="is nobody's business")
        every = Terms(proxy_protocol=True)
        await say(every)
        assert [await seen.get() for _ in range(2)] == ["left open", "open True"]
        await say(replace(every, nodes=("node-1",)))
        assert [await seen.get() for _ in range(2)] == ["left open", "shut"]
        await told(node_front_door.NOT_CHOSEN)
        await say(replace(every, nodes=("node-1", "edge")))
        assert await seen.get() == "open True"
        await api.delete(INGRESSCLASSES, "", "sampan")
        assert [await seen.get() for _ in range(2)] == ["left open", "shut"]
        await told(node_front_door.NONE_THERE)
    assert seen.empty()


async def test_there_is_nothing_to_shut_where_nothing_was(tmp_path: Path) -> None:
    await node_front_door._shut(place(tmp_path))
    (tmp_path / "ingress").mkdir()
    await node_front_door._shut(place(tmp_path))
    assert not list((tmp_path / "ingress").iterdir())
