"""What every namespace has, and how one goes."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.objects import condition
from sampan.api.resources import CLUSTERROLES, CONFIGMAPS, NAMESPACES, PODS, SERVICEACCOUNTS
from tests.controllers.conftest import Cluster, pod

ROOT_CA = "kube-root-ca.crt"


def names(objects: list[Object]) -> set[str]:
    return {o["metadata"]["name"] for o in objects}


def namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def test_a_new_namespace_gets_account_and_certificates(cluster: Cluster) -> None:
    await cluster.client.create(NAMESPACES, namespace("new"))
    await cluster.until(SERVICEACCOUNTS, lambda all_: "default" in names(all_), "new")
    [found] = await cluster.until(CONFIGMAPS, lambda all_: ROOT_CA in names(all_), "new")
    assert found["data"] == {"ca.crt": "THE CA"}


async def test_they_are_made_again(cluster: Cluster) -> None:
    [account] = await cluster.all(SERVICEACCOUNTS)
    await cluster.client.delete(SERVICEACCOUNTS, "default", "default")
    await cluster.until(
        SERVICEACCOUNTS, lambda all_: all_ and all_[0]["metadata"]["uid"] != account["metadata"]["uid"]
    )
    [found] = await cluster.until(CONFIGMAPS, lambda all_: all_)
    await cluster.change(CONFIGMAPS, found, lambda c: c.update(data={"ca.crt": "another"}))
    await cluster.until(CONFIGMAPS, lambda all_: all_[0]["data"] == {"ca.crt": "THE CA"})


async def test_a_namespace_goes_with_all_it_holds(cluster: Cluster) -> None:
    await cluster.client.create(NAMESPACES, namespace("old"))
    await cluster.until(SERVICEACCOUNTS, lambda all_: all_, "old")
    made = pod("busy")
    made["metadata"]["namespace"] = "old"
    busy = await cluster.run(await cluster.client.create(PODS, made))
    await cluster.client.create(
        CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "old"}}
    )
    await cluster.client.delete(NAMESPACES, "", "old")

    def waits(all_: list[Object]) -> bool:
        found = next(n for n in all_ if n["metadata"]["name"] == "old")
        remaining = condition(found, "NamespaceContentRemaining")
        return bool(
            remaining
            and remaining["message"] == "Some resources are remaining: pods. has 1 resource instances"
        )

    await cluster.until(NAMESPACES, waits, "")
    # Pods go first: what they use stays until they are gone.
    assert "x" in names(await cluster.all(CONFIGMAPS, "old"))
    await cluster.client.delete(PODS, "old", busy["metadata"]["name"], grace_period_seconds=0)
    await cluster.until(NAMESPACES, lambda all_: "old" not in names(all_), "")
    assert not await cluster.all(CONFIGMAPS, "old")


async def test_an_aggregated_role_follows_its_parts(cluster: Cluster) -> None:
    rule = {"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}
    part = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "things", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [rule],
    }

    def has(all_: list[Object]) -> bool:
        return rule in next(r for r in all_ if r["metadata"]["name"] == "view")["rules"]

    await cluster.client.create(CLUSTERROLES, part)
    await cluster.until(CLUSTERROLES, has, "")
    await cluster.client.delete(CLUSTERROLES, "", "things")
    await cluster.until(CLUSTERROLES, lambda all_: not has(all_), "")
