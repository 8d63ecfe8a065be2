"""Probes and hooks: against real sockets, and in the life of a pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sampan.api.resources import EVENTS
from sampan.node.handlers import HandlerFailure, UnknownPort, http_get, port_of, tcp_connect
from sampan.node.runtime.fake import Call
from tests.node.harness import Node


class Web:
    """An HTTP server with one answer."""

    def __init__(self) -> None:
        self.answers = {"/": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"}
        self.requests: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        path = head.split(" ")[1]
        if path == "/hang":
            await reader.read()
        else:
            writer.write(self.answers.get(path, b"HTTP/1.1 404 Not Found\r\n\r\n"))
        writer.close()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    web = Web()
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0)
    web.port = server.sockets[0].getsockname()[1]
    yield web
    server.close()


async def get(web: Web, path: str = "/", **action: Any) -> str:
    return await http_get({}, {"port": web.port, "path": path, **action}, "127.0.0.1", 1, "kube-probe/1.36")


async def test_http(web: Web) -> None:
    headers = [{"name": "Host", "value": "example.com"}, {"name": "X-A", "value": "b"}]
    assert await get(web, httpHeaders=headers) == "hi"
    assert "Host: example.com\r\n" in web.requests[0]
    assert "User-Agent: kube-probe/1.36\r\n" in web.requests[0]
    with pytest.raises(HandlerFailure, match="HTTP probe failed with statuscode: 404"):
        await get(web, "/none")


async def test_a_probe_asks_one_thing_only(web: Web) -> None:
    """Nothing in a pod's probe makes a second request of the first, to whatever host it names."""
    with pytest.raises(HandlerFailure, match='invalid header field value for "X-A"'):
        await get(web, httpHeaders=[{"name": "X-A", "value": "b\r\nX-Admin: yes"}])
    assert web.requests == []
    with pytest.raises(HandlerFailure, match="statuscode: 404"):
        await get(web, "/a b\r\nX: y?q=1 2&é=%20")
    assert web.requests[0].startswith(
        "GET /a%20b%0D%0AX:%20y?q=1%202&%C3%A9=%20 HTTP/1.1\r\nHost: 127.0.0.1:"
    )


async def test_http_redirects(web: Web) -> None:
    web.answers["/there"] = b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"
    web.answers["/away"] = b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n"
    web.answers["/loop"] = b"HTTP/1.1 302 Found\r\nLocation: /loop\r\n\r\n"
    assert await get(web, "/there") == "hi"
    await get(web, "/away")
    with pytest.raises(HandlerFailure, match="stopped after 10 redirects"):
        await get(web, "/loop")


async def test_http_failures(web: Web) -> None:
    action = {"port": web.port, "path": "/hang"}
    with pytest.raises(HandlerFailure, match="context deadline exceeded"):
        await http_get({}, action, "127.0.0.1", 0.01, "x")
    web.answers["/junk"] = b"hello\r\n\r\n"
    with pytest.raises(HandlerFailure, match="malformed HTTP response"):
        await get(web, "/junk")
    with pytest.raises(
        HandlerFailure, match=r'Get "http://127.0.0.1:1/": dial tcp 127.0.0.1:1: connect: connection refused'
    ):
        await http_get({}, {"port": 1}, "127.0.0.1", 1, "x")


async def test_tcp(web: Web) -> None:
    await tcp_connect("127.0.0.1", web.port, 1)
    with pytest.raises(HandlerFailure, match=r"dial tcp 127.0.0.1:1: connect: connection refused"):
        await tcp_connect("127.0.0.1", 1, 1)


def test_named_ports() -> None:
    container = {"ports": [{"name": "http", "containerPort": 80}]}
    assert (port_of(container, "http"), port_of(container, 8080), port_of(container, "90")) == (80, 8080, 90)
    with pytest.raises(UnknownPort):
        port_of(container, "nope")


def pod(**container: Any) -> list[dict[str, Any]]:
    return [{"name": "c", "image": "busybox", **container}]


class Switch:
    """A program for exec probes whose outcome a test turns over."""

    def __init__(self, node: Node, good: bool = True) -> None:
        self.good = good
        self.runs = 0
        node.runtime.programs["check"] = self

    async def __call__(self, call: Call) -> int:
        self.runs += 1
        if not self.good:
            call.write(b"not now")
        return 0 if self.good else 1


PROBE = {"exec": {"command": ["check"]}, "periodSeconds": 0.02, "failureThreshold": 2}


