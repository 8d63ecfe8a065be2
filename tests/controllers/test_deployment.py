"""Deployments and ReplicaSets: sizes, rollouts, conditions, events."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.api.objects import condition
from sampan.api.resources import DEPLOYMENTS, PODS, REPLICASETS
from sampan.controllers.deployment import facts, scaling
from tests.controllers.conftest import Cluster, deployment, pod, running


def reason(obj: Object, type_: str) -> str:
    found = condition(obj, type_)
    return found["reason"] if found else ""


async def settled(cluster: Cluster, **wanted: Any) -> Object:
    """Wait until the Deployment's status has these numbers."""
    found = await cluster.until(
        DEPLOYMENTS,
        lambda all_: all_ and all((all_[0].get("status") or {}).get(k, 0) == v for k, v in wanted.items()),
    )
    return found[0]


async def test_pods_are_made_and_told_of(cluster: Cluster) -> None:
    await cluster.client.create(DEPLOYMENTS, deployment(2))
    pods = await cluster.pods(2)
    [replica_set] = await cluster.all(REPLICASETS)
    name = replica_set["metadata"]["name"]
    assert all(p["metadata"]["generateName"] == f"{name}-" for p in pods)
    hash_ = name.removeprefix("web-")
    assert all(p["metadata"]["labels"] == {"app": "web", "pod-template-hash": hash_} for p in pods)
    assert replica_set["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": hash_}
    await cluster.event("ScalingReplicaSet", f"Scaled up replica set {name} from 0 to 2")
    await cluster.event("SuccessfulCreate", f"Created pod: {pods[0]['metadata']['name']}")
    present = await settled(cluster, replicas=2, updatedReplicas=2, unavailableReplicas=2)
    assert reason(present, "Available") == "MinimumReplicasUnavailable"
    assert present["metadata"]["annotations"][facts.REVISION] == "1"
    for p in pods:
        await cluster.run(p)
    present = await settled(cluster, readyReplicas=2, availableReplicas=2, observedGeneration=1)
    await cluster.until(DEPLOYMENTS, lambda all_: reason(all_[0], "Progressing") == "NewReplicaSetAvailable")
    [present] = await cluster.all(DEPLOYMENTS)
    assert reason(present, "Available") == "MinimumReplicasAvailable"
    done = condition(present, "Progressing")
    assert done is not None
    assert done["message"] == f'ReplicaSet "{name}" has successfully progressed.'


async def test_a_deleted_pod_is_replaced_once(cluster: Cluster) -> None:
    await cluster.client.create(DEPLOYMENTS, deployment(3))
    pods = await cluster.pods(3)
    await cluster.client.delete(PODS, "default", pods[0]["metadata"]["name"])
    await cluster.until(
        PODS,
        lambda all_: (
            len(all_) == 3 and pods[0]["metadata"]["uid"] not in {p["metadata"]["uid"] for p in all_}
        ),
    )
    await settled(cluster, replicas=3)
    assert len(await cluster.all(PODS)) == 3


async def test_many_pods_are_made_exactly(cluster: Cluster) -> None:
    await cluster.client.create(DEPLOYMENTS, deployment(40))
    await settled(cluster, replicas=40)
    assert len(await cluster.all(PODS)) == 40


async def test_scale_to_none_and_back(cluster: Cluster) -> None:
    made = await cluster.client.create(DEPLOYMENTS, deployment(2))
    await cluster.pods(2)
    [replica_set] = await cluster.all(REPLICASETS)
    await cluster.change(DEPLOYMENTS, made, lambda d: d["spec"].update(replicas=0))
    await cluster.pods(0)
    name = replica_set["metadata"]["name"]
    await cluster.event("ScalingReplicaSet", f"Scaled down replica set {name} from 2 to 0")
    await cluster.event("SuccessfulDelete", "Deleted pod: ")
    await cluster.change(DEPLOYMENTS, made, lambda d: d["spec"].update(replicas=2))
    await cluster.pods(2)
    assert len(await cluster.all(REPLICASETS)) == 1


def image(d: Object, name: str) -> None:
    d["spec"]["template"]["spec"]["containers"][0]["image"] = name


