"""Whatever stands in annotations, Secrets and ConfigMaps: nothing of it is part of the configuration, or of a map in another form than
its own."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.ingress import annotations as reading
from sampan.ingress import patterns
from sampan.ingress.annotation_guards import NGINX, PREFIX
from sampan.ingress.haproxy.certificates import RemoveCertificate, SetCertificate
from sampan.ingress.haproxy.configuration import configuration, render
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.options import name_of
from sampan.ingress.haproxy.runtime import command
from sampan.ingress.haproxy.translation import Translation
from sampan.ingress.ingresses import contribution
from sampan.ingress.route_options import BasicAuth, Cors, HeaderChange, Options, Redirect, Rewrite
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import INGRESS_SCOPE, Condition, Contribution, Listener, PathKind, Route
from sampan.ingress.types import (
    Path as RoutePath,
)
from tests.ingress.objects import ingress, service

FILES = Files(Path("/run/x"), ("10.0.0.1",))
EVIL = st.one_of(
    st.text(st.sampled_from("ab/ \n\r\t\0\"'#\\;|<>${}%[]()*+?^.é@,:=&\x7f\ud800"), max_size=16),
    st.sampled_from(
        ["/a\nbackend x", "b1", "%[src]", "${HOME}", "x' if TRUE #", "a;shutdown", "\\1", "=", "&", "<<"]
    ),
)
VALUES = st.one_of(
    EVIL,
    st.sampled_from(["true", "10/s", "30s", "10k", "10.0.0.0/8", "https://a.test", "keep", "users", "pages", "ca", "/x", "h2", "20", "/\\1"]),
)  # fmt: skip
KEYS = st.sampled_from([PREFIX + k for k in reading._OWN] + [NGINX + k for k in reading._NGINX])
_LINE = re.compile(r"[ -~]*")
# What a configuration has of its own: the words of each line, by its first ones.
_FIXED = re.compile(
    r"    (server trust 127\.0\.0\.1:1 disabled ssl verify required ca-file a[0-9a-f]{24}\.pem"
    r"|errorfiles p[0-9a-f]{24}|errorfile [0-9]{3} /run/x/named/p[0-9a-f]{24}-[0-9]{3}\.http"
    r"|user [A-Za-z0-9._@+-]+ password \$[A-Za-z0-9./$=,-]+|timeout connect [0-9]+ms"
    r"|balance (leastconn|random|source|roundrobin)|hash-type consistent|filter lua\.limit"
    r"|use-server %\[var\(txn\.keep\)\] if \{ var\(txn\.keep\) -m found \})"
    r"|userlist u[0-9a-f]{24}|http-errors p[0-9a-f]{24}|backend b[0-9]+ from (options|usual)"
)


def translated(*routes: Route) -> tuple[Translation, list[str]]:
    table = RoutingTable()
    table.set_listeners([Listener("http", 80, INGRESS_SCOPE)])
    table.update(("Ingress", "a", "i"), Contribution(routes=routes))
    translation = Translation()
    step = translation.step(table.routing, table.take_change())
    operations = [
        op for op in (*step.now, *step.later) if not isinstance(op, SetCertificate | RemoveCertificate)
    ]
    return translation, [command(op, FILES) for op in operations]


PLAIN = set(configuration(translated()[0].content, FILES).split("\n"))


def held(translation: Translation, commands: list[str]) -> None:
    """Every line of the configuration is one that is always there, or of a known form; every map has its entries."""
    for line in configuration(translation.content, FILES).split("\n"):
        assert line in PLAIN or _FIXED.fullmatch(line), line
    for path, text in render(translation.content, FILES).items():
        if path.suffix == ".map":
            lines = text.split("\n")[:-1]
            assert len(lines) == len(translation.content.maps[path.stem])
            for line in lines:
                assert _LINE.fullmatch(line), line
                assert len(line.split()) == 2, line
                assert line[0] != "#"
    for line in commands:
        assert _LINE.fullmatch(line), line
        assert ";" not in line.replace("\\;", "")
        assert "<<" not in [word for word in line.split() if word.startswith("<<")]


@settings(max_examples=400, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(KEYS, VALUES, max_size=8),
    st.tuples(EVIL, EVIL, EVIL),
    st.sampled_from(["Prefix", "ImplementationSpecific"]),
)
def test_annotations(given_: dict[str, str], content: tuple[str, str, str], kind: str) -> None:
    user, page, path = content
    held(*_of(given_, user, page, path, kind))


def _of(given_: dict[str, str], user: str, page: str, path: str, kind: str) -> tuple[Translation, list[str]]:
    obj = ingress("i", [("foo.com", f"/{path}", kind, "s")])
    obj["metadata"]["annotations"] = given_

    def encoded(text: str) -> str:
        return base64.b64encode(text.encode(errors="replace")).decode()

    secret = {"data": {"auth": encoded(f"ann:$6$a$b\n{user}"), "ca.crt": encoded(page)}}
    pages = {"data": {"503": page}}
    wishes = reading.read(obj, lambda _, n: secret, lambda _, n: pages)
    return translated(*contribution(obj, service, wishes).routes)


@settings(max_examples=300, database=None, deadline=None)
@given(EVIL, EVIL, EVIL, st.booleans())
def test_values_of_any_origin(one: str, two: str, three: str, spanning: bool) -> None:
    """What no annotation lets through comes from elsewhere, some day."""
    [route] = contribution(ingress("i", [("foo.com", "/", "Prefix", "s")]), service).routes
    changes = (HeaderChange("set", one, two), HeaderChange("remove", three))
    options = Options(
        redirect=Redirect(one, two, 1, three),
        rewrite=Rewrite(hostname=one, prefix=two),
        request_headers=changes,
        response_headers=changes,
        auth=BasicAuth(one, (("ann", "$6$a$b"),)),
        cors=Cors((one, two, f"{one}*{three}"), (two,), (three,), (one,), True, 1, spanning=spanning),
        error_pages=((503, three),),
    )
    condition = Condition("header", one, two)
    pattern = replace(route.place, path=RoutePath(PathKind.REGEX, three))
    held(
        *translated(
            replace(route, options=options),
            replace(route, options=options, conditions=(condition, Condition("query", two, three, True)), method=one, precedence=("0",)),
            replace(route, place=pattern, options=Options(rewrite=Rewrite(regex=one, replacement=two))),
        )
    )  # fmt: skip


def test_nothing_is_longer_than_what_haproxy_reads_of_a_line() -> None:
    """The rest of a line would be an entry of its own: for another one's host, if somebody wished so."""
    rest = "ingress|victim.com/"
    for length in (4_000, 16_383 - 40, 16_383, 40_000):
        for kind in ("Exact", "Prefix", "ImplementationSpecific"):
            path = f"/{'a' * length}{rest}"
            obj = ingress("i", [("foo.com", path, kind, "s"), ("foo.com", "/", "Prefix", "s")])
            obj["metadata"]["annotations"] = {
                "sampan.io/rewrite": path,
                "sampan.io/cors-origins": f"https://{'a' * length}.test",
                "sampan.io/cors-headers": "x" * length,
                "sampan.io/allow": "10.0.0.0/8," * length,
            }
            found = contribution(obj, service, reading.read(obj, lambda _, __: None, lambda _, __: None))
            made, commands = translated(*found.routes)
            held(made, commands)
            wide = replace(
                found.routes[-1], place=replace(found.routes[-1].place, path=RoutePath(PathKind.PREFIX, path))
            )
            change = HeaderChange("set", "x", "\n" + "é" * length)
            more = translated(wide, replace(found.routes[-1], options=Options(response_headers=(change,))))
            held(*more)
            for text in (*render(made.content, FILES).values(), *render(more[0].content, FILES).values()):
                assert max(map(len, text.split("\n"))) < 16_000
            assert max(map(len, commands)) < 16_000
            assert len(found.problems) >= 3, found.problems


