"""Gateways on the real HAProxy: a listener of their own, hosts, matches, weights and filters as a client and a backend see them."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from shutil import which

import pytest

from sampan.api.errors import Object
from sampan.ingress import gateways
from sampan.ingress.haproxy import in_force
from sampan.ingress.types import ServicePort
from tests.ingress.door import Answer, Door, Upstream, free_ports, open_door, parse
from tests.ingress.gateway_objects import Cluster, gateway, http, made, rule, service, tls, tls_secret, web
from tests.ingress.http2 import Http2Upstream, call

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]
NAMES = ("s", "t", "u", "v", "w")


class Place:
    """A door with a Gateway, asked at the port of its first listener; the Services s, t, u, v and w, each with one endpoint."""

    def __init__(self, door: Door, cluster: Cluster, ports: dict[int, int]) -> None:
        self.door, self.cluster, self.ports = door, cluster, ports

    async def have(self, *routes: Object) -> None:
        for route in routes:
            meta = route["metadata"]
            state = self.cluster.route(route)
            self.door.table.update((route["kind"], meta["namespace"], meta["name"]), state.contribution)
        await self.door.settle()

    async def who(
        self, path: str, *headers: str, host: str = "a.example.com", method: str = "GET", port: int = 0
    ) -> str:
        """The name of the backend that answers, or the status."""
        self.door.port = self.ports[port] if port else self.door.port
        answer = await self.door.get(host, path, *headers, method=method)
        return answer.body.split("\n")[0] if answer.status == 200 else str(answer.status)

    async def secure(self, name: str, path: str, host: str) -> Answer:
        """The answer over TLS to who asks for a certificate for `name`."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.ports[443], ssl=context, server_hostname=name
        )
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            async with asyncio.timeout(10):
                return parse((await reader.read(-1)).decode(errors="replace"))
        finally:
            writer.close()


@asynccontextmanager
async def place(directory: Path, *listeners: Object) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(open_door(directory))
        pair = tls_secret("infra", "pair", "example.org")
        cluster = Cluster([gateway(*listeners)], [service(name) for name in NAMES], [pair])
        for name in NAMES:
            up = await stack.enter_async_context(Upstream(name))
            door.table.set_endpoints(ServicePort("infra", name, 80), [up.endpoint])
        asked = dict.fromkeys(one["port"] for one in cluster.gateways[0]["spec"]["listeners"])
        ports = dict(zip(asked, free_ports(len(asked)), strict=True))
        door.port = next(iter(ports.values()))
        made_for_it = {"spec": {"ports": [{"port": p, "nodePort": own} for p, own in ports.items()]}}
        door.table.update(("Gateway", "infra", "g"), gateways.contribution(cluster.state(), made_for_it))
        yield Place(door, cluster, ports)


def to(backend: str, *matches: Object, **more: object) -> Object:
    return rule({"name": backend, "port": 80}, matches=list(matches) or [{}], **more)


def path(value: str, kind: str = "PathPrefix", **more: object) -> Object:
    return {"path": {"type": kind, "value": value}, **more}


async def test_paths_headers_methods_and_queries(tmp_path: Path) -> None:
    """HTTPRouteMatching, HTTPRouteHeaderMatching, HTTPRouteMethodMatching, HTTPRouteQueryParamMatching, HTTPRouteExactPathMatching,
    HTTPRoutePathMatchOrder."""
    async with place(tmp_path) as at:
        await at.have(
            http(
                to("s", path("/")),
                to("t", path("/two"), path("/exact", "Exact")),
                to("u", path("/", headers=[{"name": "Version", "value": "two"}])),
                to("v", path("/", method="PATCH"), path("/two", queryParams=[{"name": "animal", "value": "whale"}])),
                to("w", path("/", headers=[{"name": "version", "value": "two"}, {"name": "color", "value": "blue"}]),
                   path("/re", headers=[{"name": "x", "value": "a[0-9]+", "type": "RegularExpression"}])),
            )
        )  # fmt: skip
        assert await at.who("/") == "s"
        assert await at.who("/two") == await at.who("/two/") == await at.who("/two/three") == "t"
        assert await at.who("/twofold") == "s"
        assert await at.who("/exact") == "t"
        assert await at.who("/exact/") == "s"
        assert await at.who("/", "version: two") == "u"
        assert await at.who("/", "version: three") == "s"
        assert await at.who("/two", "version: two") == "t", "the longer path goes first"
        assert await at.who("/", "version: two", "Color: blue") == "w"
        assert await at.who("/", "version: two", method="PATCH") == "v", "the method goes before headers"
        assert await at.who("/two?animal=whale&x=1") == "v"
        assert await at.who("/two?animal=whales") == "t"
        assert await at.who("/re", "x: a12") == "w"
        assert await at.who("/re", "x: a12b") == "s"


