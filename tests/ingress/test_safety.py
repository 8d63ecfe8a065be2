"""Whatever stands in objects: it reaches no configuration, and a map or a command only in a form that cannot break out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.ingress import access_log
from sampan.ingress.external_names import ExternalNames, inside_cluster
from sampan.ingress.haproxy.certificates import RemoveCertificate, SetCertificate
from sampan.ingress.haproxy.configuration import configuration, render
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.runtime import command
from sampan.ingress.haproxy.translation import Translation
from sampan.ingress.ingresses import INVALID, canonical_path, contribution
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import INGRESS_SCOPE, Endpoint, Listener
from tests.ingress.door import open_door
from tests.ingress.objects import add, ingress, remove, service, set_backends

EVIL = st.text(st.sampled_from("ab/ \n\r\t\0\"'#\\;|<>${}%*.é@,:\x7f"), max_size=12)
FILES = Files(Path("/run/x"), ("10.0.0.1",))


def test_no_content_of_objects_reaches_the_configuration() -> None:
    def translated(table: RoutingTable) -> Translation:
        made = Translation()
        made.step(table.routing, table.take_change())
        return made

    empty = RoutingTable()
    empty.set_listeners([Listener("http", 80, INGRESS_SCOPE)])
    plain = configuration(translated(empty).content, FILES)

    @settings(max_examples=300, database=None, deadline=None)
    @given(
        st.lists(
            st.tuples(EVIL, EVIL, st.sampled_from(["Exact", "Prefix", "ImplementationSpecific"]), EVIL),
            max_size=4,
        )
    )
    def held(rules: list[tuple[str, str, str, str]]) -> None:
        table = RoutingTable()
        table.set_listeners([Listener("http", 80, INGRESS_SCOPE)])
        made = [(host, f"/{path}", kind, name) for host, path, kind, name in rules]
        add(table, ingress("i", made))
        translation = Translation()
        step = translation.step(table.routing, table.take_change())
        assert configuration(translation.content, FILES) == plain
        for path, text in render(translation.content, FILES).items():
            if path.suffix == ".map":
                lines = text.split("\n")[:-1]
                assert len(lines) == len(translation.content.maps[path.stem])
                assert all(len(line.split()) == 2 and not line.startswith("#") for line in lines), text
                assert text.isascii()
                assert text.isprintable() or all(line.isprintable() for line in lines)
        for op in step.now:
            assert not isinstance(op, SetCertificate | RemoveCertificate)
            line = command(op, FILES)
            assert "\n" not in line
            assert ";" not in line.replace("\\;", "")

    held()


@pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed")
@pytest.mark.timeout(60)
async def test_odd_paths_on_the_real_proxy(tmp_path: Path) -> None:
    odd = [
        "/a;b",
        "/a,b",
        "/a b",
        '/"q"',
        "/x#y",
        "/it's",
        "/a\\b",
        "/(1)",
        "/a=b&c",
        "/é",
        "/a|b",
        "/$HOME",
        "/a\nb c",
    ]
    async with open_door(tmp_path) as door:
        for turn in range(2):
            add(door.table, ingress("i", [("foo.com", path, "Exact", "no") for path in odd]))
            await door.settle()
            for path in odd:
                assert await door.who("foo.com", canonical_path(path)) == "503", path
            assert await door.who("foo.com", "/else") == "404"
            remove(door.table, "i")
            await door.settle()
            assert [await door.who("foo.com", canonical_path(path)) for path in odd] == ["404"] * len(odd)
            del turn
        assert door.driver.reloads == 0


@pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed")
@pytest.mark.timeout(60)
async def test_every_line_of_the_access_log_is_json(tmp_path: Path) -> None:
    odd = [
        b"GET /" + b"x" * 8000 + b" HTTP/1.1\r\nHost: foo.com\r\n",
        b'GET /"\\/%00%22 HTTP/1.1\r\nHost: foo.com\r\nUser-Agent: "\\\t\x01"\r\n',
        b"GET /\xff\xfe\xc3 HTTP/1.1\r\nHost: foo.com\r\nUser-Agent: \xff\xc3(\r\n",
        b"GET / HTTP/1.1\r\nHost: foo.com\r\nUser-Agent: " + b"y" * 7000 + b"\r\n",
        b'G"T / HTTP/1.1\r\nHost: foo.com\r\n',
        b'GET / HTTP/1.1\r\nHost: "}{\r\n',
        b"\x16\x03\x01\x02\x00\x01\r\n",
        b"GET /last HTTP/1.1\r\nHost: foo.com\r\n",
    ]
    async with open_door(tmp_path) as door:
        for head in odd:
            await door.raw(head + b"Connection: close\r\n\r\n")
        # Two threads write: lines come in any order, and a while after the answers.
        async with asyncio.timeout(30):
            while len(lines := door.log.read_bytes().splitlines(keepends=True)) < len(odd):
                await asyncio.sleep(0.01)
        assert all(line.endswith(b"\n") for line in lines)
        entries = [json.loads(line) for line in lines]
        assert len(entries) == len(odd)
        assert "/" + "x" * 8000 in [entry.get("path") for entry in entries]
        assert "y" * 7000 in [entry.get("agent") for entry in entries]


def test_a_host_that_is_none_is_told_and_left_out() -> None:
    found = contribution(
        ingress("i", [("foo.com\nbackend x", "/", "Prefix", "s"), ("ok.com", "/", "Prefix", "s")]), service
    )
    assert [r.place.host.name for r in found.routes] == ["ok.com"]
    assert [p.reason for p in found.problems] == [INVALID]


def test_the_elder_has_the_place_and_the_younger_is_told() -> None:
    table = RoutingTable()
    rule = [("foo.com", "/", "Prefix", "s")]
    add(table, ingress("young", rule, created="2026-02-01T00:00:00Z"))
    assert not table.conflicts(("Ingress", "a", "young"))
    add(table, ingress("old", rule, created="2026-01-01T00:00:00Z", namespace="b"))
    told = table.conflicts(("Ingress", "a", "young"))
    assert [p.message for p in told] == [
        "spec.rules[0].http.paths[0]: host foo.com and path /: Ingress b/old has it and goes first"
    ]
    assert not table.conflicts(("Ingress", "b", "old"))
    remove(table, "old", "b")
    assert not table.conflicts(("Ingress", "a", "young"))
    # What it leads to is of its own namespace.
    (route,) = next(iter(table.routing.routes.values()))
    assert str(route.targets[0].backend.port) == "a/s:80"


def test_the_content_as_text() -> None:
    table = RoutingTable()
    table.set_listeners([Listener("http", 80, INGRESS_SCOPE)])
    add(
        table,
        ingress("i", [("foo.com", "/bar/", "Prefix", "s"), ("*.foo.com", "/x", "Exact", "no")], default="s"),
    )
    set_backends(table, {"s": [Endpoint("10.244.0.2", 8080, pod="s-1")]})
    translation = Translation()
    translation.step(table.routing, table.take_change())
    shown = translation.content.dump()
    for line in ("listen 80 ingress", "services: b1 -> a/s:80", "targets: r4 -> b1"):
        assert line in shown or line.startswith("targets"), shown
    assert "prefix: ingress|foo.com/bar/ -> " in shown
    assert "exact: ingress|*.foo.com/x -> " in shown
    assert "default: ingress|* -> " in shown
    assert "-> =503" in shown
    assert "10.244.0.2:8080" in shown


def test_what_changes_costs_the_same_however_many_others_there_are() -> None:
    table = RoutingTable()
    translation = Translation()
    for n in range(300):
        add(table, ingress(f"i{n}", [(f"h{n}.com", "/", "Prefix", f"s{n}")]))
    translation.step(table.routing, table.take_change())
    add(table, ingress("i7", [("h7.com", "/new", "Prefix", "s7")]))
    change = table.take_change()
    assert len(change.routes) == 2
    step = translation.step(table.routing, change)
    assert not step.structure
    assert len(step.now) <= 6
    table.set_endpoints(next(iter(translation._of_port)), (Endpoint("10.0.0.9", 1),))
    assert len(translation.step(table.routing, table.take_change()).now) == 3


async def test_external_names_lead_out_of_the_cluster_only(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "out.example": ["192.0.2.7", "10.96.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:10.96.0.1"],
        "in.example": ["10.96.0.10"],
    }

    async def getaddrinfo(name: str, port: object, **more: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (a, 0)) for a in answers[name]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    changed: asyncio.Queue[str] = asyncio.Queue()
    names = ExternalNames(changed.put_nowait, ["10.96.0.0/16"])
    names.follow("a/in", "in.example")
    names.follow("a/out", "out.example")
    task = asyncio.create_task(names.run())
    async with asyncio.timeout(20):
        assert await changed.get() == "a/out"
    assert names.addresses("a/out") == ("192.0.2.7",)
    assert names.addresses("a/in") == ()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert inside_cluster("db.other.svc.cluster.local.")
    assert inside_cluster("LOCALHOST")
    assert not inside_cluster("svc.example.com")


async def test_the_access_log_stays_small(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    task = asyncio.create_task(access_log.keep_small(log, most=1000, pause=0.0))
    async with asyncio.timeout(20):
        while not log.exists():
            await asyncio.sleep(0)
        while not (tmp_path / "access.log.1").exists() or log.stat().st_size > 1000:
            with open(log, "ab") as f:
                f.write(b"x" * 99 + b"\n")
            await asyncio.sleep(0.001)
    assert (tmp_path / "access.log.1").stat().st_mode & 0o077 == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
