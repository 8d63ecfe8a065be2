"""`kr8s`, its asynchronous side."""

from __future__ import annotations

import httpx
import kr8s.asyncio
import pytest
from kr8s.asyncio.objects import ConfigMap, Deployment, Pod

from tests.clients.conftest import deployment
from tests.real_cluster import Cluster


@pytest.fixture
async def api(cluster: Cluster, namespace: str) -> kr8s.asyncio.Api:
    return await kr8s.asyncio.api(kubeconfig=str(cluster.kubeconfig), namespace=namespace)


async def test_objects(api: kr8s.asyncio.Api) -> None:
    made = await Deployment(deployment(), api=api)
    await made.create()
    await made.label({"a": "b"})
    await made.patch([{"op": "add", "path": "/metadata/annotations", "value": {"c": "d"}}], type="json")
    await made.scale(1)
    await made.wait("condition=Available", timeout=60)
    assert [d.name async for d in api.get("deployments", label_selector="a=b")] == ["d"]
    assert len(await made.pods()) == 1
    await made.delete()
    await made.wait("delete", timeout=60)
    assert not await made.exists()


async def test_watch(api: kr8s.asyncio.Api) -> None:
    made = await ConfigMap({"metadata": {"name": "c"}, "data": {"a": "1"}}, api=api)
    await made.create()
    async for kind, item in api.watch("configmaps", field_selector="metadata.name=c"):
        assert (kind, item.name) == ("ADDED", "c")
        break


async def test_pod(api: kr8s.asyncio.Api, web: str) -> None:
    pod = await Pod.get(web, api=api)
    assert [line async for line in pod.logs()] == ["serving"]
    done = await pod.exec(["cat", "/www/index.html"])
    assert (done.stdout, done.returncode) == (b"hello\n", 0)
    failed = await pod.exec(["sh", "-c", "echo no >&2; exit 3"], check=False)
    assert (failed.stderr, failed.returncode) == (b"no\n", 3)
    async with pod.portforward(8080) as port, httpx.AsyncClient(trust_env=False) as web_client:
        assert (await web_client.get(f"http://127.0.0.1:{port}/")).text == "hello\n"
