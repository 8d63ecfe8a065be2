from __future__ import annotations

import base64

import pytest

from sampan.api.errors import StatusError
from sampan.api.objects import format_time
from sampan.apiserver import authentication
from sampan.apiserver.authentication import RequestAuthenticator
from sampan.apiserver.tokens import InvalidToken
from sampan.apiserver.tokens.requests import create_token_request
from sampan.apiserver.types import User
from sampan.transport.types import PeerCertificate, Request

from .fakes import FakeCache, config, make, pod


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def bearing(token: str) -> Request:
    return Request("GET", "/api", {"authorization": f"Bearer {token}"})


def test_a_certificate_names_user_and_groups() -> None:
    authenticator = authentication.build(config(), FakeCache())
    certificate = PeerCertificate("alice", ("devs", "ops"), 9e9)
    user = authenticator.authenticate(Request("GET", "/", {}, certificate=certificate))
    assert (user.name, user.groups) == ("alice", ("devs", "ops", "system:authenticated"))


def test_a_certificate_is_told_by_its_fingerprint_and_may_name_a_uid() -> None:
    authenticator = authentication.build(config(), FakeCache())
    certificate = PeerCertificate("alice", (), 9e9, "00ff", "u1")
    user = authenticator.authenticate(Request("GET", "/", {}, certificate=certificate))
    assert user.uid == "u1"
    assert user.extra == {"authentication.kubernetes.io/credential-id": ("X509SHA256=00ff",)}


def test_a_certificate_without_a_name_leaves_it_to_the_token() -> None:
    authenticator = authentication.build(config(static_tokens={"t": User("bob")}), FakeCache())
    nameless = PeerCertificate("", ("devs",), 9e9)
    headers = {"authorization": "Bearer t"}
    assert authenticator.authenticate(Request("GET", "/", headers, certificate=nameless)).name == "bob"
    with pytest.raises(StatusError) as e:
        authenticator.authenticate(Request("GET", "/", {}, certificate=nameless))
    assert e.value.code == 401


def test_a_certificate_that_has_run_out_on_an_open_connection_is_refused() -> None:
    clock = Clock()
    authenticator = RequestAuthenticator(config(), FakeCache(), clock)
    certificate = PeerCertificate("alice", (), clock.now - 1)
    with pytest.raises(StatusError) as e:
        authenticator.authenticate(Request("GET", "/", {}, certificate=certificate))
    assert e.value.code == 401


def test_anonymous_only_without_credentials() -> None:
    authenticator = authentication.build(config(), FakeCache())
    user = authenticator.authenticate(Request("GET", "/", {}))
    assert (user.name, user.groups) == ("system:anonymous", ("system:unauthenticated",))
    with pytest.raises(StatusError) as e:
        authenticator.authenticate(bearing("wrong"))
    assert e.value.status()["reason"] == "Unauthorized"


def test_static_tokens() -> None:
    known = {"s3cret": User("admin", "", ("system:masters",))}
    authenticator = authentication.build(config(static_tokens=known), FakeCache())
    user = authenticator.authenticate(bearing("s3cret"))
    assert (user.name, user.groups) == ("admin", ("system:masters", "system:authenticated"))


def test_a_websocket_client_may_bear_its_token_as_a_subprotocol() -> None:
    authenticator = authentication.build(config(static_tokens={"t/o+k": User("bob")}), FakeCache())
    word = base64.urlsafe_b64encode(b"t/o+k").decode().rstrip("=")
    offered = f"base64url.bearer.authorization.k8s.io.{word}, v5.channel.k8s.io"
    assert authenticator.authenticate(Request("GET", "/", {"sec-websocket-protocol": offered})).name == "bob"


