"""Sixteen clients that write, read and list ConfigMaps at once, and write down what they asked and what came back."""

from __future__ import annotations

import asyncio
import base64
import math
import random
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.linearizability.checker import Call, Kind, Outcome

NAMESPACE = "default"
_PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
_LABEL = "history"
_DEFINITE: dict[tuple[int, str], Outcome] = {
    (404, "NotFound"): "missing",
    (409, "AlreadyExists"): "exists",
    (409, "Conflict"): "conflict",
}


def connection(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """The server and the credentials of a kubeconfig whose data are inline."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(
        cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
    )
    with tempfile.NamedTemporaryFile() as pair:
        for name in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[name]))
        pair.flush()
        context.load_cert_chain(pair.name)
    return cluster["server"], context


@dataclass
class Listing:
    """What a list showed: its own resource version, and each object's value and version."""

    version: int
    objects: dict[str, tuple[str, int]]


@dataclass
class Record:
    """All calls on single objects, all lists, and the resource version that each value was seen with."""

    calls: list[Call] = field(default_factory=list)
    lists: list[Listing] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)
    """Values that were seen with two versions."""

    def seen(self, value: str, version: int) -> None:
        if self.versions.setdefault(value, version) != version:
            self.doubled.append(value)

    def torn(self) -> list[str]:
        """What lists showed that had been replaced by a version not newer than the list's own: no such moment was."""
        later: dict[str, list[int]] = {}
        for call in self.calls:
            if call.value in self.versions and call.kind in ("create", "update"):
                later.setdefault(call.key, []).append(self.versions[call.value])
        return [
            f"{key} at {version} in a list at {listing.version}"
            for listing in self.lists
            for key, (_, version) in listing.objects.items()
            if version > listing.version
            or any(version < other <= listing.version for other in later.get(key, ()))
        ]


class Client:
    """One client; runs until `stop` is set. A call without a clear answer is `unknown`: it may have been done."""

    def __init__(
        self, number: int, servers: list[str], context: ssl.SSLContext, record: Record, keys: int
    ) -> None:
        self._number = number
        self._servers = servers
        self._context = context
        self._record = record
        self._keys = [f"k{i}" for i in range(keys)]
        self._random = random.Random(number)
        self._known: dict[str, tuple[str, int]] = {}
        """The value and version that this client saw last, by key."""
        self._count = 0

    async def run(self, stop: asyncio.Event) -> None:
        connector = aiohttp.TCPConnector(ssl=self._context)
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while not stop.is_set():
                if not await self._once(session):
                    # Nobody answered: wait for the server (or the end), not for a while.
                    await self._until_answered(session, stop)

    async def _until_answered(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        while not stop.is_set():
            # A server may answer while its store does not: a write that changes nothing tells.
            status, _ = await self._ask(
                session, "POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}}
            )
            if status == 409:
                return
            await asyncio.sleep(0.02)

    async def _once(self, session: aiohttp.ClientSession) -> bool:
        """One call of some kind; whether it was answered."""
        key = self._random.choice(self._keys)
        kind = self._random.choice(["create", "update", "update", "replace", "delete", "get", "get", "list"])
        if kind == "list":
            return await self._list(session)
        if kind == "get":
            return await self._write(session, "read", "GET", f"{_PATH}/{key}", key)
        self._count += 1
        value = f"c{self._number}-{self._count}"
        body: dict[str, Any] = {
            "metadata": {"name": key, "labels": {_LABEL: "yes"}},
            "data": {"value": value},
        }
        if kind == "create":
            return await self._write(session, "create", "POST", _PATH, key, body, value)
        if kind == "delete":
            return await self._write(session, "delete", "DELETE", f"{_PATH}/{key}", key)
        expected = None
        if kind == "update":
            if key not in self._known:
                return True
            expected, version = self._known[key]
            body["metadata"]["resourceVersion"] = str(version)
        return await self._write(session, "update", "PUT", f"{_PATH}/{key}", key, body, value, expected)

    async def _write(
        self,
        session: aiohttp.ClientSession,
        kind: Kind,
        method: str,
        path: str,
        key: str,
        body: Any = None,
        value: str | None = None,
        expected: str | None = None,
    ) -> bool:
        clock = asyncio.get_running_loop().time
        began = clock()
        status, answer = await self._ask(session, method, path, body)
        ended = clock()
        outcome: Outcome = "done"
        if status not in (200, 201):
            outcome = _DEFINITE.get((status, str(answer.get("reason"))), "unknown")
        if kind == "read":
            if outcome == "missing":
                self._record.calls.append(Call(key, "read", began, ended, "done", None))
            elif outcome == "done":
                self._note(key, answer)
                shown = answer["data"]["value"]
                self._record.calls.append(Call(key, "read", began, ended, "done", shown))
            return outcome != "unknown"
        if outcome == "done" and kind != "delete":
            self._note(key, answer)
        if outcome == "unknown":
            ended = math.inf
        self._record.calls.append(Call(key, kind, began, ended, outcome, value, expected))
        return outcome != "unknown"

    async def _list(self, session: aiohttp.ClientSession) -> bool:
        clock = asyncio.get_running_loop().time
        began = clock()
        status, answer = await self._ask(session, "GET", f"{_PATH}?labelSelector={_LABEL}")
        ended = clock()
        if status != 200:
            return False
        shown = {
            item["metadata"]["name"]: self._note(item["metadata"]["name"], item) for item in answer["items"]
        }
        self._record.lists.append(Listing(int(answer["metadata"]["resourceVersion"]), shown))
        for key in self._keys:
            value = shown[key][0] if key in shown else None
            self._record.calls.append(Call(key, "read", began, ended, "done", value))
        return True

    def _note(self, key: str, obj: dict[str, Any]) -> tuple[str, int]:
        value, version = obj["data"]["value"], int(obj["metadata"]["resourceVersion"])
        self._record.seen(value, version)
        self._known[key] = value, version
        return value, version

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, body: Any = None
    ) -> tuple[int, dict[str, Any]]:
        """(0, {}) where there was no answer."""
        server = self._random.choice(self._servers)
        try:
            async with session.request(method, server + path, json=body) as response:
                if not response.content_type.endswith("json"):
                    return response.status, {}
                return response.status, await response.json()
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            return 0, {}
