"""What a node may: what its pods need, and what is its own."""

from __future__ import annotations

import pytest

from sampan.api.errors import Object
from sampan.apiserver import authorization
from sampan.apiserver.authorization import bootstrap_policy
from sampan.apiserver.authorization.node import NodeAuthorizer
from sampan.apiserver.types import RequestInfo, User

from .fakes import FakeCache, asks, config, make, node_user, pod

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
    assert authorizer.authorize(
        n1, asks("watch", "secrets", "default", "vol", fields="metadata.name=vol")
    ).allowed
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
    defaults = (*bootstrap_policy.cluster_roles(), *bootstrap_policy.cluster_role_bindings())
    cache = FakeCache(pod("mine", node="n1"), pod("other", node="n2"), *defaults)
    authorizer = authorization.build(config(), cache)
    leases = "coordination.k8s.io"
    allowed = (
        asks("list", "pods", fields="spec.nodeName=n1"),
        asks("list", "pods", fields="status.phase!=Failed,spec.nodeName==n1"),
        asks("get", "nodes", "", "n1"),
        asks("watch", "nodes", "", "n1", fields="metadata.name=n1"),
        asks("create", "csinodes", "", "", "storage.k8s.io"),
        asks("update", "csinodes", "", "n1", "storage.k8s.io"),
        asks("create", "certificatesigningrequests", "", "", "certificates.k8s.io"),
        asks("list", "csidrivers", "", "", "storage.k8s.io"),
        asks("watch", "runtimeclasses", "", "", "node.k8s.io"),
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
        # NetworkPolicies speak of the pods of all nodes.
        asks("list", "pods"),
        asks("watch", "pods"),
    )
    refused = (
        asks("get", "csinodes", "", "n2", "storage.k8s.io"),
        asks("list", "csinodes", "", "", "storage.k8s.io"),
        asks("get", "persistentvolumes", "", "pv"),
        asks("create", "serviceaccounts", "default"),
        asks("get", "serviceaccounts", "default", "other"),
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
        asks("delete", "certificatesigningrequests", "", "c", "certificates.k8s.io"),
    )
    assert [i for i in allowed if not authorizer.authorize(node_user("n1"), i).allowed] == []
    assert [i for i in refused if authorizer.authorize(node_user("n1"), i).allowed] == []
    nameless = User("somebody", "", ("system:nodes",))
    assert not authorizer.authorize(nameless, asks("create", "nodes")).allowed


N1, N2 = node_user("n1"), node_user("n2")
"""Two nodes; nothing is bound to either by RBAC here."""


def may(cache: FakeCache, user: User, info: RequestInfo) -> bool:
    decision = NodeAuthorizer(cache).authorize(user, info)
    assert decision is not None
    return decision.allowed


def volume(name: str, claim: str = "", **spec: object) -> Object:
    if claim:
        spec["claimRef"] = {"namespace": "default", "name": claim}
    return make("PersistentVolume", name, spec=spec)


def test_volumes_of_its_pods() -> None:
    volumes = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "tmp", "ephemeral": {"volumeClaimTemplate": {}}},
        {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "inline"}}},
    ]
    cache = FakeCache(pod("web", node="n1", volumes=volumes))
    authorizer = NodeAuthorizer(cache)

    def allowed(user: User) -> list[str]:
        asked = {
            "claim": asks("get", "persistentvolumeclaims", "default", "data"),
            "claim's status": asks("patch", "persistentvolumeclaims", "default", "data", sub="status"),
            "own claim": asks("get", "persistentvolumeclaims", "default", "web-tmp"),
            "inline secret": asks("get", "secrets", "default", "inline"),
            "volume": asks("get", "persistentvolumes", name="pv"),
            "volume's secret": asks("get", "secrets", "default", "stage"),
            "secret elsewhere": asks("get", "secrets", "vault", "publish"),
            "other claim": asks("get", "persistentvolumeclaims", "default", "other"),
            "list of claims": asks("list", "persistentvolumeclaims", "default", "data"),
            "list of volumes": asks("list", "persistentvolumes", name="pv"),
            "change of a claim": asks("update", "persistentvolumeclaims", "default", "data"),
        }
        found = []
        for name, info in asked.items():
            decision = authorizer.authorize(user, info)
            if decision is not None and decision.allowed:
                found.append(name)
        return found

    without = ["claim", "claim's status", "own claim", "inline secret"]
    assert allowed(N1) == without
    secrets = {
        "driver": "d",
        "nodeStageSecretRef": {"name": "stage"},
        "nodePublishSecretRef": {"name": "publish", "namespace": "vault"},
        "controllerPublishSecretRef": {"name": "controller"},
    }
    cache.put(volume("pv", "data", csi=secrets))
    assert allowed(N1) == [*without, "volume", "volume's secret", "secret elsewhere"]
    assert not may(cache, N1, asks("get", "secrets", "default", "controller"))
    assert allowed(N2) == []
    cache.put(volume("pv", "other", csi=secrets))
    assert allowed(N1) == without
    bound = volume("pv", "data", csi=secrets)
    cache.put(bound)
    cache.remove(bound)
    assert allowed(N1) == without