async def test_rolling_update_keeps_enough_and_not_too_many(cluster: Cluster) -> None:
    spec = {"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
    made = await cluster.client.create(DEPLOYMENTS, deployment(3, **spec))
    for p in await cluster.pods(3):
        await cluster.run(p)
    await settled(cluster, availableReplicas=3)
    [first] = await cluster.all(REPLICASETS)
    await cluster.change(DEPLOYMENTS, made, lambda d: image(d, "nginx:2"))

    def counts(pods: list[Object]) -> Counter[str]:
        return Counter(
            p["spec"]["containers"][0]["image"] for p in pods if not p["metadata"].get("deletionTimestamp")
        )

    for step in range(1, 4):
        pods = await cluster.until(
            PODS, lambda all_, n=step: counts(all_) == {"nginx:1": 4 - n, "nginx:2": n}
        )
        fresh = [
            p
            for p in pods
            if p["spec"]["containers"][0]["image"] == "nginx:2" and not p["spec"].get("nodeName")
        ]
        assert len(fresh) == 1
        await cluster.run(fresh[0])
        for p in pods:
            if p["metadata"].get("deletionTimestamp"):
                await cluster.client.delete(PODS, "default", p["metadata"]["name"], grace_period_seconds=0)
    await cluster.until(PODS, lambda all_: counts(all_) == {"nginx:2": 3})
    present = await settled(cluster, updatedReplicas=3, availableReplicas=3, observedGeneration=2)
    assert present["metadata"]["annotations"][facts.REVISION] == "2"
    old = await cluster.client.get(REPLICASETS, "default", first["metadata"]["name"])
    assert old["spec"]["replicas"] == 0


async def test_going_back_takes_up_the_old_replica_set(cluster: Cluster) -> None:
    made = await cluster.client.create(DEPLOYMENTS, deployment(1))
    await cluster.pods(1)
    [first] = await cluster.all(REPLICASETS)
    await cluster.change(DEPLOYMENTS, made, lambda d: image(d, "nginx:2"))
    await cluster.until(REPLICASETS, lambda all_: len(all_) == 2)
    await cluster.change(DEPLOYMENTS, made, lambda d: image(d, "nginx:1"))
    name = first["metadata"]["name"]
    sets = await cluster.until(
        REPLICASETS,
        lambda all_: any(s["metadata"]["name"] == name and facts.revision(s) == 3 for s in all_),
    )
    assert len(sets) == 2
    again = next(s for s in sets if s["metadata"]["name"] == name)
    assert again["metadata"]["annotations"][facts.REVISION_HISTORY] == "1"


async def test_recreate_waits_for_the_old_pods(cluster: Cluster) -> None:
    made = await cluster.client.create(DEPLOYMENTS, deployment(1, strategy={"type": "Recreate"}))
    [old] = await cluster.pods(1)
    await cluster.run(old)
    await settled(cluster, availableReplicas=1)
    await cluster.change(DEPLOYMENTS, made, lambda d: image(d, "nginx:2"))
    await cluster.until(PODS, lambda all_: all_[0]["metadata"].get("deletionTimestamp"))
    await settled(cluster, observedGeneration=2, replicas=0)
    assert len(await cluster.all(PODS)) == 1
    await cluster.client.delete(PODS, "default", old["metadata"]["name"], grace_period_seconds=0)
    [new] = await cluster.pods(1)
    assert new["spec"]["containers"][0]["image"] == "nginx:2"


async def test_a_paused_deployment_scales_but_does_not_roll(cluster: Cluster) -> None:
    made = await cluster.client.create(DEPLOYMENTS, deployment(1))
    await cluster.pods(1)
    await cluster.change(
        DEPLOYMENTS, made, lambda d: (d["spec"].update(paused=True, replicas=2), image(d, "nginx:2"))
    )
    pods = await cluster.pods(2)
    assert {p["spec"]["containers"][0]["image"] for p in pods} == {"nginx:1"}
    await cluster.until(DEPLOYMENTS, lambda all_: reason(all_[0], "Progressing") == "DeploymentPaused")
    await cluster.change(DEPLOYMENTS, made, lambda d: d["spec"].update(paused=False))
    await cluster.until(REPLICASETS, lambda all_: len(all_) == 2)


async def test_history_is_cut(cluster: Cluster) -> None:
    async with running(cluster.kubelet()):
        made = await cluster.client.create(DEPLOYMENTS, deployment(1, revisionHistoryLimit=1))
        for n in range(1, 5):
            await cluster.change(DEPLOYMENTS, made, lambda d, n=n: image(d, f"nginx:{n}"))
            await cluster.until(
                DEPLOYMENTS,
                lambda all_, n=n: (
                    facts.revision(all_[0]) == n
                    and reason(all_[0], "Progressing") == "NewReplicaSetAvailable"
                ),
            )
        await cluster.until(REPLICASETS, lambda all_: sorted(map(facts.revision, all_)) == [3, 4])


async def test_missing_progress_is_told_at_its_deadline(cluster: Cluster) -> None:
    await cluster.client.create(DEPLOYMENTS, deployment(1, progressDeadlineSeconds=1, minReadySeconds=0))
    [present] = await cluster.until(
        DEPLOYMENTS, lambda all_: all_ and reason(all_[0], "Progressing") == "ProgressDeadlineExceeded"
    )
    found = condition(present, "Progressing")
    assert found is not None
    assert found["status"] == "False"
    assert found["message"].endswith("has timed out progressing.")


async def test_available_only_after_min_ready_seconds(cluster: Cluster) -> None:
    await cluster.client.create(DEPLOYMENTS, deployment(1, minReadySeconds=1))
    [p] = await cluster.pods(1)
    await cluster.run(p)
    await settled(cluster, readyReplicas=1, availableReplicas=0)
    await settled(cluster, availableReplicas=1)


async def test_refused_pods_are_told_in_a_condition(cluster: Cluster) -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}], "serviceAccountName": "nobody"},
    }
    await cluster.client.create(DEPLOYMENTS, deployment(1, template=template))
    [replica_set] = await cluster.until(
        REPLICASETS, lambda all_: all_ and reason(all_[0], "ReplicaFailure") == "FailedCreate"
    )
    failure = condition(replica_set, "ReplicaFailure")
    assert failure is not None
    assert 'serviceaccount "nobody" not found' in failure["message"]
    await cluster.event("FailedCreate", "Error creating: ")
    await cluster.until(DEPLOYMENTS, lambda all_: reason(all_[0], "ReplicaFailure") == "FailedCreate")


