"""Leader election among candidates on one API, with times of tenths of seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from sampan.api.errors import Object
from sampan.api.resources import LEASES
from sampan.apiserver.app import App
from sampan.client.informer import HandlerFailed
from sampan.client.leaderelection import NAMESPACE, LeaderElector
from sampan.client.types import Client, ConnectionLost
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config

TIMES: dict[str, Any] = {"lease": 1, "renew": 0.6, "retry": 0.1}


class Line:
    """A client whose line can be cut."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.cut = False

    async def get(self, *arguments: Any, **more: Any) -> Object:
        self._check()
        return await self._client.get(*arguments, **more)

    async def update(self, *arguments: Any, **more: Any) -> Object:
        self._check()
        return await self._client.update(*arguments, **more)

    def _check(self) -> None:
        if self.cut:
            raise ConnectionLost("cut")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Candidate:
    """Counts who works: never two."""

    working: ClassVar[list[str]] = []

    def __init__(self, app: App, name: str) -> None:
        self.line = Line(app.client())
        self.elector = LeaderElector(self.line, "work", name, **TIMES)  # type: ignore[arg-type]
        self.name = name
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.terms = 0

    async def work(self) -> None:
        assert not self.working
        self.working.append(self.name)
        self.terms += 1
        self.ended.clear()
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.working.remove(self.name)
            self.began.clear()
            self.ended.set()

    def run(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.elector.run(self.work))


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = App(MemoryStore(), config())
    await app.start()
    yield app
    await app.close()


async def spec(app: App) -> Object:
    found: Object = (await app.client().get(LEASES, NAMESPACE, "work"))["spec"]
    return found


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_leads_and_gives_up_to_the_next(app: App) -> None:
    one, two = Candidate(app, "one"), Candidate(app, "two")
    first = one.run()
    await asyncio.wait_for(one.began.wait(), 20)
    second = two.run()
    held = await spec(app)
    assert (held["holderIdentity"], held["leaseDurationSeconds"], held["leaseTransitions"]) == ("one", 1, 0)
    assert held["acquireTime"] <= held["renewTime"]
    await end(first)
    async with asyncio.timeout(0.9):  # sooner than the lease's own time
        await two.began.wait()
    held = await spec(app)
    assert (held["holderIdentity"], held["leaseTransitions"]) == ("two", 1)
    await end(second)
    assert (await spec(app))["holderIdentity"] == ""


async def test_who_does_not_renew_is_followed_and_stops_before(app: App) -> None:
    one, two = Candidate(app, "one"), Candidate(app, "two")
    first = one.run()
    await asyncio.wait_for(one.began.wait(), 20)
    second = two.run()
    one.line.cut = True
    await asyncio.wait_for(one.ended.wait(), 20)
    assert not two.began.is_set()
    await asyncio.wait_for(two.began.wait(), 20)
    one.line.cut = False
    await end(second)
    await asyncio.wait_for(one.began.wait(), 20)
    assert one.terms == 2
    await end(first)


async def test_who_is_ended_while_it_renews_ends(app: App) -> None:
    """At whatever moment: also in the one in which the answer to its renewal has come and is not yet looked at."""
    one = Candidate(app, "one")
    task = one.run()
    await asyncio.wait_for(one.began.wait(), 20)
    update = one.line.update

    async def last(*arguments: Any, **more: Any) -> Object:
        updated = await update(*arguments, **more)
        asyncio.get_running_loop().call_soon(task.cancel)
        return updated

    one.line.update = last  # type: ignore[method-assign]
    done, _ = await asyncio.wait([task], timeout=20)
    assert done, "it still leads"
    assert task.cancelled()
    assert one.ended.is_set()


async def test_what_the_work_raises_is_raised(app: App) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await asyncio.wait_for(LeaderElector(app.client(), "work", "one", **TIMES).run(fail), 20)
    assert (await spec(app))["holderIdentity"] == ""


async def test_ten_candidates_and_one_worker(app: App) -> None:
    candidates = [Candidate(app, f"c{i}") for i in range(10)]
    tasks = [c.run() for c in candidates]
    for _ in range(5):
        waits = [asyncio.create_task(c.began.wait()) for c in candidates]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        for wait in waits:
            wait.cancel()
        (leader,) = [c for c in candidates if c.began.is_set()]
        place = candidates.index(leader)
        await end(tasks[place])
        candidates.pop(place), tasks.pop(place)
    await end(*tasks)


async def test_it_does_not_go_on_without_following_the_lease(app: App) -> None:
    one = Candidate(app, "one")

    def fail(old: Object | None, new: Object | None) -> None:
        raise ValueError("broken")

    one.elector._leases.add_handler(fail)
    with pytest.raises(HandlerFailed, match="leases"):
        await asyncio.wait_for(one.run(), 20)
    assert not one.working
