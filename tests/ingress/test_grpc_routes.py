"""GRPCRoutes on the real HAProxy, with HTTP/2 from the client to the backend."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from shutil import which

import pytest

from sampan.api.errors import Object
from sampan.ingress.types import ServicePort
from tests.ingress.gateway_objects import made, rule
from tests.ingress.gateway_place import NAMES, place, to
from tests.ingress.http2 import Http2Upstream, call

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]


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

        # A service goes before a method, of however long a name, and a method before headers (the API's precedence).
        long = "AMethodWhoseNameIsLongerThanTheServices"
        metadata = {"headers": [{"name": "a", "value": "1"}, {"name": "b", "value": "1"}]}
        await at.have(
            grpc(
                to("s", metadata), to("t", method("", long)), to("u", method("foo.Bar")),
                to("v", method("", long) | {"headers": metadata["headers"][:1]}),
            )
        )  # fmt: skip
        given = (("a", "1"), ("b", "1"))
        for asked, expected in ((f"/foo.Bar/{long}", "u"), (f"/x.Y/{long}", "v"), ("/x.Y/Other", "s")):
            assert (await who(asked, *given)).split()[0] == expected, asked
        assert (await who(f"/x.Y/{long}")).split()[0] == "t"

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
