"""What a front door may read of a real server's Secrets: what docs/nodes.md says, no more and no less."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import pytest

from sampan.api.errors import Object
from sampan.api.front_doors import FRONT_DOORS, Terms
from sampan.apiserver.types import User
from sampan.ingress.own_objects import ingress_class

from .conftest import Api, config
from .fakes import node_user

PLAIN = node_user("n1")
DOOR = replace(PLAIN, groups=(*PLAIN.groups, FRONT_DOORS))
UNCHOSEN = replace(DOOR, name="system:node:n2")
TYPED = "type=kubernetes.io/tls"
EVERY_NAMESPACE = "/api/v1/secrets"


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static tokens for nodes, of which n1 is chosen, and for a user."""
    people = {
        "admin": User("admin", "", ("system:masters",)), "plain": PLAIN, "door": DOOR, "unchosen": UNCHOSEN,
        "alice": User("alice", "", ()),
    }  # fmt: skip
    monkeypatch.setattr(
        "tests.apiserver.conftest.config",
        lambda **more: config(**{"static_tokens": people, "front_doors": Terms(("n1",)), **more}),
    )


@pytest.fixture
async def cluster(users: None, api: Api) -> Api:
    """Certificates in two namespaces, one of which an Ingress names, and other Secrets, one of which an Ingress names."""
    for name in ("default", "bank"):
        await api.ok_or_exists("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    pair = {"tls.crt": "c", "tls.key": "k"}
    for namespace, name, type_, data in (
        ("default", "shown", "kubernetes.io/tls", pair),
        ("bank", "webhook", "kubernetes.io/tls", pair),
        ("default", "users", "Opaque", {"auth": "a:b"}),
        ("bank", "password", "Opaque", {"password": "p"}),
    ):
        secret = {"metadata": {"name": name}, "type": type_, "stringData": data}
        await api.ok("POST", f"/api/v1/namespaces/{namespace}/secrets", secret)
    ingresses = "/apis/networking.k8s.io/v1"
    await api.ok("POST", f"{ingresses}/ingressclasses", ingress_class())
    await api.ok("POST", f"{ingresses}/namespaces/default/ingresses", INGRESS)
    return api


INGRESS: Object = {
    "metadata": {"name": "web", "annotations": {"sampan.io/basic-auth-secret": "users"}},
    "spec": {
        "ingressClassName": "sampan",
        "tls": [{"hosts": ["a.test"], "secretName": "shown"}],
        "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
    },
}


async def listed(api: Api, who: str, selector: str, path: str = EVERY_NAMESPACE) -> list[str] | int:
    """The names of Secrets, or the status that says why there are none."""
    target = f"{path}?fieldSelector={quote(selector)}" if selector else path
    reply = await api("GET", target, token=who)
    return sorted(s["metadata"]["name"] for s in reply.json["items"]) if reply.status == 200 else reply.status


async def test_every_certificate_and_what_ingresses_name(cluster: Api) -> None:
    """With their keys, whether an Ingress names them or not."""
    assert await listed(cluster, "door", TYPED) == ["shown", "webhook"]
    assert await listed(cluster, "door", TYPED, "/api/v1/namespaces/bank/secrets") == ["webhook"]
    reply = await cluster("GET", f"{EVERY_NAMESPACE}?fieldSelector={quote(TYPED)}", token="door")
    assert all("tls.key" in s["data"] for s in reply.json["items"])
    statuses = {}
    for namespace, name in (
        ("default", "shown"),
        ("default", "users"),
        ("bank", "webhook"),
        ("bank", "password"),
    ):
        for who in ("door", "plain", "unchosen"):
            reply = await cluster("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}", token=who)
            statuses[who, name] = reply.status
    assert [key for key, status in statuses.items() if status == 200] == [
        ("door", "shown"),
        ("door", "users"),
    ]
    for who in ("plain", "unchosen"):
        assert await listed(cluster, who, TYPED) == 403


@pytest.mark.parametrize(
    "selector",
    [
        "",
        "type!=kubernetes.io/tls",
        "type=Opaque",
        "metadata.namespace=bank",
        r"metadata.namespace!=a\,type=kubernetes.io/tls",
        r"metadata.namespace!=a\,type\=kubernetes.io/tls",
        r"type=Opaque\,type=kubernetes.io/tls",
        r"type!=a\,type=kubernetes.io/tls",
    ],
)
async def test_no_other_selector_opens_more(cluster: Api, selector: str) -> None:
    """What is escaped in a selector is part of a value, for whoever decides as for whoever selects."""
    assert await listed(cluster, "door", selector) in (400, 403)


async def test_a_name_within_a_value_is_no_name(cluster: Api) -> None:
    """Who may read one Secret does not read the others by a selector that has its name in a value."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rule = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["users"],
        "verbs": ["list", "watch"],
    }
    await cluster.ok("POST", f"{rbac}/clusterroles", {"metadata": {"name": "one"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "one"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "one"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}],
    }
    await cluster.ok("POST", f"{rbac}/clusterrolebindings", binding)
    assert await listed(cluster, "alice", "metadata.name=users") == ["users"]
    for selector in (r"metadata.namespace!=a\,metadata.name=users", r"type!=a\,metadata.name=users"):
        assert await listed(cluster, "alice", selector) in (400, 403), selector
