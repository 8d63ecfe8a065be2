"""Tokens kept in Secrets: of ServiceAccounts, and for bootstrapping."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.api.objects import format_time
from sampan.api.resources import SECRETS, SERVICEACCOUNTS
from sampan.apiserver.app import App
from sampan.controllers.manager import Manager
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config

from .conftest import Cluster, running


def signed(account: Object, secret: Object) -> str:
    return f"token of {account['metadata']['name']} in {secret['metadata']['name']}"


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    app = App(MemoryStore(), config())
    await app.start()
    async with running(Manager(app.client(), "THE CA", signed).run()):
        yield Cluster(app.client())
    await app.close()


def secret(name: str, account: str, **annotations: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"kubernetes.io/service-account.name": account, **annotations},
        },
        "type": "kubernetes.io/service-account-token",
    }


def account(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": "default"},
    }


def text(secret: Object, key: str) -> str:
    return base64.b64decode((secret.get("data") or {}).get(key, "")).decode()


async def test_a_secret_gets_its_token_and_goes_with_its_account(cluster: Cluster) -> None:
    made = await cluster.client.create(SERVICEACCOUNTS, account("bot"))
    await cluster.client.create(SECRETS, secret("bot-token", "bot"))
    (filled,) = await cluster.until(SECRETS, lambda found: found and found[0].get("data"))
    assert text(filled, "token") == "token of bot in bot-token"
    assert text(filled, "ca.crt") == "THE CA"
    assert text(filled, "namespace") == "default"
    uid = made["metadata"]["uid"]
    assert filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == uid

    def lose(obj: Object) -> None:
        del obj["data"]["token"]

    await cluster.change(SECRETS, filled, lose)
    await cluster.until(SECRETS, lambda found: found and text(found[0], "token"))
    await cluster.client.delete(SERVICEACCOUNTS, "default", "bot")
    await cluster.until(SECRETS, lambda found: not found)


async def test_a_secret_without_its_account_is_removed(cluster: Cluster) -> None:
    await cluster.client.create(SECRETS, secret("orphan", "nobody"))
    await cluster.until(SECRETS, lambda found: not found)
    await cluster.client.create(SERVICEACCOUNTS, account("bot"))
    await cluster.client.create(
        SECRETS, secret("stale", "bot", **{"kubernetes.io/service-account.uid": "another"})
    )
    await cluster.until(SECRETS, lambda found: not found)


async def test_a_bootstrap_token_goes_when_its_time_is_over(cluster: Cluster) -> None:
    def token(name: str, **data: Any) -> Object:
        encoded = {k.replace("_", "-"): base64.b64encode(v.encode()).decode() for k, v in data.items()}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"bootstrap-token-{name}", "namespace": "kube-system"},
            "type": "bootstrap.kubernetes.io/token",
            "data": {**encoded, "token-id": base64.b64encode(name.encode()).decode()},
        }

    soon = format_time(time.time() + 1.0)
    later = format_time(time.time() + 3600)
    names = {"aaaaaa": soon, "bbbbbb": later, "cccccc": format_time(0)}
    async with asyncio.TaskGroup() as group:
        for name, expiration in names.items():
            made = token(name, token_secret="0123456789abcdef", expiration=expiration)
            group.create_task(cluster.client.create(SECRETS, made))
    (left,) = await cluster.until(SECRETS, lambda found: len(found) == 1, "kube-system")
    assert left["metadata"]["name"] == "bootstrap-token-bbbbbb"
