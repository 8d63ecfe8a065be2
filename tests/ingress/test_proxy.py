"""The real HAProxy while things change, while it is killed, and in front of requests that could be understood in two ways."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest

from sampan.ingress.haproxy.driver import HaproxyDriver
from sampan.ingress.haproxy.process import Process, master_of
from sampan.ingress.haproxy.runtime import ask
from sampan.ingress.haproxy.spare_backends import SPARE
from sampan.ingress.ingresses import contribution
from sampan.ingress.metrics import MetricsServer
from sampan.ingress.types import (
    Backend,
    Change,
    Contribution,
    Endpoint,
    EndpointState,
    Host,
    ServicePort,
    Target,
)
from tests.ingress.door import Door, Upstream, open_door
from tests.ingress.objects import add, ingress, remove, service, set_backends

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as opened:
        yield opened


@pytest.fixture
async def ups() -> AsyncIterator[dict[str, Upstream]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(Upstream(name)) for name in ("one", "two", "three")}


class Load:
    """Clients on connections of their own that ask all the time; `bad` is what was not answered with 200."""

    def __init__(self, door: Door, clients: int = 8) -> None:
        self._door, self._clients = door, clients
        self.answers: list[str] = []
        self.bad: list[str] = []
        self._stop = False

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._ask(n % 2 == 0)) for n in range(self._clients)]
        await self.more(50)
        return self

    async def __aexit__(self, *args: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Wait until so many more have been answered."""
        target = len(self.answers) + count
        while len(self.answers) + len(self.bad) < target:
            await asyncio.sleep(0.001)

    async def _ask(self, keep: bool) -> None:
        connection = None
        while not self._stop:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", self._door.port)
            reader, writer = connection
            close = "" if keep else "Connection: close\r\n"
            writer.write(f"GET / HTTP/1.1\r\nHost: foo.com\r\n{close}\r\n".encode())
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0] or 0)
                body = (await reader.readexactly(length)).decode()
            except (OSError, asyncio.IncompleteReadError) as e:
                self.bad.append(repr(e))
                connection = None
                continue
            if head.split()[1] == "200":
                self.answers.append(body.split("\n")[0])
            else:
                self.bad.append(head.split("\r\n")[0])
            if not keep or "connection: close" in head.lower():
                writer.close()
                connection = None


async def test_no_request_is_lost_while_endpoints_and_rules_change(
    door: Door, ups: dict[str, Upstream]
) -> None:
    one, two, three = (ups[n].endpoint for n in ("one", "two", "three"))
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [one]})
    await door.settle()
    async with Load(door) as load:
        for _ in range(20):
            ending = Endpoint(one.address, one.port, EndpointState.DRAINING)
            for now in ([one, two], [two, ending], [two], [two, three], [three], [one]):
                set_backends(door.table, {"s": now})
                await door.settle()
                await load.more(10)
        for n in range(20):
            add(
                door.table,
                ingress("i", [("foo.com", "/", "Prefix", f"s{n}"), ("foo.com", f"/{n}", "Exact", "s")]),
            )
            set_backends(door.table, {f"s{n}": [three]})
            await door.settle()
            await load.more(10)
        assert door.driver.reloads == 0
    assert not load.bad
    assert {"one", "two", "three"} == set(load.answers)


async def test_no_request_is_lost_by_a_reload_that_makes_room(door: Door, ups: dict[str, Upstream]) -> None:
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    async with Load(door) as load:
        rules = [(f"h{n}.com", "/", "Prefix", f"s{n}") for n in range(SPARE * 2)]
        add(door.table, ingress("many", rules))
        set_backends(door.table, {f"s{n}": [ups["two"].endpoint] for n in range(SPARE * 2)})
        await door.settle()
        await load.more(50)
        assert door.driver.reloads == 1
        assert await door.who(f"h{SPARE * 2 - 1}.com", "/") == "two"
        assert await door.who("h0.com", "/") == "two"
    assert not load.bad


