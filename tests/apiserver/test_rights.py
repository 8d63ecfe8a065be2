"""Who may what, asked of a whole API server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.api import resources
from sampan.api.errors import Object
from sampan.apiserver.types import AUTHENTICATED, User

from .conftest import Api, Kubectl, config
from .fakes import node_user

RBAC = "/apis/rbac.authorization.k8s.io/v1"
DEFAULT = "/api/v1/namespaces/default"


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static tokens for a few people more."""
    people = {
        "admin": User("admin", "", ("system:masters",)),
        "alice": User("alice", "", ()),
        "n1": node_user("n1"),
    }
    monkeypatch.setattr(
        "tests.apiserver.conftest.config", lambda **more: config(**{"static_tokens": people, **more})
    )


@pytest.fixture
async def cluster(users: None, api: Api) -> Api:
    await api.ok_or_exists("POST", f"{DEFAULT}/serviceaccounts", {"metadata": {"name": "default"}})
    return api


def pod(name: str, **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "nginx"}], **spec}}


async def grant(api: Api, name: str, rules: list[Object], user: str = "alice") -> None:
    role = {"metadata": {"name": name}, "rules": rules}
    await api.ok("POST", f"{RBAC}/namespaces/default/roles", role)
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    binding = {"metadata": {"name": name}, "roleRef": ref, "subjects": [subject]}
    await api.ok("POST", f"{RBAC}/namespaces/default/rolebindings", binding)


