"""Tokens kept in Secrets (of ServiceAccounts, and for bootstrapping) and in a file."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.objects import format_time
from sampan.apiserver.authentication import RequestAuthenticator
from sampan.apiserver.authentication.static_tokens import TokenFileError
from sampan.apiserver.tokens import InvalidToken, legacy
from sampan.transport.types import Request

from .conftest import Api
from .fakes import FakeCache, config, ec_key, make

NOW = 1_800_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def encoded(**data: str) -> Object:
    return {k.replace("_", "-"): base64.b64encode(v.encode()).decode() for k, v in data.items()}


def refusal(authenticator: RequestAuthenticator, token: str) -> str:
    with pytest.raises(InvalidToken) as e:
        authenticator.authenticate_token(token)
    with pytest.raises(StatusError) as status:
        authenticator.authenticate(Request("GET", "/", {"authorization": f"Bearer {token}"}))
    assert status.value.code == 401
    return str(e.value)


# ---- ServiceAccounts


def bot() -> Object:
    return make("ServiceAccount", "bot", metadata={"uid": "bot-uid"})


def kept(account: Object, **metadata: Any) -> tuple[Object, str]:
    """A Secret with a ServiceAccount's token, and the token."""
    secret = make("Secret", "bot-token", metadata=metadata, type=legacy.SECRET_TYPE)
    token = legacy.sign(ec_key(), account, secret)
    secret["data"] = encoded(token=token)
    return secret, token


def test_a_token_kept_in_a_secret_lives_as_long_as_both() -> None:
    account = bot()
    secret, token = kept(account)
    cache, clock = FakeCache(account, secret), Clock()
    authenticator = RequestAuthenticator(config(), cache, clock)
    user, audiences = authenticator.authenticate_token(token)
    assert (user.name, user.uid) == ("system:serviceaccount:default:bot", account["metadata"]["uid"])
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")
    assert audiences == (config().issuer,)
    clock.now += 10 * 365 * 86400
    authenticator.authenticate_token(token)

    cache.remove(secret)
    assert refusal(authenticator, token) == "service account token has been invalidated"
    cache.put({**secret, "data": encoded(token="another")})
    assert refusal(authenticator, token) == "service account token has been invalidated"
    cache.put({**secret, "metadata": {**secret["metadata"], "labels": {legacy.INVALID_SINCE: "2026-01-02"}}})
    assert "has been marked invalid since 2026-01-02" in refusal(authenticator, token)
    cache.put(secret)
    authenticator.authenticate_token(token)
    cache.put(make("ServiceAccount", "bot", metadata={"uid": "another"}))
    assert "another one now" in refusal(authenticator, token)


def test_a_signature_by_another_key_counts_for_nothing() -> None:
    from .fakes import rsa_key

    account = bot()
    secret = make("Secret", "bot-token", type=legacy.SECRET_TYPE)
    token = legacy.sign(rsa_key(), account, secret)
    secret["data"] = encoded(token=token)
    authenticator = RequestAuthenticator(config(), FakeCache(account, secret), Clock())
    assert refusal(authenticator, token) == "signed by an unknown key"


async def test_the_day_of_use_is_marked_once_a_day(api: Api) -> None:
    namespace = "/api/v1/namespaces/default"
    account = await api.ok("POST", f"{namespace}/serviceaccounts", {"metadata": {"name": "bot"}})
    annotations = {"kubernetes.io/service-account.name": "bot"}
    secret = {
        "metadata": {"name": "bot-token", "annotations": annotations},
        "type": legacy.SECRET_TYPE,
    }
    made = await api.ok("POST", f"{namespace}/secrets", secret)
    token = api.app.sign_token(account, made)
    merge = "application/merge-patch+json"
    await api.ok(
        "PATCH", f"{namespace}/secrets/bot-token", {"data": encoded(token=token)}, content_type=merge
    )
    stream = api.watch(f"{namespace}/secrets?watch=1&fieldSelector=metadata.name=bot-token")
    first = await stream.next()
    assert legacy.LAST_USED not in (first["object"]["metadata"].get("labels") or {})
    assert (await api("GET", "/apis", token=token)).status == 200
    marked = (await stream.next())["object"]["metadata"]
    assert marked["labels"][legacy.LAST_USED][:2] == "20"
    for _ in range(3):
        assert (await api("GET", "/apis", token=token)).status == 200
    again = await api.ok("GET", f"{namespace}/secrets/bot-token")
    assert again["metadata"]["resourceVersion"] == marked["resourceVersion"]
    stream.close()


async def test_a_day_later_the_use_is_noted_again() -> None:
    account = bot()
    secret, token = kept(account, labels={legacy.LAST_USED: "2027-01-15"})
    clock = Clock()
    authenticator = RequestAuthenticator(config(), FakeCache(account, secret), clock)
    noted: list[tuple[str, str, str]] = []
    authenticator.legacy_use.note = lambda *use: noted.append(use)  # type: ignore[method-assign]
    authenticator.authenticate_token(token)
    assert noted == []
    clock.now += 86400
    authenticator.authenticate_token(token)
    assert noted == [("default", "bot-token", "2027-01-16")]


