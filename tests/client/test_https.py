"""The HTTPS client against a small server that notes what it was asked and answers as told."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from sampan.api.errors import StatusError, conflict
from sampan.api.resources import CLUSTERROLES, CONFIGMAPS, DEPLOYMENTS, NODES, PODS
from sampan.client import https
from sampan.client.access import Access
from sampan.client.https import HttpsClient
from sampan.client.types import APPLY_PATCH, JSON_PATCH, ConnectionLost, WatchEvent
from sampan.transport.http import HttpServer
from tests.client.certificates import Authority

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers every request with `answer`; `asked` has (method, target, headers, body) of each."""

    def __init__(self, authority: Authority, directory: Path) -> None:
        self.authority = authority
        self.asked: list[tuple[str, str, Any, bytes]] = []
        self.people: list[str | None] = []
        self.connections: set[Any] = set()
        self.answer: Answer = self.nothing
        certificate, key = authority.issue("server", "127.0.0.1", "kubernetes.default")
        (directory / "ca.crt").write_bytes(authority.pem)
        (directory / "server.crt").write_bytes(certificate)
        (directory / "server.key").write_bytes(key)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=directory / "ca.crt")
        self.context.load_cert_chain(directory / "server.crt", directory / "server.key")
        self.context.verify_mode = ssl.CERT_OPTIONAL

    async def start(self) -> None:
        self.runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True), shutdown_timeout=0.1
        )
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.context)
        await site.start()
        self.url = f"https://127.0.0.1:{self.runner.addresses[0][1]}"

    def says(self, status: int, body: Any, **headers: str) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            return web.Response(status=status, body=data, headers=headers)

        self.answer = answer

    def streams(self, *chunks: bytes, cut: bool = False, for_ever: bool = False) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            response.enable_chunked_encoding()
            await response.prepare(request)
            for chunk in chunks:
                await response.write(chunk)
            if for_ever:
                await asyncio.Event().wait()
            if cut and request.transport is not None:
                request.transport.abort()
            return response

        self.answer = answer

    @staticmethod
    async def nothing(request: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        self.connections.add(id(request.transport))
        shown = request.transport.get_extra_info("ssl_object").getpeercert()
        names = {k: v for part in (shown or {}).get("subject", ()) for k, v in part}
        self.people.append(names.get("commonName"))
        self.asked.append((request.method, request.raw_path, request.headers, await request.read()))
        return await self.answer(request)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def server(authority: Authority, tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(authority, tmp_path)
    await server.start()
    yield server
    await server.runner.cleanup()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[HttpsClient]:
    client = HttpsClient(Access(server.url, ca=server.authority.pem, token="t0"))
    yield client
    await client.close()


def event(kind: str, name: str, revision: str, **more: Any) -> bytes:
    obj = {"metadata": {"name": name, "resourceVersion": revision}, **more}
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


async def collect(client: HttpsClient, told: list[WatchEvent]) -> None:
    async for change in client.watch(PODS, resource_version="1"):
        told.append(change)


async def test_requests_go_where_kubernetes_has_them(server: Server, client: HttpsClient) -> None:
    await client.get(PODS, "ns", "web", subresource="status")
    await client.get(CLUSTERROLES, "", "system:node/x y")
    await client.create(CONFIGMAPS, {"metadata": {"name": "c", "namespace": "ns"}})
    await client.create(PODS, {"target": {}}, namespace="ns", name="web", subresource="binding")
    await client.update(DEPLOYMENTS, {"metadata": {"name": "d", "namespace": "ns"}}, subresource="status")
    await client.patch(NODES, "", "n", [{"op": "test"}], content_type=JSON_PATCH)
    await client.patch(NODES, "", "n", b"a: 1", content_type=APPLY_PATCH, field_manager="me", force=True)
    await client.delete(PODS, "ns", "web", grace_period_seconds=0, propagation_policy="Orphan", uid="u")
    asked = [(method, target, body) for method, target, _, body in server.asked]
    assert asked == [
        ("GET", "/api/v1/namespaces/ns/pods/web/status", b""),
        ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node/x%20y", b""),
        ("POST", "/api/v1/namespaces/ns/configmaps", b'{"metadata":{"name":"c","namespace":"ns"}}'),
        ("POST", "/api/v1/namespaces/ns/pods/web/binding", b'{"target":{}}'),
        (
            "PUT",
            "/apis/apps/v1/namespaces/ns/deployments/d/status",
            b'{"metadata":{"name":"d","namespace":"ns"}}',
        ),
        ("PATCH", "/api/v1/nodes/n", b'[{"op":"test"}]'),
        ("PATCH", "/api/v1/nodes/n?fieldManager=me&force=true", b"a: 1"),
        (
            "DELETE",
            "/api/v1/namespaces/ns/pods/web",
            b'{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"propagationPolicy":"Orphan",'
            b'"preconditions":{"uid":"u"}}',
        ),
    ]
    types = [headers.get("Content-Type") for _, _, headers, _ in server.asked]
    assert types[2] == "application/json"
    assert types[5:7] == [JSON_PATCH, APPLY_PATCH]
    assert server.asked[0][2]["User-Agent"] == "sampan"
    assert server.asked[0][2]["Authorization"] == "Bearer t0"
    assert len(server.connections) == 1  # kept alive


async def test_a_list_has_its_revision_and_whole_objects(server: Server, client: HttpsClient) -> None:
    meta = {"resourceVersion": "7", "continue": "more", "remainingItemCount": 3}
    server.says(200, {"metadata": meta, "items": [{"metadata": {"name": "a"}}]})
    found = await client.list(PODS, "ns", label_selector="a=b,c in (d)", limit=1, continue_="x")
    assert found.items == [{"metadata": {"name": "a"}, "apiVersion": "v1", "kind": "Pod"}]
    assert (found.resource_version, found.continue_, found.remaining) == ("7", "more", 3)
    assert server.asked[0][1] == (
        "/api/v1/namespaces/ns/pods?labelSelector=a%3Db%2Cc+in+%28d%29&limit=1&continue=x"
    )
    server.says(200, {"metadata": {"resourceVersion": "8"}, "items": None})
    assert list((await client.list(PODS)).items) == []


async def test_a_status_becomes_its_error(server: Server, client: HttpsClient) -> None:
    refusal = conflict("pods", "web", "it changed")
    server.says(409, refusal.status())
    with pytest.raises(StatusError) as e:
        await client.get(PODS, "ns", "web")
    assert e.value.status() == refusal.status()
    server.says(503, b"upstream is down", **{"Retry-After": "3"})
    with pytest.raises(StatusError) as e:
        await client.get(PODS, "ns", "web")
    assert (e.value.code, e.value.reason, e.value.message) == (503, "ServiceUnavailable", "upstream is down")
    assert e.value.details == {"retryAfterSeconds": 3}


async def test_raw_hands_everything_through(server: Server, client: HttpsClient) -> None:
    server.says(418, b"short")
    assert await client.raw("GET", "/livez", {"verbose": "a b"}, headers={"X-A": "1"}) == (418, b"short")
    method, target, headers, _ = server.asked[0]
    assert (method, target, headers["X-A"]) == ("GET", "/livez?verbose=a+b", "1")


async def test_a_watch_splits_lines_wherever_chunks_end(server: Server, client: HttpsClient) -> None:
    big = event("MODIFIED", "a", "2", data="x" * 3_000_000)
    text = event("ADDED", "a", "1") + big + event("BOOKMARK", "", "3")
    cuts = [0, 1, 40, len(text) // 3, len(text) // 2, len(text) - 5, len(text)]
    server.streams(*(text[a:b] for a, b in itertools.pairwise(cuts)))
    told = [e async for e in client.watch(PODS, "ns", resource_version="0", field_selector="spec.nodeName=n")]
    assert [(e.type, e.object["metadata"]["resourceVersion"]) for e in told] == [
        ("ADDED", "1"),
        ("MODIFIED", "2"),
        ("BOOKMARK", "3"),
    ]
    assert len(told[1].object["data"]) == 3_000_000
    target = server.asked[0][1]
    assert target.startswith(
        "/api/v1/namespaces/ns/pods?watch=true&allowWatchBookmarks=true&resourceVersion=0&"
    )
    assert "fieldSelector=spec.nodeName%3Dn" in target


async def test_a_watch_raises_what_the_server_refuses(server: Server, client: HttpsClient) -> None:
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    server.streams(event("ADDED", "a", "1"), json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
    told: list[WatchEvent] = []
    with pytest.raises(StatusError) as e:
        await collect(client, told)
    assert (len(told), e.value.code, e.value.reason) == (1, 410, "Expired")
    server.says(403, {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"})
    with pytest.raises(StatusError, match="no"):
        await anext(aiter(client.watch(PODS, resource_version="1")))


@pytest.mark.parametrize("half", [b"", b'{"type":"ADD'])
async def test_a_watch_that_is_cut_is_a_lost_connection(
    server: Server, client: HttpsClient, half: bytes
) -> None:
    server.streams(event("ADDED", "a", "1"), half or b"\n", cut=True)
    told: list[WatchEvent] = []
    with pytest.raises(ConnectionLost):
        await collect(client, told)
    server.streams(event("ADDED", "a", "1") + b'{"type":"ADD')
    with pytest.raises(ConnectionLost, match="middle"):
        await collect(client, told)


async def drained(watch: AsyncIterator[WatchEvent]) -> None:
    async for _ in watch:
        pass


async def test_a_watch_is_lost_with_our_own_end_of_its_connection(
    server: Server, client: HttpsClient
) -> None:
    """As a renewed certificate has it, whether somebody waits for the next event or not."""
    for waits in (True, False):
        server.streams(*(event("ADDED", "a", str(n)) for n in range(3)), for_ever=True)
        watch = client.watch(PODS, resource_version="1")
        await anext(watch)  # type: ignore[call-overload]
        if waits:
            for _ in range(2):
                await anext(watch)  # type: ignore[call-overload]
            later = asyncio.ensure_future(anext(watch))  # type: ignore[call-overload]
            await asyncio.sleep(0)
            await client.reconnect()
            with pytest.raises(ConnectionLost):
                await later
        else:
            await client.reconnect()
            with pytest.raises(ConnectionLost):
                await drained(watch)


async def test_leaving_a_watch_closes_its_connection(server: Server, client: HttpsClient) -> None:
    gone = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(event("ADDED", "a", "1"))
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return response

    server.answer = answer
    async with aclosing(client.watch(PODS, resource_version="1")) as watch:  # type: ignore[type-var]
        async for _ in watch:
            break
    await asyncio.wait_for(gone.wait(), 10)


async def test_a_server_that_is_not_there(server: Server, client: HttpsClient) -> None:
    await client.get(NODES, "", "n")
    await server.runner.cleanup()
    with pytest.raises(ConnectionLost, match=r"GET https://127\.0\.0\.1:\d+/api/v1/nodes/n"):
        await client.get(NODES, "", "n")
    with pytest.raises(ConnectionLost):
        await anext(aiter(client.watch(NODES, resource_version="1")))
    await client.close()
    with pytest.raises(ConnectionLost, match="closed"):
        await client.get(NODES, "", "n")


async def test_a_server_of_another_authority_is_not_trusted(server: Server) -> None:
    client = HttpsClient(Access(server.url, ca=Authority().pem))
    with pytest.raises(ConnectionLost, match="certificate verify failed"):
        await client.get(NODES, "", "n")
    await client.close()
    careless = HttpsClient(Access(server.url, ca=Authority().pem, insecure_skip_tls_verify=True))
    await careless.get(NODES, "", "n")
    await careless.close()
    assert len(server.asked) == 1


async def test_the_servers_name_can_be_given(server: Server) -> None:
    for name, right in (("kubernetes.default", True), ("elsewhere", False)):
        client = HttpsClient(Access(server.url, ca=server.authority.pem, tls_server_name=name))
        if right:
            await client.get(NODES, "", "n")
        else:
            with pytest.raises(ConnectionLost, match="mismatch"):
                await client.get(NODES, "", "n")
        await client.close()


@pytest.mark.parametrize("form", ["data", "files"])
async def test_a_client_certificate_is_shown(server: Server, tmp_path: Path, form: str) -> None:
    certificate, key = server.authority.issue("jane")
    ca = server.authority.pem
    (tmp_path / "c").write_bytes(certificate)
    (tmp_path / "k").write_bytes(key)
    if form == "data":
        access = Access(server.url, ca=ca, certificate=certificate, key=key)
    else:
        access = Access(server.url, ca=tmp_path / "ca.crt", certificate=tmp_path / "c", key=tmp_path / "k")
    client = HttpsClient(access)
    await client.get(NODES, "", "n")
    assert server.people == ["jane"]
    assert "Authorization" not in server.asked[0][2]
    await client.close()


async def test_a_renewed_certificate_is_used_by_new_connections(server: Server, tmp_path: Path) -> None:
    def write(name: str) -> None:
        certificate, key = server.authority.issue(name)
        (tmp_path / "k").write_bytes(key)
        (tmp_path / "c").write_bytes(certificate)

    write("old")
    client = HttpsClient(
        Access(server.url, ca=server.authority.pem, certificate=tmp_path / "c", key=tmp_path / "k")
    )
    server.says(200, {}, Connection="close")
    await client.get(NODES, "", "n")
    write("renewed")
    await client.get(NODES, "", "n")
    assert server.people == ["old", "renewed"]
    await client.close()


async def test_tokens_are_read_again(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    client = HttpsClient(Access(server.url, ca=server.authority.pem, token=file))
    await client.get(NODES, "", "n")
    (tmp_path / "new").write_text("two\n")
    (tmp_path / "new").replace(file)
    await client.get(NODES, "", "n")
    file.unlink()
    with pytest.raises(ConnectionLost, match="credentials"):
        await client.get(NODES, "", "n")
    await client.close()
    count = iter(range(9))
    client = HttpsClient(Access(server.url, ca=server.authority.pem, token=lambda: f"n{next(count)}"))
    await client.get(NODES, "", "n")
    await client.get(NODES, "", "n")
    await client.close()
    said = [headers["Authorization"] for _, _, headers, _ in server.asked]
    assert said == ["Bearer one", "Bearer two", "Bearer n0", "Bearer n1"]


async def test_requests_are_bounded_and_watches_do_not_count(server: Server, client: HttpsClient) -> None:
    inside, most, full = 0, 0, asyncio.Event()
    go = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal inside, most
        if "watch" in request.query:
            response = web.StreamResponse()
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(event("ADDED", "a", "1"))
            await asyncio.Event().wait()
        inside += 1
        most = max(most, inside)
        if inside == https.MOST_AT_ONCE:
            full.set()
        await go.wait()
        inside -= 1
        return web.json_response({})

    server.answer = answer
    async with asyncio.TaskGroup() as group:
        for number in range(5 * https.MOST_AT_ONCE):
            group.create_task(client.get(PODS, "ns", f"p{number}"))
        await full.wait()
        watching = client.watch(PODS, resource_version="1")
        async with aclosing(watching):  # type: ignore[type-var]
            assert (await anext(watching)).type == "ADDED"
        go.set()
    assert most == https.MOST_AT_ONCE
    assert len(server.connections) <= https.MOST_AT_ONCE + 1


async def test_an_unused_connection_is_let_go(
    server: Server, client: HttpsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = asyncio.Event()
    lost = RequestHandler.connection_lost

    def connection_lost(self: RequestHandler, error: BaseException | None) -> None:
        lost(self, error)
        closed.set()

    monkeypatch.setattr(RequestHandler, "connection_lost", connection_lost)
    ours = inspect.signature(HttpServer).parameters["idle_timeout"].default
    assert ours > https.IDLE_SECONDS, (
        "the client lets go first: the server might while a request is on its way"
    )
    monkeypatch.setattr(https, "IDLE_SECONDS", 0.05)
    await client.get(PODS, "ns", "p")
    await asyncio.wait_for(closed.wait(), 10)
