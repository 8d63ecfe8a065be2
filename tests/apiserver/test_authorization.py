from __future__ import annotations

import pytest

from sampan.api.errors import Object
from sampan.apiserver import authorization
from sampan.apiserver.authorization import bootstrap_policy
from sampan.apiserver.authorization.rbac import Rule, uncovered
from sampan.apiserver.types import RequestInfo, User

from .fakes import FakeCache, asks, config, make, node_user, pod

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


# ---- nodes

REFERRING: Object = {
    "volumes": [
        {"name": "a", "secret": {"secretName": "vol"}},
        {
            "name": "b",
            "projected": {"sources": [{"configMap": {"name": "proj"}}, {"secret": {"name": "projsec"}}]},
        },
    ],
    "imagePullSecrets": [{"name": "pull"}],
    "initContainers": [
        {"name": "i", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}]}
    ],
    "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "from"}}]}],
}


def test_a_node_reads_what_its_pods_refer_to() -> None:
    cache = FakeCache()
    authorizer = authorization.build(config(), cache)
    n1, n2 = node_user("n1"), node_user("n2")
    wanted = [("secrets", n) for n in ("vol", "projsec", "pull", "env")]
    wanted += [("configmaps", n) for n in ("proj", "from")]

    def readable(user: User, namespace: str = "default") -> list[tuple[str, str]]:
        return [w for w in wanted if authorizer.authorize(user, asks("get", w[0], namespace, w[1])).allowed]

    assert readable(n1) == []
    web = pod("web", node="n1", account="bot", **REFERRING)
    unbound = pod("web", account="bot", **REFERRING)
    cache.put(unbound)
    assert readable(n1) == []
    cache.put(web)
    assert readable(n1) == wanted
    assert readable(n2) == []
    assert readable(n1, "other") == []
    assert authorizer.authorize(n1, asks("watch", "secrets", "default", fields="metadata.name=vol")).allowed
    assert authorizer.authorize(n1, asks("create", "serviceaccounts", "default", "bot", sub="token")).allowed
    assert not authorizer.authorize(
        n2, asks("create", "serviceaccounts", "default", "bot", sub="token")
    ).allowed
    decision = authorizer.authorize(n2, asks("get", "secrets", "default", "vol"))
    assert decision.reason == "no relationship found between node 'n2' and this object"
    cache.remove(web)
    assert readable(n1) == []


@pytest.mark.parametrize("verb", ["update", "delete", "create", "list"])
def test_a_node_changes_and_lists_no_secrets(verb: str) -> None:
    cache = FakeCache(pod("web", node="n1", **REFERRING))
    info = asks(verb, "secrets", "default", "" if verb in ("create", "list") else "vol")
    assert not authorization.build(config(), cache).authorize(node_user("n1"), info).allowed


def test_the_rest_of_what_a_node_may() -> None:
    cache = FakeCache(pod("mine", node="n1"), pod("other", node="n2"))
    authorizer = authorization.build(config(), cache)
    leases = "coordination.k8s.io"
    allowed = (
        asks("list", "pods", fields="spec.nodeName=n1"),
        asks("watch", "pods", fields="spec.nodeName=n1"),
        asks("get", "pods", "default", "mine"),
        asks("patch", "pods", "default", "mine", sub="status"),
        asks("delete", "pods", "default", "mine"),
        asks("create", "pods", "default", "mine", sub="eviction"),
        asks("list", "services"),
        asks("watch", "endpointslices", group="discovery.k8s.io"),
        asks("create", "nodes"),
        asks("patch", "nodes", "", "n1", sub="status"),
        asks("create", "events", "default"),
        asks("patch", "events", "default", "e", group="events.k8s.io"),
        asks("update", "leases", "kube-node-lease", "n1", leases),
        asks("create", "leases", "kube-node-lease", "", leases),
        RequestInfo("get", "/healthz"),
    )
    refused = (
        asks("list", "pods"),
        asks("list", "pods", fields="spec.nodeName=n2"),
        asks("get", "pods", "default", "other"),
        asks("update", "pods", "default", "mine"),
        asks("create", "pods", "default", "mine", sub="exec"),
        asks("delete", "nodes", "", "n1"),
        asks("list", "secrets"),
        asks("get", "namespaces", "", "default"),
        asks("update", "leases", "kube-node-lease", "n2", leases),
        asks("update", "leases", "kube-system", "n1", leases),
        asks("list", "leases", "kube-node-lease", "", leases),
        asks("create", "deployments", "default", "", "apps"),
        asks("create", "certificatesigningrequests", "", "", "certificates.k8s.io"),
    )
    assert [i for i in allowed if not authorizer.authorize(node_user("n1"), i).allowed] == []
    assert [i for i in refused if authorizer.authorize(node_user("n1"), i).allowed] == []
    nameless = User("somebody", "", ("system:nodes",))
    assert not authorizer.authorize(nameless, asks("list", "services")).allowed