async def test_readiness(node: Node) -> None:
    switch = Switch(node, good=False)
    node.add(containers=pod(readinessProbe=PROBE))
    await node.until(lambda: node.container().get("started"))
    assert node.container()["ready"] is False
    assert node.condition("ContainersReady")["status"] == "False"
    assert node.status()["phase"] == "Running"
    switch.good = True
    await node.until_ready()
    switch.good = False
    await node.until(lambda: node.condition("Ready")["status"] == "False")
    assert node.container()["restartCount"] == 0
    assert ("Warning", "Unhealthy", "Readiness probe failed: not now") in await node.events()


async def test_the_first_readiness_probe_does_not_wait(node: Node) -> None:
    Switch(node)
    node.add(containers=pod(readinessProbe={**PROBE, "periodSeconds": 3600}))
    await node.until_ready()


async def test_liveness(node: Node) -> None:
    switch = Switch(node)
    node.add(containers=pod(livenessProbe=PROBE))
    await node.until_ready()
    switch.good = False
    await node.until(lambda: node.container().get("restartCount") == 1)
    switch.good = True
    await node.until_ready()
    events = await node.events()
    assert ("Warning", "Unhealthy", "Liveness probe failed: not now") in events
    assert ("Normal", "Killing", "Container c failed liveness probe, will be restarted") in events
    assert node.container()["lastState"]["terminated"]["exitCode"] == 143


async def test_startup_comes_first(node: Node) -> None:
    switch = Switch(node, good=False)
    other = Switch.__new__(Switch)
    other.good, other.runs = True, 0
    node.runtime.programs["other"] = other
    startup = {**PROBE, "failureThreshold": 1000}
    readiness = {"exec": {"command": ["other"]}, "periodSeconds": 0.02}
    node.add(containers=pod(startupProbe=startup, readinessProbe=readiness))
    await node.until_true(lambda: switch.runs > 2)
    assert other.runs == 0
    assert node.container().get("started") in (None, False)
    switch.good = True
    await node.until_ready()
    assert node.container()["started"] is True


async def test_a_probe_that_cannot_run_says_nothing(node: Node) -> None:
    probe = {"httpGet": {"port": "nope"}, "periodSeconds": 0.01, "failureThreshold": 1}
    node.add(containers=pod(livenessProbe=probe))
    await node.until_ready()
    await node.until(
        lambda: any(e["reason"] == "Unhealthy" for e in node.client.objects[EVENTS.key_stem].values())
    )
    message = "Liveness probe errored and resulted in unknown state: couldn't find port: 'nope'"
    assert ("Warning", "Unhealthy", message) in await node.events()
    assert node.container()["restartCount"] == 0


async def test_readiness_stays_over_an_agent_restart(node: Node) -> None:
    switch = Switch(node)
    node.add(containers=pod(readinessProbe={**PROBE, "periodSeconds": 3600}))
    await node.until_ready()
    await node.stop()
    writes = len(node.client.writes)
    switch.runs = 0
    await node.start()
    await node.until_true(lambda: switch.runs == 1)
    assert not [w for w in node.client.writes[writes:] if w[:2] == ("patch", "pods")]


async def test_hooks(node: Node) -> None:
    order: list[str] = []
    release = asyncio.Event()

    async def hook(call: Call) -> int:
        order.append(call.args[1])
        await release.wait()
        return 0

    node.runtime.programs["hook"] = hook
    lifecycle = {
        "postStart": {"exec": {"command": ["hook", "start"]}},
        "preStop": {"exec": {"command": ["hook", "stop"]}},
    }
    node.add(containers=pod(lifecycle=lifecycle))
    await node.until_true(lambda: order == ["start"])
    assert node.condition("Ready").get("status") != "True"
    release.set()
    await node.until_ready()
    node.client.graceful_delete("default", "web")
    await node.until(lambda: node.pod() is None)
    assert order == ["start", "stop"]


async def test_a_failed_post_start_hook_ends_the_container(node: Node) -> None:
    node.add(containers=pod(lifecycle={"postStart": {"exec": {"command": ["false"]}}}))
    await node.until(lambda: node.container().get("restartCount") == 1)
    await node.until(
        lambda: (
            node.container()["state"].get("waiting", {}).get("reason")
            in ("PostStartHookError", "CrashLoopBackOff")
        )
    )
    assert ("Warning", "FailedPostStartHook", "PostStartHook failed") in await node.events()


async def test_a_failed_pre_stop_hook_is_told(node: Node) -> None:
    node.add(containers=pod(lifecycle={"preStop": {"exec": {"command": ["false"]}}}))
    await node.until_ready()
    node.client.graceful_delete("default", "web")
    await node.until(lambda: node.pod() is None)
    assert ("Warning", "FailedPreStopHook", "PreStopHook failed") in await node.events()
