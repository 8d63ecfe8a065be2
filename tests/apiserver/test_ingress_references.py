"""Nodes that are front doors read what Ingresses refer to, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from sampan.apiserver.authorization.node import NodeAuthorizer
from tests.apiserver.fakes import FakeCache, asks, make, node_user

N1 = node_user("n1")
INGRESS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "Ingress",
    "metadata": {
        "name": "web",
        "namespace": "default",
        "annotations": {
            "sampan.io/basic-auth-secret": "users",
            "nginx.ingress.kubernetes.io/auth-secret": "elsewhere/users",
            "sampan.io/backend-ca-secret": "default/authority",
            "sampan.io/error-pages": "pages",
        },
    },
    "spec": {"tls": [{"secretName": "certificate"}]},
}


def readable(authorizer: NodeAuthorizer) -> list[tuple[str, str]]:
    asked = [
        ("secrets", n) for n in ("certificate", "users", "elsewhere/users", "authority", "other", "pages")
    ]
    found = []
    for plural, name in (*asked, ("configmaps", "pages"), ("configmaps", "users")):
        decision = authorizer.authorize(N1, asks("get", plural, "default", name))
        if decision is not None and decision.allowed:
            found.append((plural, name))
    return found


def test_what_ingresses_refer_to() -> None:
    cache = FakeCache(INGRESS)
    authorizer = NodeAuthorizer(cache, front_doors=True)
    assert readable(authorizer) == [
        ("secrets", "certificate"), ("secrets", "users"), ("secrets", "authority"), ("configmaps", "pages"),
    ]  # fmt: skip
    elsewhere = asks("get", "secrets", "other", "certificate")
    assert not authorizer.authorize(N1, elsewhere).allowed  # type: ignore[union-attr]
    bare = make("Ingress", "web", spec={"tls": [{"secretName": "another"}]})
    cache.put({**bare, "apiVersion": "networking.k8s.io/v1"})
    assert readable(authorizer) == []
    assert readable(NodeAuthorizer(cache)) == []


def test_certificates_at_once() -> None:
    every = asks("list", "secrets")
    typed = replace(every, field_selector="type=kubernetes.io/tls")
    front = NodeAuthorizer(FakeCache(), front_doors=True)
    plain = NodeAuthorizer(FakeCache())
    assert front.authorize(N1, typed).allowed  # type: ignore[union-attr]
    assert front.authorize(N1, replace(typed, verb="watch")).allowed  # type: ignore[union-attr]
    for authorizer, info in (
        (front, every),
        (front, replace(typed, verb="deletecollection")),
        (front, replace(every, field_selector="type=Opaque")),
        (front, replace(typed, plural="configmaps")),
        (plain, typed),
    ):
        assert not authorizer.authorize(N1, info).allowed  # type: ignore[union-attr]
