"""An API server on a real store, called through `App.handle` or, for `https`, by real clients."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sampan.apiserver.app import App
from sampan.apiserver.config import Config
from sampan.apiserver.types import SYSTEM_MASTERS, User
from sampan.store.sqlite import SqliteStore, open_store
from sampan.transport.http import HttpServer
from sampan.transport.tls import server_context
from sampan.transport.types import Answer, Request, Response, StreamingResponse
from tests.programs import kubectl_problem
from tests.transport.authority import Authority

KEY = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


def config(**more: Any) -> Config:
    given: dict[str, Any] = {
        "service_account_key": KEY,
        "cluster_ca": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "advertise_address": "10.0.0.1",
        "static_tokens": {
            "admin": User("admin", "", (SYSTEM_MASTERS,)),
            "nobody": User("nobody", "", ()),
            "other": User("other", "", ()),
        },
        **more,
    }
    return Config(**given)


@dataclass
class Reply:
    status: int
    body: bytes
    headers: list[tuple[str, str]]
    content_type: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def warnings(self) -> list[str]:
        return [v for k, v in self.headers if k == "Warning"]


class FakeStream:
    """The open end of a streamed answer, read by the test as decoded events."""

    def __init__(self) -> None:
        self.ended = False
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.buffered = 0
        self._callbacks: list[Any] = []

    def write_framed(self, framed: bytes) -> None:
        while framed:
            size, _, rest = framed.partition(b"\r\n")
            for line in rest[: int(size, 16)].splitlines():
                self.events.put_nowait(json.loads(line))
            framed = rest[int(size, 16) + 2 :]

    def write(self, data: bytes) -> None:
        raise AssertionError("watches write frames")

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            for callback in self._callbacks:
                callback()

    abort = close

    async def drain(self) -> None: ...

    def on_closed(self, callback: Any) -> None:
        self._callbacks.append(callback)

    async def next(self) -> Any:
        return await asyncio.wait_for(self.events.get(), 20)


class Api:
    """Requests to an app, without sockets."""

    def __init__(self, app: App, store: SqliteStore, directory: Path) -> None:
        self.app = app
        self.store = store
        self.directory = directory
        self.token = "admin"

    async def __call__(
        self, method: str, target: str, body: Any = b"", *, token: str | None = None, **headers: str
    ) -> Reply:
        answer = self.answer(method, target, body, token=token, **headers)
        if isinstance(answer, Awaitable):
            answer = await answer
        assert isinstance(answer, Response)
        data = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
        return Reply(answer.status, data, list(answer.headers), answer.content_type)

    def answer(
        self, method: str, target: str, body: Any = b"", *, token: str | None = None, **headers: str
    ) -> Answer | Awaitable[Answer]:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        sent = {k.replace("_", "-"): v for k, v in headers.items()}
        token = self.token if token is None else token
        if token:
            sent["authorization"] = f"Bearer {token}"
        return self.app.handle(Request(method, target, sent, body))

    def watch(self, target: str, **headers: str) -> FakeStream:
        answer = self.answer("GET", target, **headers)
        assert isinstance(answer, StreamingResponse)
        stream = FakeStream()
        answer.start(stream)
        return stream

    async def ok(self, method: str, target: str, body: Any = b"", **headers: str) -> Any:
        reply = await self(method, target, body, **headers)
        assert reply.status < 300, reply.body
        return reply.json

    async def ok_or_exists(self, method: str, target: str, body: Any = b"") -> None:
        reply = await self(method, target, body)
        assert reply.status < 300 or reply.status == 409, reply.body

    async def restart(self) -> None:
        """Close everything and begin again on the same store."""
        await self.app.close()
        await self.store.close()
        self.store = await open_store(self.directory / "db")
        self.app = App(self.store, config())
        await self.app.start()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    store = await open_store(tmp_path / "db")
    app = App(store, config())
    await app.start()
    made = Api(app, store, tmp_path)
    yield made
    await made.app.close()
    await made.store.close()


class Kubectl:
    """The machine's kubectl, against a server on loopback."""

    def __init__(self, api: Api, directory: Path, kubeconfig: Path) -> None:
        self.api = api
        self.directory = directory
        self.kubeconfig = kubeconfig

    async def run(self, *args: str, stdin: str = "") -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            *args,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "KUBECONFIG": str(self.kubeconfig),
                "HOME": str(self.directory),
            },
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        return process.returncode or 0, out.decode(), err.decode()

    async def __call__(self, *args: str, stdin: str = "") -> str:
        code, out, err = await self.run(*args, stdin=stdin)
        assert code == 0, err
        return out


@pytest.fixture
async def kubectl(api: Api, tmp_path: Path) -> AsyncIterator[Kubectl]:
    if problem := kubectl_problem():
        pytest.skip(problem)
    authority = Authority(tmp_path)
    certificate, key = authority.issue("api")
    client_certificate, client_key = authority.issue("admin", ["system:masters"])
    server = HttpServer(
        lambda request: api.app.handle(request),
        ssl_context=server_context(certificate, key, authority.certificate),
    )
    _, port = await server.listen()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "t",
                "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
                "clusters": [
                    {
                        "name": "t",
                        "cluster": {
                            "server": f"https://127.0.0.1:{port}",
                            "certificate-authority": str(authority.certificate),
                        },
                    }
                ],
                "users": [
                    {
                        "name": "t",
                        "user": {
                            "client-certificate": str(client_certificate),
                            "client-key": str(client_key),
                        },
                    }
                ],
            }
        )
    )
    yield Kubectl(api, tmp_path, kubeconfig)
    api.app.cache.close()
    await server.close(0.1)
