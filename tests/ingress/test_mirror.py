"""Copies of requests: what a RequestMirror asks for, and that whoever sent the request never notices any of it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from shutil import which

import pytest

from sampan.api.errors import Object
from sampan.ingress import gateway_filters
from sampan.ingress.types import Backend, Endpoint, Mirror, ServicePort
from tests.ingress.door import Upstream
from tests.ingress.gateway_objects import accepted, cluster, http, made, rule
from tests.ingress.gateway_place import Place, path, place, to

pytestmark = pytest.mark.timeout(60)
needs_haproxy = pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed")


def mirror(name: str, **more: object) -> Object:
    return {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name, "port": 80}, **more}}


class Sink:
    """A backend that notes what it gets. `answer` is what it says, None for nothing at all."""

    def __init__(self, answer: bytes | None = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") -> None:
        self.answer = answer
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.got, self.ended = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Sink:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = Endpoint("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *args: object) -> None:
        self._server.close()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.heads) < count:
                self.got.clear()
                await self.got.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                body = b""
                while "transfer-encoding: chunked" in head:
                    size = int((await reader.readline()).split(b";")[0], 16)
                    body += (await reader.readexactly(size + 2))[:-2]
                    if not size:
                        break
                self.bodies.append(body)
                self.heads.append(head)
                self.got.set()
                if self.answer is None:
                    with contextlib.suppress(ConnectionError):
                        await reader.read()
                    self.ended.set()
                    break
                writer.write(self.answer or b"")
                await writer.drain()
        writer.close()


async def have(at: Place, sinks: dict[str, Sink], *filters: Object) -> None:
    for name, sink in sinks.items():
        at.door.table.set_endpoints(ServicePort("infra", name, 80), [sink.endpoint])
    await at.have(http(to("s", path("/"), filters=list(filters))))


def test_what_is_asked_for() -> None:
    """HTTPRouteRequestMirror, HTTPRouteRequestMultipleMirrors, HTTPRouteRequestPercentageMirror."""
    there = cluster()
    given = [mirror("t"), mirror("s", percent=20), mirror("t", fraction={"numerator": 1, "denominator": 3})]
    state = there.route(http(rule({"name": "s", "port": 80}, filters=given)))
    assert accepted(state) == ["True Accepted"]
    (route,) = state.contribution.routes
    t, s = Backend(ServicePort("infra", "t", 80)), Backend(ServicePort("infra", "s", 80))
    assert route.mirrors == (Mirror(t, 1, 1), Mirror(s, 20, 100), Mirror(t, 1, 3))
    assert set(route.backends) == {s, t}
    assert gateway_filters.share({"percent": 0}) == (0, 100)


def test_a_mirror_that_cannot_be_had_keeps_nobody_from_the_backend() -> None:
    for ref, reason in (
        ({"name": "none", "port": 80}, "BackendNotFound"),
        ({"name": "s", "port": 80, "namespace": "other"}, "RefNotPermitted"),
        ({"name": "s", "port": 80, "kind": "Bucket"}, "InvalidKind"),
    ):
        broken = {"type": "RequestMirror", "requestMirror": {"backendRef": ref}}
        state = cluster().route(http(rule({"name": "s", "port": 80}, filters=[broken])))
        assert accepted(state) == ["True Accepted"]
        assert state.resolved.reason == reason
        (route,) = state.contribution.routes
        assert (len(route.targets), route.mirrors) == (1, ())


def test_grpc_is_refused_by_name() -> None:
    rules = [rule({"name": "s", "port": 80}, filters=[mirror("t")])]
    state = cluster().route(made("GRPCRoute", "infra", "r", {"parentRefs": [{"name": "g"}], "rules": rules}))
    assert accepted(state) == ["False UnsupportedValue"]
    assert "RequestMirror is not supported for gRPC" in state.parents[0].accepted.message


@needs_haproxy
async def test_each_mirror_gets_every_request(tmp_path: Path) -> None:
    async with place(tmp_path) as at, Sink() as one, Sink() as two:
        await have(at, {"t": one, "u": two}, mirror("t"), mirror("u"))
        answer = await at.door.get("a.example.com", "/x?y=1", "X-A: b", "X-Sampan-Mirror: b1")
        assert answer.body.startswith("s\nGET /x?y=1 HTTP")
        assert "mirror: t" not in answer.body
        for sink in (one, two):
            await sink.until(1)
            head = sink.heads[0]
            assert head.startswith("get /x?y=1 http/1.1\r\n")
            assert "host: a.example.com\r\n" in head
            assert "x-a: b\r\n" in head
            assert "x-forwarded-for: 127.0.0.1\r\n" in head
            assert "x-sampan-mirror" not in head
        reloads = at.door.driver.reloads
        # Endpoints that come and go take no reload.
        async with Sink() as other:
            at.door.table.set_endpoints(ServicePort("infra", "t", 80), [other.endpoint])
            await at.door.settle()
            assert await at.who("/") == "s"
            await other.until(1)
        assert at.door.driver.reloads == reloads


@needs_haproxy
async def test_bodies(tmp_path: Path) -> None:
    async with place(tmp_path) as at, Sink() as sink:
        await have(at, {"t": sink}, mirror("t"))

        async def post(body: bytes, *, pause: bool = False, length: str = "") -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", at.door.port)
            said = length or f"Content-Length: {len(body)}"
            writer.write(
                f"POST /p HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\n{said}\r\n\r\n".encode()
            )
            if pause:
                await writer.drain()
            writer.write(body)
            status = int((await reader.readline()).split()[1])
            writer.close()
            return status

        assert await post(b"hello") == 200
        await sink.until(1)
        assert sink.bodies == [b"hello"]
        assert await post(b"z" * 14_000, pause=True) == 200
        await sink.until(2)
        assert sink.bodies[1] == b"z" * 14_000
        # What is long or of unknown length goes on at once, and is not copied.
        assert await post(b"x" * 100_000) == 200
        assert await post(b"3\r\nabc\r\n0\r\n\r\n", length="Transfer-Encoding: chunked") == 200
        assert await post(b"") == 200
        await sink.until(3)
        assert [len(b) for b in sink.bodies] == [5, 14_000, 0]


@needs_haproxy
async def test_a_share(tmp_path: Path) -> None:
    async with place(tmp_path) as at, Sink() as some, Sink() as none, Sink() as all_:
        await have(
            at,
            {"t": some, "u": none, "v": all_},
            mirror("t", percent=30),
            mirror("u", percent=0),
            mirror("v"),
        )
        for _ in range(100):
            assert await at.who("/") == "s"
        await all_.until(100)
        async with asyncio.timeout(10):
            while not 28 <= len(some.heads) <= 32:  # each of the proxy's threads counts for itself
                await asyncio.sleep(0.01)
        assert not none.heads


@needs_haproxy
async def test_mirrors_that_are_dead_slow_or_endless_trouble_nobody(tmp_path: Path) -> None:
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ffff\r\n" + b"x" * 65535 + b"\r\n"
    async with place(tmp_path) as at, Sink(None) as slow, Sink(endless) as long:
        at.door.table.set_endpoints(ServicePort("infra", "w", 80), [Endpoint("127.0.0.1", 1)])
        await have(at, {"t": slow, "u": long}, mirror("t"), mirror("u"), mirror("w"))
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def ask() -> None:
            for _ in range(50):
                assert await at.who("/") == "s"

        await asyncio.gather(*(ask() for _ in range(8)))
        assert loop.time() - began < 20, "nobody waits for a mirror"
        assert len(slow.heads) <= 2 * 8, "as many as there are tasks wait for it"


@needs_haproxy
async def test_a_mirror_that_does_not_answer_gets_a_copy_once(tmp_path: Path) -> None:
    async with place(tmp_path) as at, Sink(None) as slow:
        await have(at, {"t": slow}, mirror("t"))
        assert await at.who("/") == "s"
        await slow.until(1)
        # It is cut off, and the next one gets through.
        async with asyncio.timeout(8):
            await slow.ended.wait()
        assert len(slow.heads) == 1
        assert await at.who("/") == "s"
        await slow.until(2)


@needs_haproxy
async def test_no_copy_is_lost_under_load(tmp_path: Path) -> None:
    async with place(tmp_path) as at, Sink() as sink, Upstream("s") as up:
        at.door.table.set_endpoints(ServicePort("infra", "s", 80), [up.endpoint])
        await have(at, {"t": sink}, mirror("t"))
        before = _memory(at.door.process.worker)

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", at.door.port)
            for _ in range(250):
                writer.write(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            writer.close()

        await asyncio.gather(*(client() for _ in range(8)))
        await sink.until(2000)
        assert len(sink.heads) == 2000
        assert _memory(at.door.process.worker) - before < 30_000, "kB"


def _memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
