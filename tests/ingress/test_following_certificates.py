"""Secrets with certificates as they are followed, on a real API server core: who is concerned by a change, and what becomes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.api.resources import INGRESSCLASSES, INGRESSES, SECRETS
from sampan.ingress.controller import IngressController
from sampan.ingress.following import Following
from sampan.ingress.own_objects import ingress_class
from sampan.ingress.table import CONFLICT
from sampan.ingress.types import INGRESS_SCOPE, Host
from tests.controllers.conftest import api, running
from tests.ingress.test_certificates import make

__all__ = ["api"]
pytestmark = pytest.mark.timeout(30)


def ingress(name: str) -> Object:
    host = f"{name}.test"
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "ingressClassName": "sampan",
            "rules": [rule],
            "tls": [{"hosts": [host], "secretName": name}],
        },
    }


def secret(name: str, *pair: str, type_: str = "kubernetes.io/tls") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": type_,
        "metadata": {"name": name, "namespace": "default"},
        "stringData": dict(zip(("tls.crt", "tls.key"), pair, strict=True)),
    }


async def test_a_changed_secret_concerns_the_ingresses_that_name_it(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.create(INGRESSCLASSES, ingress_class())
    names = [f"i{n}" for n in range(20)]
    for name in names:
        await api.create(SECRETS, secret(name, *make(f"{name}.test")))
        await api.create(INGRESSES, ingress(name))
    changed, started = asyncio.Event(), asyncio.Event()
    following = Following(api, changed.set, backends=False)
    seen: list[str] = []
    update = following._update_ingress

    def noted(key: str) -> set[str]:
        seen.append(key)
        return update(key)

    monkeypatch.setattr(following, "_update_ingress", noted)
    held = following.table.routing.certificates

    async def take() -> None:
        await changed.wait()
        changed.clear()
        seen.clear()
        following.update()

    async with running(following.run(started.set)):
        await started.wait()
        assert {host.name for _, host in held} == {f"{n}.test" for n in names}
        following.table.take_change()
        changed.clear()
        chain, key = make("new.test")
        new = await api.get(SECRETS, "default", "i7")
        await api.update(SECRETS, {**new, **secret("i7", chain, key), "metadata": new["metadata"]})
        await take()
        assert seen == ["default/i7"]
        place = (INGRESS_SCOPE, Host.of_ingress("i7.test"))
        assert following.table.take_change().certificates == {place}
        assert held[place].chain == chain
        assert key not in repr(held[place])
        await api.delete(SECRETS, "default", "i7")
        await take()
        assert place not in held
        reasons = [p.reason for p in following.table.contribution(("Ingress", "default", "i7")).problems]
        assert "SecretNotFound" in reasons
        # Another Secret, one that nobody names and one of another type, wakes nobody.
        await api.create(SECRETS, secret("alone", *make("alone.test")))
        await api.create(SECRETS, secret("opaque", "x", "y", type_="Opaque"))
        await api.create(SECRETS, secret("i7", *make("i7.test")))
        await take()
        assert seen == ["default/i7"]
        assert place in held


async def test_those_who_share_a_renewed_secret_are_not_told_that_they_differ(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes to take all of them in: halfway through, some have the old certificate."""
    monkeypatch.setattr("sampan.ingress.following._TURN", 0.0003)

    def sharing(name: str) -> Object:
        made = ingress(name)
        made["spec"]["tls"] = [{"hosts": ["shared.test"], "secretName": "shared"}]
        return made

    await api.create(SECRETS, secret("shared", *make("shared.test")))
    controller = IngressController(api)
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(
        controller._recorder,
        "event",
        lambda obj, kind, reason, message: told.append((obj["metadata"]["name"], reason)),
    )

    async def all_told(names: set[str]) -> None:
        async with asyncio.timeout(20):
            while {name for name, reason in told if reason == "Sync"} < names:
                await asyncio.sleep(0.01)

    names = {f"i{n}" for n in range(60)}
    async with running(controller.run()):
        for name in sorted(names):
            await api.create(INGRESSES, sharing(name))
        await all_told(names)
        chain, key = make("shared.test")
        found = secret("shared", chain, key)
        await api.patch(SECRETS, "default", "shared", {"stringData": found["stringData"]})
        shown = controller._following.table.routing.certificates
        async with asyncio.timeout(20):
            while controller._following.behind or chain not in {c.chain for c in shown.values()}:
                await asyncio.sleep(0.001)
        # What is told of one that comes later is told after all else.
        await api.create(INGRESSES, sharing("last"))
        await all_told({*names, "last"})
    assert [name for name, reason in told if reason == CONFLICT] == []