async def test_orphans_are_adopted_and_strangers_released(cluster: Cluster) -> None:
    await cluster.client.create(PODS, pod("mine", {"app": "rs"}))
    replica_set = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "rs", "namespace": "default"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "rs"}},
            "template": {
                "metadata": {"labels": {"app": "rs"}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]},
            },
        },
    }
    await cluster.client.create(REPLICASETS, replica_set)
    await cluster.pods(2)
    mine = await cluster.client.get(PODS, "default", "mine")
    assert mine["metadata"]["ownerReferences"][0]["name"] == "rs"
    await cluster.change(PODS, mine, lambda p: p["metadata"].update(labels={"app": "other"}))
    pods = await cluster.pods(3)
    mine = next(p for p in pods if p["metadata"]["name"] == "mine")
    await cluster.until(
        PODS,
        lambda all_: (
            not next(p for p in all_ if p["metadata"]["name"] == "mine")["metadata"].get("ownerReferences")
        ),
    )


async def test_what_is_worth_least_goes_first(cluster: Cluster) -> None:
    made = await cluster.client.create(DEPLOYMENTS, deployment(3))
    pods = await cluster.pods(3)
    await cluster.run(pods[0])
    await cluster.run(pods[1], ready=False)
    await settled(cluster, readyReplicas=1)
    await cluster.change(DEPLOYMENTS, made, lambda d: d["spec"].update(replicas=1))
    [kept] = await cluster.pods(1)
    assert kept["metadata"]["name"] == pods[0]["metadata"]["name"]


# ---- arithmetic


def sized(
    name: str, replicas: int, maximum: int, available: int = 0, created: str = "2026-01-01T00:00:00Z"
) -> Object:
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": created,
            "annotations": {facts.MAX_REPLICAS: str(maximum), facts.DESIRED_REPLICAS: "10"},
        },
        "spec": {"replicas": replicas},
        "status": {"availableReplicas": available},
    }


def asked(replicas: int, surge: Any, unavailable: Any) -> Object:
    return {
        "spec": {
            "replicas": replicas,
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
        },
        "status": {"replicas": 13},
    }


def test_proportional_scaling() -> None:
    """The documentation's own example: 10 become 15 in the middle of a rollout with 8 old and 5 new."""
    old, new = sized("old", 8, 13, created="2025-01-01T00:00:00Z"), sized("new", 5, 13)
    sizes = scaling.rescaled(asked(15, 3, 2), new, [old])
    assert {s["metadata"]["name"]: n for s, n in sizes} == {"old": 11, "new": 7}


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (3, 0, "1%", (0, 1)),
        (4, 2, 9, (2, 4)),
        (0, 1, 1, (1, 0)),
    ],
)
def test_bounds(replicas: int, surge: Any, unavailable: Any, expected: tuple[int, int]) -> None:
    d = asked(replicas, surge, unavailable)
    assert (facts.max_surge(d), facts.max_unavailable(d)) == expected


def test_hash_is_stable_and_looks_like_upstreams() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    name = facts.template_hash(template, None)
    assert name == facts.template_hash(
        {**template, "metadata": {"labels": {"a": "b", facts.HASH_LABEL: "x"}}}, None
    )
    assert name != facts.template_hash(template, 1)
    assert set(name) <= set("bcdfghjklmnpqrstvwxz2456789")
    assert 1 <= len(name) <= 10
