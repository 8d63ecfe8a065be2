"""A client for any Kubernetes API, so that a benchmark measures Sampan and others alike; and the options to name one."""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

_LONGEST_LINE = 2**22


@dataclass(frozen=True, slots=True)
class Target:
    """An API server and a bearer token that may do everything. Its certificate is not checked: only time counts."""

    server: str
    token: str


def options(description: str) -> argparse.ArgumentParser:
    """A parser that knows `--server` and `--token`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", required=True, help="https://HOST:PORT of the API")
    parser.add_argument("--token", required=True, help="bearer token of somebody who may do everything")
    return parser


class Api:
    """Requests in JSON. Paths begin at the server's root."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST. Raises AssertionError with the server's words unless it was created."""
        async with self._session.post(self._server + path, json=body) as answer:
            assert answer.status == 201, f"POST {path}: {answer.status} {await answer.text()}"
            return dict(await answer.json())

    async def update(self, path: str, body: dict[str, Any]) -> None:
        """PUT. Raises AssertionError with the server's words unless it was taken."""
        async with self._session.put(self._server + path, json=body) as answer:
            assert answer.status == 200, f"PUT {path}: {answer.status} {await answer.text()}"
            await answer.read()

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        return dict(json.loads(await self.get_bytes(path, **query)))

    async def get_bytes(self, path: str, **query: str) -> bytes:
        async with self._session.get(self._server + path, params=query) as answer:
            assert answer.status == 200, f"GET {path}: {answer.status} {await answer.text()}"
            return await answer.read()

    async def delete(self, path: str, **options: Any) -> None:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
        async with self._session.delete(self._server + path, json=body) as answer:
            await answer.read()

    @asynccontextmanager
    async def watch(self, path: str, revision: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a watch that has begun."""
        query = {"watch": "1", "resourceVersion": revision}
        async with self._session.get(self._server + path, params=query) as answer:
            assert answer.status == 200, f"watch {path}: {answer.status} {await answer.text()}"
            yield aiter(answer.content)

    async def revision(self, path: str) -> str:
        """The resourceVersion of a collection now."""
        return str((await self.get(path, limit="1"))["metadata"]["resourceVersion"])


@asynccontextmanager
async def connect(target: Target, connections: int = 0) -> AsyncIterator[Api]:
    """`connections` 0 means as many as are asked for at once."""
    insecure = ssl.create_default_context()
    insecure.check_hostname = False
    insecure.verify_mode = ssl.CERT_NONE
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {target.token}"},
        connector=aiohttp.TCPConnector(ssl=insecure, limit=connections),
        timeout=aiohttp.ClientTimeout(None),
        read_bufsize=_LONGEST_LINE,
    ) as session:
        yield Api(session, target.server)


class Sightings:
    """When things were first seen, and waiting for them."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._changed = asyncio.Condition()

    async def see(self, name: str, at: float) -> None:
        if name not in self._at:
            self._at[name] = at
            async with self._changed:
                self._changed.notify_all()

    async def wait(self, *names: str, timeout: float = 120) -> float:
        """When the last of them was seen."""
        seen: Callable[[], bool] = lambda: all(n in self._at for n in names)  # noqa: E731
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(seen), timeout)
        return max(self._at[n] for n in names)
