"""Whoever watches ends up with what is there: watches begun at any time, in any way, while many write, against the state."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from sampan.api.resources import CONFIGMAPS
from sampan.apiserver import watchcache, watching
from tests.apiserver.conftest import Api, FakeStream
from tests.apiserver.test_verbs import CM, MERGE, config_map

SELECTORS = (
    "",
    "labelSelector=half%3D1",
    "fieldSelector=metadata.name%3Dc3",
    "labelSelector=half%3D0,third!%3D1",
)


def selected(selector: str, obj: Any) -> bool:
    labels: dict[str, str] = obj["metadata"].get("labels", {})
    match selector:
        case "":
            return True
        case "labelSelector=half%3D1":
            return labels.get("half") == "1"
        case "fieldSelector=metadata.name%3Dc3":
            return bool(obj["metadata"]["name"] == "c3")
    return labels.get("half") == "0" and labels.get("third") != "1"


class Follower:
    """One watch, and what it makes of the events."""

    def __init__(self, api: Api, rng: random.Random) -> None:
        self.api = api
        self.selector = rng.choice(SELECTORS)
        self.state: dict[str, Any] = {}
        self.position = 0
        self.how = rng.choice(["state", "streaming", "since"])

    async def begin(self) -> None:
        query = f"{self.selector}&watch=1&allowWatchBookmarks=1"
        if self.how == "since":
            listed = await self.api.ok("GET", f"{CM}?{self.selector}")
            self.state = {o["metadata"]["name"]: o for o in listed["items"]}
            self.position = int(listed["metadata"]["resourceVersion"])
            query += f"&resourceVersion={self.position}"
            await asyncio.sleep(0)  # others write
        elif self.how == "streaming":
            query += "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        self.stream: FakeStream = self.api.watch(f"{CM}?{query}")

    async def until(self, revision: int) -> None:
        """Follow until a bookmark says that everything up to `revision` was told."""
        beginning = self.how != "since"
        while self.position < revision:
            event = await self.stream.next()
            obj = event["object"]
            name, version = obj["metadata"].get("name"), int(obj["metadata"]["resourceVersion"])
            if event["type"] == "BOOKMARK":
                assert version >= self.position, "a bookmark goes back"
                self.position = version
                beginning = False
                continue
            # The state at the beginning comes by name; all that follows comes in the order in which it happened.
            if not beginning or event["type"] != "ADDED":
                assert version > self.position, (event["type"], name)
                self.position = version
            match event["type"]:
                case "ADDED":
                    assert beginning or name not in self.state
                case "MODIFIED" | "DELETED":
                    assert name in self.state
            if event["type"] == "DELETED":
                del self.state[name]
            else:
                assert selected(self.selector, obj)
                self.state[name] = obj


async def write(api: Api, rng: random.Random, count: int) -> None:
    for _ in range(count):
        name = f"c{rng.randrange(8)}"
        labels = {"half": str(rng.randrange(2)), "third": str(rng.randrange(3))}
        match rng.randrange(5):
            case 0:
                await api("DELETE", f"{CM}/{name}")
            case 1 | 2:
                await api("POST", CM, config_map(name, labels=labels))
            case _:
                await api("PATCH", f"{CM}/{name}", {"metadata": {"labels": labels}}, content_type=MERGE)


@pytest.mark.parametrize("seed", range(4))
async def test_every_watch_leads_to_the_state(api: Api, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(watching, "_AT_ONCE", rng.choice([0, 2, 200]))
    monkeypatch.setattr(watchcache, "SLICE_SECONDS", rng.choice([-1.0, 0.002]))
    followers: list[Follower] = []

    async def follow(count: int) -> None:
        for _ in range(count):
            follower = Follower(api, rng)
            await follower.begin()
            followers.append(follower)
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)

    async def remind() -> None:
        for _ in range(20):
            api.app.cache._send_bookmarks()
            for _ in range(rng.randrange(10)):
                await asyncio.sleep(0)

    await asyncio.gather(*(write(api, rng, 40) for _ in range(6)), follow(25), remind())
    cache = api.app.cache
    async with asyncio.timeout(20):  # until all have caught up
        while sum(len(g.watchers) for g in cache.shelf(CONFIGMAPS).groups.values()) < len(followers):
            await asyncio.sleep(0)
        while cache.told < cache.revision:
            await asyncio.sleep(0)
    last = cache.revision
    cache._send_bookmarks()
    await asyncio.gather(*(f.until(last) for f in followers))
    listed = await api.ok("GET", CM)
    for follower in followers:
        expected = {o["metadata"]["name"]: o for o in listed["items"] if selected(follower.selector, o)}
        assert follower.state == expected, (follower.how, follower.selector)
        follower.stream.close()