def test_equal_content_has_one_name() -> None:
    assert name_of("u", (("a", "b"),)) == name_of("u", (("a", "b"),)) != name_of("u", (("a", "c"),))


GOOD = [
    "/api(/|$)(.*)",
    "/[a-z]+/[0-9]{1,3}",
    "/x\\.y$",
    "/(?:a|b)",
    "/\\d+",
    "/.*",
    "/a\\/b",
    "/[^/]+",
    "/a b",
]
BAD = [
    "/(a+)+$", "/(a|a)*", "/((a*)b)+", "/(a?){20}", "/((ab)+c)*",
    "/(", "/[", "/a**", "/(?=x)", "/(?P<n>x)", "/\\1", "/\\Q", "/x*+", "/[[:alpha:]]", "/a{1000}", "/(a{100}){100}", "/é", "/a\nb",
    "/" + "a" * 600, "/" + "(" * 30 + ")" * 30, "/\\", "*",
]  # fmt: skip


@pytest.mark.parametrize("pattern", GOOD)
def test_patterns_that_are_taken(pattern: str) -> None:
    assert patterns.problem(pattern) == ""


@pytest.mark.parametrize("pattern", BAD)
def test_patterns_that_are_refused(pattern: str) -> None:
    assert patterns.problem(pattern)


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
def test_haproxy_takes_every_pattern_that_is_not_refused(tmp_path: Path) -> None:
    """One that it refused would keep all of the front door from changing."""
    found = set(GOOD)

    @settings(max_examples=3000, database=None, deadline=None)
    @given(
        st.lists(
            st.sampled_from([*"/ab.*+?()[]{}|^$-\\", "(?:", "[a-z]", "{2}", "{2,}", "{,2}", "\\d", "[^", "\\b", "&&", "--"]),
            max_size=8,
        )
    )  # fmt: skip
    def collect(parts: list[str]) -> None:
        pattern = "".join(parts)
        if not patterns.problem(pattern):
            found.add(pattern)

    collect()
    lines = [f"^g{n}\\|{patterns.grouped(p)} r{n}\n" for n, p in enumerate(sorted(found))]
    (tmp_path / "regex.map").write_text("".join(lines))
    (tmp_path / "h.cfg").write_text(
        "defaults\n    mode http\n    timeout client 1s\n    timeout connect 1s\n    timeout server 1s\n"
        f"frontend f\n    bind 127.0.0.1:1\n    http-request set-var(txn.x) path,map_reg({tmp_path}/regex.map)\n"
        f"    http-request set-var(txn.y) path,map_regm({tmp_path}/regex.map)\n"
    )
    checked = subprocess.run(
        ["haproxy", "-c", "-f", str(tmp_path / "h.cfg")], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
