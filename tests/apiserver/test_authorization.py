from __future__ import annotations

from sampan.api.errors import Object
from sampan.apiserver import authorization
from sampan.apiserver.authorization import bootstrap_policy
from sampan.apiserver.authorization.rbac import Rule, uncovered
from sampan.apiserver.types import RequestInfo, User

from .fakes import FakeCache, asks, config, make

ALICE = User("alice", "", ("devs", "system:authenticated"))


def rule(verbs: str, group: str, resources: str, *names: str) -> Object:
    out: Object = {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split()}
    return {**out, "resourceNames": list(names)} if names else out


def bound(kind: str, role_kind: str, role: str, subject: Object, namespace: str = "") -> Object:
    ref = {"apiGroup": bootstrap_policy.GROUP, "kind": role_kind, "name": role}
    return make(kind, f"{role}-binding", namespace, roleRef=ref, subjects=[subject])


USER = {"kind": "User", "name": "alice"}


def test_masters_may_everything_and_others_nothing() -> None:
    authorizer = authorization.build(config(), FakeCache())
    root = User("root", "", ("system:masters",))
    assert authorizer.authorize(root, asks("delete", "nodes", name="n")).allowed
    decision = authorizer.authorize(ALICE, asks("list", "pods", "default"))
    assert not decision.allowed


def test_refusals_read_as_upstream() -> None:
    info = asks("list", "pods", "default")
    error = authorization.forbidden(ALICE, info)
    assert error.message == (
        'pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "default"'
    )
    info = asks("get", "deployments", "", "web", "apps", "scale")
    error = authorization.forbidden(ALICE, info, "because")
    assert error.message == (
        'deployments.apps "web" is forbidden: User "alice" cannot get resource "deployments/scale" '
        'in API group "apps" at the cluster scope: because'
    )
    error = authorization.forbidden(ALICE, RequestInfo("get", "/metrics"))
    assert error.message == 'forbidden: User "alice" cannot get path "/metrics"'
    assert error.code == 403


def test_a_role_binding_holds_in_its_namespace() -> None:
    cache = FakeCache(
        make("Role", "reader", "dev", rules=[rule("get list", "", "pods pods/log")]),
        bound("RoleBinding", "Role", "reader", USER, "dev"),
    )
    authorizer = authorization.build(config(), cache)
    decision = authorizer.authorize(ALICE, asks("list", "pods", "dev"))
    assert decision.allowed
    assert (
        decision.reason
        == 'RBAC: allowed by RoleBinding "reader-binding/dev" of Role "reader" to User "alice"'
    )
    assert authorizer.authorize(ALICE, asks("get", "pods", "dev", "web", sub="log")).allowed
    for refused in (
        asks("list", "pods", "prod"),
        asks("list", "pods"),
        asks("get", "pods", "dev", "web", sub="exec"),
        asks("delete", "pods", "dev", "web"),
        asks("list", "pods", "dev", group="metrics.k8s.io"),
    ):
        assert not authorizer.authorize(ALICE, refused).allowed


def test_changes_take_effect_at_once() -> None:
    role = make("ClusterRole", "reader", rules=[rule("get", "", "secrets", "one")])
    binding = bound(
        "ClusterRoleBinding", "ClusterRole", "reader", {"kind": "Group", "name": "system:serviceaccounts:ci"}
    )
    cache = FakeCache()
    authorizer = authorization.build(config(), cache)
    user = User("system:serviceaccount:ci:bot", "", ("system:serviceaccounts:ci",))
    info = asks("get", "secrets", "any", "one")
    assert not authorizer.authorize(user, info).allowed
    cache.put(binding)
    decision = authorizer.authorize(user, info)
    assert decision.reason == 'RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found'
    cache.put(role)
    assert authorizer.authorize(user, info).allowed
    assert not authorizer.authorize(user, asks("get", "secrets", "any", "two")).allowed
    assert not authorizer.authorize(user, asks("list", "secrets", "any")).allowed
    cache.put({**role, "rules": []})
    assert not authorizer.authorize(user, info).allowed
    cache.put(role)
    cache.remove(binding)
    assert not authorizer.authorize(user, info).allowed