# ---- bootstrapping


def bootstrap(**data: str) -> Object:
    fields = {
        "token_id": "abcdef",
        "token_secret": "0123456789abcdef",
        "usage_bootstrap_authentication": "true",
        **data,
    }
    return make("Secret", "bootstrap-token-abcdef", "kube-system", type="bootstrap.kubernetes.io/token", data=encoded(**fields))  # fmt: skip


TOKEN = "abcdef.0123456789abcdef"


def test_a_bootstrap_token() -> None:
    secret = bootstrap(
        auth_extra_groups="system:bootstrappers:worker,system:bootstrappers:kubeadm",
        expiration=format_time(NOW + 60),
    )
    cache, clock = FakeCache(secret), Clock()
    authenticator = RequestAuthenticator(config(), cache, clock)
    user, _ = authenticator.authenticate_token(TOKEN)
    assert user.name == "system:bootstrap:abcdef"
    assert user.groups == (
        "system:bootstrappers",
        "system:bootstrappers:kubeadm",
        "system:bootstrappers:worker",
        "system:authenticated",
    )
    clock.now += 61
    assert refusal(authenticator, TOKEN) == "the bootstrap token has expired"
    clock.now = NOW
    authenticator.authenticate_token(TOKEN)
    cache.remove(secret)
    assert refusal(authenticator, TOKEN) == "no such bootstrap token"


@pytest.mark.parametrize(
    "change",
    [
        {"token_secret": "0123456789abcdeX"},
        {"token_id": "fedcba"},
        {"usage_bootstrap_authentication": "false"},
        {"usage_bootstrap_authentication": ""},
        {"expiration": "yesterday"},
        {"expiration": format_time(NOW - 1)},
        {"auth_extra_groups": "system:masters"},
        {"auth_extra_groups": "system:bootstrappers:a,system:bootstrappers"},
    ],
)
def test_bootstrap_tokens_that_are_no_good(change: dict[str, str]) -> None:
    authenticator = RequestAuthenticator(config(), FakeCache(bootstrap(**change)), Clock())
    refusal(authenticator, TOKEN)


def test_a_secret_of_another_kind_is_no_bootstrap_token() -> None:
    for change in ({"type": "Opaque"}, {"metadata": {**bootstrap()["metadata"], "deletionTimestamp": format_time(NOW)}}):  # fmt: skip
        authenticator = RequestAuthenticator(config(), FakeCache({**bootstrap(), **change}), Clock())
        assert refusal(authenticator, TOKEN) == "no such bootstrap token"


# ---- a file


def test_a_token_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text('s1,alice,u1,"devs,ops"\ns2,bob,u2\n# s3,eve,u3\n\ns4,carol,u4,solo\n')
    authenticator = RequestAuthenticator(config(token_auth_file=file), FakeCache(), Clock())
    found = {t: authenticator.authenticate_token(t)[0] for t in ("s1", "s2", "s4")}
    assert [(u.name, u.uid, u.groups) for u in found.values()] == [
        ("alice", "u1", ("devs", "ops", "system:authenticated")),
        ("bob", "u2", ("system:authenticated",)),
        ("carol", "u4", ("solo", "system:authenticated")),
    ]
    refusal(authenticator, "s3")
    file.write_text("s1,alice\n")
    with pytest.raises(TokenFileError, match=r"tokens\.csv:1: at least a token, a user name and a user uid"):
        RequestAuthenticator(config(token_auth_file=file), FakeCache())


# ---- memory


def test_signatures_are_checked_once_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from sampan.apiserver.authentication import verdicts
    from sampan.apiserver.tokens.keys import SignedToken, VerifyingKey

    checked: list[SignedToken] = []
    verify = VerifyingKey.verify

    def counting(key: VerifyingKey, token: SignedToken) -> None:
        checked.append(token)
        verify(key, token)

    monkeypatch.setattr(VerifyingKey, "verify", counting)
    account = bot()
    secret, token = kept(account)
    cache = FakeCache(account, secret)
    authenticator = RequestAuthenticator(config(), cache, Clock())
    for _ in range(3):
        authenticator.authenticate_token(token)
    cache.put({**secret, "metadata": {**secret["metadata"], "labels": {"a": "b"}}})
    authenticator.authenticate_token(token)
    assert len(checked) == 1
    memory = verdicts.Verdicts(most=10)
    for i in range(100):
        memory.put(b"%d" % i, verdicts.Verdict(authenticator.authenticate_token(token)[0]))
    assert len(memory) == 10


async def test_use_is_written_by_a_task_that_may_be_ended(api: Api) -> None:
    """A Secret that is gone by then is no trouble."""
    api.app._authenticator.legacy_use.note("default", "gone", "2027-01-15")
    await asyncio.sleep(0)
    assert (await api("GET", "/livez")).status == 200
