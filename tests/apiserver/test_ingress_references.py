"""Nodes that are front doors read all certificates, and of the rest what Ingresses refer to. On a real server: `test_front_door_reads.py`."""

from __future__ import annotations

from dataclasses import replace

from sampan.api.front_doors import FRONT_DOORS, Terms
from sampan.api.ingress_classes import CLASS_ANNOTATION, CONTROLLER
from sampan.apiserver.authorization.node import NodeAuthorizer
from sampan.apiserver.types import User
from tests.apiserver.fakes import FakeCache, asks, make, node_user

PLAIN = node_user("n1")
N1 = replace(PLAIN, groups=(*PLAIN.groups, FRONT_DOORS))
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
    "spec": {"ingressClassName": "sampan", "tls": [{"secretName": "certificate"}]},
}
OURS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "IngressClass",
    "metadata": {"name": "sampan"},
    "spec": {"controller": CONTROLLER},
}
FOREIGN = {**OURS, "metadata": {"name": "other"}, "spec": {"controller": "example.com/other"}}


def readable(authorizer: NodeAuthorizer, user: User = N1) -> list[tuple[str, str]]:
    asked = [
        ("secrets", n) for n in ("certificate", "users", "elsewhere/users", "authority", "other", "pages")
    ]
    found = []
    for plural, name in (*asked, ("configmaps", "pages"), ("configmaps", "users")):
        decision = authorizer.authorize(user, asks("get", plural, "default", name))
        if decision is not None and decision.allowed:
            found.append((plural, name))
    return found


def test_what_ingresses_refer_to() -> None:
    cache = FakeCache(INGRESS, OURS, FOREIGN)
    authorizer = NodeAuthorizer(cache)
    assert readable(authorizer, PLAIN) == []
    assert readable(authorizer) == [
        ("secrets", "certificate"), ("secrets", "users"), ("secrets", "authority"), ("configmaps", "pages"),
    ]  # fmt: skip
    elsewhere = asks("get", "secrets", "other", "certificate")
    assert not authorizer.authorize(N1, elsewhere).allowed  # type: ignore[union-attr]
    bare = make("Ingress", "web", spec={**INGRESS["spec"], "tls": [{"secretName": "another"}]})
    cache.put({**bare, "apiVersion": "networking.k8s.io/v1"})
    assert readable(authorizer) == []


def test_whose_class_it_is() -> None:
    """What only others serve is none of the front doors' business."""
    cache = FakeCache(INGRESS, OURS, FOREIGN)
    authorizer = NodeAuthorizer(cache)
    assert readable(authorizer)
    for name, may in (("other", False), ("sampan", True), ("nobody", False)):
        cache.put({**INGRESS, "spec": {**INGRESS["spec"], "ingressClassName": name}})
        assert bool(readable(authorizer)) is may, name
    noted = {**INGRESS["metadata"]["annotations"], CLASS_ANNOTATION: "sampan"}
    old = {"metadata": {**INGRESS["metadata"], "annotations": noted}, "spec": {"tls": INGRESS["spec"]["tls"]}}
    cache.put({**INGRESS, **old})
    assert readable(authorizer)
    cache.put({**OURS, "spec": FOREIGN["spec"]})
    assert not readable(authorizer)


def test_certificates_at_once() -> None:
    every = asks("list", "secrets")
    typed = replace(every, field_selector="type=kubernetes.io/tls")
    authorizer = NodeAuthorizer(FakeCache())
    assert authorizer.authorize(N1, typed).allowed  # type: ignore[union-attr]
    assert authorizer.authorize(N1, replace(typed, verb="watch")).allowed  # type: ignore[union-attr]
    for user, info in (
        (N1, every),
        (N1, replace(typed, verb="deletecollection")),
        (N1, replace(every, field_selector="type=Opaque")),
        (N1, replace(typed, plural="configmaps")),
        (N1, replace(typed, subresource="status")),
        (PLAIN, typed),
    ):
        assert not authorizer.authorize(user, info).allowed  # type: ignore[union-attr]


def test_who_is_not_chosen_any_more() -> None:
    """Its certificate lasts; what it may read does not."""
    typed = replace(asks("list", "secrets"), field_selector="type=kubernetes.io/tls")
    chosen = ((("all",), True), (("n2",), False), (("n2", "n1"), True), (("n11",), False), (("none",), False))
    for nodes, may in chosen:
        authorizer = NodeAuthorizer(FakeCache(INGRESS, OURS, FOREIGN), Terms(nodes))
        assert bool(readable(authorizer)) is may
        assert authorizer.authorize(N1, typed).allowed is may  # type: ignore[union-attr]


def test_the_group_alone_means_nothing() -> None:
    """Whoever has it by other ways than a node's certificate is no front door."""
    typed = replace(asks("list", "secrets"), field_selector="type=kubernetes.io/tls")
    for name, groups in (
        ("mallory", (FRONT_DOORS,)),
        ("system:node:n1", (FRONT_DOORS,)),
        ("mallory", N1.groups),
    ):
        decision = NodeAuthorizer(FakeCache()).authorize(User(name, "", groups), typed)
        assert decision is None or not decision.allowed
