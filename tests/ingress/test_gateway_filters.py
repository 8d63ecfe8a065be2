"""What routes of Gateways do to requests and answers, on the real HAProxy: filters of rules and backends, redirects, timeouts, CORS."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from shutil import which

import pytest

from sampan.api.errors import Object
from sampan.ingress.haproxy import in_force
from sampan.ingress.types import ServicePort
from tests.ingress.door import Upstream
from tests.ingress.gateway_objects import http, rule, tls, web
from tests.ingress.gateway_place import path, place, to

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]


async def test_filters(tmp_path: Path) -> None:
    """HTTPRouteRequestHeaderModifier, HTTPRouteResponseHeaderModification, HTTPRouteRewriteHost, HTTPRouteRewritePath,
    HTTPRouteRedirectHostAndStatus, HTTPRouteRedirectPath, HTTPRouteRedirectPort, HTTPRouteRedirectScheme."""

    def redirect(**given: object) -> list[Object]:
        return [{"type": "RequestRedirect", "requestRedirect": given}]

    modify = [
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {
            "set": [{"name": "X-Set", "value": "new value"}], "add": [{"name": "X-Add", "value": "more"}], "remove": ["X-Gone"],
        }},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "X-Answer", "value": "yes"}]}},
    ]  # fmt: skip
    prefix = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
    rewrite = [{"type": "URLRewrite", "urlRewrite": {"hostname": "inner.org", "path": prefix}}]
    async with place(tmp_path) as at:
        await at.have(
            http(
                to("s", path("/modify"), filters=modify),
                to("t", path("/old"), filters=rewrite),
                {"matches": [path("/host")], "filters": redirect(hostname="example.org", statusCode=301)},
                {"matches": [path("/scheme")], "filters": redirect(scheme="https")},
                {"matches": [path("/port")], "filters": redirect(port=8083)},
                {"matches": [path("/whole")], "filters": redirect(path={"type": "ReplaceFullPath", "replaceFullPath": "/full"})},
                {"matches": [path("/part")], "filters": redirect(path=prefix)},
            )
        )  # fmt: skip
        answer = await at.door.get("a.example.com", "/modify", "X-Set: old", "X-Add: some", "X-Gone: 1")
        head = answer.body.lower()
        assert "x-set: new value" in head
        assert "x-set: old" not in head
        assert "x-add: some" in head
        assert "x-add: more" in head
        assert "x-gone" not in head
        assert answer.headers["x-answer"] == "yes"
        assert "x-forwarded-port: 80\r\n" in head, "the port that the client sees"
        answer = await at.door.get("a.example.com", "/old/thing?q=1")
        assert answer.body.startswith("t\nGET /new/thing?q=1 ")
        assert "host: inner.org" in answer.body.lower()
        for asked, status, location in (
            ("/host/x?y=1", 301, "http://example.org/host/x?y=1"),
            ("/scheme", 302, "https://a.example.com/scheme"),
            ("/port", 302, "http://a.example.com:8083/port"),
            ("/whole/x", 302, "http://a.example.com/full"),
            ("/part/x", 302, "http://a.example.com/new/x"),
        ):
            answer = await at.door.get("a.example.com", asked)
            assert (answer.status, answer.headers.get("location")) == (status, location), asked


async def test_paths_that_are_not_written_as_paths(tmp_path: Path) -> None:
    """What a path becomes is a path all the same, with a slash and without spaces: HTTPRouteRedirectPath, HTTPRouteRewritePath."""
    cases = {
        "/full": ("Full", "full", "/full"),
        "/nothing": ("Full", "", "/"),
        "/spaces": ("Full", "/a b%20c/é?d=#", "/a%20b%20c/%C3%A9?d=%23"),
        "/prefix": ("Prefix", "part", "/part/x"),
        "/empty": ("Prefix", "", "/x"),
        "/quoted": ("Prefix", "/a b", "/a%20b/x"),
    }
    names = {"Full": ("ReplaceFullPath", "replaceFullPath"), "Prefix": ("ReplacePrefixMatch", "replacePrefixMatch")}  # fmt: skip

    def filters(kind: str, name: str, which: str, text: str) -> list[Object]:
        type_, field = names[which]
        return [{"type": kind, name: {"path": {"type": type_, field: text}}}]

    async with place(tmp_path) as at:
        rules: list[Object] = []
        for where, (which, text, _) in cases.items():
            away = filters("RequestRedirect", "requestRedirect", which, text)
            rules.append({"matches": [path(f"/redirect{where}")], "filters": away})
            rewritten = filters("URLRewrite", "urlRewrite", which, text)
            rules.append(to("s", path(f"/rewrite{where}"), filters=rewritten))
        await at.have(http(*rules))
        for where, (_, _, becomes) in cases.items():
            answer = await at.door.get("a.example.com", f"/redirect{where}/x")
            assert answer.headers["location"] == f"http://a.example.com{becomes}"
            answer = await at.door.get("a.example.com", f"/rewrite{where}/x")
            assert answer.body.startswith(f"s\nGET {becomes} "), where


async def test_a_filter_that_cannot_be_had_is_not_got_around(tmp_path: Path) -> None:
    """Not by a more general route either, where it is the only rule of its own, which is not accepted then."""
    guard = {"type": "ExtensionRef", "extensionRef": {"group": "example.com", "kind": "Guard", "name": "g"}}
    guarded = http(to("s", path("/admin"), filters=[guard]))
    guarded["metadata"]["name"] = "guarded"
    async with place(tmp_path) as at:
        await at.have(http(to("s", path("/"))), guarded)
        assert [await at.who(where) for where in ("/admin/x", "/other")] == ["500", "s"]


async def test_what_is_done_on_the_way_to_one_backend(tmp_path: Path) -> None:
    """HTTPRouteBackendRequestHeaderModifier, HTTPRouteRequestHeaderModifierBackendWeights, HTTPRouteBackendURLRewrite,
    HTTPRouteBackendRequestRedirect, HTTPRouteNamedRule, also where there are several backends."""

    def headers(of: str, **values: str) -> Object:
        key = f"{of[0].lower()}{of[1:]}HeaderModifier"
        return {
            "type": f"{of}HeaderModifier",
            key: {"set": [{"name": k, "value": v} for k, v in values.items()]},
        }

    def backend(name: str, *filters: Object, weight: int = 1) -> Object:
        return {"name": name, "port": 80, "weight": weight, "filters": list(filters)}

    full = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/whole"}},
    }
    part = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/part"}},
    }
    away = {"type": "RequestRedirect", "requestRedirect": {"hostname": "example.org"}}
    async with place(tmp_path) as at:
        await at.have(
            http(
                rule(
                    backend("s", headers("Request", Backend="s"), headers("Response", Answered="s")),
                    backend("t", headers("Request", Backend="t"), full, weight=2), backend("u"), backend("v", part),
                    backend("w", headers("Request", Backend="w"), weight=0),
                    matches=[path("/several")], filters=[headers("Request", All="yes")], name="several",
                ),
                rule(backend("s", full), matches=[path("/full")]), rule(backend("s", part), matches=[path("/prefix")]),
                rule(backend("s", away), matches=[path("/away")]),
                rule(backend("s", away), backend("t"), matches=[path("/some")]),
            )
        )  # fmt: skip
        seen: Counter[str] = Counter()
        for _ in range(150):
            answer = await at.door.get("a.example.com", "/several/x", "Backend: none")
            name, *head = answer.body.lower().split("\n")
            seen[name] += 1
            sent = dict(line.strip().split(": ", 1) for line in head[1:] if ": " in line)
            assert sent["all"] == "yes"
            assert sent["backend"] == (name if name in "st" else "none")
            assert head[0].split()[1] == {"t": "/whole", "v": "/part/x"}.get(name, "/several/x")
            assert answer.headers.get("answered") == ("s" if name == "s" else None)
        assert set(seen) == {"s", "t", "u", "v"}
        assert seen["t"] > seen["s"]
        for asked, expected in (("/full/a", "/whole"), ("/prefix/a", "/part/a")):
            assert (await at.door.get("a.example.com", asked)).body.startswith(f"s\nGET {expected} ")
        assert (await at.door.get("a.example.com", "/away")).headers["location"] == "http://example.org/away"
        some = Counter([(await at.door.get("a.example.com", "/some")).status for _ in range(60)])
        assert set(some) == {200, 302}
        assert at.door.driver.reloads <= 1
        shown = [row for row in await in_force.rows(at.door.files) if row.path == "/some"]
        assert [row.target for row in shown] == ["infra/s:80 (1), infra/t:80 (1)"]


async def test_a_backend_that_does_not_answer_in_time(tmp_path: Path) -> None:
    """HTTPRouteTimeoutRequest, HTTPRouteTimeoutBackendRequest."""
    async with place(tmp_path) as at, Upstream("s") as up:
        at.door.table.set_endpoints(ServicePort("infra", "s", 80), [up.endpoint])
        given = {
            "/request": {"request": "100ms"},
            "/backend": {"backendRequest": "100ms"},
            "/ever": {"request": "0s"},
            "/long": {"request": "1193h2m47s346ms"},  # 50 ms more than 2^32
        }
        await at.have(http(*(to("s", path(where), timeouts=limits) for where, limits in given.items())))
        for where in ("/request", "/backend"):
            assert await at.who(f"{where}/slow") == "504"
            assert await at.who(where) == "s"
        for where in ("/ever", "/long"):
            up.waiting.clear()
            up.release.clear()
            asked = asyncio.create_task(at.who(f"{where}/slow"))
            await up.waiting.wait()
            assert not (await asyncio.wait([asked], timeout=0.3))[0], "longer than the others would wait"
            up.release.set()
            assert await asked == "s"


async def test_headers_of_a_redirect(tmp_path: Path) -> None:
    """HTTPRouteResponseHeaderModifier: a redirect is an answer, too."""
    set_ = [{"name": "X-A", "value": "a b"}, {"name": "location", "value": "http://elsewhere/"}]
    changes = {"set": set_, "add": [{"name": "Cache-Control", "value": "no-store"}], "remove": ["X-C"]}
    filters = [
        {"type": "RequestRedirect", "requestRedirect": {"statusCode": 301}},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": changes},
    ]
    async with place(tmp_path) as at:
        await at.have(http({"matches": [path("/x")], "filters": filters}))
        answer = await at.door.get("a.example.com", "/x")
        assert answer.status == 301
        found = [answer.headers.get(name) for name in ("x-a", "cache-control", "location")]
        assert found == ["a b", "no-store", "http://a.example.com/x"]
        reader, writer = await asyncio.open_connection("127.0.0.1", at.door.port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).lower().count(b"location:") == 1
        writer.close()


async def test_where_redirects_lead(tmp_path: Path) -> None:
    """HTTPRouteRedirectPortAndScheme, HTTPRoute303Redirect, HTTPRoute307Redirect, HTTPRoute308Redirect."""

    def leads(at: str, **given: object) -> Object:
        redirect = {"hostname": "example.org", **given}
        return {"matches": [path(at)], "filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]}

    wanted: dict[str, dict[str, object]] = {
        "/-": {}, "/80": {"port": 80}, "/443": {"port": 443}, "/8080": {"port": 8080}, "/8443": {"port": 8443},
        "/http": {"scheme": "http"}, "/http80": {"scheme": "http", "port": 80}, "/http8080": {"scheme": "http", "port": 8080},
        "/https": {"scheme": "https"}, "/https443": {"scheme": "https", "port": 443},
        "/https8443": {"scheme": "https", "port": 8443},
    }  # fmt: skip
    always = {
        "/http": "http://example.org", "/http80": "http://example.org", "/http8080": "http://example.org:8080",
        "/https": "https://example.org", "/https443": "https://example.org", "/https8443": "https://example.org:8443",
    }  # fmt: skip
    async with place(tmp_path, web("a", 80), web("b", 8080), tls("c", hostname="example.org")) as at:
        statuses = [leads(f"/status{n}", statusCode=n) for n in (301, 302, 303, 307, 308)]
        await at.have(http(*(leads(where, **given) for where, given in wanted.items()), *statuses))
        for port, own in (
            (
                80,
                {"/-": "http://example.org", "/80": "http://example.org", "/8080": "http://example.org:8080"},
            ),
            (
                8080,
                {
                    "/-": "http://example.org:8080",
                    "/80": "http://example.org",
                    "/8080": "http://example.org:8080",
                },
            ),
            (
                443,
                {
                    "/-": "https://example.org",
                    "/443": "https://example.org",
                    "/8443": "https://example.org:8443",
                },
            ),
        ):
            for where, location in (always | own).items():
                if port == 443:
                    answer = await at.secure("example.org", where, "example.org")
                else:
                    at.door.port = at.ports[port]
                    answer = await at.door.get("a.example.com", where)
                assert (answer.status, answer.headers["location"]) == (302, location + where), port
        for number in (301, 302, 303, 307, 308):
            answer = await at.door.get(
                "a.example.com", f"/status{number}", "Content-Length: 0", method="POST"
            )
            assert answer.status == number
            assert answer.headers["location"] == f"http://example.org:8080/status{number}"


def cors(**given: object) -> Object:
    return {"type": "CORS", "cors": given}


async def test_other_sites_pages(tmp_path: Path) -> None:
    """HTTPRouteCORS and HTTPRouteCORSAllowCredentialsBehavior."""
    async with place(tmp_path) as here:
        several = cors(
            allowOrigins=["https://www.foo.com", "https://*.bar.com", "http://*.test:8080", "https://a*c.*.org:443"],
            allowMethods=["GET", "OPTIONS"], allowHeaders=["x-1", "x-2"], exposeHeaders=["x-3", "x-4"],
            allowCredentials=True, maxAge=3600,
        )  # fmt: skip
        every = {"allowMethods": ["*"], "allowHeaders": ["*"], "exposeHeaders": ["*"]}
        await here.have(
            http(
                to("s", path("/several"), filters=[several]),
                to(
                    "t",
                    path("/methods"),
                    filters=[cors(allowOrigins=["https://www.foo.com"], allowMethods=["*"])],
                ),
                to("u", path("/origins"), filters=[cors(allowOrigins=["*"], allowMethods=["PUT"])]),
                to("v", path("/all"), filters=[cors(allowOrigins=["*"], allowCredentials=True, **every)]),
                to("w", path("/hosts"), filters=[cors(allowOrigins=["https://*"], **every)]),
                to("s", path("/named-none"), filters=[cors(allowOrigins=["https://www.foo.com"])]),
            )
        )

        async def asked(at: str, origin: str, *headers: str, method: str = "GET") -> dict[str, str]:
            """What a page of `origin` is told before it asks."""
            wanted = ("Access-Control-Request-Method: " + method, *headers)
            found = await here.door.get("a.example.com", at, f"Origin: {origin}", *wanted, method="OPTIONS")
            assert (found.status, found.body) == (200, "")
            return {k: v for k, v in found.headers.items() if k.startswith("access-control-")}

        async def told(at: str, origin: str) -> dict[str, str]:
            """What it is told with an answer of the backend's."""
            found = await here.door.get("a.example.com", at, f"Origin: {origin}", "Cookie: sid=1")
            assert found.status == 200
            assert len(found.body) > 1
            return {k: v for k, v in found.headers.items() if k.startswith("access-control-")}

        for origin in (
            *(
                "https://www.foo.com",
                "https://www.bar.com",
                "https://xpto.www.bar.com",
                "http://a.b.test:8080",
            ),
            *("https://abc.d.org", "https://abcbc.d.e.org"),
        ):
            allowed = {
                "access-control-allow-origin": origin,
                "access-control-allow-credentials": "true",
                "access-control-expose-headers": "x-3, x-4",
            }
            assert await told("/several", origin) == allowed
            assert await asked("/several", origin) == allowed | {
                "access-control-allow-methods": "GET, OPTIONS",
                "access-control-allow-headers": "x-1, x-2",
                "access-control-max-age": "3600",
            }
        for origin in (
            *(
                "https://foobar.com",
                "http://www.foo.com",
                "https://bar.com",
                "https://.bar.com",
                "https://xbar.com",
            ),
            *(
                "https://www.bar.com:8443",
                "http://a.test",
                "https://evil.org/.bar.com",
                "https://www.bar.com.evil.org",
            ),
            *("https://ac.d.org", "https://abc..org", "https://abc.org", "null", "https://a:1.bar.com"),
        ):
            assert await told("/several", origin) == {}, origin
            assert await asked("/several", origin) == {}, origin

        found = await asked("/methods", "https://www.foo.com", method="POST")
        assert found["access-control-allow-methods"] == "POST"
        assert found["access-control-max-age"] == "5"
        assert "access-control-allow-credentials" not in found
        # A filter that names no methods or headers allows what is allowed anyway.
        assert found["access-control-allow-headers"] == "Accept, Accept-Language, Content-Language"
        found = await asked("/named-none", "https://www.foo.com", method="DELETE")
        assert found["access-control-allow-methods"] == "GET, HEAD, POST"
        for origin in ("https://foobar.com", "https://foobar.com:12345"):
            assert await told("/origins", origin) == {"access-control-allow-origin": "*"}
            found = await asked("/origins", origin, method="PUT")
            assert found["access-control-allow-origin"] == "*"
            assert found["access-control-allow-methods"] == "PUT"

        # Beside credentials a star means nothing to a browser: what was asked for is named.
        asks = ("Access-Control-Request-Headers: x-1, x-2",)
        assert await asked("/all", "https://other.foo.com", *asks, method="PUT") == {
            "access-control-allow-origin": "https://other.foo.com",
            "access-control-allow-credentials": "true",
            "access-control-allow-methods": "PUT",
            "access-control-allow-headers": "x-1, x-2",
            "access-control-max-age": "5",
        }
        assert "access-control-allow-headers" not in await asked("/all", "https://other.foo.com")
        assert await told("/hosts", "https://other.foo.com") == {
            "access-control-allow-origin": "https://other.foo.com",
            "access-control-expose-headers": "*",
        }
        assert await told("/hosts", "http://other.foo.com") == {}
