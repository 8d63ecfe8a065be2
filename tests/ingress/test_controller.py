"""What Ingresses are told by events and status, on a real API server core."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.api.resources import EVENTS, INGRESSCLASSES, INGRESSES, SECRETS, SERVICES, Resource
from sampan.client.types import MERGE_PATCH
from sampan.ingress.controller import IngressController
from sampan.ingress.own_objects import NAMESPACE, SERVICE
from tests.controllers.conftest import api, running
from tests.ingress.test_certificates import make, secret
from tests.ingress.test_door_slices import until
from tests.ingress.test_following import ingress

__all__ = ["api"]
pytestmark = pytest.mark.timeout(60)


async def test_one_that_comes_in_place_of_another_of_its_name_is_told_too(api: Any) -> None:
    """As `kubectl replace --force` does it; both changes are seen before anything is done."""
    async with running(IngressController(api).run()):

        async def told(uid: str) -> set[str]:
            found = (await api.list(EVENTS, "default")).items
            return {e["reason"] for e in found if e["involvedObject"]["uid"] == uid}

        async def classes() -> bool:
            return bool((await api.list(INGRESSCLASSES)).items)

        await until(classes)
        for _ in range(2):
            made = await api.create(INGRESSES, ingress("bad", rate_limit="lots"))

            async def all_told(uid: str = made["metadata"]["uid"]) -> bool:
                return await told(uid) == {"Sync", "ServiceNotFound", "InvalidAnnotation"}

            await until(all_told)
            await api.delete(INGRESSES, "default", "bad")


async def test_one_with_very_many_problems_takes_no_others_events(api: Any) -> None:
    many = ingress("many")
    rule = many["spec"]["rules"][0]
    rule["http"]["paths"] = [
        {**rule["http"]["paths"][0], "path": f"/{n}", "backend": {"resource": {"kind": "K", "name": f"n{n}"}}}
        for n in range(2000)
    ]
    async with running(IngressController(api).run()):

        async def told() -> bool:
            found = (await api.list(EVENTS, "default")).items
            done = {e["involvedObject"]["name"] for e in found if e["reason"] == "Sync"}
            return done == {"many", "few"} and any(e["reason"] == "NotSupported" for e in found)

        await api.create(INGRESSES, many)
        await api.create(INGRESSES, ingress("few"))
        await until(told)


async def test_an_address_goes_when_the_class_is_anothers(api: Any) -> None:
    async def says(name: str, *wanted: str) -> None:
        async def done() -> bool:
            status = (await api.get(INGRESSES, "default", name))["status"]["loadBalancer"]
            return [i["ip"] for i in status.get("ingress") or ()] == list(wanted)

        await until(done)

    async def change(resource: Resource, namespace: str, name: str, change: Object, part: str = "") -> None:
        await api.patch(resource, namespace, name, change, content_type=MERGE_PATCH, subresource=part)

    async with running(IngressController(api).run()):

        async def door() -> bool:
            return any(s["metadata"]["name"] == SERVICE for s in (await api.list(SERVICES, NAMESPACE)).items)

        await until(door)
        for name in ("moves", "taken"):
            await api.create(INGRESSES, ingress(name))
        await change(SERVICES, NAMESPACE, SERVICE, status("192.0.2.7"), "status")
        await says("moves", "192.0.2.7")
        await says("taken", "192.0.2.7")
        await change(INGRESSES, "default", "taken", status("198.51.100.1"), "status")
        await says("taken", "192.0.2.7")
        for name in ("taken", "moves"):
            await change(INGRESSES, "default", name, {"spec": {"ingressClassName": "other"}})
        await says("moves")
        # Whoever serves it now says where.
        await says("taken")
        await change(INGRESSES, "default", "taken", status("198.51.100.1"), "status")
        await change(INGRESSES, "default", "moves", {"spec": {"ingressClassName": "sampan"}})
        await says("moves", "192.0.2.7")
        await says("taken", "198.51.100.1")


async def test_what_was_in_force_before_a_restart_is_not_news(api: Any) -> None:
    async def told(name: str) -> list[str]:
        found = (await api.list(EVENTS, "default")).items
        return sorted(e["reason"] for e in found if e["involvedObject"]["name"] == name)

    async def address(name: str) -> bool:
        return bool((await api.get(INGRESSES, "default", name))["status"]["loadBalancer"].get("ingress"))

    for n, name in enumerate(("first", "second")):
        async with running(IngressController(api).run()):

            async def door() -> bool:
                return any(
                    s["metadata"]["name"] == SERVICE for s in (await api.list(SERVICES, NAMESPACE)).items
                )

            await until(door)
            change = status("192.0.2.7")
            await api.patch(
                SERVICES, NAMESPACE, SERVICE, change, content_type=MERGE_PATCH, subresource="status"
            )
            await api.create(INGRESSES, ingress(name))

            async def done(name: str = name, times: int = n + 1) -> bool:
                # What is wrong with the first one is so yet.
                return (
                    await address(name)
                    and await told(name) == ["ServiceNotFound", "Sync"]
                    and (await told("first")).count("ServiceNotFound") == times
                )

            await until(done)
    assert (await told("first")).count("Sync") == 1


async def test_nothing_is_left_of_one_that_is_gone(api: Any) -> None:
    """Not until its certificate ends, either."""
    await api.create(SECRETS, {**secret(*make("web.test", days=300)), "apiVersion": "v1", "kind": "Secret"})
    asked = ingress("web")
    asked["spec"]["tls"] = [{"secretName": "s"}]
    async with running((controller := IngressController(api)).run()):

        async def waits() -> bool:
            return "default/web" in controller._queue._timers

        async def nothing() -> bool:
            return not controller._queue._timers and not controller._told

        await api.create(INGRESSES, asked)
        await until(waits)
        await api.delete(INGRESSES, "default", "web")
        await until(nothing)


def status(address: str) -> Object:
    return {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
