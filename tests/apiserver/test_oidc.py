"""Outside issuers of tokens, configured by file; the issuer is a real HTTPS server on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.errors import Object
from sampan.apiserver.app import App
from sampan.apiserver.authentication import (
    InvalidToken,
    KeysWanted,
    RequestAuthenticator,
    configuration,
    oidc,
)
from sampan.apiserver.authentication.configuration import (
    AuthenticationConfiguration,
    load,
)
from sampan.apiserver.configuration_file import ConfigurationError
from sampan.apiserver.tokens.keys import SigningKey
from sampan.store.sqlite import open_store
from sampan.transport.http import HttpServer
from sampan.transport.tls import server_context
from sampan.transport.types import Request, Response
from tests.transport.authority import Authority

from .conftest import Api, config
from .fakes import FakeCache


def signing(kind: str, key_id: str) -> SigningKey:
    private: Any = (
        ec.generate_private_key(ec.SECP256R1()) if kind == "EC" else rsa.generate_private_key(65537, 2048)
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SigningKey(pem, key_id)


class Issuer:
    """What an identity provider serves, and a count of who asked."""

    def __init__(self) -> None:
        self.url = ""
        self.keys = [signing("EC", "one"), signing("RSA", "two")]
        self.asked: list[str] = []
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, request: Request) -> Response:
        self.asked.append(request.path)
        self.called.set()
        await self.gate.wait()
        if request.path == "/.well-known/openid-configuration":
            return self._answer({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        if request.path == "/keys":
            unusable = [{"kty": "oct", "kid": "x", "k": "AA"}]
            return self._answer({"keys": [*unusable, *(k.jwk() for k in self.keys)]})
        return Response(404)

    @staticmethod
    def _answer(body: Object) -> Response:
        return Response(200, json.dumps(body).encode())

    def token(self, key: int = 0, **claims: Any) -> str:
        now = time.time()
        given = {"iss": self.url, "aud": "k8s", "sub": "jane", "exp": now + 600, "iat": now, **claims}
        return self.keys[key].sign({k: v for k, v in given.items() if v is not None})


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "_PAUSE", 0.0)


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    authority = Authority(tmp_path, "issuer-ca")
    made = Issuer()
    server = HttpServer(made.handle, ssl_context=server_context(*authority.issue("issuer")))
    _, port = await server.listen()
    made.url = f"https://127.0.0.1:{port}"
    yield made
    made.gate.set()
    await server.close(0.1)


def settings(issuer: Issuer, directory: Path, **jwt: Any) -> Path:
    mappings = {
        "username": {"claim": "sub", "prefix": "oidc:"},
        "groups": {"claim": "groups", "prefix": "oidc:"},
        "uid": {"claim": "sub"},
    }
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [
            {
                "issuer": {
                    "url": issuer.url,
                    "audiences": ["k8s", "other"],
                    "audienceMatchPolicy": "MatchAny",
                    "certificateAuthority": (directory / "issuer-ca.crt").read_text(),
                },
                "claimValidationRules": [{"claim": "hd", "requiredValue": "example.org"}],
                "claimMappings": mappings,
                **jwt,
            }
        ],
    }
    file = directory / "authentication.json"
    file.write_text(json.dumps(document))
    return file


@pytest.fixture
async def api(issuer: Issuer, tmp_path: Path) -> AsyncIterator[Api]:
    store = await open_store(tmp_path / "db")
    app = App(store, config(authentication_config=settings(issuer, tmp_path)))
    await app.start()
    yield Api(app, store, tmp_path)
    await app.close()
    await store.close()


WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"


async def who(api: Api, token: str) -> Object | None:
    reply = await api("POST", WHO, {}, token=token)
    if reply.status == 401:
        return None
    assert reply.status == 201, reply.body
    return reply.json["status"]["userInfo"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("key", [0, 1], ids=["ES256", "RS256"])
async def test_a_token_of_an_outside_issuer(api: Api, issuer: Issuer, key: int) -> None:
    token = issuer.token(key, hd="example.org", groups=["devs", "ops"], jti="7")
    assert await who(api, token) == {
        "username": "oidc:jane",
        "uid": "jane",
        "groups": ["oidc:devs", "oidc:ops", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/credential-id": ["JTI=7"]},
    }
    assert await who(api, issuer.token(key, hd="example.org", groups="solo", aud=["x", "other"])) is not None
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_tokens_that_are_not_believed(api: Api, issuer: Issuer) -> None:
    wrong: tuple[Object, ...] = (
        {"hd": "example.com"},
        {"hd": None},
        {"aud": "somebody"},
        {"aud": None},
        {"exp": 1000},
        {"exp": "soon"},
        {"exp": None},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"nbf": 4e9},
        {"sub": None},
        {"sub": 7},
        {"groups": {"a": 1}},
        {"groups": [1]},
        {"iss": "https://elsewhere.example"},
        {"iss": ["a"]},
    )
    for claims in wrong:
        assert await who(api, issuer.token(**{"hd": "example.org", **claims})) is None, claims


async def test_forged_tokens(api: Api, issuer: Issuer) -> None:
    good = issuer.token(hd="example.org")
    assert await who(api, good) is not None
    head, body, _ = good.split(".")
    other = signing("EC", "one").sign(json.loads(json.dumps({"iss": issuer.url, "aud": "k8s", "sub": "eve", "hd": "example.org", "exp": time.time() + 9})))  # fmt: skip
    assert await who(api, other) is None
    assert await who(api, f"{head}.{body}.AAAA") is None
    swapped = issuer.token(1, hd="example.org").split(".")
    assert await who(api, f"{swapped[0]}.{body}.{swapped[2]}") is None


async def test_keys_are_fetched_once_and_anew_for_an_unknown_one(api: Api, issuer: Issuer) -> None:
    issuer.gate.clear()
    waiting = [asyncio.ensure_future(who(api, issuer.token(hd="example.org", n=i))) for i in range(5)]
    await issuer.called.wait()
    issuer.gate.set()
    assert all(await asyncio.gather(*waiting))
    assert issuer.asked.count("/keys") == 1

    old = issuer.token(hd="example.org")
    assert await who(api, old) is not None
    issuer.keys = [signing("EC", "three")]
    assert await who(api, issuer.token(hd="example.org")) is not None
    assert issuer.asked.count("/keys") == 2
    # The issuer no longer stands by its old key, and what it signed is no longer believed.
    assert await who(api, old) is None


async def test_who_waits_for_keys_of_an_issuer_that_is_given_up_is_refused(api: Api, issuer: Issuer) -> None:
    issuer.gate.clear()
    waiting = asyncio.ensure_future(who(api, issuer.token(hd="example.org")))
    await issuer.called.wait()
    api.app._authenticator.configure(AuthenticationConfiguration())
    assert await waiting is None
    issuer.gate.set()


async def test_token_reviews_of_its_tokens(api: Api, issuer: Issuer) -> None:
    async def review(**spec: Any) -> Object:
        return (await api.ok("POST", REVIEW, {"spec": spec}))["status"]  # type: ignore[no-any-return]

    token = issuer.token(hd="example.org")
    status = await review(token=token)
    assert status["authenticated"]
    assert status["user"]["username"] == "oidc:jane"
    assert status["audiences"] == [config().issuer]
    assert not (await review(token=token, audiences=["vault"])).get("authenticated")
    refused = await review(token=issuer.token(hd="example.com"))
    assert refused["error"] == (
        "[invalid bearer token, oidc: required claim hd value does not match. Got = example.com, want = example.org]"
    )


async def test_an_issuer_that_is_not_there(tmp_path: Path, issuer: Issuer) -> None:
    file = settings(issuer, tmp_path)
    issuer.keys = []
    text = file.read_text().replace(issuer.url, "https://127.0.0.1:9")
    file.write_text(text)
    issuer.url, there = "https://127.0.0.1:9", issuer.url
    token = signing("EC", "one").sign({"iss": issuer.url, "aud": "k8s", "hd": "example.org", "sub": "x", "exp": time.time() + 9})  # fmt: skip
    issuer.url = there
    store = await open_store(tmp_path / "db2")
    app = App(store, config(authentication_config=file))
    await app.start()
    alone = Api(app, store, tmp_path)
    assert await who(alone, token) is None
    status = (await alone.ok("POST", REVIEW, {"spec": {"token": token}}))["status"]
    assert "is not initialized" in status["error"]
    assert (await alone("GET", "/apis")).status == 200
    await app.close()
    await store.close()


async def test_who_may_come_without_a_credential(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
        "anonymous:\n  enabled: true\n  conditions:\n  - path: /livez\n"
    )
    store = await open_store(tmp_path / "db")
    app = App(store, config(authentication_config=file))
    await app.start()
    api = Api(app, store, tmp_path)
    statuses = [(await api("GET", p, token="")).status for p in ("/livez", "/readyz", "/api/v1/pods")]
    assert statuses == [200, 401, 401]
    await app.close()
    await store.close()


async def test_a_changed_file_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(HEAD)
    taken: asyncio.Queue[bool] = asyncio.Queue()
    configure = RequestAuthenticator.configure

    def noted(authenticator: RequestAuthenticator, given: AuthenticationConfiguration) -> None:
        configure(authenticator, given)
        taken.put_nowait(given.anonymous.enabled)

    monkeypatch.setattr(RequestAuthenticator, "configure", noted)
    store = await open_store(tmp_path / "db")
    app = App(store, config(authentication_config=file))
    await app.start()
    api = Api(app, store, tmp_path)
    assert await taken.get()
    assert (await api("GET", "/livez", token="")).status == 200
    await asyncio.sleep(0)  # The file is followed from here on.
    (tmp_path / "new").write_text(HEAD + "anonymous: {enabled: false}\n")
    (tmp_path / "new").rename(file)
    assert not await taken.get()
    assert (await api("GET", "/livez", token="")).status == 401
    file.write_text("broken")
    file.write_text(HEAD)
    assert await taken.get()
    assert (await api("GET", "/livez", token="")).status == 200
    await app.close()
    await store.close()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
_HEADERS = ("alg", "kid", "typ")
_CLAIMS = ("iss", "aud", "exp", "nbf", "sub", "kubernetes.io", "hd")


def _known(names: tuple[str, ...]) -> st.SearchStrategy[Object]:
    """Objects with fields that a token has, holding what they may hold and what they may not."""
    good = st.sampled_from(
        ["ES256", "RS256", "https://a.example", "kubernetes/serviceaccount", "k8s", config().issuer]
    )
    return st.dictionaries(st.sampled_from(names), good | _JSON, max_size=len(names))


def _part(value: Object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@given(
    token=st.text(st.characters(max_codepoint=255), max_size=40)
    | st.builds(
        lambda h, c, s: f"{_part(h)}.{_part(c)}.{s}",
        _known(_HEADERS),
        _known(_CLAIMS),
        st.text("Aa-_.", max_size=4),
    )
)
def test_whatever_is_offered_as_a_token_is_refused(token: str) -> None:
    authenticator = RequestAuthenticator(config(), FakeCache())
    outside = configuration.Issuer(
        url="https://a.example", audiences=("k8s",), username=configuration.Claim("sub")
    )
    authenticator.configure(AuthenticationConfiguration((outside,)))
    try:
        authenticator.authenticate_token(token)
    except (InvalidToken, KeysWanted):
        return
    raise AssertionError("believed")


# ---- the file


def problems(directory: Path, text: str) -> str:
    file = directory / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as e:
        load(file)
    return str(e.value)


HEAD = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"


def test_every_problem_of_a_file_is_told(tmp_path: Path) -> None:
    text = problems(
        tmp_path,
        HEAD
        + """
