"""Encryption at rest: what is sealed, by which key, and how keys are changed."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sampan.apiserver.app import App
from sampan.apiserver.config import Config
from sampan.apiserver.configuration_file import ConfigurationError
from sampan.apiserver.encryption import configuration
from sampan.store.memory import MemoryStore
from sampan.store.types import StoreDamaged
from tests.apiserver.conftest import Api, config

ONE, TWO = (base64.b64encode(bytes([i]) * 32).decode() for i in (1, 2))
AES_ONE = {"aesgcm": {"keys": [{"name": "one", "secret": ONE}]}}
AES_BOTH = {"aesgcm": {"keys": [{"name": "two", "secret": TWO}, {"name": "one", "secret": ONE}]}}
CBC = {"aescbc": {"keys": [{"name": "c", "secret": TWO}]}}
IDENTITY: dict[str, Any] = {"identity": {}}
KEY = "/registry/secrets/default/s"


@asynccontextmanager
async def serving(store: MemoryStore, settings: Config) -> AsyncIterator[Api]:
    """An API server on a store that outlives it."""
    app = App(store, settings)
    await app.start()
    try:
        yield Api(app, store, Path())  # type: ignore[arg-type]
    finally:
        await app.close()


def write(directory: Path, *providers: dict[str, Any], resources: tuple[str, ...] = ("secrets",)) -> Path:
    path = directory / "encryption.yaml"
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": list(resources), "providers": list(providers)}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def secret(value: str = "hidden words") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": value}}


async def stored(store: MemoryStore) -> bytes:
    entry = await store.get(KEY)
    assert entry is not None
    return entry.value


async def test_secrets_are_sealed_and_read_as_ever(tmp_path: Path) -> None:
    store = MemoryStore()
    async with serving(store, config(encryption_config=write(tmp_path, AES_ONE, IDENTITY))) as api:
        await api.ok("POST", "/api/v1/namespaces/default/secrets", secret())
        sealed = await stored(store)
        assert sealed.startswith(b"k8s:enc:aesgcm:v1:one:")
        assert b"hidden" not in sealed
        assert base64.b64encode(b"hidden words") not in sealed
        got = await api("GET", "/api/v1/namespaces/default/secrets/s")
        assert base64.b64decode(got.json["data"]["k"]) == b"hidden words"
        listed = await api("GET", "/api/v1/secrets?fieldSelector=metadata.name=s")
        assert listed.json["items"][0]["data"] == got.json["data"]
        clear = await store.get("/registry/namespaces/default")
        assert clear is not None
        assert clear.value.startswith(b"{")


async def test_keys_are_changed_by_writing_again(tmp_path: Path) -> None:
    """As upstream describes it: add the new key first, start anew, replace every Secret with itself."""
    store = MemoryStore()
    path = "/api/v1/namespaces/default/secrets/s"
    async with serving(store, config()) as api:
        await api.ok("POST", "/api/v1/namespaces/default/secrets", secret())
        assert (await stored(store)).startswith(b"{")
    for providers, begin in (
        ((AES_ONE, IDENTITY), b"k8s:enc:aesgcm:v1:one:"),
        ((AES_BOTH, IDENTITY), b"k8s:enc:aesgcm:v1:two:"),
        ((CBC, AES_BOTH), b"k8s:enc:aescbc:v1:c:"),
        ((IDENTITY, CBC), b"{"),
    ):
        before = await stored(store)
        async with serving(store, config(encryption_config=write(tmp_path, *providers))) as api:
            got = await api.ok("GET", path)
            assert base64.b64decode(got["data"]["k"]) == b"hidden words"
            assert await stored(store) == before, "reading changes nothing"
            again = await api("PUT", path, got)
            assert again.status == 200
            assert (await stored(store)).startswith(begin)
            version = again.json["metadata"]["resourceVersion"]
            assert version != got["metadata"]["resourceVersion"]
            third = await api("PUT", path, again.json)
            assert third.json["metadata"]["resourceVersion"] == version, (
                "sealed as it should be: no new write"
            )


async def test_a_missing_key_is_told_at_the_start(tmp_path: Path) -> None:
    store = MemoryStore()
    async with serving(store, config(encryption_config=write(tmp_path, AES_ONE))) as api:
        await api.ok("POST", "/api/v1/namespaces/default/secrets", secret())
    with pytest.raises(StoreDamaged, match=r"/registry/secrets/default/s: no provider .* opens it"):
        async with serving(store, config(encryption_config=write(tmp_path, IDENTITY))):
            pass


async def test_a_sealed_value_opens_only_where_it_was_put(tmp_path: Path) -> None:
    store = MemoryStore()
    settings = config(encryption_config=write(tmp_path, AES_ONE))
    async with serving(store, settings) as api:
        await api.ok("POST", "/api/v1/namespaces/default/secrets", secret())
    await store.create("/registry/secrets/default/other", await stored(store))
    with pytest.raises(
        StoreDamaged, match="/registry/secrets/default/other: does not open with the aesgcm key one"
    ):
        async with serving(store, settings):
            pass


def test_every_problem_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        """
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets, secretz]
  providers:
  - aesgcm: {keys: [{name: "a:b", secret: "c2hvcnQ="}, {secret: "not base64!"}]}
  - secretbox: {}
  - {identity: {}, aescbc: {}}
- resources: [secrets]
  provider: []
"""
    )
    with pytest.raises(ConfigurationError) as found:
        configuration.load(path)
    text = str(found.value)
    for problem in (
        'resources[0].resources[1]: Invalid value: "secretz": no such resource is stored here',
        'resources[0].providers[0].aesgcm.keys[0].name: Invalid value: "a:b": must not contain ":"',
        "resources[0].providers[0].aesgcm.keys[0].secret: Invalid value: must be 16, 24 or 32 bytes, found 5",
        "resources[0].providers[0].aesgcm.keys[1].name: Required value",
        "resources[0].providers[0].aesgcm.keys[1].secret: Invalid value: must be base64 encoded",
        "resources[0].providers[1].secretbox: is not supported here; use aesgcm",
        "resources[0].providers[2]: must have exactly one provider",
        "resources[1].provider: unknown field (did you mean providers?)",
        "resources[1].providers: Required value: at least one is needed",
        'resources[1].resources: Invalid value: "secrets": is named before',
    ):
        assert problem in text
    assert "not base64!" not in text