async def test_who_is_served_when_an_endpoint_begins_to_end_is_served_to_the_end(
    door: Door, ups: dict[str, Upstream]
) -> None:
    one, two = ups["one"], ups["two"]
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [one.endpoint]})
    await door.settle()
    asked = asyncio.create_task(door.who("foo.com", "/slow"))
    await one.waiting.wait()
    draining = Endpoint(one.endpoint.address, one.port, EndpointState.DRAINING)
    set_backends(door.table, {"s": [two.endpoint, draining]})
    await door.settle()
    assert await door.who("foo.com", "/") == "two"
    set_backends(door.table, {"s": [two.endpoint]})
    await door.settle()
    one.release.set()
    assert await asked == "one"


async def test_killed_it_is_back_within_a_second_with_the_same_rules(
    door: Door, ups: dict[str, Upstream]
) -> None:
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    loop = asyncio.get_running_loop()
    for victim in ("master", "worker"):
        pid = master_of(door.files) if victim == "master" else door.process.worker
        assert pid
        began = loop.time()
        os.kill(pid, signal.SIGKILL)
        while True:
            try:
                if (
                    await door.who("foo.com", "/") == "one"
                    and door.serving.is_set()
                    and door.process.worker != pid
                ):
                    break
            except OSError:
                await asyncio.sleep(0.01)
        assert loop.time() - began < 3  # a second on a machine that does nothing else


