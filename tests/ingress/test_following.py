"""Ingresses as they are followed, on a real API server core: one that is not understood, what it names and cannot be read, and what comes later."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.resources import (
    GATEWAYCLASSES,
    GATEWAYS,
    HTTPROUTES,
    INGRESSCLASSES,
    INGRESSES,
    SECRETS,
    SERVICES,
)
from sampan.ingress import annotations as wishes
from sampan.ingress import following as module
from sampan.ingress import gateway_routes
from sampan.ingress.following import INTERNAL_ERROR, Following
from sampan.ingress.own_objects import gateway_class, ingress_class
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import (
    INGRESS_SCOPE,
    Contribution,
    Host,
    Owner,
    Path,
    PathKind,
    Place,
    Route,
)
from tests.controllers.conftest import api, running

__all__ = ["api"]
pytestmark = pytest.mark.timeout(60)
USERS = "user:$6$rounds=1000$saltsalt$" + "x" * 86


def ingress(name: str, port: Object | None = None, **annotations: str) -> Object:
    backend = {"service": {"name": name, "port": port or {"number": 80}}}
    rule = {
        "host": f"{name}.test",
        "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {f"sampan.io/{k.replace('_', '-')}": v for k, v in annotations.items()},
        },
        "spec": {"ingressClassName": "sampan", "rules": [rule]},
    }


def service(name: str, *ports: tuple[str, int]) -> Object:
    made = [{"name": n, "port": p, "protocol": "TCP"} for n, p in ports]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": made},
    }


def gateway() -> Object:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "g", "namespace": "default"},
        "spec": {
            "gatewayClassName": "sampan",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    }


def http_route(name: str) -> Object:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": name, "port": 80}]}]},
    }


def users(name: str) -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"auth": USERS}}


class Follower:
    """Follows, and says what became of an Ingress."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.woken = asyncio.Event()
        self.following = Following(client, self.woken.set, backends=False)

    def route(self, name: str) -> Route | None:
        place = Place(INGRESS_SCOPE, Host.of_ingress(f"{name}.test"), Path(PathKind.PREFIX, ""))
        found = self.following.table.routing.routes.get(place)
        return found[-1] if found else None

    def open(self, name: str) -> bool:
        found = self.route(name)
        return found is not None and bool(found.targets)

    def reasons(self, name: str) -> list[str]:
        return [p.reason for p in self.following.table.contribution(("Ingress", "default", name)).problems]

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not done():
                await self.woken.wait()
                self.woken.clear()
                self.following.update()


@contextlib.asynccontextmanager
async def followed(client: Any) -> AsyncIterator[Follower]:
    one, started = Follower(client), asyncio.Event()
    async with running(one.following.run(started.set)):
        await started.wait()
        yield one


