"""`kubernetes_asyncio`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from kubernetes_asyncio import client, config, watch
from kubernetes_asyncio.stream import WsApiClient

from tests.clients.conftest import deployment
from tests.real_cluster import Cluster


@pytest.fixture
async def settings(cluster: Cluster) -> client.Configuration:
    made = client.Configuration()
    await config.load_kube_config(str(cluster.kubeconfig), client_configuration=made)
    return made


@pytest.fixture
async def api(settings: client.Configuration) -> AsyncIterator[client.ApiClient]:
    async with client.ApiClient(settings) as made:
        yield made


async def test_objects(api: client.ApiClient, namespace: str) -> None:
    apps = client.AppsV1Api(api)
    await apps.create_namespaced_deployment(namespace, deployment())
    patched = await apps.patch_namespaced_deployment("d", namespace, {"spec": {"replicas": 2}})
    assert patched.spec.replicas == 2
    applied = await apps.patch_namespaced_deployment(
        "d", namespace, deployment(replicas=1), field_manager="tests", force=True,
        _content_type="application/apply-patch+yaml",
    )  # fmt: skip
    assert applied.spec.replicas == 1
    assert "tests" in [m.manager for m in applied.metadata.managed_fields]
    listed = await apps.list_namespaced_deployment(namespace)
    assert [d.metadata.name for d in listed.items] == ["d"]
    await apps.delete_namespaced_deployment("d", namespace)


async def test_watch(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    start = (await core.list_namespaced_config_map(namespace)).metadata.resource_version
    seen = []
    async with watch.Watch() as watching, asyncio.TaskGroup() as group:

        async def write() -> None:
            for name in ("a", "b"):
                await core.create_namespaced_config_map(namespace, {"metadata": {"name": name}})
            await core.delete_collection_namespaced_config_map(namespace)

        group.create_task(write())
        async for event in watching.stream(
            core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=30
        ):
            seen.append((event["type"], event["object"].metadata.name))
            if [kind for kind, _ in seen].count("DELETED") == 2:
                break
    assert sorted(seen) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("DELETED", "b")]


async def test_pod(settings: client.Configuration, api: client.ApiClient, namespace: str, web: str) -> None:
    assert await client.CoreV1Api(api).read_namespaced_pod_log(web, namespace) == "serving\n"
    async with WsApiClient(settings) as streams:
        said = await client.CoreV1Api(streams).connect_get_namespaced_pod_exec(
            web, namespace, command=["cat", "/www/index.html"], stdin=False, stdout=True, stderr=True, tty=False
        )  # fmt: skip
    assert said == "hello\n"
