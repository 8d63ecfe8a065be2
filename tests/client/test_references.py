"""Objects that others refer to: who is told of what, and that nobody is followed longer than somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from sampan.api.errors import Object
from sampan.api.resources import CONFIGMAPS, SECRETS
from sampan.client.references import ReferencedObjects
from sampan.client.types import Client, ObjectList, WatchEvent


class Api:
    """Lists wait until `open` is set; `events` has a queue for each object that is watched."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.objects: dict[str, Object] = {}
        self.events: dict[str, asyncio.Queue[WatchEvent]] = {}

    async def list(self, resource: Any, namespace: str = "", *, field_selector: str, **_: Any) -> ObjectList:
        await self.open.wait()
        found = self.objects.get(field_selector.removeprefix("metadata.name="))
        return ObjectList((found,) if found else (), "1")

    async def watch(
        self, resource: Any, namespace: str = "", *, field_selector: str, **_: Any
    ) -> AsyncIterator[WatchEvent]:
        queue = self.events[field_selector.removeprefix("metadata.name=")] = asyncio.Queue()
        try:
            while True:
                yield await queue.get()
        finally:
            del self.events[field_selector.removeprefix("metadata.name=")]


def secret(name: str, revision: int) -> Object:
    return {"metadata": {"name": name, "namespace": "ns", "resourceVersion": str(revision)}}


async def test_owners_are_told_once_it_is_known_and_of_each_change() -> None:
    api = Api()
    told: asyncio.Queue[str] = asyncio.Queue()
    objects = ReferencedObjects(cast(Client, api), told.put_nowait)
    api.objects["users"] = secret("users", 1)
    async with asyncio.timeout(20):
        assert not objects.follow("web", [(SECRETS, "ns", "users")])
        assert not objects.follow("shop", [(SECRETS, "ns", "users"), (CONFIGMAPS, "ns", "none")])
        assert len(objects) == 2
        api.open.set()
        seen = {await told.get() for _ in range(3)}  # that there is none is told as well
        assert seen == {"web", "shop"}
        while not told.empty():
            told.get_nowait()
        assert objects.follow("shop", [(SECRETS, "ns", "users"), (CONFIGMAPS, "ns", "none")])
        assert objects.known(SECRETS, "ns", "users") == secret("users", 1)
        assert objects.known(CONFIGMAPS, "ns", "none") is None
        # Only `web` asks for it from here on.
        assert objects.follow("shop", [])
        assert len(objects) == 1
        while "users" not in api.events:
            await asyncio.sleep(0)
        api.events["users"].put_nowait(WatchEvent("MODIFIED", secret("users", 2)))
        assert await told.get() == "web"
        assert objects.known(SECRETS, "ns", "users") == secret("users", 2)
        objects.release("web")
        assert len(objects) == 0
        while api.events:
            await asyncio.sleep(0)
    await objects.close()
