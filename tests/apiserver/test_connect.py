"""Proxies to pods, services and nodes, and what is refused before a node is asked."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from sampan.apiserver.connect import log_problems
from sampan.apiserver.proxying import Target, _Links, dial_error, split_scheme_name_port
from sampan.node.server import log_container
from sampan.transport import websocket
from sampan.transport.http import HttpServer
from sampan.transport.tls import client_context
from sampan.transport.types import Request, Response, StreamingResponse
from tests.apiserver.node_fakes import Authority, Rig, pod, rig, server_context


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


class Site:
    """A web server to be proxied to."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.streams: asyncio.Queue[Any] = asyncio.Queue()
        self.server = HttpServer(self.handle, name="site")
        self.port = 0

    def handle(self, request: Request) -> Any:
        self.requests.append(request)
        match request.path:
            case "/page":
                body = b'<a href="/a">x</a><img src=/b><a href="//c">y</a><a href="rel">z</a>'
                if "gzip" in request.headers.get("accept-encoding", ""):
                    return Response(
                        200, gzip.compress(body), "text/html; charset=utf-8", [("Content-Encoding", "gzip")]
                    )
                return Response(200, body, "text/html")
            case "/moved":
                return Response(302, b"", "", [("Location", "/there?x=1")])
            case "/away":
                return Response(302, b"", "", [("Location", "http://elsewhere.example/there")])
            case "/cookies":
                return Response(
                    200,
                    b"",
                    "text/plain",
                    [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Access-Control-Allow-Origin", "*")],
                )
            case "/stream":
                return StreamingResponse(self.streams.put_nowait, content_type="text/event-stream")
            case "/big":
                return Response(200, b"x" * 3_000_000, "application/octet-stream")
            case "/ws":
                return websocket.upgrade(request, ("chat",), self.chat)
            case "/empty":
                return Response(204)
            case "/missing":
                return Response(404, b"no such page", "text/plain")
        said = {"method": request.method, "target": request.target, "body": request.body.decode()}
        return Response(200, json.dumps(said).encode())

    async def chat(self, socket: websocket.WebSocket) -> None:
        while (message := await socket.receive()) is not None:
            socket.send(message.data.upper())


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    # The sites of these tests are on loopback, which no pod's address may be.
    monkeypatch.setattr("sampan.apiserver.connect._allowed", bool)
    async with rig(tmp_path) as made:
        yield made


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    _, made.port = await made.server.listen("127.0.0.1")
    yield made
    await made.server.close(1)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


@pytest.fixture
def service(cluster: Rig, site: Site) -> str:
    """The path of a proxy to a service in front of the site."""
    cluster.cache.add(
        "services",
        {
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        },
    )
    cluster.cache.add(
        "endpointslices",
        {
            "metadata": {
                "name": "web-1",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "ports": [{"name": "http", "port": site.port}],
            "endpoints": [
                {"addresses": ["127.0.0.1"], "conditions": {"ready": True}},
                {"addresses": ["127.0.0.9"], "conditions": {"ready": False}},
            ],
        },
    )
    return "/api/v1/namespaces/default/services/web:80/proxy"


async def test_a_request_goes_through_as_it_is(
    cluster: Rig, site: Site, service: str, http: aiohttp.ClientSession
) -> None:
    headers = {"Authorization": "Bearer secret", "Impersonate-User": "root", "X-Mine": "1", "Cookie": "c=1"}
    url = f"{cluster.api}{service}/a%2Fb/c/?q=1&q=%20"
    async with http.post(url, data=b"hello", headers=headers) as answer:
        assert answer.status == 200
        assert await answer.json() == {"method": "POST", "target": "/a%2Fb/c/?q=1&q=%20", "body": "hello"}
    seen = site.requests[0].headers
    assert "authorization" not in seen
    assert "impersonate-user" not in seen
    assert (seen["x-mine"], seen["cookie"]) == ("1", "c=1")
    assert seen["host"] == f"127.0.0.1:{site.port}"
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-host"] == cluster.api.removeprefix("http://")
    assert seen["x-forwarded-uri"] == f"{service}/a%2Fb/c/"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method(
    cluster: Rig, site: Site, service: str, http: aiohttp.ClientSession, method: str
) -> None:
    async with http.request(method, f"{cluster.api}{service}/x") as answer:
        assert answer.status == 200
        if method != "HEAD":
            assert (await answer.json())["method"] == method
    assert site.requests[0].method == method


async def test_answers_keep_their_status_headers_and_length(
    cluster: Rig, service: str, http: aiohttp.ClientSession
) -> None:
    base = cluster.api + service
    async with http.get(f"{base}/cookies") as answer:
        assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
        assert "Access-Control-Allow-Origin" not in answer.headers
    async with http.get(f"{base}/missing") as answer:
        assert (answer.status, await answer.text()) == (404, "no such page")
    async with http.get(f"{base}/empty") as answer:
        assert answer.status == 204
    async with http.get(f"{base}/big", headers={"Accept-Encoding": "identity"}) as answer:
        assert answer.headers["Content-Length"] == "3000000"
        assert len(await answer.read()) == 3_000_000


async def test_links_and_redirects_come_back_through_the_proxy(
    cluster: Rig, service: str, http: aiohttp.ClientSession
) -> None:
    base = cluster.api + service
    page = f'<a href="{service}/a">x</a><img src={service}/b><a href="//c">y</a><a href="rel">z</a>'.encode()
    for accepted in ("gzip", "identity"):
        async with http.get(f"{base}/page", headers={"Accept-Encoding": accepted}) as answer:
            assert await answer.read() == page
    for path, location in (
        ("/moved", f"{service}/there?x=1"),
        ("/away", "http://elsewhere.example/there"),
        ("?a=b", f"{service}/?a=b"),
    ):
        async with http.get(base + path, allow_redirects=False) as answer:
            assert answer.status in (301, 302)
            assert answer.headers["Location"] == location


async def test_a_stream_goes_through_as_it_comes_and_ends_with_either_side(
    cluster: Rig, site: Site, service: str, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{cluster.api}{service}/stream") as answer:
        stream = await site.streams.get()
        for text in (b"one", b"two"):
            stream.write(text)
            assert await answer.content.readany() == text
        gone = asyncio.Event()
        stream.on_closed(gone.set)
        answer.close()
        await asyncio.wait_for(gone.wait(), 20)


async def test_a_websocket_goes_through(
    cluster: Rig, site: Site, service: str, http: aiohttp.ClientSession
) -> None:
    async with http.ws_connect(f"{cluster.api}{service}/ws", protocols=("chat",)) as socket:
        assert socket.protocol == "chat"
        await socket.send_bytes(b"hello")
        assert (await socket.receive()).data == b"HELLO"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(f"{cluster.api}{service}/missing")
    assert refused.value.status == 404


async def ask(http: aiohttp.ClientSession, url: str) -> tuple[int, str, str]:
    async with http.get(url) as answer:
        status = await answer.json(content_type=None)
        return answer.status, status["reason"], status["message"]


async def test_what_a_service_proxy_refuses(cluster: Rig, service: str, http: aiohttp.ClientSession) -> None:
    base = f"{cluster.api}/api/v1/namespaces/default/services"
    nobody = (503, "ServiceUnavailable", 'no endpoints available for service "web"')
    assert await ask(http, f"{base}/none/proxy/") == (404, "NotFound", 'services "none" not found')
    assert await ask(http, f"{base}/web/proxy/") == nobody
    assert await ask(http, f"{base}/web:other/proxy/") == nobody
    told = 'no service port 81 found for service "web"'
    assert await ask(http, f"{base}/web:81/proxy/") == (503, "ServiceUnavailable", told)
    told = 'invalid service request "ftp:web:80"'
    assert await ask(http, f"{base}/ftp:web:80/proxy/") == (400, "BadRequest", told)
    port = cluster.cache.objects["endpointslices", "default", "web-1"]["ports"][0]
    port["port"] = 1
    told = "error trying to reach service: dial tcp 127.0.0.1:1: connect: connection refused"
    assert await ask(http, f"{base}/web:http/proxy/") == (503, "ServiceUnavailable", told)


async def test_a_service_whose_endpoints_were_written_by_hand(
    cluster: Rig, site: Site, http: aiohttp.ClientSession
) -> None:
    cluster.cache.add(
        "services",
        {"metadata": {"name": "hand", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}},
    )
    cluster.cache.add(
        "endpoints",
        {
            "metadata": {"name": "hand", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": site.port}]}],
        },
    )
    for name in ("hand", "hand:80", "http:hand:", "http%3Ahand%3A80"):
        async with http.get(f"{cluster.api}/api/v1/namespaces/default/services/{name}/proxy/x") as answer:
            assert (answer.status, (await answer.json())["target"]) == (200, "/x")


async def test_a_pod_proxy_uses_the_first_declared_port(
    cluster: Rig, site: Site, http: aiohttp.ClientSession
) -> None:
    made = cluster.add_pod(pod())
    made["spec"]["containers"][0]["ports"] = [{"containerPort": site.port}]
    base = f"{cluster.api}/api/v1/namespaces/default/pods"
    for name in ("web", f"web:{site.port}", f"http:web:{site.port}"):
        async with http.get(f"{base}/{name}/proxy/p") as answer:
            assert (await answer.json())["target"] == "/p"
    assert (await ask(http, f"{base}/none/proxy/"))[0] == 404


async def test_a_pod_proxy_over_tls_trusts_anyone(
    cluster: Rig, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    server = HttpServer(
        lambda r: Response(200, b"safe"),
        ssl_context=server_context(*Authority(tmp_path, "unknown-ca").issue("pod")),
    )
    _, port = await server.listen("127.0.0.1")
    cluster.add_pod(pod())
    async with http.get(f"{cluster.api}/api/v1/namespaces/default/pods/https:web:{port}/proxy/") as answer:
        assert await answer.read() == b"safe"
    await cluster.connector.close()
    await server.close(1)


async def test_addresses_that_no_pod_may_have(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with rig(tmp_path) as cluster:
        mapped = ("::ffff:127.0.0.1", "::ffff:169.254.169.254")
        for address in (
            "127.0.0.1",
            "169.254.169.254",
            "::1",
            "0.0.0.0",
            "",
            "224.0.0.1",
            "255.255.255.255",
            *mapped,
        ):
            cluster.add_pod(pod(podIP=address))
            status = await ask(http, f"{cluster.api}/api/v1/namespaces/default/pods/web:80/proxy/")
            assert status == (400, "BadRequest", "address not allowed")
            node = cluster.cache.objects["nodes", "", "n1"]
            node["status"]["addresses"] = [{"type": "InternalIP", "address": address or "localhost"}]
            for name in ("n1", "n1:2379", "https:n1:443"):
                status = await ask(http, f"{cluster.api}/api/v1/nodes/{name}/proxy/")
                assert status == (400, "BadRequest", "address not allowed")


async def test_a_node_proxy_speaks_to_the_node_s_own_server(
    cluster: Rig, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{cluster.api}/api/v1/nodes/n1/proxy/healthz") as answer:
        assert await answer.read() == b"ok"
    cluster.add_pod(pod())
    async with http.get(f"{cluster.api}/api/v1/nodes/n1/proxy/pods") as answer:
        assert [p["metadata"]["name"] for p in (await answer.json())["items"]] == ["web"]
    assert (await ask(http, f"{cluster.api}/api/v1/nodes/none/proxy/"))[:2] == (404, "NotFound")


async def test_the_node_lets_in_only_the_api_server(cluster: Rig, tmp_path: Path) -> None:
    port = cluster.cache.objects["nodes", "", "n1"]["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    authority = tmp_path / "test-ca.crt"

    async def status(context: ssl.SSLContext) -> int:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"https://127.0.0.1:{port}/pods", ssl=context) as answer:
                return answer.status

    assert await status(client_context(authority)) == 401
    node = (tmp_path / "node.crt", tmp_path / "node.key")
    assert await status(client_context(authority, *node)) == 403
    stranger = Authority(tmp_path, "stranger-ca").issue("sampan-apiserver-node-client", file="stranger")
    with pytest.raises(aiohttp.ClientError):
        await status(client_context(authority, *stranger))


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("", 400, "a container name must be specified for pod two, choose one of: [a b]"),
        ("container=c", 400, "container c is not valid for pod two"),
        ("container=a&previous=true", 400, 'previous terminated container "a" in pod "two" not found'),
        (
            "container=a&tailLines=-1&limitBytes=0",
            422,
            'PodLogOptions "two" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, '
            "limitBytes: Invalid value: 0: must be greater than 0]",
        ),
        ("container=a&tailLines=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
async def test_what_a_log_refuses(
    cluster: Rig, http: aiohttp.ClientSession, query: str, code: int, message: str
) -> None:
    cluster.add_pod(pod("two", "a", "b"))
    url = f"{cluster.api}/api/v1/namespaces/default/pods/two/log?{query}"
    found = await ask(http, url)
    assert (found[0], found[2]) == (code, message)


async def test_logs_of_pods_that_no_node_can_tell_of(cluster: Rig, http: aiohttp.ClientSession) -> None:
    base = f"{cluster.api}/api/v1/namespaces/default/pods"
    assert (await ask(http, f"{base}/none/log"))[2] == 'pods "none" not found'
    cluster.add_pod(pod("pending", node=""))
    async with http.get(f"{base}/pending/log") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    cluster.add_pod(pod("lost", node="n2"))
    assert (await ask(http, f"{base}/lost/log"))[2] == 'nodes "n2" not found'
    cluster.cache.add(
        "nodes",
        {
            "metadata": {"name": "n2"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
            },
        },
    )
    code, reason, message = await ask(http, f"{base}/lost/log")
    assert (code, reason) == (500, "InternalError")
    assert message.endswith("dial tcp 127.0.0.1:1: connect: connection refused")
    assert (await ask(http, f"{base}/lost/exec?command=a&stdout=1"))[2] == "Upgrade request required"


async def test_a_follower_that_leaves_is_let_go_by_the_node(
    cluster: Rig, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    cluster.add_pod(pod())
    log = tmp_path / "0.log"
    log.write_text("2026-01-01T00:00:00Z stdout F hello\n")
    cluster.node.logs["web-main"] = log
    async with http.get(f"{cluster.api}/api/v1/namespaces/default/pods/web/log?follow=true") as answer:
        assert await answer.content.readany() == b"hello\n"
        ended = asyncio.ensure_future(_no_longer_waited_for(cluster))
        answer.close()
    await asyncio.wait_for(ended, 20)


async def _no_longer_waited_for(cluster: Rig) -> None:
    while cluster.node.ended["web-main"]._waiters:  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("status", "previous", "expected"),
    [
        ({"state": {"running": {}}, "containerID": "x://1"}, False, "1"),
        ({"state": {"terminated": {"containerID": "x://1"}}}, False, "1"),
        ({"state": {"terminated": {}}}, False, "is terminated"),
        ({"state": {"running": {}}, "lastState": {"terminated": {"containerID": "x://0"}}}, True, "0"),
        (
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"containerID": "x://0"}}},
            False,
            "0",
        ),
        ({"state": {"waiting": {"reason": "ErrImagePull"}}}, False, "is waiting to start: image can't be pulled"),
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff"}}},
            False,
            "is waiting to start: trying and failing to pull image",
        ),
        ({"state": {"waiting": {"reason": "PodInitializing"}}}, False, "is waiting to start: PodInitializing"),
        ({}, False, "is waiting to start - no logs yet"),
    ],
)  # fmt: skip
def test_which_container_s_log_is_meant(status: dict[str, Any], previous: bool, expected: str) -> None:
    made = {"metadata": {"name": "p"}, "status": {"containerStatuses": [{"name": "c", **status}]}}
    if " " in expected:
        with pytest.raises(Exception, match=f'container "c" in pod "p" {expected}'):
            log_container(made, "c", previous=previous)
    else:
        assert log_container(made, "c", previous=previous) == expected


def test_log_options_that_exclude_each_other() -> None:
    query = urllib.parse.urlencode({"sinceTime": "2026-01-01T00:00:00Z", "sinceSeconds": "5"})
    assert len(list(log_problems(Request("GET", f"/?{query}", {})))) == 1
    assert len(list(log_problems(Request("GET", "/?stream=Stdout&tailLines=1", {})))) == 1
    assert len(list(log_problems(Request("GET", "/?stream=Both", {})))) == 1


def test_scheme_name_port() -> None:
    assert split_scheme_name_port("a") == ("", "a", "")
    assert split_scheme_name_port("a:b") == ("", "a", "b")
    assert split_scheme_name_port("https:a:") == ("https", "a", "")
    for text in ("", ":80", "ftp:a:1", "a:b:c:d"):
        assert split_scheme_name_port(text) is None


def test_links_in_pieces() -> None:
    page = b'<p><a class=x href="/one/two">1</a><a href=\'/p/in\'>2</a><FORM Action="/f"> text /not/a/link'
    wanted = page.replace(b'"/one', b'"/p/one').replace(b'"/f"', b'"/p/f"')
    for size in range(1, len(page)):
        links = _Links("/p", "identity")
        got = b"".join(links.feed(page[n : n + size]) for n in range(0, len(page), size)) + links.end()
        assert got == wanted


def test_dial_errors_read_like_go_s() -> None:
    target = Target("::1", 80, "/")
    assert dial_error(target, TimeoutError()) == "dial tcp [::1]:80: i/o timeout"
    assert dial_error(target, OSError(113, "x")) == "dial tcp [::1]:80: connect: no route to host"


async def test_an_upload_larger_than_any_api_object(
    cluster: Rig, site: Site, service: str, http: aiohttp.ClientSession
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000

    site.server.max_body = 10_000_000
    for body in (b"x" * 5_000_000, pieces()):
        async with http.put(f"{cluster.api}{service}/upload", data=body) as answer:
            assert answer.status == 200
        assert len(site.requests[-1].body) == 5_000_000
