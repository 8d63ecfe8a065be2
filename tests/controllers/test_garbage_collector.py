"""Deletion by ownership: background, foreground, orphan, and what keeps an object."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from sampan.api.errors import Object
from sampan.api.objects import owner_reference
from sampan.api.resources import CONFIGMAPS, DEPLOYMENTS, PODS, REPLICASETS
from tests.controllers.conftest import Cluster, deployment


def names(objects: list[Object]) -> set[str]:
    return {o["metadata"]["name"] for o in objects} - {"kube-root-ca.crt"}


async def config_map(cluster: Cluster, name: str, *owners: Object, **metadata: Any) -> Object:
    references = [
        owner_reference({**o, "apiVersion": "v1", "kind": "ConfigMap"}, controller=False) for o in owners
    ]
    return await cluster.client.create(
        CONFIGMAPS,
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "default", "ownerReferences": references, **metadata},
        },
    )


async def test_a_deployment_takes_everything_with_it(cluster: Cluster) -> None:
    await cluster.client.create(DEPLOYMENTS, deployment(2))
    await cluster.pods(2)
    await cluster.client.delete(DEPLOYMENTS, "default", "web", propagation_policy="Background")
    await cluster.until(PODS, lambda all_: not all_)
    await cluster.until(REPLICASETS, lambda all_: not all_)


async def test_foreground_waits_for_what_it_owns(cluster: Cluster) -> None:
    await cluster.client.create(DEPLOYMENTS, deployment(1))
    [p] = await cluster.pods(1)
    await cluster.run(p)
    await cluster.client.delete(DEPLOYMENTS, "default", "web", propagation_policy="Foreground")
    await cluster.until(PODS, lambda all_: all_[0]["metadata"].get("deletionTimestamp"))
    assert (await cluster.all(DEPLOYMENTS))[0]["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert len(await cluster.all(REPLICASETS)) == 1
    await cluster.client.delete(PODS, "default", p["metadata"]["name"], grace_period_seconds=0)
    await cluster.until(DEPLOYMENTS, lambda all_: not all_)
    assert not await cluster.all(REPLICASETS)


async def test_orphans_stay(cluster: Cluster) -> None:
    await cluster.client.create(DEPLOYMENTS, deployment(1))
    await cluster.pods(1)
    await cluster.client.delete(DEPLOYMENTS, "default", "web", propagation_policy="Orphan")
    await cluster.until(DEPLOYMENTS, lambda all_: not all_)
    [replica_set] = await cluster.all(REPLICASETS)
    assert not replica_set["metadata"].get("ownerReferences")
    assert len(await cluster.all(PODS)) == 1


async def test_one_owner_left_is_enough(cluster: Cluster) -> None:
    a, b = await config_map(cluster, "a"), await config_map(cluster, "b")
    await config_map(cluster, "both", a, b)
    await cluster.client.delete(CONFIGMAPS, "default", "a")
    found = await cluster.until(
        CONFIGMAPS,
        lambda all_: any(
            o["metadata"]["name"] == "both" and len(o["metadata"].get("ownerReferences") or ()) == 1
            for o in all_
        ),
    )
    assert names(found) == {"b", "both"}
    await cluster.client.delete(CONFIGMAPS, "default", "b")
    await cluster.until(CONFIGMAPS, lambda all_: not names(all_))


async def test_an_owner_that_never_was_is_looked_up(cluster: Cluster) -> None:
    real = await config_map(cluster, "real")
    impostor = {"metadata": {"name": "real", "uid": "00000000-0000-0000-0000-000000000000"}}
    await config_map(cluster, "of-real", real)
    await config_map(cluster, "of-impostor", impostor)
    await cluster.until(CONFIGMAPS, lambda all_: names(all_) == {"real", "of-real"})


async def test_a_kind_that_is_not_served_keeps_its_own(cluster: Cluster) -> None:
    made = await config_map(cluster, "kept")
    reference = {"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "1"}
    await cluster.change(CONFIGMAPS, made, lambda c: c["metadata"].update(ownerReferences=[reference]))
    # Another object is collected meanwhile: the collector has been at work.
    await config_map(cluster, "lost", {"metadata": {"name": "none", "uid": "2"}})
    await cluster.until(CONFIGMAPS, lambda all_: names(all_) == {"kept"})


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_a_circle_goes(cluster: Cluster, policy: Literal["Background", "Foreground"]) -> None:
    a = await config_map(cluster, "a")
    b = await config_map(cluster, "b", a)
    reference = owner_reference({**b, "apiVersion": "v1", "kind": "ConfigMap"}, controller=False)
    await cluster.change(CONFIGMAPS, a, lambda c: c["metadata"].update(ownerReferences=[reference]))
    await cluster.client.delete(CONFIGMAPS, "default", "a", propagation_policy=policy)
    await cluster.until(CONFIGMAPS, lambda all_: not names(all_))
