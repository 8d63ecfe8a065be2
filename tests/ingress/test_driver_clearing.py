"""What nobody needs any more goes when what comes instead is in force, and not before: else its clients would be answered 503 meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import which

import pytest

from sampan.ingress.haproxy import driver as driving
from sampan.ingress.haproxy.content import Operation, RemoveServer
from sampan.ingress.haproxy.driver import HaproxyDriver
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import Process
from sampan.ingress.haproxy.runtime import NoAnswer, perform
from sampan.ingress.types import ServicePort
from tests.ingress.objects import add, ingress, set_backends
from tests.ingress.test_driver_faults import Site, refuse_reloads, site_in

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_in(tmp_path) as opened:
        yield opened


class HeldReloads:
    """Reloads that go on when they are let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        """What lets each go on."""
        reload = Process.reload

        async def held(process: Process) -> None:
            go_on = asyncio.Event()
            self.begun.put_nowait(go_on)
            await go_on.wait()
            await reload(process)

        monkeypatch.setattr(Process, "reload", held)
        monkeypatch.setattr(driving, "RELOAD_PAUSE", 0.0)
        monkeypatch.setattr(driving, "_LATER", 0.0)
        monkeypatch.setattr(driving, "_BUSY_AGAIN", 0.05)

    async def next(self) -> asyncio.Event:
        return await asyncio.wait_for(self.begun.get(), 15)


async def test_nothing_is_cleared_up_before_what_comes_instead(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what came during a reload and waits for the next one."""
    held, driver, table = HeldReloads(monkeypatch), site.door.driver, site.door.table
    site.another_listener()
    first = await held.next()
    (endpoint,) = table.routing.endpoints[ServicePort("a", "s", 80)]
    set_backends(table, {"t": [endpoint]})
    add(table, ingress("first", [("first.com", "/", "Prefix", "t")]))
    site.another_listener("again")
    async with asyncio.timeout(15):
        while driver._superfluous or not driver._aging:
            await asyncio.sleep(0.01)
    for _ in range(5):  # it waits for its turn now
        await asyncio.sleep(0)
    first.set()
    second = await held.next()
    assert await site.who("first") == "one"
    second.set()
    await asyncio.wait_for(driver.settled(), 15)
    assert await site.who("first") == "one"
    async with asyncio.timeout(15):
        while driver._superfluous or driver._aging or driver._busy:
            await asyncio.sleep(0.01)


async def test_nothing_is_cleared_up_while_it_is_not_known_what_was_done(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HAProxy did not answer: what leads to the new routes may not be there."""
    held, driver, table = HeldReloads(monkeypatch), site.door.driver, site.door.table
    silent = asyncio.Event()

    async def no_answer(operations: list[Operation], files: Files) -> list[str]:
        if not silent.is_set():
            silent.set()
            raise NoAnswer("busy")
        return await perform(operations, files)

    monkeypatch.setattr("sampan.ingress.haproxy.driver.perform", no_answer)
    check = Process.check
    refused = refuse_reloads(monkeypatch)
    (endpoint,) = table.routing.endpoints[ServicePort("a", "s", 80)]
    set_backends(table, {"t": [endpoint]})
    add(table, ingress("first", [("first.com", "/", "Prefix", "t")]))
    site.apply()
    async with asyncio.timeout(15):
        while len(refused) < 4:  # there was time enough to clear up
            await asyncio.sleep(0.01)
    assert await site.who("first") == "one"
    monkeypatch.setattr(Process, "check", check)
    (await held.next()).set()
    await asyncio.wait_for(driver.settled(), 15)
    assert await site.who("first") == "one"


@pytest.mark.parametrize("steps", range(6))
async def test_who_clears_up_ends_when_told_though_there_is_something_new(tmp_path: Path, steps: int) -> None:
    """Whatever the moment between the two: HAProxy that ended is started again when this one has."""
    files = Files(tmp_path, ("127.0.0.1",))
    driver = HaproxyDriver(files, Process(files, "haproxy", tmp_path / "access.log"))
    driver._busy = [RemoveServer("b1", "s1")]  # it looks again in a while
    task = asyncio.create_task(driver._clear_up())
    for _ in range(6):  # it waits now
        await asyncio.sleep(0)
    driver._left.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    ended, _ = await asyncio.wait([task], timeout=20)
    task.cancel()
    assert ended
