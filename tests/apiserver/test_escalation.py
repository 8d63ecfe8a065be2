"""Nobody gives away more than they have."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.apiserver.types import User

from .conftest import Api, Kubectl, config

GROUP = "rbac.authorization.k8s.io"
RBAC = f"/apis/{GROUP}/v1"
DEFAULT = f"{RBAC}/namespaces/default"


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    people = {"admin": User("admin", "", ("system:masters",)), "bob": User("bob", "", ("devs",))}
    monkeypatch.setattr(
        "tests.apiserver.conftest.config", lambda **more: config(**{"static_tokens": people, **more})
    )


@pytest.fixture
async def cluster(users: None, api: Api) -> Api:
    """Bob writes RBAC objects everywhere, and reads pods in `default`."""
    everything = {"apiGroups": [GROUP], "resources": ["*"], "verbs": ["get", "list", "create", "update", "patch", "delete"]}  # fmt: skip
    await api.ok("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "rbac"}, "rules": [everything]})
    await api.ok("POST", f"{RBAC}/clusterrolebindings", binding("rbac", "ClusterRole"))
    reader = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
    await api.ok("POST", f"{DEFAULT}/roles", {"metadata": {"name": "reader"}, "rules": [reader]})
    await api.ok("POST", f"{DEFAULT}/rolebindings", binding("reader", "Role"))
    return api


def binding(role: str, kind: str, user: str = "bob", name: str = "") -> Object:
    return {
        "metadata": {"name": name or role},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
    }


def rules(verbs: list[str], *plurals: str, **more: Any) -> Object:
    return {"rules": [{"apiGroups": [""], "resources": list(plurals), "verbs": verbs, **more}]}


async def test_a_role_holds_no_more_than_its_writer(cluster: Api) -> None:
    own = {"metadata": {"name": "own"}, **rules(["list"], "pods")}
    assert (await cluster("POST", f"{DEFAULT}/roles", own, token="bob")).status == 201
    more = {"metadata": {"name": "more"}, **rules(["list", "delete", "get"], "pods", "secrets")}
    reply = await cluster("POST", f"{DEFAULT}/roles", more, token="bob")
    assert reply.status == 403
    assert reply.json["message"] == (
        f'roles.{GROUP} "more" is forbidden: user "bob" (groups=["devs" "system:authenticated"]) is attempting to '
        "grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["delete" "get" "list"]}'
    )
    # What bob has in one namespace is not his everywhere.
    assert (await cluster("POST", f"{RBAC}/clusterroles", own, token="bob")).status == 403
    named = {"metadata": {"name": "named"}, **rules(["get"], "pods", resourceNames=["web"])}
    assert (await cluster("POST", f"{DEFAULT}/roles", named, token="bob")).status == 201
    patch = {"rules": more["rules"]}
    merge = "application/merge-patch+json"
    assert (
        await cluster("PATCH", f"{DEFAULT}/roles/own", patch, token="bob", content_type=merge)
    ).status == 403
    label = {"metadata": {"labels": {"a": "b"}}}
    await cluster.ok("PATCH", f"{DEFAULT}/roles/reader", label, token="bob", content_type=merge)
    selector = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    aggregated = {"metadata": {"name": "sum"}, "aggregationRule": selector}
    assert (await cluster("POST", f"{RBAC}/clusterroles", aggregated, token="bob")).status == 403
    assert (await cluster("POST", f"{RBAC}/clusterroles", aggregated)).status == 201


async def test_a_binding_gives_no_more_than_its_writer_has(cluster: Api) -> None:
    assert (await cluster("POST", f"{DEFAULT}/rolebindings", binding("reader", "Role", "eve", "eve"), token="bob")).status == 201  # fmt: skip
    reply = await cluster(
        "POST", f"{DEFAULT}/rolebindings", binding("cluster-admin", "ClusterRole"), token="bob"
    )
    assert reply.status == 403
    assert reply.json["message"].endswith(
        "not currently held:\n"
        '{APIGroups:["*"], Resources:["*"], Verbs:["*"]}\n'
        '{NonResourceURLs:["*"], Verbs:["*"]}'
    )
    missing = binding("gone", "Role", "eve", "gone")
    assert (await cluster("POST", f"{DEFAULT}/rolebindings", missing, token="bob")).status == 404


async def test_the_verbs_that_lift_the_rule(cluster: Api) -> None:
    lifted = {
        "metadata": {"name": "lifted"},
        "rules": [
            {"apiGroups": [GROUP], "resources": ["roles"], "verbs": ["escalate"], "resourceNames": ["big"]},
            {
                "apiGroups": [GROUP],
                "resources": ["clusterroles"],
                "verbs": ["bind"],
                "resourceNames": ["view"],
            },
        ],
    }
    await cluster.ok("POST", f"{DEFAULT}/roles", lifted)
    await cluster.ok("POST", f"{DEFAULT}/rolebindings", binding("lifted", "Role"))
    for name, status in (("big", 201), ("bigger", 403)):
        role = {"metadata": {"name": name}, **rules(["*"], "*")}
        assert (await cluster("POST", f"{DEFAULT}/roles", role, token="bob")).status == status
    for name, status in (("view", 201), ("edit", 403)):
        given = binding(name, "ClusterRole", "eve")
        assert (await cluster("POST", f"{DEFAULT}/rolebindings", given, token="bob")).status == status
    everywhere = binding("view", "ClusterRole", "eve", "everywhere")
    assert (await cluster("POST", f"{RBAC}/clusterrolebindings", everywhere, token="bob")).status == 403


async def test_roles_that_cannot_be_found_are_told(cluster: Api) -> None:
    await cluster.ok("POST", f"{DEFAULT}/rolebindings", binding("lost", "Role"))
    more = {"metadata": {"name": "more"}, **rules(["list"], "secrets")}
    reply = await cluster("POST", f"{DEFAULT}/roles", more, token="bob")
    assert reply.json["message"].endswith(f'; resolution errors: ["role.{GROUP} \\"lost\\" not found"]')


async def test_default_roles_are_what_upstream_documents(kubectl: Kubectl) -> None:
    """A spot check through kubectl, against kubernetes.io's own words on the default roles."""
    await kubectl("create", "namespace", "n")
    for role, user in (("view", "v"), ("edit", "e"), ("admin", "a")):
        await kubectl("-n", "n", "create", "rolebinding", user, "--clusterrole", role, "--user", user)

    async def may(user: str, *question: str) -> str:
        _, out, _ = await kubectl.run("-n", "n", "auth", "can-i", *question, "--as", user)
        return out.strip()

    asked: dict[tuple[str, ...], str] = {
        ("get", "pods"): "yes yes yes",
        ("list", "horizontalpodautoscalers.autoscaling"): "yes yes yes",
        ("get", "secrets"): "no yes yes",
        ("create", "pods/exec"): "no yes yes",
        ("create", "serviceaccounts/token"): "no yes yes",
        ("list", "roles"): "no no yes",
        ("update", "resourcequotas"): "no no no",
        ("update", "namespaces"): "no no no",
        ("create", "endpointslices.discovery.k8s.io"): "no no no",
    }
    for question, answers in asked.items():
        assert " ".join([await may(user, *question) for user in "vea"]) == answers, question