async def test_hosts(tmp_path: Path) -> None:
    """HTTPRouteListenerHostnameMatching, HTTPRouteHostnameIntersection: a wildcard stands for several labels, the longest goes first."""
    async with place(tmp_path) as at:
        routes = []
        for name, host in (("s", "*.example.com"), ("t", "*.b.example.com"), ("u", "c.b.example.com")):
            route = http(to(name), hostnames=[host])
            route["metadata"]["name"] = name
            routes.append(route)
        await at.have(*routes)
        for host, expected in (
            ("a.example.com", "s"),
            ("x.y.z.example.com", "s"),
            ("a.b.example.com", "t"),
            ("x.a.b.example.com", "t"),
            ("C.b.example.com", "u"),
            ("example.com", "404"),
            ("b.example.com", "s"),
            ("a.example.org", "404"),
        ):
            assert await at.who("/", host=host) == expected, host
        # What no route of the more special host wants is for the less special one.
        await at.have(
            http(to("v", path("/v", headers=[{"name": "x", "value": "1"}])), hostnames=["x.y.z.example.com"])
        )
        assert await at.who("/v", "x: 1", host="x.y.z.example.com") == "v"
        assert await at.who("/v", "x: 2", host="x.y.z.example.com") == "s"


LISTENERS = {
    "empty": "",
    "wide": "*.example.com",
    "narrow": "*.foo.example.com",
    "exact": "abc.foo.example.com",
}


async def test_a_request_is_for_one_listener_alone(tmp_path: Path) -> None:
    """GatewayHTTPListenerIsolation: what is attached to a listener is not to be had by the host of another one."""
    given = [
        {"name": name, "port": 80, "protocol": "HTTP"} | ({"hostname": host} if host else {})
        for name, host in LISTENERS.items()
    ]
    async with place(tmp_path, *given) as at:
        routes = []
        for name, backend in zip(LISTENERS, NAMES, strict=False):
            route = http(to(backend, path(f"/{name}")))
            route["metadata"]["name"] = name
            route["spec"]["parentRefs"] = [{"name": "g", "sectionName": name}]
            routes.append(route)
        # It asks for the host of another listener; that one is more like it, and the route is none of its.
        thief = http(to("w", path("/")), hostnames=["abc.foo.example.com", "bar.com"])
        thief["metadata"]["name"] = "thief"
        thief["spec"]["parentRefs"] = [{"name": "g", "sectionName": "empty"}]
        await at.have(*routes, thief)
        for host, own in (
            ("bar.example.com", "wide"),
            ("a.bar.example.com", "wide"),
            ("bar.foo.example.com", "narrow"),
            ("a.bar.foo.example.com", "narrow"),
            ("abc.foo.example.com", "exact"),
            ("ABC.foo.example.com.", "exact"),
            ("other.org", "empty"),
        ):
            for name, backend in zip(LISTENERS, NAMES, strict=False):
                expected = backend if name == own else "404"
                assert await at.who(f"/{name}", host=host) == expected, (host, name)
        assert await at.who("/", host="bar.com") == "w"
        assert await at.who("/", host="abc.foo.example.com") == "404"


async def test_without_a_listener_for_all_hosts_others_are_not_found(tmp_path: Path) -> None:
    async with place(
        tmp_path, {"name": "a", "port": 80, "protocol": "HTTP", "hostname": "a.example.com"}
    ) as at:
        await at.have(http(to("s", path("/"))))
        assert await at.who("/") == "s"
        assert await at.who("/", host="b.example.com") == "404"


async def test_a_connection_for_another_listener_is_misdirected(tmp_path: Path) -> None:
    """HTTPRouteHTTPSListenerDetectMisdirectedRequests: all listeners show one certificate here, and are others all the same."""
    hosts = {"every": "", "second": "second.org", "wild": "*.wild.org", "fourth": "fourth.wild.org"}
    given = [tls(name) | ({"hostname": host} if host else {}) for name, host in hosts.items()]
    async with place(tmp_path, *given) as at:
        routes = []
        for name, backend, asked in zip(hosts, NAMES, (["example.org"], [], [], []), strict=False):
            route = http(to(backend, path("/detect")), hostnames=asked)
            route["metadata"]["name"] = name
            route["spec"]["parentRefs"] = [{"name": "g", "sectionName": name}]
            routes.append(route)
        await at.have(*routes)
        for name, host, expected in (
            ("example.org", "example.org", "s"),
            ("example.org", "second.org", "421"),
            ("example.org", "unknown.org", "404"),
            ("second.org", "second.org", "t"),
            ("second.org", "SECOND.org:443", "t"),
            ("second.org", "example.org", "421"),
            ("second.org", "unknown.org", "421"),
            ("third.wild.org", "third.wild.org", "u"),
            ("third.wild.org", "fifth.wild.org", "u"),
            ("third.wild.org", "a.b.wild.org", "u"),
            ("a.b.wild.org", "third.wild.org", "u"),
            ("a.b.wild.org", "fourth.wild.org", "421"),
            ("third.wild.org", "fourth.wild.org", "421"),
            ("third.wild.org", "second.org", "421"),
            ("third.wild.org", "unknown.org", "421"),
            ("fourth.wild.org", "fourth.wild.org", "v"),
            ("fourth.wild.org", "fifth.wild.org", "421"),
            ("unknown.org", "example.org", "s"),
            ("unknown.org", "unknown.org", "404"),
        ):
            answer = await at.secure(name, "/detect", host)
            found = answer.body.split("\n")[0] if answer.status == 200 else str(answer.status)
            assert found == expected, (name, host)