async def test_a_service_account_may_nothing_until_it_is_bound(cluster: Api) -> None:
    request = {"spec": {"expirationSeconds": 600}}
    made = await cluster.ok("POST", f"{DEFAULT}/serviceaccounts/default/token", request)
    token = made["status"]["token"]
    reply = await cluster("GET", f"{DEFAULT}/pods", token=token)
    assert reply.status == 403
    assert reply.json["message"] == (
        'pods is forbidden: User "system:serviceaccount:default:default" cannot list resource "pods" '
        'in API group "" in the namespace "default"'
    )
    assert (await cluster("GET", "/apis", token=token)).status == 200
    await grant(
        cluster,
        "reader",
        [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
        "system:serviceaccount:default:default",
    )
    assert (await cluster("GET", f"{DEFAULT}/pods", token=token)).status == 200
    assert (await cluster("GET", "/api/v1/pods", token=token)).status == 403
    await cluster.ok("DELETE", f"{DEFAULT}/serviceaccounts/default")
    assert (await cluster("GET", f"{DEFAULT}/pods", token=token)).status == 401


async def test_anonymous_learns_the_servers_health_and_no_more(cluster: Api) -> None:
    assert (await cluster("GET", "/readyz", token="")).status == 200
    assert (await cluster("GET", "/version", token="")).status == 200
    assert (await cluster("GET", "/api", token="")).status == 403
    assert (await cluster("GET", f"{DEFAULT}/pods", token="wrong")).status == 401


async def test_rights_in_a_namespace_end_at_its_edge(cluster: Api) -> None:
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    await grant(cluster, "all", everything)
    assert (await cluster("GET", f"{DEFAULT}/secrets", token="alice")).status == 200
    assert (await cluster("GET", DEFAULT, token="alice")).status == 200
    # What belongs to no namespace is not reached by a path that names one.
    for method, target, body in (
        ("GET", f"{DEFAULT}/nodes", b""),
        ("GET", f"{RBAC}/namespaces/default/clusterroles/cluster-admin", b""),
        ("DELETE", f"{RBAC}/namespaces/default/clusterroles/cluster-admin", b""),
        ("POST", f"{RBAC}/namespaces/default/clusterrolebindings", {"metadata": {"name": "x"}}),
        ("GET", f"{DEFAULT}/namespaces", b""),
        ("GET", f"{DEFAULT}/namespaces/kube-system", b""),
        ("DELETE", f"{DEFAULT}/namespaces/kube-node-lease", b""),
    ):
        reply = await cluster(method, target, body, token="alice")
        assert reply.status in (403, 404), target
    review = {"spec": {"resourceAttributes": {"verb": "list", "resource": "nodes", "namespace": "default"}}}
    await cluster.ok("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, token="alice")
    assert (await cluster("GET", f"{DEFAULT}/nodes", token="alice")).status in (403, 404)
    role = {"metadata": {"name": "own"}, "rules": everything}
    assert (await cluster("POST", f"{RBAC}/namespaces/default/roles", role, token="alice")).status == 201
    urls = {"metadata": {"name": "x"}, "rules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}]}
    assert (await cluster("POST", f"{RBAC}/clusterroles", urls, token="alice")).status == 403


async def test_a_node_sees_the_secrets_of_its_pods(cluster: Api) -> None:
    for name in ("used", "other"):
        await cluster.ok("POST", f"{DEFAULT}/secrets", {"metadata": {"name": name}})
    node = {"metadata": {"name": "n1"}}
    assert (await cluster("POST", "/api/v1/nodes", node, token="n1")).status == 201
    assert (await cluster("POST", "/api/v1/nodes", {"metadata": {"name": "n2"}}, token="n1")).status == 403
    env = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "used", "key": "k"}}}]
    using = pod("web", nodeName="n1")
    using["spec"]["containers"][0]["env"] = env
    assert (await cluster("GET", f"{DEFAULT}/secrets/used", token="n1")).status == 403
    made = await cluster.ok("POST", f"{DEFAULT}/pods", using)
    assert (await cluster("GET", f"{DEFAULT}/secrets/used", token="n1")).status == 200
    assert (await cluster("GET", f"{DEFAULT}/secrets/other", token="n1")).status == 403
    assert (await cluster("GET", f"{DEFAULT}/secrets", token="n1")).status == 403
    assert (await cluster("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", token="n1")).status == 200

    bound = {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": made["metadata"]["uid"]}
    request = {"spec": {"boundObjectRef": bound}}
    assert (await cluster("POST", f"{DEFAULT}/serviceaccounts/default/token", request, token="n1")).status == 201  # fmt: skip
    assert (await cluster("POST", f"{DEFAULT}/serviceaccounts/default/token", {}, token="n1")).status == 403

    await cluster.ok("POST", f"{DEFAULT}/pods", pod("stranger"))
    eviction = {"metadata": {"name": "stranger"}}
    assert (await cluster("POST", f"{DEFAULT}/pods/stranger/eviction", eviction, token="n1")).status == 403
    assert (await cluster("DELETE", f"{DEFAULT}/pods/stranger", token="n1")).status == 403
    status = {"status": {"phase": "Running"}}
    merge = "application/merge-patch+json"
    for name, code in (("stranger", 403), ("web", 200)):
        reply = await cluster(
            "PATCH", f"{DEFAULT}/pods/{name}/status", status, token="n1", content_type=merge
        )
        assert reply.status == code, reply.body


async def test_service_addresses_follow_the_writes(cluster: Api) -> None:
    def service(name: str, **spec: Any) -> Object:
        return {"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}], **spec}}

    kubernetes = await cluster.ok("GET", f"{DEFAULT}/services/kubernetes")
    assert kubernetes["spec"]["clusterIP"] == "10.96.0.1"
    made = await cluster.ok("POST", f"{DEFAULT}/services", service("a", type="NodePort"))
    address, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
    taken = await cluster("POST", f"{DEFAULT}/services", service("b", clusterIP=address))
    assert taken.status == 422
    assert taken.json["message"] == (
        f'Service "b" is invalid: spec.clusterIPs: Invalid value: ["{address}"]: '
        f"failed to allocate IP {address}: provided IP is already allocated"
    )
    merge = "application/merge-patch+json"
    again = await cluster.ok(
        "PATCH", f"{DEFAULT}/services/a", {"metadata": {"labels": {"x": "y"}}}, content_type=merge
    )
    assert again["spec"]["clusterIP"] == address
    plain = await cluster.ok(
        "PATCH", f"{DEFAULT}/services/a", {"spec": {"type": "ClusterIP"}}, content_type=merge
    )
    assert "nodePort" not in plain["spec"]["ports"][0]
    reused = service("c", type="NodePort")
    reused["spec"]["ports"][0]["nodePort"] = port
    await cluster.ok("POST", f"{DEFAULT}/services", reused)
    await cluster.ok("DELETE", f"{DEFAULT}/services/a")
    await cluster.ok("POST", f"{DEFAULT}/services", service("b", clusterIP=address))
    await cluster.restart()
    assert (await cluster("POST", f"{DEFAULT}/services", service("d", clusterIP=address))).status == 422
    held = cluster.app.cache.list(resources.SERVICES)
    assert sorted(s["metadata"]["name"] for s in held) == ["b", "c", "kubernetes"]


async def test_reviews_and_discovery_over_http(cluster: Api) -> None:
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}}
    target = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert (await cluster.ok("POST", target, review, token="alice"))["status"] == {"allowed": False}
    who = await cluster.ok("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token="alice")
    assert who["status"]["userInfo"] == {"username": "alice", "groups": [AUTHENTICATED]}
    made = await cluster.ok("POST", f"{DEFAULT}/serviceaccounts/default/token", {})
    keys = await cluster("GET", "/openid/v1/jwks", token=made["status"]["token"])
    assert keys.status == 200
    assert keys.content_type == "application/jwk-set+json"
    assert (await cluster("GET", "/openid/v1/jwks", token="")).status == 403


async def test_kubectl_asks_who_and_whether(kubectl: Kubectl) -> None:
    assert "system:masters" in await kubectl("auth", "whoami")
    assert (await kubectl("auth", "can-i", "delete", "nodes")).strip() == "yes"
    code, out, err = await kubectl.run("auth", "can-i", "list", "pods", "--as", "alice")
    assert (code, out.strip(), err) == (1, "no", "")
    listed = await kubectl("auth", "can-i", "--list", "--as", "alice", "--as-group", "system:authenticated")
    assert "selfsubjectaccessreviews.authorization.k8s.io" in listed
    assert "[/version]" in listed
    table = await kubectl("api-resources", "--api-group=apps")
    assert [line.split() for line in table.splitlines()] == [
        ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"],
        ["controllerrevisions", "apps/v1", "true", "ControllerRevision"],
        ["daemonsets", "ds", "apps/v1", "true", "DaemonSet"],
        ["deployments", "deploy", "apps/v1", "true", "Deployment"],
        ["replicasets", "rs", "apps/v1", "true", "ReplicaSet"],
        ["statefulsets", "sts", "apps/v1", "true", "StatefulSet"],
    ]
    assert "FIELD: nodePort <integer>" in await kubectl("explain", "service.spec.ports.nodePort")
    assert "running at" in await kubectl("cluster-info")


async def test_kubectl_makes_tokens(kubectl: Kubectl) -> None:
    api = kubectl.api
    await kubectl("create", "serviceaccount", "bot")
    secret = await api.ok("POST", f"{DEFAULT}/secrets", {"metadata": {"name": "holder"}})
    token = await kubectl(
        "create", "token", "bot", "--bound-object-kind", "Secret", "--bound-object-name", "holder",
        "--bound-object-uid", secret["metadata"]["uid"], "--duration", "10m",
    )  # fmt: skip
    who = await api.ok("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=token.strip())
    assert who["status"]["userInfo"]["username"] == "system:serviceaccount:default:bot"
    told = await kubectl("--token", token.strip(), "auth", "whoami", "--as", "")
    assert "system:masters" in told, "the client certificate counts before the token"
    await kubectl("delete", "secret", "holder")
    reply = await api("GET", "/apis", token=token.strip())
    assert (reply.status, reply.json["message"], reply.json["reason"]) == (
        401,
        "Unauthorized",
        "Unauthorized",
    )

    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n9"}})
    bound = await kubectl(
        "create", "token", "bot", "--bound-object-kind", "Node", "--bound-object-name", "n9"
    )
    review: Object = {"spec": {"token": bound.strip()}}
    told = await api.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert told["status"]["user"]["extra"]["authentication.kubernetes.io/node-name"] == ["n9"]
    await kubectl("delete", "node", "n9")
    told = await api.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert told["status"]["error"] == "[invalid bearer token, Node n9 has been deleted]"

    elsewhere = (await kubectl("create", "token", "bot", "--audience", "vault")).strip()
    assert (await api("GET", "/apis", token=elsewhere)).status == 401
    review = {"spec": {"token": elsewhere, "audiences": ["vault"]}}
    told = await api.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert told["status"]["audiences"] == ["vault"]
    told = await api.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": elsewhere}})
    assert told["status"]["error"] == (
        '[invalid bearer token, token audiences ["vault"] is invalid for the target audiences '
        '["https://kubernetes.default.svc.cluster.local"]]'
    )
    for arguments, message in (
        (("--duration", "5m"), "may not specify a duration less than 10 minutes"),
        (("--bound-object-kind", "Pod", "--bound-object-name", "gone"), 'pods "gone" not found'),
    ):
        code, _, err = await kubectl.run("create", "token", "bot", *arguments)
        assert code == 1
        assert message in err


async def test_kubectl_reconciles_rights(kubectl: Kubectl) -> None:
    def manifest(*verbs: str) -> str:
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "r", "namespace": "default"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": list(verbs)}],
        }
        return json.dumps(role)

    assert "reconciled" in await kubectl("auth", "reconcile", "-f", "-", stdin=manifest("get"))
    await kubectl("auth", "reconcile", "-f", "-", stdin=manifest("list"))
    await kubectl("create", "rolebinding", "r", "--role", "r", "--user", "alice")
    listed = await kubectl("auth", "can-i", "--list", "--as", "alice")
    assert next(line.split() for line in listed.splitlines() if line.startswith("pods ")) == [
        "pods", "[]", "[]", "[get", "list]",
    ]  # fmt: skip
    for verb, answer in (("list", "yes"), ("delete", "no")):
        _, out, _ = await kubectl.run("auth", "can-i", verb, "pods", "--as", "alice")
        assert out.strip() == answer
    code, _, err = await kubectl.run("get", "secrets", "--as", "alice")
    assert (code, err.strip()) == (
        1,
        'Error from server (Forbidden): secrets is forbidden: User "alice" cannot list resource "secrets" in API group '
        '"" in the namespace "default"',
    )


@pytest.mark.parametrize("what", ["exec", "attach", "portforward"])
async def test_a_stream_that_begins_with_a_get_asks_for_create_as_well(cluster: Api, what: str) -> None:
    await cluster.ok("POST", f"{DEFAULT}/pods", pod("p"))
    await grant(cluster, "reader", [{"apiGroups": [""], "resources": [f"pods/{what}"], "verbs": ["get"]}])
    target = f"{DEFAULT}/pods/p/{what}?command=sh&stdout=1"
    refused = await cluster("GET", target, token="alice")
    assert refused.status == 403
    message = f'pods "p" is forbidden: User "alice" cannot create resource "pods/{what}" in API group "" in the namespace "default"'
    assert refused.json["message"] == message
    assert (await cluster("POST", target, token="alice")).json["message"] == message
    rule = {"apiGroups": [""], "resources": [f"pods/{what}"], "verbs": ["create"]}
    await grant(cluster, "runner", [rule])
    allowed = await cluster("GET", target, token="alice")
    assert allowed.status == 400
    assert "p does not have a host assigned" in allowed.json["message"]
