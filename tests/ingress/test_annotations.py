"""What annotations mean, and what is told of those that mean nothing."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.ingress import annotations as reading
from sampan.ingress import ingresses
from sampan.ingress.ingresses import Wishes
from sampan.ingress.route_options import (
    NO_OPTIONS,
    BasicAuth,
    Cors,
    Options,
    RateLimit,
    Redirect,
    Rewrite,
    Timeouts,
)
from sampan.ingress.types import BackendTls, Canary, PathKind, Policy, StickyCookie

PEM = """\
-----BEGIN CERTIFICATE-----
MIIBcTCCARegAwIBAgIUJFRDRTYkL7umvnUmfSkVM4r83/0wCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCY2EwIBcNMjYxMTI1MDM1MDUzWhgPMjEyNjExMDEwMzUwNTNa
MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJ8M/D0M/
stshrMJQGIxGhjmhukKo5AzTbUfl6niOXaBBau4mdUhUGnhsPd1r6OX1cRWdTf0B
l+5kDNAn4Rk3UaNTMFEwHQYDVR0OBBYEFH/kw6xEDwgJGOMFh8J/61oJbU5iMB8G
A1UdIwQYMBaAFH/kw6xEDwgJGOMFh8J/61oJbU5iMA8GA1UdEwEB/wQFMAMBAf8w
CgYIKoZIzj0EAwIDSAAwRQIgaiR3on2LISZFLhhX1I1j5fIE96w1N0V6nPfljRi2
ZYkCIQD0q2h4cUb+B6C7z3Rlu0KFe0z9FlPBYWgWyM2IVHndYA==
-----END CERTIFICATE-----
"""
HASH = "$6$salt$abcdefghijklmnopqrstuvwxyz"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SECRETS: dict[str, Object] = {
    "users": {"data": {"auth": encoded(f"# a comment\nann:{HASH}\nbob:$2y$10$xyz\n")}},
    "dear": {"data": {"auth": encoded("ann:$2y$12$xyz\n")}},
    "old": {"data": {"auth": encoded("ann:$apr1$x$y\n")}},
    "broken": {"data": {"auth": encoded("ann\n")}},
    "ca": {"data": {"ca.crt": encoded(PEM)}},
    "empty": {"data": {}},
}
CONFIGMAPS: dict[str, Object] = {
    "pages": {"data": {"404": "<h1>gone</h1>", "503": "<h1>later</h1>"}},
    "odd": {"data": {"teapot": "x"}},
}


def ingress(**given: str) -> Object:
    meta = {"name": "web", "namespace": "default", "annotations": given}
    return {"metadata": meta, "spec": {"rules": [{"host": "web.test"}]}}


def read(given: dict[str, str]) -> Wishes:
    return reading.read(
        ingress(**given),
        lambda ns, name: SECRETS.get(name) if ns == "default" else None,
        lambda ns, name: CONFIGMAPS.get(name) if ns == "default" else None,
    )


OWN = [
    ({"https-redirect": "true"}, Options(https_only=True)),
    ({"hsts": "365d"}, Options(hsts=31_536_000)),
    ({"timeout-connect": "500ms", "timeout-response": "2m", "timeout-tunnel": "1h"}, Options(timeouts=Timeouts(500, 120_000, 3_600_000))),
    ({"timeout-response": "1h30m", "timeout-tunnel": "1m500ms"}, Options(timeouts=Timeouts(response=5_400_000, tunnel=60_500))),
    ({"max-body": "10Mi"}, Options(max_body=10 * 1024 * 1024)),
    ({"rewrite": "/new"}, Options(rewrite=Rewrite(path="/new"))),
    ({"basic-auth-secret": "users", "basic-auth-realm": "Staff"}, Options(auth=BasicAuth("Staff", (("ann", HASH), ("bob", "$2y$10$xyz"))))),
    ({"rate-limit": "100/m"}, Options(rate_limit=RateLimit(100, 60))),
    ({"allow": "10.0.0.0/8, fd00::1"}, Options(allow=("10.0.0.0/8", "fd00::1/128"))),
    ({"deny": "10.1.2.3"}, Options(deny=("10.1.2.3/32",))),
    ({"cors-origins": "https://a.test,https://*.b.test", "cors-credentials": "true", "cors-methods": "GET, PUT", "cors-max-age": "1h"},
     Options(cors=Cors(("https://a.test", "https://*.b.test"), ("GET", "PUT"), credentials=True, max_age=3600))),
    ({"cors-origins": "chrome-extension://abc, http://a.test:8080"}, Options(cors=Cors(("chrome-extension://abc", "http://a.test:8080")))),
    ({"error-pages": "pages"}, Options(error_pages=((404, "<h1>gone</h1>"), (503, "<h1>later</h1>")))),
]  # fmt: skip
POLICIES = [
    ({"backend-protocol": "h2c"}, Policy("h2c")),
    ({"backend-protocol": "grpcs"}, Policy("h2")),
    (
        {"backend-ca-secret": "ca", "backend-server-name": "in.test"},
        Policy("https", BackendTls(PEM, "in.test")),
    ),
    ({"sticky-cookie": "keep", "sticky-cookie-max-age": "60"}, Policy(sticky=StickyCookie("keep", 60))),
    ({"balance": "leastconn"}, Policy(balance="leastconn")),
]


@pytest.mark.parametrize(("given", "wanted"), OWN, ids=lambda v: next(iter(v)) if isinstance(v, dict) else "")
def test_options(given: dict[str, str], wanted: Options) -> None:
    wishes = read({f"sampan.io/{k}": v for k, v in given.items()})
    assert wishes.problems == ()
    assert wishes.options == wanted


@pytest.mark.parametrize(("given", "wanted"), POLICIES, ids=lambda v: next(iter(v)) if isinstance(v, dict) else "")  # fmt: skip
def test_policies(given: dict[str, str], wanted: Policy) -> None:
    wishes = read({f"sampan.io/{k}": v for k, v in given.items()})
    assert (wishes.problems, wishes.policy, wishes.options) == ((), wanted, NO_OPTIONS)


NGINX: list[tuple[dict[str, str], Any]] = [
    ({"rewrite-target": "/"}, Options(rewrite=Rewrite(path="/"))),
    ({"force-ssl-redirect": "true"}, Options(https_only=True)),
    ({"force-ssl-redirect": "true", "ssl-redirect": "false"}, Options(https_only=True)),
    ({"force-ssl-redirect": "false", "ssl-redirect": "true"}, Options(https_only=True)),
    ({"proxy-body-size": "8m"}, Options(max_body=8 << 20)),
    ({"proxy-read-timeout": "120"}, Options(timeouts=Timeouts(response=120_000))),
    ({"whitelist-source-range": "10.0.0.0/8"}, Options(allow=("10.0.0.0/8",))),
    ({"allowlist-source-range": "10.0.0.0/8,fd00::/8"}, Options(allow=("10.0.0.0/8", "fd00::/8"))),
    ({"auth-type": "basic", "auth-secret": "default/users"}, Options(auth=BasicAuth("Authentication Required", (("ann", HASH), ("bob", "$2y$10$xyz"))))),
    ({"enable-cors": "true"}, Options(cors=Cors(("*",)))),
    ({"enable-cors": "false", "cors-allow-origin": "https://a.test"}, NO_OPTIONS),
    ({"limit-rps": "5"}, Options(rate_limit=RateLimit(5, 1))),
    ({"permanent-redirect": "https://b.test/x"}, Options(redirect=Redirect("https", "b.test", 0, "/x", status=301))),
    ({"upstream-vhost": "in.test"}, Options(rewrite=Rewrite(hostname="in.test"))),
    ({"backend-protocol": "GRPC"}, Policy("h2c")),
    ({"affinity": "cookie"}, Policy(sticky=StickyCookie("sampan-endpoint"))),
    ({"affinity": "cookie", "session-cookie-name": "route"}, Policy(sticky=StickyCookie("route"))),
    ({"canary": "true", "canary-weight": "20"}, Canary(20, inherits=True)),
    ({"canary": "true", "canary-by-header": "X-New", "canary-by-header-value": "yes"}, Canary(header="X-New", header_value="yes", inherits=True)),
    ({"canary": "false", "canary-weight": "20"}, None),
    ({"canary": "true"}, Canary(inherits=True)),
    ({"canary": "true", "canary-weight": "150", "canary-weight-total": "1000"}, Canary(150, 1000, inherits=True)),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wanted"), NGINX, ids=lambda v: next(iter(v)) if isinstance(v, dict) else "")  # fmt: skip
def test_nginx(given: dict[str, str], wanted: Any) -> None:
    wishes = read({f"nginx.ingress.kubernetes.io/{k}": v for k, v in given.items()})
    assert wishes.problems == ()
    found = {Options: wishes.options, Policy: wishes.policy}.get(type(wanted), wishes.canary)
    assert found == wanted


def test_ours_counts() -> None:
    wishes = read({"sampan.io/max-body": "1Ki", "nginx.ingress.kubernetes.io/proxy-body-size": "8m"})
    assert wishes.options.max_body == 1024
    wishes = read({"sampan.io/https-redirect": "false", "nginx.ingress.kubernetes.io/ssl-redirect": "true"})
    assert wishes.options == NO_OPTIONS


NGINX_KEY = "nginx.ingress.kubernetes.io/"


@pytest.mark.parametrize(
    ("given", "spoken"),
    [({}, "h2c"), ({"backend-protocol": "http"}, "http"), ({"backend-protocol": "https"}, "https")],
)
def test_what_the_services_port_speaks_unless_it_was_said(given: dict[str, str], spoken: str) -> None:
    wishes = read({f"sampan.io/{k}": v for k, v in given.items()})
    obj = {
        **ingress(),
        "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
    }
    port = {"port": 80, "appProtocol": "kubernetes.io/h2c"}
    service = {"metadata": {"name": "web"}, "spec": {"ports": [port]}}
    [route] = ingresses.contribution(obj, lambda _, __: service, wishes).routes
    assert [t.backend.policy.protocol for t in route.targets] == [spoken]


def test_what_switches_something_off_leaves_ours_alone() -> None:
    wishes = read(
        {
            "sampan.io/cors-origins": "https://a.test",
            f"{NGINX_KEY}enable-cors": "false",
            "sampan.io/canary-weight": "20",
            f"{NGINX_KEY}canary": "false",
        }
    )
    assert (wishes.problems, wishes.options.cors) == ((), Cors(("https://a.test",)))
    assert wishes.canary == Canary(20)


@pytest.mark.parametrize(
    ("key", "value", "needs"),
    [
        ("sampan.io/basic-auth-realm", "Staff", "sampan.io/basic-auth-secret"),
        ("sampan.io/sticky-cookie-max-age", "1d", "sampan.io/sticky-cookie"),
        ("sampan.io/cors-methods", "GET", "sampan.io/cors-origins"),
        ("sampan.io/cors-credentials", "true", "sampan.io/cors-origins"),
        (f"{NGINX_KEY}canary-weight", "20", f"{NGINX_KEY}canary"),
        (f"{NGINX_KEY}cors-allow-origin", "https://a.test", f"{NGINX_KEY}enable-cors"),
        (f"{NGINX_KEY}session-cookie-name", "keep", f"{NGINX_KEY}affinity"),
    ],
)
def test_what_has_no_effect_alone_says_so(key: str, value: str, needs: str) -> None:
    wishes = read({key: value})
    [problem] = wishes.problems
    assert problem.message == f"metadata.annotations[{key}]: {value!r}: it has no effect without {needs}"
    assert wishes == Wishes(problems=wishes.problems)


@pytest.mark.parametrize(
    "given",
    [
        {"sampan.io/canary-weight": "20%"},
        {"sampan.io/canary-weight": "101"},
        {f"{NGINX_KEY}canary": "true", f"{NGINX_KEY}canary-weight": "150"},
        {"sampan.io/canary-header-value": "yes"},
        {f"{NGINX_KEY}canary": "true", f"{NGINX_KEY}canary-weight": "20%"},
        {f"{NGINX_KEY}canary": "yes"},
    ],
)
def test_a_canary_that_cannot_be_understood_gets_nothing(given: dict[str, str]) -> None:
    """As a rule like others it would get everything, wherever it is the older one or alone."""
    wishes = read(given)
    assert [p.reason for p in wishes.problems] == ["InvalidAnnotation"]
    assert wishes.canary == Canary(0, inherits=all(key.startswith(NGINX_KEY) for key in given))


@pytest.mark.parametrize("other", ["sampan.io/cors-methods", f"{NGINX_KEY}enable-cors"])
def test_where_origins_were_mistyped_nobodys_pages_may_ask(other: str) -> None:
    origins = "sampan.io/cors-origins" if other.startswith("sampan") else f"{NGINX_KEY}cors-allow-origin"
    wishes = read({origins: "htt ps://a.test", other: "true"})
    assert len(wishes.problems) == 1
    assert wishes.options.cors is None


BAD = [
    ("sampan.io/timeout-connect", "soon", "expected a duration"),
    ("sampan.io/timeout-connect", "1h30", "from 1ms to 24h, such as 30s or 1h30m"),
    ("sampan.io/timeout-connect", "23h60m1ms", "from 1ms to 24h"),
    ("sampan.io/timeout-connect", "0s", "from 1ms to 24h"),
    ("sampan.io/timeout-connect", "", "from 1ms to 24h"),
    ("sampan.io/sticky-cookie", "a b", "expected a name"),
    ("sampan.io/sticky-cookie", "a\nserver evil", "expected a name"),
    ("sampan.io/cors-origins", "https://a.test\" }", "is no origin"),
    ("sampan.io/cors-origins", "https://a.test,b.test", "'b.test' is no origin such as https://example.com"),
    ("sampan.io/cors-origins", "https://a.test/", "is no origin"),
    ("sampan.io/cors-origins", "null", "is no origin"),
    ("sampan.io/rewrite", "/a\nhttp-request", "expected a path"),
    ("sampan.io/basic-auth-realm", 'a"b', "without quotes"),
    ("sampan.io/tls", "locale", "'locale': supported values: local"),
    ("sampan.io/error-pages", "odd", "'teapot' of the ConfigMap"),
    ("sampan.io/error-pages", "none", "there is no ConfigMap default/none"),
    ("nginx.ingress.kubernetes.io/rewrite-target", "/$uri", "only groups"),
    ("nginx.ingress.kubernetes.io/permanent-redirect", "javascript:alert(1)", "expected a URL"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "words"), BAD)
def test_values_that_mean_nothing(key: str, value: str, words: str) -> None:
    wishes = read({key: value})
    [problem] = wishes.problems
    assert problem.reason == "InvalidAnnotation"
    assert problem.message.startswith(f"metadata.annotations[{key}]: ")
    assert words in problem.message
    assert (wishes.options, wishes.policy, wishes.closed) == (NO_OPTIONS, Policy(), False)


@pytest.mark.parametrize("name", ["none", "old", "dear", "broken", "empty", "other/users"])
def test_where_nobody_can_be_let_in_it_stays_closed(name: str) -> None:
    wishes = read({"sampan.io/basic-auth-secret": name, "sampan.io/backend-ca-secret": "ca"})
    assert wishes.closed
    assert [p.reason for p in wishes.problems] == ["InvalidAnnotation"]
    assert wishes.problems[0].message.count("nobody is let in") == 1
    assert HASH not in str(wishes.problems)
    closed = {
        **ingress(),
        "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
    }
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    routes = ingresses.contribution(closed, lambda _, __: service, wishes).routes
    assert {(r.targets, r.status) for r in routes} == {((), 503)}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "sampan.io/allow",
            "10.0.0.0/99",
            "'10.0.0.0/99' is no network such as 10.0.0.0/8; nobody is let in",
        ),
        ("nginx.ingress.kubernetes.io/denylist-source-range", "me", "'me' is no network"),
        ("nginx.ingress.kubernetes.io/auth-type", "basic", "no annotation names a Secret with users; nobody"),
        ("nginx.ingress.kubernetes.io/auth-url", "http://a.test", "not supported here; nobody is let in"),
        ("sampan.io/basic-auth-secret", "x" * 2000, "there is no Secret"),
        ("sampan.io/max-body", "1" * 2000, "more than 1024 characters; nobody is let in"),
        ("sampan.io/https-redirect", "yes", "supported values: true, false"),
        ("sampan.io/max-body", "lots", "expected a quantity"),
        ("sampan.io/rate-limit", "0/s", "expected a rate such as 10/s"),
        ("sampan.io/backend-server-name", "a b", "expected the name of a host"),
        ("sampan.io/backend-protocol", "ftp", "supported values: http, h2c, grpc, https, h2, grpcs; nobody"),
        (
            "nginx.ingress.kubernetes.io/backend-protocol",
            "FCGI",
            "supported values: HTTP, HTTPS, GRPC, GRPCS; nobody",
        ),
        (
            "nginx.ingress.kubernetes.io/backend-protocol",
            "h2c",
            "supported values: HTTP, HTTPS, GRPC, GRPCS; nobody",
        ),
        ("nginx.ingress.kubernetes.io/limit-rps", "-1", "above 0"),
        ("sampan.io/backend-ca-secret", "none", "there is no Secret default/none; nobody is let in"),
        (
            "nginx.ingress.kubernetes.io/proxy-ssl-verify",
            "on",
            "name the authority by sampan.io/backend-ca-secret",
        ),
        ("nginx.ingress.kubernetes.io/proxy-ssl-secret", "a/b", "not supported here; nobody is let in"),
        (
            "sampan.io/basic-auth-secrets",
            "users",
            "nobody is let in (did you mean sampan.io/basic-auth-secret?)",
        ),
        ("sampan.io/alow", "10.0.0.0/8", "nobody is let in (did you mean sampan.io/allow?)"),
        ("nginx.ingress.kubernetes.io/whitelist-source-ranges", "10.0.0.0/8", "nobody is let in"),
        ("nginx.ingress.kubernetes.io/auth-urls", "http://a.test", "nobody is let in"),
    ],
)
def test_what_was_to_keep_people_out_and_cannot_be_had_closes_it(key: str, value: str, words: str) -> None:
    wishes = read({key: value})
    assert wishes.closed
    assert words in wishes.problems[0].message
    assert "nobody is let in" in wishes.problems[0].message


def test_users_of_another_kind_are_not_taken_for_ours() -> None:
    nginx = "nginx.ingress.kubernetes.io/"
    assert not read({f"{nginx}auth-type": "basic", f"{nginx}auth-secret": "users"}).closed
    wishes = read({f"{nginx}auth-type": "digest", f"{nginx}auth-secret": "users"})
    assert wishes.closed
    assert "supported values: basic; nobody is let in" in wishes.problems[0].message


def test_of_two_limits_none_is_forgotten_without_a_word() -> None:
    both = {"nginx.ingress.kubernetes.io/limit-rpm": "100", "nginx.ingress.kubernetes.io/limit-rps": "10"}
    wishes = read(both)
    [problem] = wishes.problems
    assert wishes.closed
    assert "'10': there is another limit besides" in problem.message
    assert "only one of limit-rpm and limit-rps can be had; nobody is let in" in problem.message
    assert not read({**both, "sampan.io/rate-limit": "5/s"}).closed


def test_ours_that_is_right_makes_good_for_one_of_nginx() -> None:
    nginx = {
        "nginx.ingress.kubernetes.io/whitelist-source-range": "me",
        "nginx.ingress.kubernetes.io/limit-rps": "x",
    }
    ours = {"sampan.io/allow": "10.0.0.0/8", "sampan.io/rate-limit": "5/s"}
    assert read(nginx).closed
    assert read({**nginx, "sampan.io/allow": "10.0.0.0/8"}).closed
    assert not read({**nginx, **ours}).closed
    right = {"nginx.ingress.kubernetes.io/whitelist-source-range": "10.0.0.0/8"}
    assert read({**right, "sampan.io/allow": "me"}).closed


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sampan.io/basic-auth-secret", "", "expected the name of a Secret"),
        ("sampan.io/basic-auth-secret", "default/", "expected the name of a Secret"),
        ("sampan.io/basic-auth-secret", "other/users", "a Secret of another namespace cannot be used, only of default"),
        ("sampan.io/backend-ca-secret", "other/ca", "a Secret of another namespace cannot be used, only of default"),
        ("sampan.io/backend-ca-secret", " ", "expected the name of a Secret"),
        ("sampan.io/error-pages", "other/pages", "a ConfigMap of another namespace cannot be used, only of default"),
        ("sampan.io/error-pages", "", "expected the name of a ConfigMap"),
    ],
)  # fmt: skip
def test_names_that_are_none_and_names_of_other_namespaces_are_told_apart(
    key: str, value: str, words: str
) -> None:
    [problem] = read({key: value}).problems
    assert problem.message.startswith(f"metadata.annotations[{key}]: {value!r}: {words}")


def test_of_two_names_for_the_networks_that_may_come_only_one_can_be_had() -> None:
    names = (f"{NGINX_KEY}allowlist-source-range", f"{NGINX_KEY}whitelist-source-range")
    same = read(dict.fromkeys(names, "10.0.0.0/8"))
    assert (same.problems, same.closed, same.options) == ((), False, Options(allow=("10.0.0.0/8",)))
    both = dict(zip(names, ("10.0.0.0/8", "0.0.0.0/0"), strict=True))
    wishes = read(both)
    assert wishes.closed
    [problem] = wishes.problems
    assert "allowlist-source-range is there besides" in problem.message
    ours = read({**both, "sampan.io/allow": "fd00::/8"})
    assert (ours.closed, ours.options.allow) == (False, ("fd00::/8",))


@pytest.mark.parametrize(
    "key",
    [
        "auth-secret-type",
        "limit-connections",
        "proxy-send-timeout",
        "ssl-passthrough",
        "mirror-target",
        "no-such-thing",
    ],
)
def test_what_is_not_supported_and_guards_nothing_closes_nothing(key: str) -> None:
    wishes = read(
        {f"nginx.ingress.kubernetes.io/{key}": "x", "nginx.ingress.kubernetes.io/proxy-ssl-verify": "off"}
    )
    assert not wishes.closed
    assert "has no effect" in wishes.problems[0].message


def test_a_certificate_for_no_host_cannot_be_made() -> None:
    asked = ingress(**{"sampan.io/tls": "local"})
    asked["spec"] = {"rules": [{"http": {}}], "tls": [{"secretName": "web"}]}
    [problem] = reading.read(asked, lambda *_: None, lambda *_: None).problems
    assert "no rule and no entry of spec.tls names a host" in problem.message
    asked["spec"]["tls"][0]["hosts"] = ["web.test"]
    assert reading.read(asked, lambda *_: None, lambda *_: None).problems == ()


@pytest.mark.parametrize(
    ("key", "off", "on"),
    [
        ("enable-modsecurity", "false", "true"),
        ("enable-owasp-core-rules", "false", "true"),
        ("satisfy", "all", "any"),
        ("auth-tls-verify-client", "off", "on"),
    ],
)
def test_a_guard_that_is_switched_off_closes_nothing(key: str, off: str, on: str) -> None:
    assert read({f"{NGINX_KEY}{key}": off}) == Wishes()
    for value in (on, "", "no"):
        assert read({f"{NGINX_KEY}{key}": value}).closed


def test_none_is_ignored_without_a_word() -> None:
    given = {
        "sampan.io/timout-connect": "5s",
        "nginx.ingress.kubernetes.io/configuration-snippet": "return 200;",
        "nginx.ingress.kubernetes.io/auth-url": "http://a.test",
        "cert-manager.io/cluster-issuer": "x",
        "sampan.io/tls": "local",
        "kubernetes.io/ingress.class": "sampan",
    }
    told = {p.source.field: p.message for p in read(given).problems}
    assert set(told) == {f"metadata.annotations[{k}]" for k in list(given)[:3]}
    messages = list(told.values())
    assert any("snippets of configuration are refused" in m for m in messages)
    assert any("did you mean sampan.io/timeout-connect?" in m for m in messages)
    assert all(p.reason == "UnsupportedAnnotation" for p in read(given).problems)


def test_patterns() -> None:
    wishes = read({"nginx.ingress.kubernetes.io/rewrite-target": "/$2"})
    assert (wishes.regex, wishes.rewrite) == (True, "/\\2")
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    paths = [
        {"path": "/api(/|$)(.*)", "pathType": "ImplementationSpecific", "backend": backend},
        {"path": "/plain", "pathType": "Prefix", "backend": backend},
    ]
    obj = {**ingress(), "spec": {"rules": [{"http": {"paths": paths}}]}}
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    first, second = ingresses.contribution(obj, lambda _, __: service, wishes).routes
    assert (first.place.path.kind, first.place.path.value) == (PathKind.REGEX, "^/api(/|$)(.*)")
    assert first.options.rewrite == Rewrite(regex="^/api(/|$)(.*)", replacement="/\\2")
    assert (second.place.path.kind, second.options.rewrite) == (PathKind.PREFIX, None)


@pytest.mark.parametrize(
    ("rewrite", "path", "told"),
    [
        ("/$2", "/api(/|$)(.*)", []),
        ("/$2", "/api(?:/|$)(.*)", [
            "spec.rules[0].http.paths[0].path: '/api(?:/|$)(.*)' has no group 2: in the rewrite to \"/\\2\" nothing stands in its place",
        ]),
        ("/x/$1", "/api", ["spec.rules[0].http.paths[0].path: '/api' has no group 1: in the rewrite to \"/x/\\1\" nothing stands in its place"]),
        ("/x$0", "/api", []),
    ],
)  # fmt: skip
def test_a_group_that_a_pattern_has_not_is_told(rewrite: str, path: str, told: list[str]) -> None:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    paths = [{"path": path, "pathType": "ImplementationSpecific", "backend": backend}]
    obj = {**ingress(), "spec": {"rules": [{"http": {"paths": paths}}]}}
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    wishes = read({f"{NGINX_KEY}rewrite-target": rewrite})
    found = ingresses.contribution(obj, lambda _, __: service, wishes)
    assert [p.message for p in found.problems] == told
    assert [r.place.path.kind for r in found.routes] == [PathKind.REGEX]


@pytest.mark.parametrize(
    ("given", "path", "told"),
    [
        ({"rewrite-target": "/$2"}, "/api(/|$)(.*)", [
            "spec.rules[0].http.paths[0].path: '/api(/|$)(.*)' is taken as it stands: regular expressions are of the type ImplementationSpecific, not Prefix",
            'spec.rules: no path is of the type ImplementationSpecific: the rewrite to "/\\2" has no effect',
        ]),
        ({"rewrite-target": "/$1"}, "/api", ['spec.rules: no path is of the type ImplementationSpecific: the rewrite to "/\\1" has no effect']),
        ({"use-regex": "true"}, "/api", []),
        ({"rewrite-target": "/new"}, "/api(", []),
    ],
)  # fmt: skip
def test_patterns_that_are_taken_as_they_stand_are_told(
    given: dict[str, str], path: str, told: list[str]
) -> None:
    """As many examples have them: with nginx all paths of the host become patterns."""
    wishes = read({f"{NGINX_KEY}{k}": v for k, v in given.items()})
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    paths = [{"path": path, "pathType": "Prefix", "backend": backend}]
    obj = {**ingress(), "spec": {"rules": [{"http": {"paths": paths}}]}}
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    found = ingresses.contribution(obj, lambda _, __: service, wishes)
    assert [p.message for p in found.problems] == told
    assert [r.place.path.kind for r in found.routes] == [PathKind.PREFIX]
