"""Paths, queries and headers that no decent client sends: one clear Status each, never a failure of ours."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.transport.http import HttpServer
from sampan.transport.types import Request, Response
from tests.apiserver.conftest import Api
from tests.apiserver.test_verbs import CM, config_map


@pytest.fixture
async def address(api: Api) -> AsyncIterator[tuple[str, int]]:
    server = HttpServer(lambda r: api.app.handle(r))
    yield await server.listen()
    api.app.cache.close()
    await server.close(0.1)


async def sent(address: tuple[str, int], raw: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer to raw bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(raw)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
        body = await reader.readexactly(length)
    writer.close()
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/api/v1/namespaces//configmaps/a", 404),
        (f"{CM}/%2e%2e/%2e%2e/secrets/x", 404),
        (f"{CM}/..", 404),
        ("/api/v1/namespaces/default%2fconfigmaps", 200),
        (f"{CM}/a%2fb", 404),
        (f"{CM}%00", 404),
        (f"{CM}/a%00b", 404),
        (f"{CM}/%ff%fe", 404),
        (f"{CM}/%zz", 404),
        (f"{CM}/" + "x" * 100_000, 404),
        (f"{CM}/a/b/c/d", 404),
        ("/api/v1/namespaces/%2e%2e/configmaps/a", 404),
        ("/api/v1/namespaces//configmaps", 404),
        ("/api//v1/pods", 404),
        ("/api/v9/pods", 404),
        ("/apis/apps/v9/deployments", 404),
        ("/apis/nothing.example/v1/things", 404),
        ("/apis/apps", 200),
        ("//api/v1/pods", 200),
        ("/api/v1/pods/", 200),
        ("/api/v1/pods?", 200),
        ("/api/v1/pods?&&=&x", 200),
        ("/api/v1/pods?limit=1&limit=x", 200),
        ("/api/v1/pods?resourceVersion=0;limit=x", 400),
        ("/api/v1/pods?labelSelector=%ff", 400),
        ("/api/v1/pods?labelSelector=a%00b", 400),
        ("/api/v1/pods?labelSelector=(", 400),
        ("/api/v1/pods?labelSelector=a%20in%20", 400),
        ("/api/v1/pods?labelSelector=" + "a," * 20_000 + "a", 200),
        ("/api/v1/pods?fieldSelector=a", 400),
        ("/api/v1/pods?fieldSelector=%3D", 400),
        ("/api/v1/pods?fieldSelector=metadata.name%3Da%5C", 400),
        ("/api/v1/pods?fieldSelector=" + "metadata.name!%3Da," * 2_000, 200),
        ("/api/v1/pods?watch=1&resourceVersion=-1", 400),
        ("/api/v1/pods?watch=1&timeoutSeconds=soon", 400),
        ("/api/v1/watch", 404),
        ("/api/v1/watch/", 404),
        ("/api/v1/watch/nothing", 404),
        ("/api/v1/watch/watch/pods", 404),
        ("http://elsewhere/api/v1/pods", 200),
        ("*", 404),
    ],
)
async def test_targets(api: Api, address: tuple[str, int], target: str, code: int) -> None:
    raw = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n\r\n".encode()
    status, body = await sent(address, raw)
    assert status == code, body[:500]
    if code != 200:
        found = json.loads(body)
        assert (found["kind"], found["code"], found["status"]) == ("Status", code, "Failure")
        assert found["message"]
        assert "Traceback" not in found["message"]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["A: " + "x" * 140_000], 431),
        ([f"H{i}: {'x' * 100}" for i in range(2_000)], 431),
        (["Accept: " + "a/b;q=0.1," * 5_000], 406),
        (["Accept: ;;;,,;q=,=;as=;g"], 406),
        (["Accept: application/json;q=nonsense"], 200),
        (["Accept: \xff\xfe"], 406),
        (["Authorization: Bearer \xff"], 401),
        (["Authorization: Bearer"], 403),
        (["Accept-Encoding: gzip;q=nonsense, \xff"], 200),
        (["User-Agent: \xff\x01"], 400),
        (["Accept: application/json\x00"], 400),
        (["No-Colon"], 400),
        (["Host: y"], 400),
        (["Content-Length: 5", "Content-Length: 6"], 400),
        (["Content-Length: -1"], 400),
        (["Content-Length: 99999999999999999999999"], 400),
        (["Transfer-Encoding: chunked, identity"], 400),
        (["Upgrade: websocket", "Connection: Upgrade"], 200),
        (
            [
                "Upgrade: h2c",
                "Connection: Upgrade, HTTP2-Settings",
                "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
            ],
            200,
        ),
    ],
)
async def test_headers(api: Api, address: tuple[str, int], lines: list[str], code: int) -> None:
    given = ["Host: x", *lines]
    if not any(line.startswith("Authorization") for line in lines):
        given.append("Authorization: Bearer admin")
    raw = "\r\n".join([f"GET {CM} HTTP/1.1", *given, "", ""]).encode("latin-1")
    status, body = await sent(address, raw)
    assert status == code, body[:500]
    if code != 200:
        assert json.loads(body)["code"] == code


async def test_a_watch_over_a_broken_websocket_handshake(address: tuple[str, int]) -> None:
    lines = [f"GET {CM}?watch=1 HTTP/1.1", "Host: x", "Authorization: Bearer admin"]
    for more in ([], ["Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: eA=="], ["Sec-WebSocket-Version: 13"]):
        raw = "\r\n".join([*lines, "Connection: Upgrade", "Upgrade: websocket", *more, "", ""]).encode()
        status, body = await sent(address, raw)
        assert (status, json.loads(body)["reason"]) == (400, "BadRequest")


async def test_answers_of_old_and_of_pipelining_clients(api: Api, address: tuple[str, int]) -> None:
    await api.ok("POST", CM, config_map("a"))
    head = "Host: x\r\nAuthorization: Bearer admin\r\n\r\n"
    reader, writer = await asyncio.open_connection(*address)
    writer.write("".join(f"GET {CM}/{n} HTTP/1.1\r\n{head}" for n in "abab").encode())
    writer.write(f"GET {CM}?watch=1&timeoutSeconds=1 HTTP/1.0\r\n{head}".encode())
    async with asyncio.timeout(10):
        answers = (await reader.read()).decode()
    statuses = re.findall("HTTP/1.1 ([0-9]+) ", answers)
    assert statuses == ["200", "404", "200", "404", "200"], "the last of them is a watch"
    watched = answers.rpartition("\r\n\r\n")[2]
    assert json.loads(watched)["type"] == "ADDED", "no chunks for those who do not know them"


_word = st.sampled_from(
    ["api", "apis", "v1", "apps", "watch", "proxy", "namespaces", "default", "pods", "configmaps", "status", "", "..", "%2e", "%2F", "a"]
)  # fmt: skip
_name = st.sampled_from(
    ["watch", "limit", "continue", "resourceVersion", "resourceVersionMatch", "sendInitialEvents", "labelSelector", "fieldSelector",
     "timeoutSeconds", "allowWatchBookmarks", "pretty", "includeObject", "dryRun", "fieldManager"]
)  # fmt: skip
_value = st.one_of(
    st.sampled_from(
        ["", "0", "1", "true", "Exact", "NotOlderThan", "metadata.name%3Da", "a%3Db", "-1", "Object"]
    ),
    st.binary(max_size=12).map(lambda t: "".join(f"%{b:02x}" for b in t)),
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rude")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "HEAD", "DELETE", "POST", "PUT", "PATCH", "OPTIONS", "TRACE", "X"]),
    words=st.lists(_word, max_size=9),
    query=st.lists(st.tuples(_name, _value), max_size=4),
    accept=st.sampled_from(
        ["", "*/*", "application/yaml", "application/json;as=Table;v=v1;g=meta.k8s.io", "a/b"]
    ),
)
async def test_whatever_comes_is_answered(
    api: Api,
    caplog: pytest.LogCaptureFixture,
    method: str,
    words: list[str],
    query: list[tuple[str, str]],
    accept: str,
) -> None:
    target = "/" + "/".join(words) + ("?" + "&".join(f"{n}={v}" for n, v in query) if query else "")
    with caplog.at_level(logging.ERROR):
        answer = api.app.handle(Request(method, target, {"authorization": "Bearer admin", "accept": accept}))
        if not isinstance(answer, Response) and hasattr(answer, "__await__"):
            answer = await answer
    assert not caplog.records
    if isinstance(answer, Response):
        assert answer.status < 500 or answer.status in (501, 504), (method, target, answer.body)
