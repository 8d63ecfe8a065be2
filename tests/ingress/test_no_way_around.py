"""However a request is written, what rules say holds for it, and what the proxy says of the client reaches the backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Literal

import pytest

from sampan.ingress.ingresses import contribution
from sampan.ingress.route_options import HeaderChange, Options, Redirect
from sampan.ingress.types import Condition, Contribution
from tests.ingress.door import Door, Upstream, open_door
from tests.ingress.objects import Rule, add, ingress, service, set_backends

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A door with a backend for all of foo.com, but nobody is let in at /admin."""
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(Upstream("one"))
        opened = await stack.enter_async_context(open_door(tmp_path))
        add(opened.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
        close(opened, ("foo.com", "/admin", "Prefix", "s"))
        set_backends(opened.table, {"s": [up.endpoint]})
        await opened.settle()
        yield opened


def close(door: Door, rule: Rule) -> None:
    """Have a place where nobody is let in."""
    found = contribution(ingress("closed", [rule]), service)
    routes = tuple(replace(r, options=Options(deny=("0.0.0.0/0",))) for r in found.routes)
    door.table.update(("Ingress", "a", "closed"), Contribution(routes=routes))


async def test_nobody_gets_a_tunnel_by_asking_for_one(door: Door) -> None:
    for host in ("foo.com", "foo.com:80"):
        answer = await door.raw(
            f"CONNECT foo.com:80 HTTP/1.1\r\nHost: {host}\r\n\r\n"
            "GET /admin HTTP/1.1\r\nHost: foo.com\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.status == 405
        assert "/admin" not in answer.body


@pytest.mark.parametrize(
    ("host", "status"),
    [("", 400), ("foo.com:", 200), ("foo.com:8080", 200), ("foo.com:abc", 400), ("foo.com:1:2", 400), ("[::1]:80", 404), ("foo[]", 400)],
)  # fmt: skip
async def test_whom_a_request_is_for_is_said_well(door: Door, host: str, status: int) -> None:
    """RFC 9112, 3.2; HTTP/1.0 may leave it out."""
    line = f"Host: {host}\r\n" if host else ""
    assert (await door.raw(f"GET / HTTP/1.1\r\n{line}Connection: close\r\n\r\n".encode())).status == status
    assert (await door.raw(b"GET / HTTP/1.0\r\n\r\n")).status == 404


@pytest.mark.parametrize("asked", ["h2c", "H2C", "SPDY/3.1, h2c", "h2c,x"])
async def test_nobody_gets_http_2_by_an_upgrade(door: Door, asked: str) -> None:
    """What comes by it would be the backend's to answer, whatever its path."""
    settings = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {asked}", "HTTP2-Settings: AAMAAABk")
    head = (await door.get("foo.com", "/", *settings)).body.lower()
    assert head.startswith("one\n")
    assert "h2c" not in head
    assert "\r\nhttp2-settings:" not in head


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("x-real-ip, X-Forwarded-For", []),
        ("keep-alive, X-Real-IP", []),
        ("Upgrade, X-Real-IP", ["connection: upgrade"]),
    ],
)
async def test_nobody_has_headers_of_ours_taken_away_by_the_backend(
    door: Door, asked: str, got: list[str]
) -> None:
    answer = await door.get("foo.com", "/", f"Connection: {asked}", *(["Upgrade: SPDY/3.1"] if got else []))
    lines = answer.body.lower().split("\r\n")
    assert "x-real-ip: 127.0.0.1" in lines
    assert [line for line in lines if line.startswith("connection:")] == got


@pytest.mark.parametrize("target", ["/", "http://foo.com", "http://foo.com/", "*", "//", "/."])
async def test_what_has_no_path_is_for_the_root(door: Door, target: str) -> None:
    close(door, ("foo.com", "/", "Exact", "s"))
    redirect = contribution(ingress("away", [("bar.com", "/", "Prefix", "s")]), service).routes
    options = Options(redirect=Redirect(hostname="there.test"))
    routes = tuple(replace(r, options=options) for r in redirect)
    door.table.update(("Ingress", "a", "away"), Contribution(routes=routes))
    await door.settle()
    assert (await door.get("foo.com", target, method="OPTIONS")).status == 403
    guarded = (await door.get("foo.com", target)).status
    if target == "*" and guarded == 400:
        return  # HAProxy 3.0 takes it from OPTIONS alone, and so refuses it by itself
    assert guarded == 403
    answer = await door.get("bar.com", target.replace("foo.com", "bar.com"))
    assert answer.status == 302
    assert answer.headers["location"].startswith("http://there.test/")


async def test_the_next_shorter_place_is_found_however_long_the_path_is(door: Door) -> None:
    """Element by element it took 50 ms a request and host."""
    asked = {"/": "1", "/a": "2", "/a/a/a": "3"}
    rules: list[Rule] = [(host, path, "Prefix", "s") for host in ("k.com", "*.com") for path in asked]
    found = contribution(ingress("k", rules), service).routes
    routes = tuple(
        replace(r, conditions=(Condition("header", "x-want", asked[str(r.place.path)]),)) for r in found
    )
    door.table.update(("Ingress", "a", "k"), Contribution(routes=routes))
    await door.settle()
    for path, matching in (("/a/a/a/a", "123"), ("/a/ab/a", "12"), ("/ab", "1")):
        for want in "1234":
            status = (await door.get("k.com", path, f"X-Want: {want}")).status
            assert status == (200 if want in matching else 404), (path, want)
    async with asyncio.timeout(5):
        for _ in range(60):
            assert (await door.get("k.com", "/a" * 7000)).status == 404


@pytest.mark.parametrize("verb", ["set", "add"])
async def test_no_header_of_a_route_is_crowded_out(door: Door, verb: Literal["set", "add"]) -> None:
    """What leaves too little room for what a route says of it does not go on without that: no request, and no answer."""
    found = contribution(ingress("i", [("foo.com", "/", "Prefix", "s")]), service).routes

    async def statuses(length: int, answers: bool) -> list[int]:
        changes = (HeaderChange("set", "x-long", "l" * length), HeaderChange(verb, "x-role", "guest"))
        options = Options(response_headers=changes) if answers else Options(request_headers=changes)
        routes = tuple(replace(r, options=options) for r in found)
        door.table.update(("Ingress", "a", "i"), Contribution(routes=routes))
        await door.settle()
        statuses = []
        for much in (10, 14_000, 15_000):
            answer = await door.get("foo.com", "/", "X-Role: admin", "X-Much: " + "m" * much)
            statuses.append(answer.status)
            if answer.status == 200:
                role = (
                    answer.headers["x-role"]
                    if answers
                    else answer.body.split("x-role: ")[-1].split("\r\n")[0]
                )
                assert role == "guest", (length, much)
        return statuses

    for answers, status in ((False, 431), (True, 502)):
        assert await statuses(3_500, answers) == [200, 200, 200]
        assert await statuses(12_000, answers) == [200, status, status]
