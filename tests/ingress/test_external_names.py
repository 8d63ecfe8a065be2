"""Names outside of the cluster, as Services of type ExternalName give them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sampan.api.resources import INGRESSCLASSES, INGRESSES, SERVICES
from sampan.ingress.external_names import ExternalNames
from sampan.ingress.following import Following
from sampan.ingress.own_objects import ingress_class
from sampan.ingress.types import Endpoint, ServicePort
from tests.controllers.conftest import api, running
from tests.ingress.test_following import ingress

__all__ = ["api"]


async def test_a_name_that_is_none_ends_nothing() -> None:
    """A label may have 63 characters; the resolver raises something else than OSError for a longer one."""
    names = ExternalNames(lambda key: None)
    await names._look_up("default/web", f"{'a' * 64}.example.com")
    assert names.addresses("default/web") == ()


async def test_one_that_takes_long_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    known = asyncio.Event()

    async def answers(name: str, *args: object, **kwargs: object) -> list[Any]:
        asked.append(name)
        if name.startswith("slow"):
            await asyncio.Event().wait()
        return [(2, 1, 6, "", ("198.51.100.1", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answers)
    names = ExternalNames(lambda key: known.set())
    names.follow("a/slow", "slow.test")
    async with running(names.run()), asyncio.timeout(20):
        while asked != ["slow.test"]:
            await asyncio.sleep(0)
        names.follow("b/web", "web.test")
        await known.wait()
        assert names.addresses("b/web") == ("198.51.100.1",)
        # What it stands for now is looked up at once, and what it stood for no more.
        known.clear()
        names.follow("a/slow", "quick.test")
        await known.wait()
        assert names.addresses("a/slow") == ("198.51.100.1",)
        names.follow("b/web", "")
        while len(asyncio.all_tasks()) > 3:  # the test, `run`, and one name
            await asyncio.sleep(0)
    assert asked == ["slow.test", "web.test", "quick.test"]


@pytest.mark.parametrize("steps", range(6))
async def test_it_ends_when_told_though_there_is_a_new_name(
    monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Whatever the moment between the two."""

    async def known(names: ExternalNames, key: str, name: str) -> None:
        pass

    monkeypatch.setattr(ExternalNames, "_look_up", known)
    names = ExternalNames(lambda key: None)
    names.follow("a/s", "one.test")
    task = asyncio.create_task(names.run())
    for _ in range(12):  # it has looked it up, and waits
        await asyncio.sleep(0)
    names.follow("a/s", "two.test")
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    ended, _ = await asyncio.wait([task], timeout=20)
    task.cancel()
    assert ended


@pytest.mark.parametrize(
    ("ports", "at"),
    [([], 80), ([{"port": 80}], 80), ([{"port": 80, "targetPort": 8080}], 8080), ([{"port": 80, "targetPort": "web"}], 80)],
)  # fmt: skip
async def test_where_the_host_is_asked(api: Any, ports: list[Any], at: int) -> None:
    """At the port's target, as with ingress-nginx; without ports at what the Ingress says."""
    await api.create(INGRESSCLASSES, ingress_class())
    spec = {"type": "ExternalName", "externalName": "198.51.100.9", "ports": ports}
    await api.create(
        SERVICES,
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": spec},
    )  # fmt: skip
    await api.create(INGRESSES, ingress("web"))
    woken, started = asyncio.Event(), asyncio.Event()
    following = Following(api, woken.set)
    async with running(following.run(started.set)), asyncio.timeout(20):
        await started.wait()
        while not (found := following.table.routing.endpoints.get(ServicePort("default", "web", 80))):
            await woken.wait()
            woken.clear()
            following.update()
    assert found == (Endpoint("198.51.100.9", at),)
