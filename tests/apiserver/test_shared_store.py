"""Two API servers on one etcd, of which one hears late: it answers as if it did not."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sampan.apiserver.app import App
from sampan.store.etcd import EtcdStore, open_store
from tests.apiserver.conftest import Api, Reply, config
from tests.store.real_etcd import Etcd

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


def configmap(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


class Server(Api):
    def __init__(self, app: App) -> None:
        self.app = app
        self.token = "admin"

    async def get(self, target: str) -> Reply:
        return await self("GET", target)

    async def post(self, target: str, body: Any) -> Reply:
        return await self("POST", target, body)

    async def put(self, target: str, body: Any) -> Reply:
        return await self("PUT", target, body)

    async def patch(self, target: str, body: Any) -> Reply:
        return await self("PATCH", target, body, content_type="application/merge-patch+json")

    async def delete(self, target: str) -> Reply:
        return await self("DELETE", target)


@asynccontextmanager
async def late(store: EtcdStore) -> AsyncIterator[None]:
    """What the store's watch brings within the block is taken up when somebody waits for it, and no sooner."""
    follower = store._follower
    apply, wait, held = follower._apply, follower._in_time, []

    async def waited(future: Any, revision: int) -> Any:
        follower._apply = apply  # type: ignore[method-assign]
        while held:
            apply(held.pop(0))
        return await wait(future, revision)

    follower._apply = held.append  # type: ignore[method-assign]
    follower._in_time = waited  # type: ignore[method-assign]
    yield
    follower._in_time, follower._apply = wait, apply  # type: ignore[method-assign]
    while held:
        apply(held.pop(0))


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Server, Server, EtcdStore]]:
    etcd = Etcd(tmp_path / "etcd")
    await etcd.start()
    stores = [await open_store([etcd.endpoint]) for _ in range(2)]
    apps = [App(s, config()) for s in stores]
    for app in apps:
        await app.start()
    yield Server(apps[0]), Server(apps[1]), stores[1]
    for app in apps:
        await app.close()
    for store in stores:
        await store.close()
    await etcd.kill()


async def test_reads_of_the_newest(two: tuple[Server, Server, EtcdStore]) -> None:
    quick, slow, store = two
    async with late(store):
        made = (await quick.post(CONFIGMAPS, configmap("a", n="1"))).json
        found = await slow.get(f"{CONFIGMAPS}/a")
        assert (found.status, found.json) == (200, made)
    async with late(store):
        await quick.post(CONFIGMAPS, configmap("b"))
        names = [o["metadata"]["name"] for o in (await slow.get(CONFIGMAPS)).json["items"]]
        assert {"a", "b"} <= set(names)
    async with late(store):
        newest = (await quick.post(CONFIGMAPS, configmap("c"))).json["metadata"]["resourceVersion"]
        assert (await slow.get(f"{CONFIGMAPS}/c?resourceVersion={newest}")).status == 200


async def test_writes_stand_on_what_others_wrote(two: tuple[Server, Server, EtcdStore]) -> None:
    quick, slow, store = two
    async with late(store):
        await quick.post(CONFIGMAPS, configmap("a", n="1"))
        patched = await slow.patch(f"{CONFIGMAPS}/a", {"data": {"m": "2"}})
        assert (patched.status, patched.json["data"]) == (200, {"n": "1", "m": "2"})
    async with late(store):
        await quick.patch(f"{CONFIGMAPS}/a", {"data": {"m": "3"}})
        # to what it was: nothing to do for whoever has not heard of the change
        patched = await slow.patch(f"{CONFIGMAPS}/a", {"data": {"m": "2"}})
        assert patched.json["data"]["m"] == "2"
    assert (await quick.get(f"{CONFIGMAPS}/a")).json["data"]["m"] == "2"
    async with late(store):
        await quick.post(
            "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}}
        )
        made = await slow.post("/api/v1/namespaces/new/configmaps", configmap("in-new"))
        assert made.status == 201, "the namespace is there"
    async with late(store):
        await quick.post(CONFIGMAPS, configmap("twice"))
        assert (await slow.post(CONFIGMAPS, configmap("twice"))).status == 409
    async with late(store):
        await quick.post(CONFIGMAPS, configmap("dry"))
        assert (await slow.post(f"{CONFIGMAPS}?dryRun=All", configmap("dry"))).status == 409
    async with late(store):
        await quick.post(CONFIGMAPS, configmap("gone"))
        assert (await slow.delete(f"{CONFIGMAPS}/gone")).status == 200
        assert (await quick.get(f"{CONFIGMAPS}/gone")).status == 404


async def test_16_clients_count_through_both(two: tuple[Server, Server, EtcdStore]) -> None:
    """Every increment is on top of the one before, whichever server took it."""
    *servers, _ = two
    await servers[0].post(CONFIGMAPS, configmap("n", n="0"))
    done = 0

    async def count(client: int) -> None:
        nonlocal done
        for i in range(12):
            while True:
                api = servers[(client + i) % 2]
                present = (await api.get(f"{CONFIGMAPS}/n")).json
                seen = done
                assert int(present["data"]["n"]) >= 0
                present["data"]["n"] = str(int(present["data"]["n"]) + 1)
                written = await api.put(f"{CONFIGMAPS}/n", present)
                if written.status == 200:
                    done += 1
                    break
                assert written.status == 409, json.dumps(written.json)
            newest = (await servers[client % 2].get(f"{CONFIGMAPS}/n")).json
            assert int(newest["data"]["n"]) > seen, "a read is older than what was acknowledged before it"

    await asyncio.gather(*(count(c) for c in range(16)))
    assert (await servers[1].get(f"{CONFIGMAPS}/n")).json["data"]["n"] == str(16 * 12)
