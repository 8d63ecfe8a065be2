"""kill -9 amid creates and deletes under a quota: what is stored never exceeds it, and what nobody uses comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.api.resources import RESOURCEQUOTAS, SECRETS
from sampan.apiserver.app import App
from sampan.store.sqlite import open_store

from .conftest import Api, config
from .killing import run_and_kill
from .test_admission_quota import controllers, until_used

HARD = 40
WRITER = f"""
import asyncio, contextlib, sys
from pathlib import Path
from sampan.api.errors import StatusError
from sampan.api.resources import RESOURCEQUOTAS, SECRETS
from sampan.apiserver.app import App
from sampan.controllers.manager import Manager
from sampan.store.sqlite import open_store
from tests.apiserver.conftest import config

async def write(client, n):
    i = 0
    while True:
        i += 1
        body = {{"apiVersion": "v1", "kind": "Secret", "metadata": {{"name": f"s{{n}}-{{i}}", "namespace": "default"}}}}
        try:
            await client.create(SECRETS, body)
            if i % 3 == 0:
                await client.delete(SECRETS, "default", body["metadata"]["name"])
        except StatusError as e:
            assert e.code == 404 or "exceeded quota" in e.message, e.message  # others delete as well
            for secret in (await client.list(SECRETS, "default")).items[:1]:
                with contextlib.suppress(StatusError):
                    await client.delete(SECRETS, "default", secret["metadata"]["name"])
        if n == 0 and i == 30:
            print("enough", flush=True)

async def main():
    app = App(await open_store(Path(sys.argv[1])), config())
    await app.start()
    client = app.client()
    async with asyncio.TaskGroup() as group:
        group.create_task(Manager(client, cluster_ca="CA").run())
        body = {{"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {{"name": "q", "namespace": "default"}},
                "spec": {{"hard": {{"count/secrets": "{HARD}"}}}}}}
        made = await client.create(RESOURCEQUOTAS, body)
        async for event in client.watch(RESOURCEQUOTAS, "default", resource_version=made["metadata"]["resourceVersion"]):
            if (event.object.get("status") or {{}}).get("hard"):
                break
        for n in range(16):
            group.create_task(write(client, n))

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [0.0, 0.01])
async def test_killed_in_the_middle(tmp_path: Path, after: float) -> None:
    await run_and_kill(WRITER, tmp_path, after)

    store = await open_store(tmp_path / "db")
    app = App(store, config())
    await app.start()
    try:
        stored = len(app.cache.list(SECRETS, "default"))
        (quota,) = app.cache.list(RESOURCEQUOTAS, "default")
        assert stored <= int(quota["status"]["used"]["count/secrets"]) <= HARD
        api = Api(app, store, tmp_path)
        async with controllers(api):
            await until_used(api, **{"count/secrets": str(stored)})
    finally:
        await app.close()
        await store.close()
