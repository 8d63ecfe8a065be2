"""The informer against a script: lists and watches happen as the test says, one after the other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from sampan.api.errors import Object, StatusError, gone
from sampan.api.resources import PODS
from sampan.client import informer as informer_module
from sampan.client.informer import HandlerFailed, Informer
from sampan.client.types import Client, ConnectionLost, EventType, ObjectList, WatchEvent


def pod(name: str, revision: int, node: str = "") -> Object:
    meta = {"name": name, "namespace": "ns", "resourceVersion": str(revision)}
    return {"metadata": meta, "spec": {"nodeName": node}}


class Script:
    """Lists are what `lists` holds next; watches play `events` (an exception is raised, None ends the watch)."""

    def __init__(self) -> None:
        self.lists: asyncio.Queue[ObjectList | Exception] = asyncio.Queue()
        self.events: asyncio.Queue[WatchEvent | Exception | None] = asyncio.Queue()
        self.watched_from: list[str] = []

    async def list(self, resource: Any, namespace: str = "", **options: Any) -> ObjectList:
        found = await self.lists.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def watch(self, resource: Any, namespace: str = "", **options: Any) -> AsyncIterator[WatchEvent]:
        self.watched_from.append(options["resource_version"])
        while (event := await self.events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    def has(self, revision: int, *objects: Object) -> None:
        self.lists.put_nowait(ObjectList(objects, str(revision)))

    def tells(self, kind: EventType, obj: Object) -> None:
        self.events.put_nowait(WatchEvent(kind, obj))


class Running:
    """An informer that runs, and the changes that its handler was told of."""

    def __init__(self, script: Script) -> None:
        self.informer = Informer(
            cast(Client, script),
            PODS,
            indexes={"node": lambda o: [o["spec"]["nodeName"]] if o["spec"] else []},
        )
        self.changes: asyncio.Queue[tuple[Object | None, Object | None]] = asyncio.Queue()
        self.informer.add_handler(lambda old, new: self.changes.put_nowait((old, new)))

    async def __aenter__(self) -> Running:
        self.task = asyncio.ensure_future(self.informer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task

    async def change(self) -> tuple[Object | None, Object | None]:
        return await asyncio.wait_for(self.changes.get(), 10)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setattr(informer_module, "_BACKOFF_FIRST", 0.001)
    return Script()


async def test_it_lists_then_follows(script: Script) -> None:
    a, a2, b = pod("a", 1), pod("a", 6, "n1"), pod("b", 7, "n1")
    script.has(5, a)
    async with Running(script) as running:
        informer = running.informer
        await asyncio.wait_for(informer.synced.wait(), 10)
        assert await running.change() == (None, a)
        script.tells("MODIFIED", a2)
        script.tells("ADDED", b)
        assert await running.change() == (a, a2)
        assert await running.change() == (None, b)
        assert informer.get("ns", "a") is a2
        assert informer.get_by_key("ns/b") is b
        assert informer.list() == informer.list("ns") == [a2, b]
        assert informer.by_index("node", "n1") == [a2, b]
        assert informer.by_index("node", "") == []
        last = pod("a", 8, "n1")
        script.tells("DELETED", last)
        assert await running.change() == (last, None)
        assert informer.get("ns", "a") is None
        assert informer.by_index("node", "n1") == [b]
        late: list[Any] = []
        informer.add_handler(lambda old, new: late.append((old, new)))
        assert late == [(None, b)]


async def test_it_takes_up_the_watch_where_it_ended(script: Script) -> None:
    script.has(5)
    async with Running(script) as running:
        script.tells("ADDED", pod("a", 6))
        script.tells("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
        script.events.put_nowait(None)
        script.events.put_nowait(ConnectionLost("cut"))
        script.tells("ADDED", pod("b", 10))
        await running.change()
        await running.change()
        assert script.watched_from == ["5", "9", "9"]


async def test_after_a_410_only_the_difference_is_told(script: Script) -> None:
    kept, dropped, changed = pod("kept", 1), pod("dropped", 2), pod("changed", 3)
    script.has(5, kept, dropped, changed)
    async with Running(script) as running:
        for _ in range(3):
            await running.change()
        newer, new = pod("changed", 7), pod("new", 8)
        script.has(9, pod("kept", 1), newer, new)
        script.events.put_nowait(gone("too old"))
        assert await running.change() == (dropped, None)
        assert await running.change() == (changed, newer)
        assert await running.change() == (None, new)
        script.tells("DELETED", pod("new", 10))
        await running.change()
        assert script.watched_from == ["5", "9"]


async def test_failures_of_the_api_are_tried_again(script: Script) -> None:
    script.lists.put_nowait(ConnectionLost("not up yet"))
    script.lists.put_nowait(StatusError(403, "Forbidden", "not yet"))
    script.has(5, pod("a", 1))
    async with Running(script) as running:
        await running.change()
        script.tells("ADDED", pod("b", 6))
        await running.change()
        assert len(running.informer.list()) == 2


async def test_a_handler_that_fails_ends_it(script: Script) -> None:
    script.has(5, pod("a", 1))
    broken = ValueError("broken handler")

    def fail(old: Object | None, new: Object | None) -> None:
        if new is not None and new["metadata"]["name"] == "b":
            raise broken

    informer = Informer(cast(Client, script), PODS)
    informer.add_handler(fail)
    script.tells("ADDED", pod("b", 6))
    with pytest.raises(HandlerFailed, match="a handler for pods failed on ns/b: ValueError") as failed:
        await asyncio.wait_for(informer.run(), 10)
    assert failed.value.__cause__ is broken


async def test_pauses_grow_while_nothing_works(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)
    monkeypatch.setattr(asyncio, "sleep", note)
    script.has(5)
    for _ in range(4):
        script.events.put_nowait(ConnectionLost("refused"))
    script.tells("ADDED", pod("a", 6))
    script.events.put_nowait(ConnectionLost("cut"))
    script.tells("ADDED", pod("b", 7))
    async with Running(script) as running:
        await running.change()
        await running.change()
    assert pauses == [0.001, 0.002, 0.004, 0.008, 0.001]
