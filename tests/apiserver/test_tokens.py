from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from sampan.api.errors import Object, StatusError
from sampan.apiserver.tokens import InvalidToken, discovery
from sampan.apiserver.tokens.keys import SignedToken, SigningKey, VerifyingKey, signing_key
from sampan.apiserver.tokens.requests import create_token_request
from sampan.apiserver.types import User
from sampan.transport.types import Request

from .fakes import FakeCache, config, ec_key, make, node_user, pod, rsa_key

ACCOUNT = make("ServiceAccount", "default", metadata={"uid": "sa-uid"})
NOBODY = User("x")
MOUNTED = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}


def decoded(token: str, part: int = 1) -> Object:
    text = token.split(".")[part]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("key", "algorithm"), [(ec_key, "ES256"), (rsa_key, "RS256")])
def test_sign_and_verify(key: Callable[[], bytes], algorithm: str) -> None:
    mine = SigningKey(key())
    token = mine.sign({"a": 1})
    assert decoded(token, 0) == {"alg": algorithm, "kid": mine.id}
    read = SignedToken.parse(token)
    mine.verify(read)
    assert read.claims == {"a": 1}
    head, body, signature = token.split(".")
    other = base64.urlsafe_b64encode(b'{"a":2}').decode().rstrip("=")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    for bad in (
        f"{head}.{other}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-8]}",
        f"{none}.{body}.",
        "x.y.z",
        "",
        "é",
        "W10.W10.",
        f"{'W' * 100_000}.{body}.{signature}",
    ):
        with pytest.raises(InvalidToken):
            mine.verify(SignedToken.parse(bad))


@pytest.mark.parametrize("key", [ec_key, rsa_key])
def test_the_published_key_verifies_our_tokens(key: Callable[[], bytes]) -> None:
    settings = config(key())
    answer = discovery.handle(settings, Request("GET", "/openid/v1/jwks", {}))
    assert answer is not None
    assert answer.content_type == "application/jwk-set+json"
    assert isinstance(answer.body, bytes)
    (jwk,) = json.loads(answer.body)["keys"]
    published = VerifyingKey.from_jwk(jwk)
    ours = signing_key(settings.service_account_key)
    published.verify(SignedToken.parse(ours.sign({"a": 1})))
    assert published.id == ours.id
    assert published.jwk() == jwk

    about = discovery.handle(settings, Request("GET", "/.well-known/openid-configuration", {}))
    assert about is not None
    assert isinstance(about.body, bytes)
    assert json.loads(about.body)["jwks_uri"] == "https://10.0.0.1:6443/openid/v1/jwks"
    assert discovery.handle(settings, Request("GET", "/api", {})) is None


@pytest.mark.parametrize("jwk", [{"kty": "oct", "k": "AA"}, {"kty": "EC", "crv": "P-256K"}, {"kty": "RSA", "n": "AQAB"}, {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}])  # fmt: skip
def test_keys_that_cannot_be_used(jwk: Object) -> None:
    with pytest.raises(ValueError):
        VerifyingKey.from_jwk(jwk)


def test_defaults_and_claims() -> None:
    answer = create_token_request(FakeCache(ACCOUNT), config(), NOBODY, ACCOUNT, {}, clock=lambda: 1000.5)
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
        create_token_request(FakeCache(), config(), NOBODY, ACCOUNT, {"spec": {"expirationSeconds": 599}})
    assert e.value.code == 422
    assert (
        "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
        in e.value.message
    )


def test_the_mounted_token_lives_a_year_and_warns_after_an_hour() -> None:
    web = pod(node="n1", volumes=[MOUNTED])
    cache = FakeCache(ACCOUNT, web, make("Node", "n1"))
    request = {
        "spec": {"expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}}
    }  # fmt: skip
    answer = create_token_request(cache, config(), node_user("n1"), ACCOUNT, request, clock=lambda: 0.0)
    claims = decoded(answer["status"]["token"])
    assert (claims["exp"], claims["kubernetes.io"]["warnafter"]) == (31536000, 3607)
    assert set(claims["kubernetes.io"]) == {"namespace", "serviceaccount", "pod", "node", "warnafter"}
    assert answer["status"]["expirationTimestamp"] == "1970-01-01T01:00:07Z"


def test_what_a_token_may_be_bound_to() -> None:
    cache = FakeCache(ACCOUNT, pod("web"), pod("other", account="builder"))

    def bind(**reference: str) -> StatusError:
        with pytest.raises(StatusError) as e:
            create_token_request(cache, config(), NOBODY, ACCOUNT, {"spec": {"boundObjectRef": reference}})
        return e.value

    assert bind(kind="Pod", apiVersion="v1", name="gone").message == 'pods "gone" not found'
    assert bind(kind="Pod", apiVersion="v1", name="web", uid="old").reason == "Conflict"
    assert "different serviceaccount name" in bind(kind="Pod", apiVersion="v1", name="other").message
    assert bind(kind="ConfigMap", apiVersion="v1", name="x").code == 400


def test_a_node_gets_tokens_for_its_own_pods_alone() -> None:
    cache = FakeCache(ACCOUNT, pod("web", node="n1", volumes=[MOUNTED]))
    bound = {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}}}
    create_token_request(cache, config(), node_user("n1"), ACCOUNT, bound)
    for user, request in ((node_user("n2"), bound), (node_user("n1"), {})):
        with pytest.raises(StatusError) as e:
            create_token_request(cache, config(), user, ACCOUNT, request)
        assert e.value.code == 403


def test_a_node_asks_for_the_audiences_of_its_pods() -> None:
    from sampan.apiserver import authorization

    volumes = [
        {
            "name": "t",
            "projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "t"}}]},
        },
        {"name": "i", "csi": {"driver": "inline.csi"}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
    ]
    cache = FakeCache(
        ACCOUNT,
        pod("web", node="n1", volumes=volumes),
        make("CSIDriver", "inline.csi", spec={"tokenRequests": [{"audience": "inline"}]}),
        make("CSIDriver", "disk.csi", spec={"tokenRequests": [{"audience": "disk"}]}),
        make("PersistentVolumeClaim", "data", spec={"volumeName": "pv"}),
        make("PersistentVolume", "pv", spec={"csi": {"driver": "disk.csi"}}),
    )
    authorizer = authorization.build(config(), cache)

    def refusal(*audiences: str) -> str:
        reference = {"kind": "Pod", "apiVersion": "v1", "name": "web"}
        request = {"spec": {"audiences": list(audiences), "boundObjectRef": reference}}
        try:
            create_token_request(cache, config(), node_user("n1"), ACCOUNT, request, authorizer=authorizer)
        except StatusError as e:
            return e.message
        return ""

    for audiences in (("vault",), ("inline",), ("disk",)):
        assert refusal(*audiences) == ""
    assert 'audience "" not found' in refusal()
    assert refusal("vault", "disk").endswith("node may only request 0 or 1 audiences")
    assert refusal("bank") == (
        'serviceaccounts "default" is forbidden: audience "bank" not found in pod spec volume, system:node:n1 is not '
        "authorized to request tokens for this audience"
    )
    rule = {"apiGroups": [""], "resources": ["bank"], "verbs": ["request-serviceaccounts-token-audience"]}
    reference = {"kind": "ClusterRole", "name": "bankers"}
    cache.put(make("ClusterRole", "bankers", rules=[rule]))
    subjects = [{"kind": "Group", "name": "system:nodes"}]
    cache.put(make("ClusterRoleBinding", "bankers", roleRef=reference, subjects=subjects))
    assert refusal("bank") == ""
