"""Dry runs: every check is made and the answer is the real one, and nothing is written, spent or told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.conftest import Api, Kubectl

NS = "/api/v1/namespaces/default"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
APPLY = {"content_type": "application/apply-patch+yaml"}
MERGE = {"content_type": "application/merge-patch+json"}
LABELS = {"app": "web"}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": TEMPLATE},
}


LISTS = (
    *(f"{NS}/{plural}" for plural in ("configmaps", "pods", "services", "serviceaccounts", "events")),
    DEPLOYMENTS,
    "/apis/coordination.k8s.io/v1/namespaces/default/leases",
    "/api/v1/namespaces",
    "/apis/networking.k8s.io/v1/ipaddresses",
)


async def stored(api: Api) -> Any:
    """Everything that these tests could write. (The server writes for itself, elsewhere and at any time.)"""
    return [(await api.ok("GET", path))["items"] for path in LISTS]


@pytest.fixture
async def before(api: Api) -> Any:
    """Some objects, and what is stored with them."""
    await api.ok_or_exists("POST", f"{NS}/serviceaccounts", {"metadata": {"name": "default"}})
    await api.ok("POST", DEPLOYMENTS, DEPLOYMENT)
    await api.ok(
        "POST",
        f"{NS}/pods",
        {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    )
    await api.ok("POST", f"{NS}/services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    return await stored(api)


SCALE = {
    "apiVersion": "autoscaling/v1",
    "kind": "Scale",
    "metadata": {"name": "web"},
    "spec": {"replicas": 5},
}
CASES: list[tuple[str, str, Any, dict[str, str]]] = [
    ("POST", f"{NS}/configmaps", {"metadata": {"name": "c"}}, {}),
    ("POST", f"{NS}/configmaps", {"metadata": {"generateName": "c-"}}, {}),
    ("POST", f"{NS}/pods", {"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}, {}),
    ("POST", f"{NS}/services", {"metadata": {"name": "t"}, "spec": {"type": "NodePort", "ports": [{"port": 1}]}}, {}),
    ("PUT", f"{DEPLOYMENTS}/web", {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 2}}, {}),  # type: ignore[dict-item]
    ("PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/l", {"metadata": {"name": "l"}, "spec": {}}, {}),
    ("PATCH", f"{DEPLOYMENTS}/web", {"spec": {"replicas": 2}}, MERGE),
    ("PATCH", f"{DEPLOYMENTS}/web", {"spec": {"replicas": 2}}, {"content_type": "application/strategic-merge-patch+json"}),
    ("PATCH", f"{DEPLOYMENTS}/web", [{"op": "replace", "path": "/spec/replicas", "value": 2}], {"content_type": "application/json-patch+json"}),
    ("PATCH", f"{DEPLOYMENTS}/web?fieldManager=m&force=true", {**DEPLOYMENT, "spec": {"replicas": 2}}, APPLY),
    ("PATCH", f"{NS}/configmaps/c?fieldManager=m", {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}, APPLY),
    ("PATCH", f"{DEPLOYMENTS}/web/status", {"status": {"replicas": 1}}, MERGE),
    ("PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 5}}, MERGE),
    ("PUT", f"{DEPLOYMENTS}/web/scale", SCALE, {}),
    ("PATCH", f"{DEPLOYMENTS}/web/scale?fieldManager=m&force=true", SCALE, APPLY),
    ("POST", f"{NS}/pods/p/binding", {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}, {}),
    ("POST", f"{NS}/bindings", {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}, {}),
    ("POST", f"{NS}/pods/p/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}, {}),
    ("POST", f"{NS}/serviceaccounts/default/token", {"spec": {}}, {}),
    ("PATCH", f"{NS}/services/s", {"spec": {"type": "NodePort"}}, MERGE),
    ("PATCH", f"{NS}/services/s", {"spec": {"type": "ExternalName", "externalName": "x.y"}}, MERGE),
    ("DELETE", f"{NS}/pods/p", b"", {}),
    ("DELETE", f"{NS}/services/s", b"", {}),
    ("DELETE", f"{DEPLOYMENTS}/web?propagationPolicy=Foreground", b"", {}),
    ("DELETE", f"{NS}/pods", b"", {}),
    ("POST", "/api/v1/namespaces", {"metadata": {"name": "x"}}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target", "body", "headers"), CASES)
async def test_nothing_is_written(
    api: Api, before: Any, method: str, target: str, body: Any, headers: dict[str, str]
) -> None:
    joint = "&" if "?" in target else "?"
    listed = await api.ok("GET", f"{NS}/services?limit=1")
    stream = api.watch(f"{NS}/services?watch=1&resourceVersion={listed['metadata']['resourceVersion']}")
    reply = await api(method, f"{target}{joint}dryRun=All", body, **headers)
    assert reply.status < 300, reply.body
    assert await stored(api) == before
    assert stream.events.empty()
    # It was no empty promise: the same without the option writes (a token is nowhere written).
    real = await api(method, target, body, **headers)
    assert real.status == reply.status
    assert await stored(api) != before or target.endswith("/token")


async def test_checks_are_made(api: Api, before: Any) -> None:
    assert (await api("POST", DEPLOYMENTS + "?dryRun=All", DEPLOYMENT)).status == 409
    bad = {"metadata": {"name": "Bad Name"}}
    assert (await api("POST", f"{NS}/configmaps?dryRun=All", bad)).status == 422
    assert (await api("DELETE", f"{NS}/pods/none?dryRun=All")).status == 404
    options = {"preconditions": {"uid": "other"}, "dryRun": ["All"]}
    assert (await api("DELETE", f"{NS}/pods/p", options)).status == 409
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    assert (
        await api("POST", f"{NS}/pods/p/eviction", {**body, "deleteOptions": {"dryRun": ["All"]}})
    ).status == 201
    assert (await api("GET", f"{NS}/pods/p")).status == 200
    assert await stored(api) == before


async def test_thousands_of_services_spend_no_address(api: Api, before: Any) -> None:
    async def make(name: str, query: str = "", **spec: Any) -> Any:
        body = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}
        return await api("POST", f"{NS}/services{query}", body)

    addresses = set()
    for i in range(3000):
        reply = await make(f"x{i}", "?dryRun=All", type="NodePort" if i % 2 else "ClusterIP")
        assert reply.status == 201
        addresses.add(reply.json["spec"]["clusterIP"])
    assert await stored(api) == before
    # Every address and port that was shown is still free for whoever asks for it by name.
    for i, address in enumerate(sorted(addresses - {"None"})[:20]):
        made = await make(f"y{i}", clusterIP=address)
        assert made.status == 201, made.body
        taken = await make("z", "?dryRun=All", clusterIP=address)
        assert taken.status == 422
    port = (await make("n", "?dryRun=All", type="NodePort")).json["spec"]["ports"][0]["nodePort"]
    assert (await make("n", type="NodePort", ports=[{"port": 80, "nodePort": port}])).status == 201


async def test_kubectl(kubectl: Kubectl) -> None:
    out = await kubectl("create", "configmap", "c", "--dry-run=server")
    assert out == "configmap/c created (server dry run)\n"
    await kubectl("create", "configmap", "c")
    out = await kubectl("delete", "configmap", "c", "--dry-run=server")
    assert 'configmap "c" deleted (server dry run)' in out
    assert "c " in await kubectl("get", "configmap", "c")
