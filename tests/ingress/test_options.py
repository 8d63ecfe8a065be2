"""What annotations ask for, on the real HAProxy: each option as a client and a backend see it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest

from sampan.api.errors import Object
from sampan.ingress import annotations as reading
from sampan.ingress.annotation_guards import NGINX, PREFIX
from sampan.ingress.haproxy import in_force
from sampan.ingress.ingresses import Wishes, contribution
from sampan.ingress.route_options import HeaderChange, Options
from sampan.ingress.types import Canary, Condition, Contribution, Endpoint
from tests.ingress.door import Answer, Door, Upstream, open_door
from tests.ingress.objects import Rule, ingress, service, set_backends

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]
ROOT: list[Rule] = [("foo.com", "/", "Prefix", "s")]
# The password is `secret`; openssl passwd -6, and htpasswd -B.
SHA512 = "$6$salt$egUxKNxDs8kPfh8iPMNcosMhb2eWah6d3R44JDm5Rj/j/XWR5E33QPd0YmHXoDHOIDR6kL5D3JcQcz0O8FHE00"


def authorization(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Site:
    """A door, its backends, and the Secrets and ConfigMaps that annotations may name."""

    def __init__(self, door: Door, ups: dict[str, Upstream]) -> None:
        self.door, self.ups = door, ups
        self.secrets: dict[str, Object] = {}
        self.configmaps: dict[str, Object] = {}

    async def have(
        self,
        asked: Mapping[str, str] | None = None,
        *,
        name: str = "i",
        rules: list[Rule] | None = None,
        nginx: bool = False,
        to: dict[str, str] | None = None,
        created: str = "2026-01-01T00:00:00Z",
        **given: str,
    ) -> None:
        """An Ingress with these annotations (`_` for `-`), in force."""
        prefix = NGINX if nginx else PREFIX
        obj = ingress(name, rules or ROOT, created=created)
        obj["metadata"]["annotations"] = {
            prefix + k.replace("_", "-"): v for k, v in {**(asked or {}), **given}.items()
        }
        wishes = reading.read(obj, lambda _, n: self.secrets.get(n), lambda _, n: self.configmaps.get(n))
        self.problems = [p.message for p in wishes.problems]
        self.door.table.update(("Ingress", "a", name), contribution(obj, service, wishes))
        backends = {"s": "one"} if to is None else to
        set_backends(self.door.table, {s: [self.ups[u].endpoint] for s, u in backends.items()})
        await self.door.settle()

    async def get(self, path: str = "/", *headers: str, method: str = "GET", host: str = "foo.com") -> Answer:
        return await self.door.get(host, path, *headers, method=method)

    async def asked(self, path: str, *headers: str) -> str:
        """The request line that the backend got."""
        return (await self.get(path, *headers)).body.split("\n")[1].removesuffix(" HTTP/1.1\r")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        ups = {n: await stack.enter_async_context(Upstream(n)) for n in ("one", "two")}
        yield Site(await stack.enter_async_context(open_door(tmp_path)), ups)


async def test_paths_and_hosts_are_rewritten_without_a_reload(site: Site) -> None:
    await site.have(rewrite="/new")
    assert await site.asked("/old/x?q=1") == "GET /new?q=1"
    await site.have(rewrite="/newer/%20x")
    assert await site.asked("/old/x") == "GET /newer/%20x"
    rules: list[Rule] = [
        ("foo.com", "/api(/|$)(.*)", "ImplementationSpecific", "s"),
        ("foo.com", "/", "Prefix", "s"),
    ]
    await site.have(rules=rules, rewrite="/v1/\\2")
    assert await site.asked("/api/a/b?c=d") == "GET /v1/a/b?c=d"
    assert await site.asked("/api") == "GET /v1/"
    assert await site.asked("/apis") == "GET /apis"
    # Whatever a group is, it does not make another kind of request of this one.
    bare: list[Rule] = [("foo.com", "/x(.*)", "ImplementationSpecific", "s")]
    await site.have(rules=bare, rewrite="\\1")
    for path, seen in (("/x/a", "/a"), ("/xa", "/a"), ("/x", "/"), ("/x?q=1", "/?q=1"), ("/x*", "/*")):
        assert await site.asked(path) == f"GET {seen}"
    await site.have(rules=rules, nginx=True, rewrite_target="/$2", upstream_vhost="in.test")
    answer = await site.get("/api/a")
    assert "GET /a HTTP" in answer.body
    assert "host: in.test" in answer.body.lower()
    assert "x-forwarded-host: foo.com" in answer.body.lower()
    await site.have()
    assert await site.asked("/old") == "GET /old"
    assert site.door.driver.reloads == 0


async def test_the_longest_pattern_goes_first(site: Site) -> None:
    to = {"s": "one", "t": "two"}
    short, long = "/[a-z]+", "/[a-z]+/[0-9]{1,3}"
    await site.have(rules=[("foo.com", short, "ImplementationSpecific", "s")], path_regex="true", to=to)
    await site.have(
        name="j", rules=[("foo.com", long, "ImplementationSpecific", "t")], path_regex="true", to=to
    )
    who = site.door.who
    assert [await who("foo.com", p) for p in ("/ab", "/ab/12", "/12", "/ab/x")] == [
        "one",
        "two",
        "404",
        "one",
    ]
    await site.have(name="j", rules=[("foo.com", "/[a-z]+/x", "Exact", "t")], to=to)
    assert [await who("foo.com", p) for p in ("/ab/12", "/ab/x")] == ["one", "one"]
    await site.have(rules=[("bar.com", short, "ImplementationSpecific", "s")], path_regex="true", to=to)
    assert [await who("foo.com", "/ab"), await who("bar.com", "/ab")] == ["404", "one"]
    assert site.door.driver.reloads == 0


async def test_long_paths_are_not_held_against_patterns(site: Site) -> None:
    rules: list[Rule] = [
        ("foo.com", "/a.*z$", "ImplementationSpecific", "s"),
        ("foo.com", "/", "Prefix", "s"),
    ]
    await site.have(rules=rules, path_regex="true")
    assert (await site.get("/" + "a" * 2047)).status == 200
    answer = await site.get("/" + "a" * 2048)
    assert (answer.status, answer.body) == (414, "414: the path has more than 2048 characters\n")
    await site.have()
    assert (await site.get("/" + "a" * 6000)).status == 200


async def test_redirects(site: Site) -> None:
    await site.have(nginx=True, permanent_redirect="https://new.test/there")
    answer = await site.get("/x?q=1")
    assert (answer.status, answer.headers["location"]) == (301, "https://new.test/there?q=1")
    await site.have(nginx=True, temporal_redirect="https://new.test")
    answer = await site.get("/x?q=1")
    assert (answer.status, answer.headers["location"]) == (302, "https://new.test/x?q=1")
    # Nothing need be behind it.
    await site.have(rules=[("foo.com", "/", "Prefix", "nothing")], nginx=True, temporal_redirect="/there")
    answer = await site.get("/x", host="foo.com:8080")
    assert (answer.status, answer.headers["location"]) == (302, "http://foo.com:8080/there")
    await site.have(rules=[("", "/", "Prefix", "s")], nginx=True, temporal_redirect="/there")
    assert (await site.get("/x", host="any.test")).headers["location"] == "http://any.test/there"
    assert (await site.door.raw(b"GET /x HTTP/1.0\r\n\r\n")).status == 400  # there is nowhere to go
    assert site.door.driver.reloads == 0


async def test_only_users_of_the_secret_come_in(site: Site) -> None:
    users = f"ann:{SHA512}\n"
    site.secrets["users"] = {"data": {"auth": base64.b64encode(users.encode()).decode()}}
    await site.have(basic_auth_secret="users", basic_auth_realm="Staff only; ask #1")
    answer = await site.get()
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="Staff only; ask #1", charset="UTF-8"'
    assert (await site.get("/", authorization("ann", "wrong"))).status == 401
    assert (await site.get("/", authorization("bob", "secret"))).status == 401
    for _ in range(2):
        assert (await site.get("/", authorization("ann", "secret"))).status == 200
    assert (await site.get("/", authorization("ann", "wrong"))).status == 401
    # With what is right nobody makes something else be right.
    wrong = authorization("zoe", "open")
    assert (await site.get("/", authorization("ann", "secret"), wrong)).status == 400
    assert (await site.get("/", wrong)).status == 401
    # Another user: what was right is so no more.
    site.secrets["users"] = {"data": {"auth": base64.b64encode(f"bob:{SHA512}\n".encode()).decode()}}
    await site.have(basic_auth_secret="users")
    assert (await site.get("/", authorization("ann", "secret"))).status == 401
    assert (await site.get("/", authorization("bob", "secret"))).status == 200
    del site.secrets["users"]
    await site.have(basic_auth_secret="users")
    assert (await site.get("/", authorization("bob", "secret"))).status == 503


async def test_a_client_has_so_many_requests_and_no_more(site: Site) -> None:
    await site.have(rate_limit="3/h")
    assert [(await site.get()).status for _ in range(5)] == [200, 200, 200, 429, 429]
    await site.have(rate_limit="7/h")
    assert [(await site.get()).status for _ in range(3)] == [200, 200, 429]
    # A canary gives nobody more.
    await site.have(name="c", canary_header="X-New", created="2026-02-01T00:00:00Z")
    assert (await site.get("/", "X-New: always")).status == 429
    await site.have()
    assert (await site.get()).status == 200
    assert site.door.driver.reloads == 0


async def test_who_may_come(site: Site) -> None:
    for allow, deny, status in (
        ("10.0.0.0/8", "", 403),
        ("10.0.0.0/8, 127.0.0.0/9,fd00::/8", "", 200),
        ("", "127.0.0.1", 403),
        ("", "127.0.0.2,::1", 200),
        ("127.0.0.0/8", "127.0.0.1/32", 403),
        ("0.0.0.0/0", "", 200),
    ):
        given = {k: v for k, v in (("allow", allow), ("deny", deny)) if v}
        await site.have(given)
        # What a client says of itself counts for nothing.
        assert (await site.get("/", "X-Forwarded-For: 10.1.2.3")).status == status, given
    assert site.door.driver.reloads == 0


async def test_other_sites_pages(site: Site) -> None:
    await site.have(
        cors_origins="https://a.test,https://*.b.test", cors_methods="GET, PUT", cors_credentials="true",
        cors_exposed="X-Count", cors_max_age="1h",
    )  # fmt: skip
    for origin, allowed in (
        ("https://a.test", True),
        ("https://x.b.test", True),
        ("http://a.test", False),
        ("https://b.test", False),
        ("https://x.y.b.test", False),
        ("https://evil.test", False),
    ):
        answer = await site.get("/", f"Origin: {origin}")
        assert answer.status == 200
        assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None), origin
        assert answer.headers.get("access-control-expose-headers") == ("X-Count" if allowed else None)
        assert answer.headers["vary"] == "Origin"
    ask = ("Origin: https://a.test", "Access-Control-Request-Method: PUT")
    answer = await site.get("/", *ask, method="OPTIONS")
    assert (answer.status, answer.body) == (200, "")
    assert answer.headers["access-control-allow-methods"] == "GET, PUT"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-max-age"] == "3600"
    assert (await site.get("/", ask[0], method="OPTIONS")).body.startswith("one")
    await site.have(cors_origins="*")
    assert (await site.get("/", "Origin: null")).headers["access-control-allow-origin"] == "*"
    assert site.door.driver.reloads == 0


async def test_a_cookie_keeps_the_endpoint(site: Site) -> None:
    await site.have(sticky_cookie="keep", sticky_cookie_max_age="60")
    table = site.door.table
    set_backends(table, {"s": [site.ups["one"].endpoint, site.ups["two"].endpoint]})
    await site.door.settle()
    first = await site.get()
    cookie = first.headers["set-cookie"]
    assert cookie.startswith("keep=")
    assert cookie.endswith("; Path=/; HttpOnly; Max-Age=60")
    who = first.body.split("\n")[0]
    for _ in range(6):
        again = await site.get("/", f"Cookie: a=b; {cookie.split(';')[0]}; c=d")
        assert again.body.startswith(who)
        assert "set-cookie" not in again.headers
    assert {(await site.get()).body.split("\n")[0] for _ in range(6)} == {"one", "two"}
    # The endpoint is gone: another one, and another cookie.
    other = "two" if who == "one" else "one"
    set_backends(table, {"s": [site.ups[other].endpoint]})
    await site.door.settle()
    moved = await site.get("/", f"Cookie: {cookie.split(';')[0]}")
    assert moved.body.startswith(other)
    assert moved.headers["set-cookie"] != cookie


async def test_a_canary_gets_its_share(site: Site) -> None:
    to = {"s": "one", "t": "two"}
    rules: list[Rule] = [("foo.com", "/", "Prefix", "t")]
    young = "2026-02-01T00:00:00Z"
    await site.have(to=to)
    for given, header, who in (
        ({"canary_weight": "0", "canary_header": "X-New", "canary_header_value": "yes, please"}, "X-New: yes, please", "two"),
        ({"canary_weight": "0", "canary_header": "X-New", "canary_header_value": "yes"}, "X-New: no", "one"),
        ({"canary_header": "X-New"}, "X-New: always", "two"),
        ({"canary_header": "X-New", "canary_weight": "100"}, "X-New: never", "one"),
        ({"canary_weight": "100"}, "X-New: never", "two"),
    ):  # fmt: skip
        await site.have(given, name="canary", rules=rules, created=young, to=to)
        assert not site.door.table.conflicts(("Ingress", "a", "canary"))
        assert (await site.get("/", header)).body.split("\n")[0] == who, given
    await site.have(name="canary", rules=rules, created=young, to=to, canary_weight="50")
    found = [(await site.get()).body.split("\n")[0] for _ in range(40)]
    assert 3 < found.count("two") < 37
    # Alone at its place it gets nothing: all goes to what is more general.
    rules = [("foo.com", "/new", "Prefix", "t")]
    await site.have(name="canary", rules=rules, created=young, to=to, canary_header="X-New")
    assert (await site.get("/new/x", "X-New: always")).body.startswith("one")
    [told] = site.door.table.conflicts(("Ingress", "a", "canary"))
    assert told.reason == "CanaryWithoutBase"
    assert "host foo.com and path /new" in told.message
    assert site.door.driver.reloads == 0


async def test_a_canary_is_no_way_around_what_guards_its_base(site: Site) -> None:
    to, rules = {"s": "one", "t": "two"}, [("foo.com", "/", "Prefix", "t")]
    site.secrets["users"] = {"data": {"auth": base64.b64encode(f"ann:{SHA512}".encode()).decode()}}
    young, new = "2026-02-01T00:00:00Z", "X-New: always"
    await site.have(to=to, basic_auth_secret="users")
    await site.have(name="canary", rules=rules, created=young, to=to, canary_header="X-New")
    assert (await site.get("/", new)).status == 401
    assert (await site.get("/", new, authorization("ann", "secret"))).body.startswith("two")
    assert not site.door.table.conflicts(("Ingress", "a", "canary"))
    await site.have(to=to, deny="127.0.0.0/8")
    assert (await site.get("/", new)).status == 403
    # Its own word counts.
    await site.have(
        name="canary", rules=rules, created=young, to=to, canary_header="X-New", deny="10.0.0.0/8"
    )
    assert (await site.get("/", new)).body.startswith("two")
    await site.have(to=to, basic_auth_secret="none")
    assert (await site.get("/", new)).status == 503
    await site.have(to=to)
    assert (await site.get("/", new)).body.startswith("two")


async def test_a_canary_takes_nothing_of_another_namespace(site: Site) -> None:
    await site.have(to={"s": "one", "t": "two"})
    spy = ingress("spy", [("foo.com", "/", "Prefix", "t")], created="2025-01-01T00:00:00Z", namespace="b")
    for wanted in (Canary(weight=100), Canary(header="X-New")):
        site.door.table.update(("Ingress", "b", "spy"), contribution(spy, service, Wishes(canary=wanted)))
        set_backends(site.door.table, {"t": [Endpoint("127.0.0.1", 1)]}, "b")
        await site.door.settle()
        assert (await site.get("/", "X-New: always")).body.startswith("one")
        [told] = site.door.table.conflicts(("Ingress", "b", "spy"))
        assert told.reason == "CanaryWithoutBase"
    # Its own namespace's are not disturbed by it, and it has its turn when the place is its namespace's.
    await site.have(
        name="canary",
        rules=[("foo.com", "/", "Prefix", "t")],
        to={"s": "one", "t": "two"},
        canary_weight="100",
    )
    assert (await site.get()).body.startswith("two")


async def test_bodies_that_are_too_long(site: Site) -> None:
    await site.have(max_body="20k")
    door = site.door

    async def post(length: int, chunked: bool) -> int:
        head = b"POST / HTTP/1.1\r\nHost: foo.com\r\nConnection: close\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        if chunked:
            chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
            writer.write(
                head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (length // 4096) + b"0\r\n\r\n"
            )
        else:
            writer.write(head + b"Content-Length: %d\r\n\r\n" % length + b"x" * length)
        # Not until the end: newer versions take what was still sent before they close.
        answer = await reader.readline()
        writer.close()
        return int(answer.split()[1])

    assert [await post(n, False) for n in (20_000, 20_001, 200_000)] == [200, 413, 413]
    assert [await post(n, True) for n in (16_384, 40_960, 400_000)] == [200, 413, 413]

    await site.have(max_body="10")
    head = b"POST / HTTP/1.1\r\nHost: foo.com\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    for body, status in ((b"0123456789", 200), (b"0123456789a", 413)):
        for trailer in (b"", b"X-Sum: 0123456789\r\n"):
            chunk = b"%x\r\n" % len(body) + body
            assert (await door.raw(head + chunk + b"\r\n0\r\n" + trailer + b"\r\n")).status == status


async def test_a_backend_that_does_not_answer_in_time(site: Site) -> None:
    await site.have(timeout_response="100ms", timeout_connect="1s")
    assert (await site.get("/slow")).status == 504
    reloads = site.door.driver.reloads
    await site.have(timeout_response="150ms", timeout_connect="1s")
    assert (await site.get("/slow")).status == 504
    assert site.door.driver.reloads == reloads


async def test_pages_of_ones_own(site: Site) -> None:
    page = "<h1>später</h1> %[src] ${HOME} '\""
    site.configmaps["pages"] = {"data": {"503": page, "403": "<h1>no</h1>"}}
    await site.have(rules=[("foo.com", "/", "Prefix", "nothing")], error_pages="pages")
    answer = await site.get()
    assert (answer.status, answer.body) == (503, page)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    await site.have(error_pages="pages", deny="127.0.0.1")
    assert (await site.get()).body == "<h1>no</h1>"
    site.configmaps["pages"] = {"data": {"403": "<h1>never</h1>"}}
    await site.have(error_pages="pages", deny="127.0.0.1")
    assert (await site.get()).body == "<h1>never</h1>"
    # Pages that nobody uses any more are no part of what is loaded next.
    site.door.driver._structure = True
    site.door.driver._changed.set()
    site.door.driver._idle.clear()
    await site.door.driver.settled()
    assert len(list(site.door.files.named.iterdir())) == 1


@pytest.mark.parametrize("balance", ["roundrobin", "leastconn", "random", "source"])
async def test_ways_to_choose_among_endpoints(site: Site, balance: str) -> None:
    await site.have(balance=balance)
    set_backends(site.door.table, {"s": [site.ups["one"].endpoint, site.ups["two"].endpoint]})
    await site.door.settle()
    found = {(await site.get()).body.split("\n")[0] for _ in range(24)}
    assert len(found) == (1 if balance == "source" else 2)


async def test_metrics_and_log_know_what_was_refused(site: Site) -> None:
    await site.have(deny="127.0.0.1")
    assert (await site.get()).status == 403
    async with asyncio.timeout(20):
        while '"status":403' not in site.door.log.read_text():
            await asyncio.sleep(0.01)
    assert '"rule":"Ingress/a/i"' in site.door.log.read_text()


async def test_nobody_behind_it(site: Site) -> None:
    await site.have(rewrite="/x")
    set_backends(site.door.table, {"s": [Endpoint("127.0.0.1", 1)]})
    await site.door.settle()
    with contextlib.suppress(ConnectionError):
        assert (await site.get()).status == 503


async def test_what_is_in_force_names_patterns_and_canaries(site: Site) -> None:
    rules: list[Rule] = [("foo.com", "/a(/|$)", "ImplementationSpecific", "s")]
    await site.have(rules=rules, path_regex="true")
    await site.have(name="j", rules=[("foo.com", "/", "Prefix", "s")])
    await site.have(name="k", rules=[("foo.com", "/", "Prefix", "t")], canary_weight="20")
    await site.have(name="l", rules=[("foo.com", "/none", "Prefix", "t")], canary_weight="20")
    found = [(r.host, r.path, r.match, r.target, r.source) for r in await in_force.rows(site.door.files)]
    assert found == [
        ("foo.com", "/", "Prefix", "a/s:80", "Ingress/a/j"),
        ("foo.com", "/", "Prefix if canary=20=100", "a/t:80", "Ingress/a/k"),
        ("foo.com", "/a(/|$)", "Regex", "a/s:80", "Ingress/a/i"),
    ]


async def test_the_client_is_who_a_proxy_header_names(site: Site) -> None:
    await site.have(deny="203.0.113.0/24")
    table = site.door.table
    table.set_listeners([replace(one, proxy_protocol=True) for one in table.routing.listeners.values()])
    await site.door.settle()

    async def come(address: str) -> Answer:
        head = f"PROXY TCP4 {address} 192.0.2.1 1234 80\r\n".encode()
        return await site.door.raw(head + b"GET / HTTP/1.1\r\nHost: foo.com\r\nConnection: close\r\n\r\n")

    answer = await come("198.51.100.7")
    assert "x-forwarded-for: 198.51.100.7\r\n" in answer.body.lower()
    assert (await come("203.0.113.7")).status == 403
    with contextlib.suppress(ConnectionError):  # none but such connections
        assert (await site.get()).status in (0, 400)
    async with asyncio.timeout(20):
        while '"error":' not in site.door.log.read_text():
            await asyncio.sleep(0.01)
    failed = [line for line in site.door.log.read_text().splitlines() if '"error":' in line]
    assert [json.loads(line)["client"] for line in failed] == ["127.0.0.1"]


async def test_routes_with_conditions(site: Site) -> None:
    """As Gateways have them: the first whose conditions are met; where none is, the next more general place."""
    [one] = contribution(ingress("i", ROOT), service).routes
    [two] = contribution(ingress("i", [("foo.com", "/a/b", "Prefix", "t")]), service).routes
    changes = (
        HeaderChange("set", "X-Set", "a; b"),
        HeaderChange("add", "X-Add", "1"),
        HeaderChange("remove", "X-Gone"),
    )
    two = replace(two, options=Options(request_headers=changes, response_headers=changes))
    regex = Condition("header", "X-Version", "v[0-9]+ (beta|rc)", regex=True)
    for conditions, method, yes, no in (
        ((Condition("header", "X-Version", "two, 2"),), "", ("X-Version: two, 2",), ("X-Version: two",)),
        ((regex,), "", ("x-version: v12 rc",), ("x-version: v12 rcs",)),
        ((Condition("query", "q", "a b"),), "", (), None),
        ((), "POST", None, ()),
    ):  # fmt: skip
        met = replace(two, conditions=conditions, method=method)
        site.door.table.update(("Ingress", "a", "i"), Contribution(routes=(one, met)))
        set_backends(site.door.table, {"s": [site.ups["one"].endpoint], "t": [site.ups["two"].endpoint]})
        await site.door.settle()
        query = "?q=a+b" if conditions and conditions[0].where == "query" else ""
        answer = await site.get(f"/a/b/c{query}", "X-Gone: 1", *(yes or ()), method=method or "GET")
        assert answer.body.startswith("two"), conditions
        assert "x-set: a; b\r\n" in answer.body
        assert "x-gone" not in answer.body.lower()
        assert (answer.headers["x-set"], answer.headers["x-add"]) == ("a; b", "1")
        assert (await site.get("/a/b/c?q=a", *(no or ()))).body.startswith("one"), conditions
    assert site.door.driver.reloads == 0


async def test_an_answer_that_comes_late_is_as_was_asked_for(site: Site) -> None:
    await site.have(sticky_cookie="keep", cors_origins="https://a.test", cors_exposed="X-Count")
    asked = asyncio.create_task(site.get("/slow", "Origin: https://a.test"))
    await site.ups["one"].waiting.wait()
    await site.have()
    while any(site.door.driver.translation.content.maps["settings"]):
        await asyncio.sleep(0.05)
    site.ups["one"].release.set()
    answer = await asked
    assert answer.body.startswith("one")
    assert answer.headers["access-control-expose-headers"] == "X-Count"
