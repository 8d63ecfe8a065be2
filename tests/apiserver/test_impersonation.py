"""Acting as somebody else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.apiserver.types import User

from .conftest import Api, Kubectl, config

RBAC = "/apis/rbac.authorization.k8s.io/v1"
WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    people = {"admin": User("admin", "", ("system:masters",)), "bob": User("bob")}
    monkeypatch.setattr(
        "tests.apiserver.conftest.config", lambda **more: config(**{"static_tokens": people, **more})
    )


@pytest.fixture
def cluster(users: None, api: Api) -> Api:
    return api


async def grant(api: Api, *rules: Object) -> None:
    """Give bob the right to impersonate."""
    role = {"metadata": {"name": "r"}, "rules": [{"verbs": ["impersonate"], **rule} for rule in rules]}
    await api.ok("POST", f"{RBAC}/clusterroles", role)
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}
    await api.ok("POST", f"{RBAC}/clusterrolebindings", {"metadata": {"name": "r"}, "roleRef": ref, "subjects": [subject]})  # fmt: skip


async def who(api: Api, token: str, **headers: str) -> Any:
    """The user that a request is made as, or why it may not be."""
    reply = await api("POST", WHO, {}, token=token, **headers)
    return reply.json["status"]["userInfo"] if reply.status == 201 else reply.json["message"]


async def test_whom_a_request_is_made_as(api: Api) -> None:
    assert await who(api, "admin", impersonate_user="jane") == {
        "username": "jane",
        "groups": ["system:authenticated"],
    }
    found = await who(
        api,
        "admin",
        impersonate_user="jane",
        impersonate_group="devs, and others\nops",
        impersonate_uid="u1",
        **{"impersonate-extra-scopes": "a\nb", "impersonate-extra-acme.com%2fproject": "p"},
    )
    assert found == {
        "username": "jane",
        "uid": "u1",
        "groups": ["devs, and others", "ops", "system:authenticated"],
        "extra": {"scopes": ["a", "b"], "acme.com/project": ["p"]},
    }
    account = await who(api, "admin", impersonate_user="system:serviceaccount:ns:bot")
    assert account["groups"] == [
        "system:serviceaccounts",
        "system:serviceaccounts:ns",
        "system:authenticated",
    ]
    nobody = await api(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {},
        impersonate_user="system:anonymous",
    )
    assert nobody.status == 403
    assert 'User "system:anonymous" cannot create' in nobody.json["message"]
    lone = await api("GET", "/apis", impersonate_group="devs")
    assert lone.status == 400


async def test_every_part_must_be_allowed(cluster: Api) -> None:
    assert await who(cluster, "bob", impersonate_user="jane") == (
        'users "jane" is forbidden: User "bob" cannot impersonate resource "users" in API group "" '
        "at the cluster scope"
    )
    await grant(
        cluster,
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["jane"]},
        {"apiGroups": [""], "resources": ["groups"], "resourceNames": ["devs"]},
        {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["bot"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["uids"], "resourceNames": ["u1"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "resourceNames": ["a"]},
    )
    allowed: tuple[dict[str, str], ...] = (
        {},
        {"impersonate-group": "devs"},
        {"impersonate-uid": "u1"},
        {"impersonate-extra-scopes": "a"},
    )
    for headers in allowed:
        assert (await who(cluster, "bob", impersonate_user="jane", **headers))["username"] == "jane"
    refused = {
        'groups "system:masters" is forbidden': {"impersonate-group": "devs\nsystem:masters"},
        'uids.authentication.k8s.io "u2" is forbidden': {"impersonate-uid": "u2"},
        'cannot impersonate resource "userextras/scopes" in API group "authentication.k8s.io"': {"impersonate-extra-scopes": "a\nb"},
        'cannot impersonate resource "userextras/other"': {"impersonate-extra-other": "a"},
    }  # fmt: skip
    for message, headers in refused.items():
        assert message in await who(cluster, "bob", impersonate_user="jane", **headers)
    assert (await who(cluster, "bob", impersonate_user="system:serviceaccount:x:bot"))["username"]
    assert 'serviceaccounts "other" is forbidden' in await who(
        cluster, "bob", impersonate_user="system:serviceaccount:x:other"
    )


async def test_kubectl_as_somebody(kubectl: Kubectl) -> None:
    told = await kubectl(
        "auth", "whoami", "-o", "json", "--as", "jane", "--as-group", "devs, and others", "--as-group", "ops", "--as-uid", "u1"
    )  # fmt: skip
    assert json.loads(told)["status"]["userInfo"] == {
        "username": "jane",
        "uid": "u1",
        "groups": ["devs, and others", "ops", "system:authenticated"],
    }