jwt:
- issuer: {url: "http://user:pw@a.example/?q", audiences: [a, a], extra: 1}
  claimMappings:
    username: {claim: sub}
    groups: {prefix: "x"}
    extra: [{key: a/b, valueExpression: claims.x}]
  userValidationRules: [{expression: "true"}]
- issuer: {url: "https://a.example", certificateAuthority: nonsense}
  claimValidationRules:
  - {expression: "claims.x == 'y'"}
  - {requiredValue: v}
anonymous: {conditions: [{path: /livez}]}
""",
    )
    for wanted in (
        "jwt[0].issuer.extra: unknown field",
        'jwt[0].issuer.url: Invalid value: "http://user:pw@a.example/?q": URL scheme must be https',
        "URL must not contain a username or password",
        "URL must not contain a query",
        'jwt[0].issuer.audiences[1]: Duplicate value: "a"',
        "jwt[0].issuer.audienceMatchPolicy: Invalid value",
        "jwt[0].claimMappings.username.prefix: Required value",
        "jwt[0].claimMappings.groups.claim: Required value",
        "jwt[0].claimMappings.extra: CEL expressions are not supported yet",
        "jwt[0].userValidationRules: CEL expressions are not supported yet",
        "jwt[1].issuer.certificateAuthority: Invalid value",
        "jwt[1].issuer.audiences: Required value: at least one jwt[1].issuer.audiences is required",
        "jwt[1].claimValidationRules[0].expression: CEL expressions are not supported yet",
        "jwt[1].claimValidationRules[1]: Required value: claim or expression is required",
        "jwt[1].claimMappings.username: Required value: claim or expression is required",
        "anonymous.conditions: Invalid value",
    ):
        assert wanted in text


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: b", "kind: AuthenticationConfiguration\napiVersion: v9", HEAD + "jwt: 7", "{", HEAD + "jwt: []\njwt: []"],
)  # fmt: skip
def test_files_that_are_something_else(tmp_path: Path, text: str) -> None:
    assert str(tmp_path) in problems(tmp_path, text)
