"""A real HTTPS server in front of an API, and a client of it that says exactly the bytes it is told to."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.transport.http import HttpServer
from sampan.transport.tls import client_context, server_context
from tests.apiserver.conftest import Api
from tests.transport.authority import Authority
from tests.transport.test_http import read_answer, read_chunk


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One connection; requests go one after the other unless `send` is called by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, method: str, target: str, body: Any = b"", token: str = "admin", **headers: str) -> None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        lines = [f"{method} {target} HTTP/1.1", "Host: x"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
            headers.setdefault("Content-Type", "application/json")
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(20):
            return Answer(*await read_answer(self.reader, head_only))

    async def __call__(self, method: str, target: str, body: Any = b"", **more: Any) -> Answer:
        self.send(method, target, body, **more)
        return await self.answer()

    async def chunk(self) -> bytes:
        """The next chunk of a streamed answer; b"" is the last."""
        async with asyncio.timeout(20):
            return await read_chunk(self.reader)

    async def ended(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(20):
            return await self.reader.read()


@dataclass
class Https:
    api: Api
    server: HttpServer
    context: ssl.SSLContext
    host: str
    port: int
    opened: list[Connection] = field(default_factory=list)

    async def connect(self) -> Connection:
        found = await asyncio.open_connection(
            self.host, self.port, ssl=self.context, server_hostname="localhost"
        )
        self.opened.append(Connection(*found))
        return self.opened[-1]


@asynccontextmanager
async def serving(api: Api, directory: Path, **options: Any) -> AsyncIterator[Https]:
    """`options` are those of the server."""
    authority = Authority(directory)
    certificate, key = authority.issue("api")
    server = HttpServer(
        lambda request: api.app.handle(request),
        ssl_context=server_context(certificate, key, authority.certificate),
        **options,
    )
    host, port = await server.listen()
    made = Https(api, server, client_context(authority.certificate), host, port)
    try:
        yield made
    finally:
        for connection in made.opened:
            connection.writer.close()
        api.app.cache.close()
        await server.close(0.1)
