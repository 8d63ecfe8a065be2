"""A small API (one handler over a dictionary of objects), and a node whose containers are processes of this machine."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.api.errors import Object, not_found, page_not_found
from sampan.api.resources import Resource
from sampan.apiserver.config import Config
from sampan.apiserver.connect import NodeConnector
from sampan.apiserver.proxying import streams_body
from sampan.apiserver.requestinfo import parse
from sampan.apiserver.types import User
from sampan.node.server import API_SERVER, NodeServer
from sampan.transport import remotecommand
from sampan.transport.http import HttpServer
from sampan.transport.tls import server_context
from sampan.transport.types import Answer, Request, Response
from tests.transport.authority import Authority

ADMIN = User("admin", "", ("system:masters",))


class Cache:
    """`ReadCache` over what a test puts in."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}

    def add(self, plural: str, obj: Object) -> None:
        meta = obj["metadata"]
        self.objects[plural, meta.get("namespace", ""), meta["name"]] = obj

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self.objects.get((resource.plural, namespace, name))

    def list(self, resource: Resource, namespace: str = "") -> list[Object]:
        return [o for (p, n, _), o in self.objects.items() if p == resource.plural and namespace in ("", n)]


class LocalProcess:
    """A command on this machine, with pipes or on a terminal."""

    def __init__(self) -> None:
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.sizes: list[tuple[int, int]] = []
        self.closed = False
        self._process: asyncio.subprocess.Process | None = None
        self._terminal = -1

    @classmethod
    async def start(cls, command: Sequence[str], *, stdin: bool, tty: bool) -> LocalProcess:
        self = cls()
        if tty:
            await self._start_on_terminal(command)
            return self
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.stdin, self.stdout, self.stderr = (
            self._process.stdin,
            self._process.stdout,
            self._process.stderr,
        )
        return self

    async def _start_on_terminal(self, command: Sequence[str]) -> None:
        ours, theirs = pty.openpty()
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        os.set_blocking(ours, False)
        self._terminal = ours
        self.stdout = asyncio.StreamReader()
        asyncio.get_running_loop().add_reader(ours, self._readable)
        self.stdin = _Terminal(ours)  # type: ignore[assignment]

    def _readable(self) -> None:
        assert self.stdout is not None
        try:
            data = os.read(self._terminal, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the last user of the terminal has gone.
        if data:
            self.stdout.feed_data(data)
        else:
            asyncio.get_running_loop().remove_reader(self._terminal)
            self.stdout.feed_eof()

    async def wait(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def close(self) -> None:
        self.closed = True
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        if self._terminal >= 0:
            asyncio.get_running_loop().remove_reader(self._terminal)
            os.close(self._terminal)


class _Terminal:
    """The writing end of a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        os.write(self._descriptor, data)

    async def drain(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class FakeNode:
    """`NodeStreams` over local processes."""

    pod_list: list[Object] = field(default_factory=list)
    logs: dict[str, Path] = field(default_factory=dict)
    ended: dict[str, asyncio.Event] = field(default_factory=dict)
    processes: list[LocalProcess] = field(default_factory=list)
    attached: list[str] = field(default_factory=lambda: ["cat"])

    def pods(self) -> Sequence[Object]:
        return self.pod_list

    def pod(self, namespace: str, name: str) -> Object | None:
        wanted = (namespace, name)
        return next(
            (p for p in self.pod_list if (p["metadata"]["namespace"], p["metadata"]["name"]) == wanted), None
        )

    async def log_path(self, container_id: str) -> Path:
        return self.logs[container_id]

    async def wait_ended(self, container_id: str) -> None:
        await self.ended.setdefault(container_id, asyncio.Event()).wait()

    async def exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> remotecommand.Process:
        if shutil.which(command[0]) is None:
            raise FileNotFoundError(f'exec: "{command[0]}": executable file not found in $PATH')
        process = await LocalProcess.start(command, stdin=stdin, tty=tty)
        self.processes.append(process)
        return process

    async def attach(self, container_id: str) -> remotecommand.Process:
        process = await LocalProcess.start(self.attached, stdin=True, tty=False)
        self.processes.append(process)
        return process

    async def open_port(
        self, namespace: str, name: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)


def pod(name: str = "web", *containers: str, node: str = "n1", **status: Any) -> Object:
    names = containers or ("main",)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
        "spec": {"nodeName": node, "containers": [{"name": n, "image": "busybox"} for n in names]},
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "containerStatuses": [
                {
                    "name": n,
                    "ready": True,
                    "containerID": f"sampan://{name}-{n}",
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                    "lastState": {},
                }
                for n in names
            ],
            **status,
        },
    }


@dataclass
class Rig:
    cache: Cache
    node: FakeNode
    api: str
    connector: NodeConnector
    requests: list[Request]

    def add_pod(self, obj: Object) -> Object:
        self.cache.add("pods", obj)
        self.node.pod_list.append(obj)
        return obj


@asynccontextmanager
async def rig(directory: Path) -> AsyncIterator[Rig]:
    """An API on plain HTTP and a node with real TLS between them."""
    authority = Authority(directory)
    serving = authority.issue("system:node:n1", ["system:nodes"], "node")
    certificate, key = authority.issue(API_SERVER, ["system:masters"])
    cache, node, requests = Cache(), FakeNode(), []
    server = NodeServer(node, certificate=serving[0], key=serving[1], client_ca=authority.certificate)
    _, port = await server.start("127.0.0.1", 0)
    cache.add(
        "nodes",
        {
            "metadata": {"name": "n1"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            },
        },
    )
    config = Config(
        service_account_key=b"",
        cluster_ca=authority.certificate.read_bytes(),
        advertise_address="127.0.0.1",
        node_client_certificate=certificate,
        node_client_key=key,
    )
    connector = NodeConnector(cache, config)

    def handle(request: Request) -> Any:
        requests.append(request)
        info = parse(request)
        if info.subresource:
            return connector.connect(request, info, ADMIN)
        return _read(cache, info.plural, info.namespace, info.name, request.path)

    api = HttpServer(handle, stream_body=streams_body, name="api")
    host, api_port = await api.listen("127.0.0.1")
    try:
        yield Rig(cache, node, f"http://{host}:{api_port}", connector, requests)
    finally:
        await api.close(1)
        await connector.close()
        await server.close(1)
        assert api.connections == 0


def _read(cache: Cache, plural: str, namespace: str, name: str, path: str) -> Answer:
    documents: dict[str, Any] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.2+sampan"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {
            "kind": "APIResourceList",
            "groupVersion": "v1",
            "resources": [
                {
                    "name": "pods",
                    "singularName": "pod",
                    "namespaced": True,
                    "kind": "Pod",
                    "verbs": ["get", "list"],
                    "shortNames": ["po"],
                }
            ],
        },
    }
    if (found := documents.get(path)) is not None:
        return Response(200, json.dumps(found).encode())
    if plural != "pods" or not name:
        raise page_not_found()
    obj = cache.objects.get((plural, namespace, name))
    if obj is None:
        raise not_found(plural, name)
    return Response(200, json.dumps(obj).encode())


__all__ = ["ADMIN", "Authority", "Cache", "FakeNode", "LocalProcess", "Rig", "pod", "rig", "server_context"]
