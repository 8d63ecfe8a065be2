from __future__ import annotations

import base64
import json

import pytest

from sampan.api.errors import Object, StatusError
from sampan.apiserver import tokens
from sampan.apiserver.tokens import InvalidToken
from sampan.apiserver.types import User
from sampan.transport.types import Request

from .fakes import FakeCache, config, ec_key, make, node_user, pod, rsa_key

ACCOUNT = make("ServiceAccount", "default", metadata={"uid": "sa-uid"})
NOBODY = User("x")


def decoded(token: str, part: int = 1) -> Object:
    text = token.split(".")[part]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("key", "algorithm"), [(ec_key, "ES256"), (rsa_key, "RS256")])
def test_sign_and_verify(key: object, algorithm: str) -> None:
    mine = tokens.Key(key())  # type: ignore[operator]
    token = mine.sign({"a": 1})
    assert decoded(token, 0) == {"alg": algorithm, "kid": mine.id}
    assert mine.verify(token) == {"a": 1}
    head, body, signature = token.split(".")
    other = base64.urlsafe_b64encode(b'{"a":2}').decode().rstrip("=")
    for bad in (
        f"{head}.{other}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-8]}",
        "x.y.z",
        "",
        "é",
    ):
        with pytest.raises(InvalidToken):
            mine.verify(bad)
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    with pytest.raises(InvalidToken):
        mine.verify(f"{none}.{body}.")


def test_the_published_key_verifies_our_tokens() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    answer = tokens.openid(config(), Request("GET", "/openid/v1/jwks", {}))
    assert answer is not None
    assert answer.content_type == "application/jwk-set+json"
    assert isinstance(answer.body, bytes)
    (jwk,) = json.loads(answer.body)["keys"]
    x, y = (int.from_bytes(base64.urlsafe_b64decode(jwk[c] + "=" * (-len(jwk[c]) % 4)), "big") for c in "xy")
    numbers = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1())
    assert numbers == tokens.key(config())._public.public_numbers()
    assert (jwk["kty"], jwk["crv"], jwk["kid"]) == ("EC", "P-256", tokens.key(config()).id)

    about = tokens.openid(config(), Request("GET", "/.well-known/openid-configuration", {}))
    assert about is not None
    assert isinstance(about.body, bytes)
    assert json.loads(about.body)["jwks_uri"] == "https://10.0.0.1:6443/openid/v1/jwks"
    assert tokens.openid(config(), Request("GET", "/api", {})) is None


def test_defaults_and_claims() -> None:
    answer = tokens.create_token_request(
        FakeCache(ACCOUNT), config(), NOBODY, ACCOUNT, {}, clock=lambda: 1000.5
    )
    issuer = "https://kubernetes.default.svc.cluster.local"
    assert answer["spec"] == {"audiences": [issuer], "expirationSeconds": 3600}
    assert answer["status"]["expirationTimestamp"] == "1970-01-01T01:16:40Z"
    claims = decoded(answer["status"]["token"])
    assert claims.pop("jti")
    assert claims == {
        "aud": [issuer],
        "exp": 4600,
        "iat": 1000,
        "iss": issuer,
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "default", "uid": "sa-uid"}},
        "nbf": 1000,
        "sub": "system:serviceaccount:default:default",
    }


def test_too_short_a_life() -> None:
    with pytest.raises(StatusError) as e:
        tokens.create_token_request(
            FakeCache(), config(), NOBODY, ACCOUNT, {"spec": {"expirationSeconds": 599}}
        )
    assert e.value.code == 422
    assert (
        "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
        in e.value.message
    )


def test_the_mounted_token_lives_a_year_and_warns_after_an_hour() -> None:
    web = pod(node="n1")
    cache = FakeCache(ACCOUNT, web, make("Node", "n1"))
    request = {
        "spec": {"expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}}
    }  # fmt: skip
    answer = tokens.create_token_request(
        cache, config(), node_user("n1"), ACCOUNT, request, clock=lambda: 0.0
    )
    claims = decoded(answer["status"]["token"])
    assert (claims["exp"], claims["kubernetes.io"]["warnafter"]) == (31536000, 3607)
    assert set(claims["kubernetes.io"]) == {"namespace", "serviceaccount", "pod", "node", "warnafter"}
    assert answer["status"]["expirationTimestamp"] == "1970-01-01T01:00:07Z"


def test_what_a_token_may_be_bound_to() -> None:
    cache = FakeCache(ACCOUNT, pod("web"), pod("other", account="builder"))

    def bind(**reference: str) -> StatusError:
        with pytest.raises(StatusError) as e:
            tokens.create_token_request(
                cache, config(), NOBODY, ACCOUNT, {"spec": {"boundObjectRef": reference}}
            )
        return e.value

    assert bind(kind="Pod", apiVersion="v1", name="gone").message == 'pods "gone" not found'
    assert bind(kind="Pod", apiVersion="v1", name="web", uid="old").reason == "Conflict"
    assert "different serviceaccount name" in bind(kind="Pod", apiVersion="v1", name="other").message
    assert bind(kind="ConfigMap", apiVersion="v1", name="x").code == 400


def test_a_node_gets_tokens_for_its_own_pods_alone() -> None:
    cache = FakeCache(ACCOUNT, pod("web", node="n1"))
    bound = {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}}}
    tokens.create_token_request(cache, config(), node_user("n1"), ACCOUNT, bound)
    for user, request in ((node_user("n2"), bound), (node_user("n1"), {})):
        with pytest.raises(StatusError) as e:
            tokens.create_token_request(cache, config(), user, ACCOUNT, request)
        assert e.value.code == 403