def test_a_service_account_subject_and_a_cluster_role_in_a_namespace() -> None:
    cache = FakeCache(
        make("ClusterRole", "view", rules=[rule("*", "*", "*/scale")]),
        bound("RoleBinding", "ClusterRole", "view", {"kind": "ServiceAccount", "name": "bot"}, "ci"),
    )
    authorizer = authorization.build(config(), cache)
    user = User("system:serviceaccount:ci:bot")
    assert authorizer.authorize(user, asks("patch", "deployments", "ci", "x", "apps", "scale")).allowed
    assert not authorizer.authorize(user, asks("patch", "deployments", "ci", "x", "apps")).allowed
    assert not authorizer.authorize(user, asks("patch", "deployments", "dev", "x", "apps", "scale")).allowed


def test_non_resource_paths() -> None:
    urls = {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}
    cache = FakeCache(
        make("ClusterRole", "r", rules=[urls]),
        bound("ClusterRoleBinding", "ClusterRole", "r", USER),
        make("Role", "r", "dev", rules=[{"verbs": ["*"], "nonResourceURLs": ["*"]}]),
        bound("RoleBinding", "Role", "r", USER, "dev"),
    )
    authorizer = authorization.build(config(), cache)
    allowed = [
        p
        for p in ("/healthz", "/healthz/x", "/api", "/api/v1")
        if authorizer.authorize(ALICE, RequestInfo("get", p)).allowed
    ]
    assert allowed == ["/healthz", "/api/v1"]


def test_default_roles() -> None:
    roles = {r["metadata"]["name"]: r for r in bootstrap_policy.cluster_roles()}
    for binding in bootstrap_policy.cluster_role_bindings():
        assert binding["roleRef"]["name"] in roles
    cache = FakeCache(*roles.values(), *bootstrap_policy.cluster_role_bindings())
    authorizer = authorization.build(config(), cache)
    nobody = User("system:anonymous", "", ("system:unauthenticated",))
    assert authorizer.authorize(nobody, RequestInfo("get", "/healthz")).allowed
    assert not authorizer.authorize(nobody, RequestInfo("get", "/api")).allowed
    assert authorizer.authorize(ALICE, RequestInfo("get", "/apis/apps/v1")).allowed
    assert authorizer.authorize(
        ALICE, asks("create", "selfsubjectaccessreviews", group="authorization.k8s.io")
    ).allowed
    account = User("system:serviceaccount:default:default", "", ("system:serviceaccounts", "system:authenticated"))  # fmt: skip
    assert not authorizer.authorize(account, asks("list", "pods", "default")).allowed

    compiled = {n: [Rule.compile(x) for x in r["rules"]] for n, r in roles.items()}
    for more, less in (("cluster-admin", "admin"), ("admin", "edit"), ("edit", "view")):
        assert not uncovered(compiled[more], compiled[less])
        assert uncovered(compiled[less], compiled[more])
    secrets = asks("get", "secrets", "x", "y")
    assert [n for n in ("view", "edit", "admin") if any(r.allows(secrets) for r in compiled[n])] == [
        "edit",
        "admin",
    ]


def test_rules_of_a_user() -> None:
    cache = FakeCache(
        make("Role", "reader", "dev", rules=[rule("get", "", "pods")]),
        bound("RoleBinding", "Role", "reader", USER, "dev"),
        bound("ClusterRoleBinding", "ClusterRole", "gone", USER),
    )
    found = authorization.build(config(), cache).rules(ALICE, "dev")
    assert found.rules == [rule("get", "", "pods")]
    assert found.errors == ['clusterrole.rbac.authorization.k8s.io "gone" not found']
