"""A proxy that had to begin with older files, whose names were given by a translation that is no more."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest

from sampan.ingress.haproxy.process import HaproxyError, Process
from sampan.ingress.haproxy.translation import Translation
from sampan.ingress.route_options import NO_OPTIONS, Options
from sampan.ingress.types import (
    INGRESS_SCOPE,
    Backend,
    Contribution,
    Host,
    PathKind,
    Place,
    Policy,
    Route,
    ServicePort,
    Source,
    Target,
)
from sampan.ingress.types import Path as RoutePath
from tests.ingress.door import Upstream
from tests.ingress.objects import set_backends
from tests.ingress.test_driver_faults import refuse_reloads, site_in

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]


def least_loaded(host: str, options: Options = NO_OPTIONS) -> Contribution:
    """What leads to a backend of a section of its own."""
    place = Place(INGRESS_SCOPE, Host.of_ingress(host), RoutePath(PathKind.PREFIX, ""))
    backend = Backend(ServicePort("a", "s", 80), Policy(balance="leastconn"))
    source = Source("Ingress", "a", host)
    return Contribution(routes=(Route(place, (Target(backend),), source, (), options=options),))


async def test_nobody_gets_around_a_guard_by_a_backend_that_had_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first backend with such a section has no guard in the older files, and has one in what is wanted."""
    async with Upstream("two") as two, site_in(tmp_path) as site:
        table = site.door.table
        table.update(("Ingress", "a", "open"), least_loaded("open.com"))
        await site.door.settle()
        assert await site.who("open") == "one"
        refuse_reloads(monkeypatch)
        step, start = Translation.step, Process.start
        odd, failing = [True], [True]

        def stumbling(self: Translation, *arguments: object) -> object:
            if odd:
                odd.clear()
                raise KeyError("odd")
            return step(self, *arguments)  # type: ignore[arg-type]

        async def fails_once(process: Process) -> None:
            if failing:
                failing.clear()
                raise HaproxyError("once")
            await start(process)

        monkeypatch.setattr(Translation, "step", stumbling)
        monkeypatch.setattr(Process, "start", fails_once)
        table.update(("Ingress", "a", "open"), Contribution())
        nobody = replace(NO_OPTIONS, deny=("0.0.0.0/0",))
        table.update(("Ingress", "a", "guarded"), least_loaded("guarded.com", nobody))
        site.apply()
        await site.until("no reload")
        os.kill(site.door.process._pid, signal.SIGKILL)
        os.kill(site.door.process.worker, signal.SIGKILL)
        await site.until("once")
        site.reach("second")
        await site.until_answered("first")
        assert await site.who("guarded") == "503"
        # Nor by pods that come later.
        set_backends(table, {"s": [two.endpoint]})
        site.apply()
        async with asyncio.timeout(15):
            while await site.who("second") != "two":
                await asyncio.sleep(0.01)
        assert await site.who("guarded") == "503"
        monkeypatch.undo()
        await asyncio.wait_for(site.door.driver.settled(), 15)
        assert await site.who("guarded") == "403"
        assert await site.who("second") == "two"