def test_devices_of_its_pods() -> None:
    group = "resource.k8s.io"
    web = pod("web", node="n1", resourceClaims=[{"name": "a", "resourceClaimName": "named"}, {"name": "b"}])
    cache = FakeCache(web)
    authorizer = NodeAuthorizer(cache)

    def claims() -> list[str]:
        found = []
        for name in ("named", "made", "extended"):
            decision = authorizer.authorize(N1, asks("get", "resourceclaims", "default", name, group))
            if decision is not None and decision.allowed:
                found.append(name)
        return found

    assert claims() == ["named"]
    status = {
        "resourceClaimStatuses": [{"name": "b", "resourceClaimName": "made"}],
        "extendedResourceClaimStatus": {"resourceClaimName": "extended"},
    }
    cache.put({**web, "status": status})
    assert claims() == ["named", "made", "extended"]
    cache.put(web)
    assert claims() == ["named"]


def test_what_names_the_node() -> None:
    attachment = make("VolumeAttachment", "va", spec={"nodeName": "n1"})
    piece = make("ResourceSlice", "s", spec={"nodeName": "n1"})
    cache = FakeCache(attachment, piece)
    storage, devices = "storage.k8s.io", "resource.k8s.io"
    for info in (
        asks("get", "volumeattachments", "", "va", storage),
        asks("update", "resourceslices", "", "s", devices),
        asks("list", "resourceslices", "", "", devices, fields="spec.nodeName=n1"),
    ):
        assert may(cache, N1, info)
        assert not may(cache, N2, info)
    assert may(cache, N2, asks("create", "resourceslices", "", "", devices))
    assert not may(cache, N1, asks("list", "resourceslices", "", "", devices))
    assert not may(cache, N1, asks("update", "volumeattachments", "", "va", storage))


def test_a_mirror_pod_gives_its_node_nothing() -> None:
    mirror = pod("web", node="n1", account="bot", **REFERRING)
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    cache = FakeCache(mirror)
    assert may(cache, N1, asks("get", "pods", "default", "web"))
    assert not may(cache, N1, asks("get", "secrets", "default", "vol"))
    assert not may(cache, N1, asks("create", "serviceaccounts", "default", "bot", sub="token"))


def test_two_pods_with_the_same_secret() -> None:
    first, second = (pod(name, node="n1", **REFERRING) for name in ("a", "b"))
    cache = FakeCache(first, second)
    authorizer = NodeAuthorizer(cache)
    info = asks("get", "secrets", "default", "vol")
    allowed = []
    for gone in (None, first, second):
        if gone is not None:
            cache.remove(gone)
        decision = authorizer.authorize(N1, info)
        assert decision is not None
        allowed.append(decision.allowed)
    assert allowed == [True, True, False]


def test_a_node_that_is_told_no_is_told_why() -> None:
    cases = {
        "node 'n1' cannot read all nodes, only its own Node object": asks("list", "nodes"),
        "node 'n1' cannot read 'n2', only its own Node object": asks("get", "nodes", "", "n2"),
        "can only read resources of this type": asks("update", "secrets", "default", "s"),
        "No Object name found": asks("list", "secrets", "default"),
        "can only read namespaced object of this type": asks("list", "secrets"),
        "can only create token subresource of serviceaccount": asks("create", "serviceaccounts", "default", "a"),
    }  # fmt: skip
    authorizer = NodeAuthorizer(FakeCache())
    for reason, info in cases.items():
        decision = authorizer.authorize(N1, info)
        assert decision is not None
        assert decision.reason == reason