async def test_it_goes_on_without_us_and_is_taken_over(
    door: Door, ups: dict[str, Upstream], tmp_path: Path
) -> None:
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    pid = master_of(door.files)
    # Another one of us, who knows something else.
    process = Process(door.files, "haproxy", door.log)
    serving = asyncio.Event()
    driver = HaproxyDriver(door.files, process, lambda on, why: serving.set() if on else serving.clear())
    remove(door.table, "i")
    door.table.take_change()
    add(door.table, ingress("j", [("bar.com", "/", "Prefix", "s")]))
    door.table.set_listeners([*door.table.routing.listeners.values()])
    everything = Change(
        frozenset(door.table.routing.listeners),
        frozenset(door.table.routing.routes),
        frozenset(),
        frozenset(),
    )
    driver.apply(door.table.routing, everything)
    task = asyncio.create_task(driver.run())
    async with asyncio.timeout(10):
        await serving.wait()
    assert master_of(door.files) == pid
    assert await door.who("bar.com", "/") == "one"
    assert await door.who("foo.com", "/") == "404"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_strangers_say_about_themselves_is_not_believed(
    door: Door, ups: dict[str, Upstream]
) -> None:
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    got = await door.get(
        "foo.com", "/", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "X_Forwarded_For: 6.6.6.6",
        "Forwarded: for=6.6.6.6", "X-Forwarded-User: root", "X-Real-IP: 6.6.6.6", "Proxy: evil",
    )  # fmt: skip
    head = got.body.lower()
    assert not [word for word in ("6.6.6.6", "root", "evil") if word in head]
    for line in (
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: foo.com",
        "x-forwarded-port: 80",
    ):
        assert f"{line}\r\n" in head


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: foo.com\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (b"POST / HTTP/1.1\r\nHost: foo.com\r\nContent-Length: +4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: foo.com\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nHost: foo.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/0.9\r\nHost: foo.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nHost: foo.com\r\nContent-Length: 0\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nHost: foo.com\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: foo.com\r\nHost: bar.com\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: foo.com/admin\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: foo.com\r\nA b: c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: foo.com\r\n folded\r\n\r\n", 400),
        (b"GET /a\x00b HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (b"GET /a%2f..%2fadmin HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (b"GET /a/..%5cadmin HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (b"GET /a/..;/admin HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (b"GET /a/.%2e%3bx=1/admin HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (b"GET /a/.;/..a/;..x/b..;/c HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (b"GET /.a;x/..a;/;..x/b..;/c HTTP/1.1\r\nHost: foo.com\r\n\r\n", 200),
        (b"GET /%zz HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (b"GET /a%4/b HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (b"GET /a%4 HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (b"GET /a% HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (b"GET /a%25%2F%c3%a9?off=50%&x=%zz&y=%c3&z=% HTTP/1.1\r\nHost: foo.com\r\n\r\n", 200),
    ],
)
async def test_what_can_be_understood_in_two_ways_is_refused(
    door: Door, ups: dict[str, Upstream], request_: bytes, status: int
) -> None:
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    closing = request_.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    assert (await door.raw(closing)).status == status


async def test_heads_of_requests_have_limits(door: Door, ups: dict[str, Upstream]) -> None:
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    for lines, status in (
        (100, 200),
        (101, 400),
    ):  # with Host; Connection is taken away before they are counted
        more = [f"X-{number}: a" for number in range(lines - 1)]
        assert (await door.get("foo.com", "/", *more)).status == status, lines
    for length, status in ((15_000, 200), (17_000, 400)):
        assert (await door.get("foo.com", "/", "X: " + "a" * length)).status == status, length


async def test_of_length_and_chunks_only_one_goes_on(door: Door, ups: dict[str, Upstream]) -> None:
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    smuggled = b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: foo.com\r\n\r\n"
    got = await door.raw(
        b"POST / HTTP/1.1\r\nHost: foo.com\r\nConnection: close\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n"
        % len(smuggled)
        + smuggled
    )
    assert got.status in (200, 400)
    assert got.body.lower().count("content-length") == 0
    assert "/admin" not in got.body


@pytest.mark.parametrize(
    ("asked", "who"),
    [
        ("/public/../admin/x", "two"),
        ("/public/%2e%2e/admin", "two"),
        ("//admin", "two"),
        ("/./admin", "two"),
        ("/%61dmin", "two"),
        ("/administrator", "one"),
    ],
)
async def test_no_spelling_of_a_path_leads_around_its_rule(
    door: Door, ups: dict[str, Upstream], asked: str, who: str
) -> None:
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s"), ("foo.com", "/admin", "Prefix", "t")]))
    set_backends(door.table, {"s": [ups["one"].endpoint], "t": [ups["two"].endpoint]})
    await door.settle()
    assert await door.who("foo.com", asked) == who


@pytest.mark.parametrize("host", ["FOO.com", "foo.com:8080", "foo.com.", "foo.com.:80"])
async def test_every_spelling_of_a_host_is_the_host(door: Door, ups: dict[str, Upstream], host: str) -> None:
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    assert await door.who(host, "/") == "one"


async def test_what_is_gone_leaves_nothing_in_the_proxy(door: Door, ups: dict[str, Upstream]) -> None:
    for n in range(5):
        add(door.table, ingress("i", [("foo.com", f"/{n}", "Prefix", f"s{n}")]))
        set_backends(door.table, {f"s{n}": [ups["one"].endpoint], f"s{n - 1}": []})
        await door.settle()
        assert await door.who("foo.com", f"/{n}") == "one"
    remove(door.table, "i")
    await door.settle()
    async with asyncio.timeout(15):
        # Servers that keep an idle connection go when HAProxy has closed it.
        while [
            line for line in door.driver.translation.content.dump().splitlines() if "services" not in line
        ][1:]:
            await asyncio.sleep(0.05)
    shown = await ask("show servers state", door.files.admin_socket)
    assert "127.0.0.1" not in shown
    for name in ("exact", "prefix", "targets", "sources", "pods"):
        assert not (await ask(f"show map {door.files.map(name)}", door.files.admin_socket)).strip()
    assert door.driver.reloads == 0


async def test_ten_thousand_rules_in_one_object(door: Door, ups: dict[str, Upstream]) -> None:
    rules = [("foo.com", f"/{n}", "Prefix", "s") for n in range(10_000)]
    add(door.table, ingress("i", rules))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    assert await door.who("foo.com", "/9999/x") == "one"
    remove(door.table, "i")
    await door.settle()
    assert await door.who("foo.com", "/9999/x") == "404"
    assert door.driver.reloads == 0


async def measured(door: Door) -> str:
    """What its metrics are."""
    server = MetricsServer(door.files)
    port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
    text = (await reader.read(-1)).decode()
    writer.close()
    await server.close()
    return text


async def test_metrics_are_by_rule_and_service(door: Door, ups: dict[str, Upstream]) -> None:
    add(door.table, ingress("i", [("foo.com", "/x", "Prefix", "s")]))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    for _ in range(3):
        assert await door.who("foo.com", "/x") == "one"
    text = await measured(door)
    labels = 'namespace="a",kind="Ingress",name="i",service="s:80"'
    assert f"sampan_ingress_requests_total{{{labels}}} 3\n" in text
    assert f'sampan_ingress_answers_within_seconds_total{{{labels},seconds="10"}} 3\n' in text


async def test_metrics_tell_services_of_one_name_apart(door: Door, ups: dict[str, Upstream]) -> None:
    """Prometheus takes one line with the same labels, and the longest names are labels, too."""
    rule, service_ = "r" * 253, "s" * 63
    [route] = contribution(ingress(rule, [("b.com", "/", "Prefix", service_)]), service).routes
    routes = []
    for namespace in ("a", "b", "c" * 63):
        target = Target(Backend(ServicePort(namespace, service_, 80)))
        host = Host.of_ingress(f"{namespace}.com")
        routes.append(replace(route, place=replace(route.place, host=host), targets=(target,)))
        set_backends(door.table, {service_: [ups["one"].endpoint]}, namespace)
    door.table.update(("Ingress", "a", rule), Contribution(routes=tuple(routes)))
    await door.settle()
    for route in routes:
        assert await door.who(str(route.place.host), "/") == "one"
    text = await measured(door)
    for called in (service_, f"b/{service_}", f"{'c' * 63}/{service_}"):
        labels = f'namespace="a",kind="Ingress",name="{rule}",service="{called}:80"'
        assert f"sampan_ingress_requests_total{{{labels}}} 1\n" in text


async def test_the_access_log_says_who_answered_for_which_rule(door: Door, ups: dict[str, Upstream]) -> None:
    add(door.table, ingress("i", [("foo.com", "/x", "Prefix", "s")]))
    set_backends(door.table, {"s": [ups["one"].endpoint]})
    await door.settle()
    await door.get("foo.com", '/x?"\\', 'User-Agent: "quoted" \\ agent')
    async with asyncio.timeout(20):
        while not (text := door.log.read_text()).endswith("\n"):
            await asyncio.sleep(0.01)
    entry = json.loads(text.splitlines()[-1])
    wanted = {"host": "foo.com", "path": "/x", "status": 200, "rule": "Ingress/a/i", "service": "a/s:80"}
    assert wanted.items() <= entry.items()
    assert entry["pod"] == "a/pod-one"
    assert entry["agent"] == '"quoted" \\ agent'


async def test_the_access_log_names_the_pod_that_follows_at_an_address(
    door: Door, ups: dict[str, Upstream]
) -> None:
    """As on the host's network."""
    add(door.table, ingress("i", [("foo.com", "/", "Prefix", "s")]))
    one = ups["one"].endpoint
    set_backends(door.table, {"s": [one]})
    await door.settle()
    set_backends(door.table, {"s": [replace(one, pod="next")]})
    await door.settle()
    await door.get("foo.com", "/")
    async with asyncio.timeout(20):
        while not (text := door.log.read_text()).endswith("\n"):
            await asyncio.sleep(0.01)
    assert json.loads(text.splitlines()[-1])["pod"] == "a/next"