def test_a_service_account_token_is_good_while_all_that_it_names_is_there() -> None:
    account = make("ServiceAccount", "builder")
    web = pod(account="builder", node="n1")
    cache, clock = FakeCache(account, web, make("Node", "n1")), Clock()
    authenticator = RequestAuthenticator(config(), cache, clock)
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": web["metadata"]["uid"]}
    answer = create_token_request(
        cache, config(), User("x"), account, {"spec": {"boundObjectRef": bound}}, clock=clock
    )
    token = answer["status"]["token"]

    user = authenticator.authenticate(bearing(token))
    assert user.name == "system:serviceaccount:default:builder"
    assert user.uid == account["metadata"]["uid"]
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")
    assert user.extra["authentication.kubernetes.io/pod-name"] == ("web",)
    assert user.extra["authentication.kubernetes.io/node-name"] == ("n1",)

    def refused() -> bool:
        try:
            authenticator.authenticate(bearing(token))
        except StatusError as e:
            return e.code == 401
        return False

    cache.remove(web)
    assert refused()
    cache.put(pod(account="builder", node="n1"))
    assert refused(), "a new pod of the same name is another pod"
    cache.put(web)
    assert not refused()
    cache.remove(account)
    assert refused()
    cache.put(account)
    clock.now += 3600 + 61
    assert refused()


@pytest.mark.parametrize(("kind", "namespace"), [("Node", ""), ("Secret", "default")])
def test_a_token_bound_to_an_object_ends_with_it(kind: str, namespace: str) -> None:
    account = make("ServiceAccount", "builder")
    holder = make(kind, "holder", namespace)
    cache, clock = FakeCache(account, holder), Clock()
    authenticator = RequestAuthenticator(config(), cache, clock)
    reference = {"kind": kind, "apiVersion": "v1", "name": "holder"}
    answer = create_token_request(
        cache, config(), User("x"), account, {"spec": {"boundObjectRef": reference}}, clock=clock
    )
    token = answer["status"]["token"]
    extra = authenticator.authenticate_token(token)[0].extra
    uid = holder["metadata"]["uid"]
    assert extra["authentication.kubernetes.io/credential-id"][0].startswith("JTI=")
    if kind == "Node":
        assert extra["authentication.kubernetes.io/node-uid"] == (uid,)
    cache.put({**holder, "metadata": {**holder["metadata"], "labels": {"a": "b"}}})
    authenticator.authenticate_token(token)
    cache.put({**holder, "metadata": {**holder["metadata"], "uid": "another"}})
    with pytest.raises(InvalidToken, match="another one now"):
        authenticator.authenticate_token(token)
    going = format_time(clock.now)
    cache.put({**holder, "metadata": {**holder["metadata"], "deletionTimestamp": going}})
    authenticator.authenticate_token(token)
    clock.now += 61
    with pytest.raises(InvalidToken, match="has been deleted"):
        authenticator.authenticate_token(token)
    cache.remove(holder)
    with pytest.raises(InvalidToken, match="has been deleted"):
        authenticator.authenticate_token(token)


def test_a_token_for_others_is_not_for_us() -> None:
    account = make("ServiceAccount", "builder")
    cache = FakeCache(account)
    authenticator = authentication.build(config(), cache)
    answer = create_token_request(cache, config(), User("x"), account, {"spec": {"audiences": ["vault"]}})
    token = answer["status"]["token"]
    with pytest.raises(StatusError):
        authenticator.authenticate(bearing(token))
    assert authenticator.authenticate_token(token, ["vault", "other"])[1] == ("vault",)


def test_a_token_that_should_have_been_replaced_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    account = make("ServiceAccount", "default")
    web = pod(volumes=[{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}])
    cache, clock = FakeCache(account, web), Clock()
    authenticator = RequestAuthenticator(config(), cache, clock)
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "web"}
    request = {"spec": {"expirationSeconds": 3607, "boundObjectRef": reference}}
    answer = create_token_request(cache, config(), User("x"), account, request, clock=clock)
    caplog.set_level("INFO", "sampan.apiserver.authentication")
    for passed in (0, 3600, 4000, 5000, 300 * 86400):
        clock.now = Clock.now + passed
        cache.put({**web, "status": {"phase": "Running"}})
        authenticator.authenticate_token(answer["status"]["token"])
    assert [r.message for r in caplog.records] == [
        "system:serviceaccount:default:default uses a token that should have been replaced 393 seconds ago: its program "
        "reads the file only once"
    ]
    clock.now = Clock.now + 366 * 86400
    with pytest.raises(InvalidToken, match="has expired"):
        authenticator.authenticate_token(answer["status"]["token"])