async def test_routes_of_one_port(tmp_path: Path) -> None:
    """HTTPRouteListenerPortMatching: a route that names a port is reached there alone, one that names none at all of them."""
    given = web("a", 80), web("b", 8080, hostname="foo.com"), web("c", 8080, hostname="bar.com")
    async with place(tmp_path, *given) as at:
        routes = []
        for name, ref, backend in (
            ("r80", {"port": 80}, "s"),
            ("r8080", {"port": 8080}, "t"),
            ("bar", {"port": 8080, "sectionName": "c"}, "u"),
            ("all", {}, "v"),
        ):
            route = http(to(backend, path(f"/{name}")))
            route["metadata"]["name"] = name
            route["spec"]["parentRefs"] = [{"name": "g", **ref}]
            routes.append(route)
        await at.have(*routes)
        for port, host, reached in (
            (80, "foo.com", {"r80": "s", "all": "v"}),
            (80, "other.com", {"r80": "s", "all": "v"}),
            (8080, "foo.com", {"r8080": "t", "all": "v"}),
            (8080, "bar.com", {"r8080": "t", "bar": "u", "all": "v"}),
            (8080, "other.com", {}),
        ):
            for name in ("r80", "r8080", "bar", "all"):
                assert await at.who(f"/{name}", host=host, port=port) == reached.get(name, "404"), (
                    port,
                    host,
                )


async def test_weights(tmp_path: Path) -> None:
    """HTTPRouteWeight; the share of what cannot be had is answered with 500."""
    async with place(tmp_path) as at:
        backends = [
            {"name": n, "port": 80, "weight": w} for n, w in (("s", 3), ("t", 1), ("u", 0), ("nothing", 1))
        ]
        await at.have(http(rule(*backends)))
        seen = Counter([await at.who("/") for _ in range(250)])
        assert set(seen) == {"s", "t", "500"}
        assert seen["s"] > seen["t"] + seen["500"]
        await at.have(http(rule({"name": "nothing", "port": 80})))
        assert await at.who("/") == "500"
        await at.have(http(rule({"name": "s", "port": 80, "weight": 0})))
        assert await at.who("/") == "500"


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
        }
        await at.have(http(*(to("s", path(where), timeouts=limits) for where, limits in given.items())))
        for where in ("/request", "/backend"):
            assert await at.who(f"{where}/slow") == "504"
            assert await at.who(where) == "s"
        up.waiting.clear()
        asked = asyncio.create_task(at.who("/ever/slow"))
        await up.waiting.wait()
        assert not (await asyncio.wait([asked], timeout=0.3))[0], "longer than the others would wait"
        up.release.set()
        assert await asked == "s"


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


async def test_gateways_and_ingresses_do_not_meet(tmp_path: Path) -> None:
    """What attaches to a Gateway is answered at its port alone."""
    async with place(tmp_path) as at:
        await at.have(http(to("s")))
        assert await at.who("/") == "s"
        (first,) = [one.port for one in at.door.table.routing.listeners.values() if one.scope == "ingress"]
        own, at.door.port = at.door.port, first
        assert await at.who("/") == "404"
        at.door.port = own
        from sampan.ingress.types import NOTHING

        at.door.table.update(("Gateway", "infra", "g"), NOTHING)
        await at.door.settle()
        with pytest.raises(OSError, match="Connect call failed"):
            await at.who("/")


def grpc(*rules: Object, **spec: object) -> Object:
    """A GRPCRoute of rules as `to` makes them."""
    return made("GRPCRoute", "infra", "r", {"parentRefs": [{"name": "g"}], "rules": list(rules), **spec})


