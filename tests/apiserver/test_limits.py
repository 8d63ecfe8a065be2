"""Rude, slow and unauthorized peers of the API, over real HTTPS."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.apiserver.conftest import Api
from tests.apiserver.https import Connection, serving
from tests.apiserver.test_verbs import CM, config_map

POD = "/api/v1/namespaces/default/pods/p"


@pytest.mark.parametrize("token", ["nobody", "", "wrong"])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"{POD}/exec?command=sh"),
        ("POST", f"{POD}/exec?command=sh"),
        ("GET", f"{POD}/attach"),
        ("GET", f"{POD}/portforward?ports=80"),
        ("GET", f"{POD}/proxy/"),
        ("GET", "/api/v1/namespaces/default/services/s/proxy/"),
        ("GET", "/api/v1/nodes/n/proxy/exec/a/b/c"),
        ("GET", f"{CM}?watch=1"),
    ],
)
async def test_no_upgrade_without_rights(
    api: Api, tmp_path: Path, token: str, method: str, target: str
) -> None:
    """401 or 403 and no 101, however one wants to upgrade; what comes behind is not taken for anything but HTTP."""
    async with serving(api, tmp_path) as https:
        for upgrade in ("websocket", "SPDY/3.1"):
            connection = await https.connect()
            connection.send(
                method, target, token=token, Connection="Upgrade", Upgrade=upgrade, Sec_WebSocket_Key="eA==",
                Sec_WebSocket_Version="13", Sec_WebSocket_Protocol="v5.channel.k8s.io",
                X_Stream_Protocol_Version="v4.channel.k8s.io",
            )  # fmt: skip
            connection.send("GET", "/readyz")
            answer = await connection.answer()
            assert answer.status == (401 if token == "wrong" else 403), answer.body
            assert answer.json["kind"] == "Status"
            assert (await connection.answer()).body == b"ok"


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "CONNECT"])
async def test_methods_that_the_api_does_not_know(api: Api, tmp_path: Path, method: str) -> None:
    async with serving(api, tmp_path) as https:
        connection = await https.connect()
        answer = await connection(method, "x:80" if method == "CONNECT" else CM)
        assert (answer.status, answer.json["reason"]) == (405, "MethodNotAllowed")


async def drip(connection: Connection, data: bytes) -> None:
    """Send a byte a while, until nobody listens."""
    try:
        for i in range(len(data)):
            connection.writer.write(data[i : i + 1])
            await connection.writer.drain()
            await asyncio.sleep(0.01)
    except ConnectionError:
        pass


async def test_slow_peers_are_cut_off_and_others_are_served(api: Api, tmp_path: Path) -> None:
    """Headers and bodies that drip, connections that say nothing and such that never read."""
    await api.ok("POST", CM, config_map("big", data={"x": "y" * 900_000}))
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n" % CM.encode()
    async with serving(
        api, tmp_path, head_timeout=0.2, body_timeout=0.2, idle_timeout=0.2, write_timeout=0.2
    ) as https:
        headers, body, silent, deaf = [await https.connect() for _ in range(4)]
        for _ in range(40):
            deaf.send("GET", f"{CM}/big")
        slow = [
            asyncio.ensure_future(drip(headers, head + b"X: y\r\n" * 100)),
            asyncio.ensure_future(drip(body, head + b"Content-Length: 1000\r\n\r\n" + b"{" * 1000)),
        ]
        good = await https.connect()
        assert (await good("GET", "/livez")).status == 200
        for connection in (headers, body):
            answer = await connection.answer()
            assert (answer.status, answer.json["reason"]) == (408, "Timeout")
            assert await connection.ended() == b""
        assert await silent.ended() == b""
        # Not a word of TLS, and half a word.
        for begun in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            reader, writer = await asyncio.open_connection(https.host, https.port)
            writer.write(begun)
            async with asyncio.timeout(20):
                assert b"HTTP" not in await reader.read()
            writer.close()
        async with asyncio.timeout(20):
            while https.server.connections:
                await asyncio.sleep(0)
        for task in slow:
            task.cancel()
        deaf.writer.transport.abort()
        again = await https.connect()
        assert (await again("GET", "/livez")).status == 200
    assert (await api("GET", CM)).json["items"][0]["metadata"]["name"] == "big"
    assert len((await api("GET", CM)).json["items"]) == 1


async def test_expect_continue_old_versions_and_pipelines(api: Api, tmp_path: Path) -> None:
    async with serving(api, tmp_path) as https:
        connection = await https.connect()
        given = json.dumps(config_map("a")).encode()
        head = f"POST {CM} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nContent-Type: application/json\r\n"
        connection.writer.write(
            f"{head}Content-Length: {len(given)}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.writer.write(given)
        assert (await connection.answer()).status == 201
        for n in "bcd":
            connection.send("POST", CM, config_map(n))
            connection.send("GET", f"{CM}/{n}")
        assert [(await connection.answer()).status for _ in range(6)] == [201, 200] * 3
        connection.writer.write(f"GET {CM}/a HTTP/1.0\r\nAuthorization: Bearer admin\r\n\r\n".encode())
        answer = await connection.ended()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b'"name":"a"' in answer
