"""Two API servers on one etcd give away together what a quota has, and no more."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sampan.apiserver.app import App
from sampan.store.etcd import open_store
from tests.store.real_etcd import Etcd

from .conftest import Api, config
from .test_admission_quota import HOME, QUOTAS, controllers, limit, until_used

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[list[Api]]:
    etcd = Etcd(tmp_path / "etcd")
    await etcd.start()
    stores = [await open_store([etcd.endpoint]) for _ in range(2)]
    apps = [App(store, config()) for store in stores]
    for app in apps:
        await app.start()
    yield [Api(app, store, tmp_path) for app, store in zip(apps, stores, strict=True)]  # type: ignore[arg-type]
    for app, store in zip(apps, stores, strict=True):
        await app.close()
        await store.close()
    await etcd.kill()


async def test_two_servers_give_away_what_there_is(servers: list[Api]) -> None:
    async with controllers(servers[0]):
        await limit(servers[0], {"count/secrets": "20"})
        await servers[1].store.catch_up()
        replies = await asyncio.gather(
            *(servers[n % 2]("POST", f"{HOME}/secrets", {"metadata": {"name": f"s-{n}"}}) for n in range(50))
        )
        told = Counter(r.status for r in replies)
        assert told == {201: 20, 403: 30}, [r.body for r in replies if r.status not in (201, 403)]
        await servers[0].store.catch_up()
        assert len((await servers[0].ok("GET", f"{HOME}/secrets"))["items"]) == 20
        await until_used(servers[0], **{"count/secrets": "20"})
        # Both admit again what was given back through the other.
        made = next(r.json["metadata"]["name"] for r in replies if r.status == 201)
        await servers[1].ok("DELETE", f"{HOME}/secrets/{made}")
        await until_used(servers[0], **{"count/secrets": "19"})
        await servers[1].store.catch_up()
        await servers[1].ok("POST", f"{HOME}/secrets", {"metadata": {"name": "again"}})
        quota = await servers[1].ok("GET", f"{QUOTAS}/q")
        assert quota["status"]["used"] == {"count/secrets": "20"}
