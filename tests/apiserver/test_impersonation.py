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
    node = await who(api, "admin", impersonate_user="system:node:n1")
    assert node["groups"] == ["system:nodes", "system:authenticated"]
    lone = await api("GET", "/apis", impersonate_group="devs")
    assert lone.status == 400


async def test_every_part_must_be_allowed(cluster: Api) -> None:
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
    refused: tuple[dict[str, str], ...] = (
        {"impersonate-group": "devs\nsystem:masters"},
        {"impersonate-uid": "u2"},
        {"impersonate-extra-scopes": "a\nb"},
        {"impersonate-extra-other": "a"},
    )
    for headers in refused:
        message = await who(cluster, "bob", impersonate_user="jane", **headers)
        assert message == (
            'selfsubjectreviews.authentication.k8s.io is forbidden: User "bob" cannot impersonate-on:user-info:create '
            'resource "selfsubjectreviews" in API group "authentication.k8s.io" at the cluster scope'
        )
    assert (await who(cluster, "bob", impersonate_user="system:serviceaccount:x:bot"))["username"]
    assert "is forbidden" in await who(cluster, "bob", impersonate_user="system:serviceaccount:x:other")


ON = {"apiGroups": [""], "resources": ["pods"]}
IDENTITY = {"apiGroups": ["authentication.k8s.io"]}
PODS = "/api/v1/namespaces/default/pods"


async def test_a_user_may_be_acted_as_for_some_things_alone(cluster: Api) -> None:
    await grant(
        cluster,
        {**ON, "verbs": ["impersonate-on:user-info:list"]},
        {**IDENTITY, "verbs": ["impersonate:user-info"], "resources": ["users"], "resourceNames": ["jane"]},
        {**IDENTITY, "verbs": ["impersonate:user-info"], "resources": ["groups"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    )
    for headers, message in (
        ({"impersonate-user": "jane"}, 'pods is forbidden: User "jane" cannot list resource "pods"'),
        ({"impersonate-user": "john"}, 'User "bob" cannot impersonate:user-info resource "users" in API group "authentication.k8s.io"'),
        ({"impersonate-user": "jane", "impersonate-group": "system:masters"}, "impersonating the system:masters group is not allowed"),
        ({"impersonate-user": "jane", "impersonate-extra-scopes": "a"}, "must be a domain-prefixed path"),
        ({"impersonate-user": "jane", "impersonate-extra-a.b%2fc": "a"}, 'cannot impersonate:user-info resource "userextras/a.b/c"'),
    ):  # fmt: skip
        reply = await cluster("GET", PODS, token="bob", **headers)
        assert reply.status == 403
        assert message in reply.json["message"]
    reply = await cluster("GET", f"{PODS}/web", token="bob", impersonate_user="jane")
    assert 'pods "web" is forbidden: User "bob" cannot impersonate-on:user-info:get' in reply.json["message"]
    masters = {"impersonate-user": "jane", "impersonate-group": "a\nb\nc\nd"}
    reply = await cluster("GET", PODS, token="bob", **masters)
    assert 'User "jane" cannot list' in reply.json["message"]


async def test_nodes_and_accounts_have_modes_of_their_own(cluster: Api) -> None:
    await grant(
        cluster,
        {**ON, "verbs": [f"impersonate-on:{m}:list" for m in ("arbitrary-node", "serviceaccount")]},
        {
            **IDENTITY,
            "verbs": ["impersonate:arbitrary-node"],
            "resources": ["nodes"],
            "resourceNames": ["n1"],
        },
        {**IDENTITY, "verbs": ["impersonate:serviceaccount"], "resources": ["serviceaccounts"]},
    )
    of_node = f"{PODS}?fieldSelector=spec.nodeName%3Dn1"
    assert (await cluster("GET", of_node, token="bob", impersonate_user="system:node:n1")).status == 200
    for headers in ({"impersonate-user": "system:node:n2"}, {"impersonate-user": "system:node:n1", "impersonate-group": "a"}):  # fmt: skip
        assert "cannot impersonate" in (await cluster("GET", of_node, token="bob", **headers)).json["message"]
    reply = await cluster("GET", PODS, token="bob", impersonate_user="system:serviceaccount:default:bot")
    assert 'User "system:serviceaccount:default:bot" cannot list' in reply.json["message"]


async def test_an_agent_acts_as_its_own_node(cluster: Api) -> None:
    await grant(
        cluster,
        {**ON, "verbs": ["impersonate-on:associated-node:list"]},
        {**IDENTITY, "verbs": ["impersonate:associated-node"], "resources": ["nodes"]},
    )
    account = await cluster.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "agent"}})  # fmt: skip
    subject = {"kind": "ServiceAccount", "name": "agent", "namespace": "default"}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
    await cluster.ok("POST", f"{RBAC}/clusterrolebindings", {"metadata": {"name": "agent"}, "roleRef": ref, "subjects": [subject]})  # fmt: skip
    for name in ("n1", "n2"):
        await cluster.ok("POST", "/api/v1/nodes", {"metadata": {"name": name}})
    spec = {"serviceAccountName": account["metadata"]["name"], "nodeName": "n1", "containers": [{"name": "c", "image": "x"}]}  # fmt: skip
    await cluster.ok("POST", PODS, {"metadata": {"name": "agent"}, "spec": spec})
    request = {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "agent"}}}
    made = await cluster.ok("POST", "/api/v1/namespaces/default/serviceaccounts/agent/token", request)
    for node, status in (("n1", 200), ("n2", 403)):
        target = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"
        reply = await cluster("GET", target, token=made["status"]["token"], impersonate_user=f"system:node:{node}")  # fmt: skip
        assert reply.status == status


async def test_kubectl_as_somebody(kubectl: Kubectl) -> None:
    told = await kubectl(
        "auth", "whoami", "-o", "json", "--as", "jane", "--as-group", "devs, and others", "--as-group", "ops", "--as-uid", "u1"
    )  # fmt: skip
    assert json.loads(told)["status"]["userInfo"] == {
        "username": "jane",
        "uid": "u1",
        "groups": ["devs, and others", "ops", "system:authenticated"],
    }
