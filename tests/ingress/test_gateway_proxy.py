"""Gateways on the real HAProxy: a listener of their own, hosts, matches, weights and filters as a client and a backend see them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from shutil import which

import pytest

from tests.ingress.gateway_objects import http, rule, tls, web
from tests.ingress.gateway_place import NAMES, path, place, to

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]


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
