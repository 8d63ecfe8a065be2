"""The machine's kubectl as a reader: chunks, watches, columns, sorting, selectors."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import yaml

from sampan.api.resources import CONFIGMAPS
from sampan.transport.types import Answer, Request
from tests.apiserver.conftest import Kubectl
from tests.apiserver.test_verbs import CM, MERGE, config_map

NAMES = ["a", "b", "c", "d", "e", "f", "g"]


@pytest.fixture
async def seven(kubectl: Kubectl) -> Kubectl:
    for i, name in enumerate(NAMES):
        await kubectl.api.ok(
            "POST", CM, {**config_map(name, labels={"odd": str(i % 2)}), "data": {"size": str(9 - i)}}
        )
    await kubectl.api.ok("POST", "/api/v1/namespaces/kube-system/configmaps", config_map("elsewhere"))
    return kubectl


@pytest.fixture
def joins(seven: Kubectl, monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[None]:
    """One entry for each watch that has caught up."""
    joined = asyncio.Queue[None]()
    join = seven.api.app.cache.join

    def noted(*args: Any) -> Any:
        joined.put_nowait(None)
        return join(*args)

    monkeypatch.setattr(seven.api.app.cache, "join", noted)
    return joined


@asynccontextmanager
async def watching(kubectl: Kubectl, *args: str) -> AsyncIterator[asyncio.StreamReader]:
    """The output of a kubectl that goes on."""
    process = await asyncio.create_subprocess_exec(
        "kubectl",
        *args,
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "KUBECONFIG": str(kubectl.kubeconfig), "HOME": "/tmp"},
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def line(out: asyncio.StreamReader) -> list[str]:
    return (await asyncio.wait_for(out.readline(), 20)).decode().split()


async def test_chunks(seven: Kubectl) -> None:
    requests: list[str] = []
    handle = seven.api.app.handle

    def noted(request: Request) -> Answer | Awaitable[Answer]:
        requests.append(request.target)
        return handle(request)

    seven.api.app.handle = noted  # type: ignore[method-assign]
    table = (await seven("get", "cm", "--chunk-size=3")).splitlines()
    assert [row.split()[0] for row in table] == ["NAME", *NAMES]
    pages = [t for t in requests if "configmaps?" in t]
    assert len(pages) == 3
    assert all("limit=3" in t for t in pages)
    assert [("continue=" in t) for t in pages] == [False, True, True]
    out = await seven("get", "cm", "--chunk-size=2", "-o", "name")
    assert out.split() == [f"configmap/{n}" for n in NAMES]
    assert len(json.loads(await seven("get", "cm", "--chunk-size=1", "-o", "json"))["items"]) == 7


async def test_columns_sorting_and_selectors(seven: Kubectl) -> None:
    out = await seven(
        "get", "cm", "-o", "custom-columns=N:.metadata.name,S:.data.size", "--sort-by=.data.size"
    )
    assert [row.split() for row in out.splitlines()] == [["N", "S"], *([n, str(9 - i)] for i, n in reversed(list(enumerate(NAMES))))]  # fmt: skip
    out = await seven("get", "cm", "--sort-by=.metadata.name", "--no-headers", "-l", "odd=1")
    assert [row.split()[0] for row in out.splitlines()] == ["b", "d", "f"]
    out = await seven("get", "cm", "-A", "--field-selector", "metadata.name=elsewhere")
    assert [row.split()[:2] for row in out.splitlines()] == [
        ["NAMESPACE", "NAME"],
        ["kube-system", "elsewhere"],
    ]
    out = await seven("get", "cm", "-A", "--field-selector", "metadata.namespace=default", "-o", "name")
    assert len(out.split()) == 7
    out = await seven("get", "cm", "a", "--show-labels", "-o", "wide")
    assert out.split()[-1] == "odd=0"
    out = await seven("get", "cm", "-L", "odd", "a")
    assert out.split()[-1] == "0"
    assert yaml.safe_load(await seven("get", "cm", "a", "-o", "yaml"))["data"] == {"size": "9"}
    assert (await seven("get", "cm", "-o", "jsonpath={.items[*].metadata.name}")).split() == NAMES
    code, _, err = await seven.run("get", "cm", "--field-selector", "data.x=1")
    assert code == 1
    assert err.startswith("Error from server (BadRequest): ")
    code, out, err = await seven.run("get", "cm", "-l", "odd=7")
    assert (code, out, err) == (0, "", "No resources found in default namespace.\n")
    assert json.loads(await seven("get", "--raw", f"{CM}/a"))["kind"] == "ConfigMap"
    assert (
        json.loads(await seven("get", "cm", "a", "-o", "json", "--server-print=false"))["kind"] == "ConfigMap"
    )


async def test_get_and_watch(seven: Kubectl, joins: asyncio.Queue[None]) -> None:
    async with (
        watching(seven, "get", "cm", "-w") as everything,
        watching(seven, "get", "cm", "b", "-w", "-o", "name") as one,
        watching(
            seven, "get", "cm", "-A", "--watch-only", "--output-watch-events", "-l", "odd=9"
        ) as entering,
    ):
        assert (await line(everything))[0] == "NAME"
        assert [(await line(everything))[0] for _ in NAMES] == NAMES
        assert await line(one) == ["configmap/b"]
        for _ in range(3):  # the third says nothing until something enters
            await asyncio.wait_for(joins.get(), 20)
        await seven.api.ok("POST", CM, config_map("h"))
        await seven.api.ok("PATCH", f"{CM}/b", {"data": {"x": "1"}}, content_type=MERGE)
        await seven.api.ok("PATCH", f"{CM}/c", {"metadata": {"labels": {"odd": "9"}}}, content_type=MERGE)
        await seven.api.ok("PATCH", f"{CM}/c", {"metadata": {"labels": {"odd": "1"}}}, content_type=MERGE)
        assert [(await line(everything))[0] for _ in range(4)] == ["h", "b", "c", "c"]
        assert await line(one) == ["configmap/b"]
        assert (await line(entering))[:3] == ["EVENT", "NAMESPACE", "NAME"]
        assert (await line(entering))[:3] == ["ADDED", "default", "c"]
        assert (await line(entering))[:3] == ["DELETED", "default", "c"]


async def test_get_ends_quietly_when_the_server_ends_the_watch(
    seven: Kubectl, joins: asyncio.Queue[None]
) -> None:
    async with watching(seven, "get", "cm", "a", "--watch-only", "-o", "name") as out:
        await asyncio.wait_for(joins.get(), 20)
        for group in list(seven.api.app.cache.shelf(CONFIGMAPS).groups.values()):
            for watcher in list(group.watchers):
                watcher.end()
        assert await asyncio.wait_for(out.read(), 20) == b""