async def test_one_that_is_not_understood_is_closed_and_in_nobodys_way(
    api: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await api.create(INGRESSCLASSES, ingress_class())
    read = wishes.read

    def broken(obj: Object, *lookups: Any) -> Any:
        if obj["metadata"]["name"] == "odd":
            raise KeyError("odd")
        return read(obj, *lookups)

    monkeypatch.setattr(wishes, "read", broken)
    for name in ("even", "odd"):
        await api.create(SERVICES, service(name, ("http", 80)))
        await api.create(INGRESSES, ingress(name))
    async with followed(api) as one:
        assert one.open("even")
        assert (one.route("odd") or pytest.fail("it is closed, not away")).status == 503
        assert not one.open("odd")
        assert one.reasons("odd") == [INTERNAL_ERROR]
        assert "Ingress default/odd is not understood" in caplog.text
        await api.create(SERVICES, service("late", ("http", 80)))
        await api.create(INGRESSES, ingress("late"))
        await one.until(lambda: one.open("late"))


async def test_what_is_missing_may_come_and_go(api: Any) -> None:
    await api.create(INGRESSCLASSES, ingress_class())
    await api.create(INGRESSES, ingress("a"))
    await api.create(INGRESSES, ingress("b", {"name": "web"}))
    await api.create(INGRESSES, ingress("c", basic_auth_secret="users"))
    for name in "bc":
        await api.create(SERVICES, service(name, ("http", 80)))
    async with followed(api) as one:
        assert [one.reasons(n) for n in "abc"] == [
            ["ServiceNotFound"],
            ["ServicePortNotFound"],
            ["InvalidAnnotation"],
        ]
        assert not any(one.open(n) for n in "abc")
        await api.create(SERVICES, service("a", ("http", 80)))
        await one.until(lambda: one.open("a"))
        had = copy.deepcopy(await api.get(SERVICES, "default", "b"))
        had["spec"]["ports"].append({"name": "web", "port": 8080, "protocol": "TCP"})
        await api.update(SERVICES, had)
        await one.until(lambda: one.open("b"))
        made = await api.create(SECRETS, users("users"))
        await one.until(lambda: one.open("c"))
        assert [one.reasons(n) for n in "abc"] == [[], [], []]
        await api.delete(SECRETS, "default", made["metadata"]["name"])
        await one.until(lambda: not one.open("c"))
        await api.delete(SERVICES, "default", "a")
        await one.until(lambda: not one.open("a"))


class Refusing:
    """The API for somebody who may not read one Secret by its name."""

    def __init__(self, api: Any, name: str) -> None:
        self._api = api
        self._name = name
        self.allowed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    async def list(self, resource: Any, namespace: str = "", **query: Any) -> Any:
        if query.get("field_selector") == f"metadata.name={self._name}" and not self.allowed:
            raise StatusError(403, "Forbidden", f'secrets "{self._name}" is forbidden')
        return await self._api.list(resource, namespace, **query)


async def test_what_may_not_be_read_is_not_there(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KNOWN_WITHIN", 0.2)
    await api.create(INGRESSCLASSES, ingress_class())
    await api.create(SECRETS, users("users"))
    await api.create(SERVICES, service("a", ("http", 80)))
    await api.create(INGRESSES, ingress("a"))
    client = Refusing(api, "users")
    async with followed(client) as one:
        assert one.open("a")
        await api.update(INGRESSES, ingress("a", basic_auth_secret="users"))
        # What it was before does not stay in force for ever.
        await one.until(lambda: not one.open("a"))
        assert one.reasons("a") == ["InvalidAnnotation"]
        client.allowed = True
        await one.until(lambda: one.open("a"))
        assert (one.route("a") or pytest.fail("it is there")).options.auth is not None


async def test_what_cannot_be_taken_in_is_in_nobodys_way_and_tried_again(
    api: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sampan.ingress.following._AGAIN", 0.1)
    monkeypatch.setattr("sampan.ingress.gateway_following._AGAIN", 0.1)
    await api.create(INGRESSCLASSES, ingress_class())
    await api.create(GATEWAYCLASSES, gateway_class())
    await api.create(GATEWAYS, gateway())
    table_update, read, odd = RoutingTable.update, gateway_routes.read, [True]

    def update(table: RoutingTable, owner: Owner, contribution: Contribution) -> frozenset[Owner]:
        if odd and owner[2] == "odd":
            raise KeyError("odd")
        return table_update(table, owner, contribution)

    def broken(route: Object, world: gateway_routes.World) -> gateway_routes.RouteState:
        if odd and route["metadata"]["name"] == "odd":
            raise KeyError("odd")
        return read(route, world)

    monkeypatch.setattr(RoutingTable, "update", update)
    monkeypatch.setattr(gateway_routes, "read", broken)
    for name in ("even", "odd"):
        await api.create(SERVICES, service(name, ("http", 80)))
        await api.create(INGRESSES, ingress(name))
        await api.create(HTTPROUTES, http_route(name))
    async with followed(api) as one:
        states = one.following.gateways.route_states
        await one.until(lambda: ("HTTPRoute", "default", "even") in states)
        assert one.open("even")
        assert one.route("odd") is None
        assert ("HTTPRoute", "default", "odd") not in states
        assert "Ingress default/odd cannot be taken in" in caplog.text
        assert "HTTPRoute default/odd cannot be read" in caplog.text
        odd.clear()
        await one.until(lambda: one.open("odd") and ("HTTPRoute", "default", "odd") in states)
        assert dict(one.following.gateways.attached("default/g")) == {"http": 2}
        for name in ("even", "odd"):
            await api.delete(HTTPROUTES, "default", name)
        await one.until(lambda: not states)
        assert not one.following.gateways.attached("default/g")


async def test_many_changes_leave_others_their_turn(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class concerns all of its Ingresses: they are taken in some at a time."""
    await api.create(INGRESSCLASSES, {**ingress_class(), "spec": {"controller": "example.com/other"}})
    names = [f"i{n}" for n in range(40)]
    for name in names:
        await api.create(INGRESSES, ingress(name))
    async with followed(api) as one:
        assert not any(one.route(name) for name in names)
        monkeypatch.setattr("sampan.ingress.following._TURN", 0.0005)
        await api.delete(INGRESSCLASSES, "", "sampan")
        await api.create(INGRESSCLASSES, ingress_class())
        turns = []

        def there() -> bool:
            turns.append(sum(one.route(name) is not None for name in names))
            return turns[-1] == len(names)

        await one.until(there)
        assert len([n for n in set(turns) if 0 < n < len(names)]) > 1
