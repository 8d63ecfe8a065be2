"""Twenty thousand objects: no list, Table, selector or watch holds the event loop for long."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sampan.api import tables
from sampan.api.resources import CONFIGMAPS
from sampan.apiserver.app import App
from sampan.apiserver.records import encode, key_of
from sampan.store.memory import MemoryStore
from sampan.transport.types import Request, Response, StreamingResponse
from tests.apiserver.conftest import Api, FakeStream, config
from tests.apiserver.test_forms import TABLE
from tests.apiserver.test_verbs import CM

COUNT = 20_000
LIMIT = 0.005
"""Seconds of processor time for which nothing may hold the loop."""


def stored(i: int) -> bytes:
    metadata = {
        "name": f"c{i:05}",
        "namespace": "default",
        "uid": f"00000000-0000-0000-0000-{i:012}",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app": "bench", "tenth": str(i % 10)},
        "managedFields": [{"manager": "test", "operation": "Update", "apiVersion": "v1"}],
    }
    return encode(CONFIGMAPS, {"metadata": metadata, "data": {"key": "value", "other": "some longer value"}})


@pytest.fixture(scope="module")
def contents() -> list[tuple[str, bytes]]:
    return [(key_of("configmaps", "default", f"c{i:05}"), stored(i)) for i in range(COUNT)]


async def serving(contents: list[tuple[str, bytes]]) -> AsyncIterator[App]:
    store = MemoryStore()
    for key, value in contents:
        await store.create(key, value)
    app = App(store, config())
    await app.start()
    assert tables  # imported when it is first needed, which takes longer than any slice
    # As in the real process: what is there for good is not looked at again.
    gc.collect()
    gc.freeze()
    yield app
    gc.unfreeze()
    await app.close()
    await store.close()


@pytest.fixture
async def app(contents: list[tuple[str, bytes]]) -> AsyncIterator[App]:
    async for app in serving(contents):
        yield app


@pytest.fixture
async def few() -> AsyncIterator[App]:
    """Sixty objects of 600 KB."""
    contents = []
    data = {f"k{i}": "value " * 100 for i in range(1_000)}
    for i in range(60):
        metadata = {"name": f"c{i}", "namespace": "large", "uid": "u", "labels": {"app": "x"}}
        value = encode(CONFIGMAPS, {"metadata": metadata, "data": data})
        contents.append((key_of("configmaps", "large", f"c{i}"), value))
    async for app in serving(contents):
        yield app


class Holds:
    """How long the loop was held at most, in processor time of its thread, while the work goes on."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.rounds = 0
        self._task: asyncio.Task[None] | None = None

    async def _run(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.thread_time() - began)
            self.rounds += 1

    async def __aenter__(self) -> Holds:
        self._task = asyncio.create_task(self._run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *failure: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])


def asked(app: App, target: str, accept: str = "") -> Any:
    headers = {"authorization": "Bearer admin", "accept": accept}
    return app.handle(Request("GET", target, headers))


async def count(app: App, target: str, accept: str = "") -> int:
    """How many objects an answer shows. It is not decoded: that would be garbage for the loop's thread to collect."""
    answer = asked(app, target, accept)
    if isinstance(answer, Awaitable):
        answer = await answer
    assert isinstance(answer, Response)
    assert answer.status == 200
    body = answer.body
    assert not isinstance(body, bytes)
    return await asyncio.to_thread(lambda: sum([part.count(b'"uid":') for part in body]))


Work = Callable[[App], Awaitable[int]]


async def _whole(app: App) -> int:
    return await count(app, CM)


async def _labels(app: App) -> int:
    return 10 * await count(app, f"{CM}?labelSelector=tenth%3D3")


async def _fields(app: App) -> int:
    return 1 + await count(app, f"{CM}?fieldSelector=metadata.name!%3Dc00003")


async def _table(app: App) -> int:
    return await count(app, CM, TABLE)


async def _pretty(app: App) -> int:
    return await count(app, f"{CM}?pretty=1")


async def watched(app: App, target: str, accept: str = "") -> int:
    """How many objects a watch begins with."""
    answer = asked(app, target, accept)
    assert isinstance(answer, StreamingResponse)
    size, ended = 0, asyncio.Event()

    class Counting(FakeStream):
        def write_framed(self, framed: bytes) -> None:
            nonlocal size
            size += framed.count(b'{"type":"ADDED"')
            if b"initial-events-end" in framed:
                ended.set()

    stream = Counting()
    answer.start(stream)
    await ended.wait()
    stream.close()
    return size


async def _watch(app: App) -> int:
    return await watched(app, f"{CM}?watch=1&allowWatchBookmarks=1")


async def _several(app: App) -> int:
    tasks: list[asyncio.Task[int]] = []
    for work in (_whole, _labels, _table, _watch, _labels):
        tasks.append(asyncio.create_task(_counted(work, app)))
        await asyncio.sleep(0)  # each begins in a round of its own
    found = await asyncio.gather(*tasks)
    assert len(set(found)) == 1
    return found[0]


async def _counted(work: Work, app: App) -> int:
    return await work(app)


@pytest.mark.parametrize("work", [_whole, _labels, _fields, _table, _pretty, _watch, _several])
async def test_nothing_holds_the_loop(app: App, work: Work) -> None:
    async with Holds() as holds:
        assert await work(app) == COUNT
    print(f"{work.__name__}: longest {holds.longest * 1e3:.2f} ms of {holds.rounds} rounds")
    assert holds.longest < LIMIT


@pytest.mark.parametrize("accept", ["", TABLE])
@pytest.mark.parametrize("query", ["", "?labelSelector=app", "?pretty=1", "?watch=1&allowWatchBookmarks=1"])
async def test_a_few_very_large_objects_do_not_either(few: App, accept: str, query: str) -> None:
    target = f"/api/v1/namespaces/large/configmaps{query}"
    async with Holds() as holds:
        found = await (watched if "watch" in query else count)(few, target, accept)
    print(f"{accept} {query}: longest {holds.longest * 1e3:.2f} ms of {holds.rounds} rounds")
    assert found == 60
    assert holds.longest < LIMIT


async def test_the_lag_is_counted_without_waking_an_idle_loop(few: App) -> None:
    lag = few.cache.lag
    await asyncio.sleep(0)
    before = lag.count
    for _ in range(3):
        asked(few, "/api/v1/namespaces/large/configmaps/c1")
    await asyncio.sleep(0)
    assert lag.count == before + 1, "what came in one round is one measurement"
    assert 0 < lag.longest < 10
    assert sum(lag.counts) == lag.count
    for _ in range(20):
        await asyncio.sleep(0)
    assert lag.count == before + 1
    await count(few, "/api/v1/namespaces/large/configmaps", TABLE)
    assert lag.count > before + 5, "slices of long work are measured too"


async def test_a_large_body_in_yaml_is_read_beside_others(api: Api) -> None:
    """Read in a thread: in the meantime the loop comes round, and other requests are answered."""
    lines = "\n".join(f"  key-{i}: some value of it" for i in range(20_000))
    body = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: large}}\ndata:\n{lines}\n".encode()
    writing = asyncio.ensure_future(
        api("POST", "/api/v1/namespaces/default/configmaps", body, content_type="application/yaml")
    )
    rounds = 0
    while not writing.done():
        assert (await api("GET", "/version")).status == 200
        rounds += 1
        await asyncio.sleep(0)
    assert (await writing).status == 201
    assert rounds > 20
