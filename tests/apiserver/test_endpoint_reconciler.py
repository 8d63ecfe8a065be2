"""API servers that share a store: each is an endpoint of Service default/kubernetes for as long as it is there."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from sampan.api.resources import CONFIGMAPS, ENDPOINTS, ENDPOINTSLICES
from sampan.apiserver import endpoint_reconciler
from sampan.apiserver.app import App
from sampan.store.etcd import open_store
from tests.apiserver.conftest import config
from tests.store.real_etcd import Etcd

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")


async def endpoints(app: App) -> list[str]:
    made = await app.client().get(ENDPOINTS, "default", "kubernetes")
    slice_ = await app.client().get(ENDPOINTSLICES, "default", "kubernetes")
    found = [a["ip"] for a in made["subsets"][0]["addresses"]]
    assert found == [e["addresses"][0] for e in slice_["endpoints"]]
    return found


async def until(app: App, wanted: list[str]) -> None:
    async with asyncio.timeout(10):
        async for _ in app.client().watch(ENDPOINTSLICES, "default", resource_version="0"):
            made = await app.client().get(ENDPOINTSLICES, "default", "kubernetes")
            if [e["addresses"][0] for e in made["endpoints"]] == wanted:
                return


async def test_servers_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_reconciler, "SECONDS", 0.2)
    monkeypatch.setattr(endpoint_reconciler, "TTL", 1)
    etcd = Etcd(tmp_path / "etcd")
    await etcd.start()
    addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    stores = [await open_store([etcd.endpoint]) for _ in addresses]
    apps = [App(s, config(advertise_address=a)) for s, a in zip(stores, addresses, strict=True)]
    await apps[0].start()
    assert await endpoints(apps[0]) == ["10.0.0.1"]
    await apps[1].start()
    await apps[2].start()
    await until(apps[0], addresses)
    await apps[1].close()
    await until(apps[0], ["10.0.0.1", "10.0.0.3"])
    await stores[2].close()  # as if it were killed: it says nothing any more
    await until(apps[0], ["10.0.0.1"])
    # what one has written, the other takes up
    fourth = App(stores[1], config(advertise_address="10.0.0.4"))
    await fourth.start()
    await fourth.client().create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, namespace="default")  # fmt: skip
    await until(apps[0], ["10.0.0.1", "10.0.0.4"])
    assert (await apps[0].client().get(CONFIGMAPS, "default", "c"))["metadata"]["name"] == "c"
    for app in (apps[0], apps[2], fourth):
        await app.close()
    for store in stores:
        await store.close()
    await etcd.kill()