async def test_grpc(tmp_path: Path) -> None:
    """GRPCExactMethodMatching, GRPCRouteHeaderMatching, GRPCRouteRequestHeaderModifier, GRPCRouteWeight, GRPCRouteNamedRule,
    GRPCRouteAllBackendsWeightZero, GRPCRouteListenerHostnameMatching; with HTTP/2 from the client to the backend."""
    async with place(tmp_path) as at, AsyncExitStack() as stack:
        for name in NAMES:
            up = await stack.enter_async_context(Http2Upstream(name=name))
            at.door.table.set_endpoints(ServicePort("infra", name, 80), [up.endpoint])

        async def who(path: str, *metadata: tuple[str, str], host: str = "foo.com") -> str:
            answer = await call(at.door.port, path, *metadata, host=host)
            if answer.status == "200":
                assert answer.trailers == {"grpc-status": "0"}
            return answer.body if answer.status == "200" else answer.status

        def method(service: str = "", name: str = "", **more: str) -> Object:
            given = {k: v for k, v in (("service", service), ("method", name)) if v}
            return {"method": given | more}

        regex = {"type": "RegularExpression"}
        await at.have(
            grpc(
                to("s", method("echo.Echo", "One"), name="first"), to("t", method("echo.Echo", "Two"), name="second"),
                to("u", method("all.Methods")), to("v", method("", "Anywhere")), to("w", method("re.*", "G.t", **regex)),
            )
        )  # fmt: skip
        for asked, expected in (
            ("/echo.Echo/One", "s"), ("/echo.Echo/Two", "t"), ("/echo.Echo/Three", "404"), ("/all.Methods/X", "u"),
            ("/all.MethodsToo/X", "404"), ("/x.Y/Anywhere", "v"), ("/regular/Get", "w"), ("/regular/Gett", "404"),
        ):  # fmt: skip
            assert (await who(asked)).split()[0] == expected, asked

        def headers(*given: Object) -> Object:
            return {"headers": list(given)}

        one, two = {"name": "version", "value": "one"}, {"name": "version", "value": "two"}
        orange = {"name": "Color", "value": "orange"}
        some = {"name": "color", "value": "blue|green", "type": "RegularExpression"}
        modifier = {"type": "RequestHeaderModifier", "requestHeaderModifier": {
            "set": [{"name": "X-M-Set", "value": "new"}], "add": [{"name": "X-M-Add", "value": "more"}], "remove": ["X-M-Gone"],
        }}  # fmt: skip
        await at.have(
            grpc(
                to("s", headers(one)), to("t", headers(two)), to("u", headers(two, orange)), to("v", headers(some)),
                to("w", method("mod.Ify"), filters=[modifier]),
            )
        )  # fmt: skip
        for metadata, expected in (
            ([("version", "one")], "s"), ([("version", "two")], "t"), ([("version", "two"), ("color", "orange")], "u"),
            ([("version", "two"), ("color", "red")], "t"), ([("color", "orange")], "404"), ([("color", "green")], "v"),
            ([("color", "greenish")], "404"), ([], "404"),
        ):  # fmt: skip
            assert (await who("/a.B/C", *metadata)).split()[0] == expected, metadata
        found = await who("/mod.Ify/X", ("x-m-set", "old"), ("x-m-add", "some"), ("x-m-gone", "yes"))
        assert sorted(found.split()) == sorted(
            ["w", "/mod.Ify/X", "x-m-add=some", "x-m-add=more", "x-m-set=new"]
        )

        await at.have(
            grpc(
                rule({"name": "s", "port": 80, "weight": 3}, {"name": "t", "port": 80, "weight": 1}, {"name": "u", "port": 80, "weight": 0}),
                hostnames=["foo.com"],
            )
        )  # fmt: skip
        seen = Counter([(await who("/a.B/C")).split()[0] for _ in range(200)])
        assert set(seen) == {"s", "t"}
        assert 110 < seen["s"] < 190
        assert await who("/a.B/C", host="bar.com") == "404"
        await at.have(
            grpc(rule({"name": "s", "port": 80, "weight": 0}, {"name": "t", "port": 80, "weight": 0}))
        )
        assert await who("/a.B/C") == "503"
        assert at.door.driver.reloads <= 1


async def test_grpc_paths(tmp_path: Path) -> None:
    """GRPCExactMethodMatching: which route has a call (the wire is HTTP/1 here)."""
    async with place(tmp_path) as at:
        matches = {"t": {"service": "a.B", "method": "C"}, "u": {"service": "a.B"}, "v": {"method": "D"}}
        rules = [
            {"matches": [{"method": method}], "filters": [], "backendRefs": [{"name": "nothing", "port": 80}]}
            for method in matches.values()
        ]
        spec = {"parentRefs": [{"name": "g", "sectionName": "web"}], "rules": rules}
        await at.have(made("GRPCRoute", "infra", "r", spec))
        found = [await at.who(asked, method="POST") for asked in ("/a.B/C", "/a.B/X", "/z/D", "/z/E", "/")]
        assert found == ["503", "503", "503", "404", "404"], "what is missing is UNAVAILABLE"
