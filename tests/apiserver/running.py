"""An API server behind real HTTPS in a thread of its own, for tests that are no coroutines."""

from __future__ import annotations

import asyncio
import http.client
import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampan.apiserver.app import App
from sampan.store.sqlite import open_store
from sampan.transport.http import HttpServer
from sampan.transport.tls import client_context, server_context
from tests.apiserver.conftest import config
from tests.apiserver.https import Answer
from tests.transport.authority import Authority

DEADLINE = 10.0
"""Seconds within which everything must be answered."""


class Running:
    """Calls go over one connection, which is made anew where the server closes it."""

    def __init__(self, connection: http.client.HTTPSConnection) -> None:
        self._connection = connection

    def __call__(self, method: str, target: str, body: Any = b"", **headers: str) -> Answer:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        sent = {"Authorization": "Bearer admin", **{k.replace("_", "-"): v for k, v in headers.items()}}
        try:
            self._connection.request(method, target, body or None, sent)
            found = self._connection.getresponse()
            if "watch=1" in target and found.status == 200:
                found.close()  # It goes on; that it has begun is all we ask.
                self._connection.close()
                return Answer(200, {}, b"")
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        except BaseException:
            self._connection.close()
            raise

    def ok(self, method: str, target: str, body: Any = b"", **headers: str) -> Any:
        answer = self(method, target, body, **headers)
        assert answer.status < 300, answer.body
        return answer.json


@contextmanager
def running() -> Iterator[Running]:
    """A server with nothing in it but what every cluster begins with, and the account that pods need."""
    started: threading.Event = threading.Event()
    loop = asyncio.new_event_loop()
    where: list[int] = []
    stop = asyncio.Event()

    async def serve(directory: Path, authority: Authority) -> None:
        store = await open_store(directory / "db")
        app = App(store, config())
        await app.start()
        server = HttpServer(app.handle, ssl_context=server_context(*authority.issue("api")))
        where.append((await server.listen())[1])
        started.set()
        await stop.wait()
        app.cache.close()
        await server.close(0.1)
        await app.close()
        await store.close()

    with tempfile.TemporaryDirectory() as directory:
        authority = Authority(Path(directory))
        thread = threading.Thread(target=lambda: loop.run_until_complete(serve(Path(directory), authority)))
        thread.start()
        assert started.wait(30)
        context = client_context(authority.certificate)
        connection = http.client.HTTPSConnection("localhost", where[0], timeout=DEADLINE, context=context)
        made = Running(connection)
        try:
            made("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
            yield made
        finally:
            connection.close()
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()
