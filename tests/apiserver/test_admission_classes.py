"""What classes give to those who name them: priorities, runtimes, storage; and what holds and resizes storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.api.resources import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, VOLUMEATTRIBUTESCLASSES, Resource
from sampan.controllers.manager import Manager
from tests.controllers.conftest import Cluster, running

from .conftest import Api

PODS = "/api/v1/namespaces/default/pods"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"
RUNTIMES = "/apis/node.k8s.io/v1/runtimeclasses"
STORAGE = "/apis/storage.k8s.io/v1/storageclasses"
VOLUMES = "/api/v1/persistentvolumes"
MERGE = "application/merge-patch+json"


@pytest.fixture(autouse=True)
async def _account(api: Api) -> None:
    body = {"metadata": {"name": "default"}}
    await api.ok_or_exists("POST", "/api/v1/namespaces/default/serviceaccounts", body)


def pod(name: str = "web", **spec: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "nginx"}], **spec},
    }


def claim(name: str = "data", storage: str = "1Gi", **spec: Any) -> Object:
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
    return {"metadata": {"name": name}, "spec": {**asked, **spec}}


def volume(name: str = "disk") -> Object:
    source = {"hostPath": {"path": "/tmp/x"}}
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], **source}
    return {"metadata": {"name": name}, "spec": spec}


async def refusal(api: Api, method: str, target: str, body: Object) -> str:
    reply = await api(method, target, body)
    assert reply.status == 403, reply.body
    message: str = reply.json["message"]
    return message.partition(" is forbidden: ")[2]


# ---- Priority


async def test_a_pod_has_the_priority_of_its_class(api: Api) -> None:
    body = {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}
    made = await api("POST", PRIORITIES, body)
    assert (made.status, made.warnings) == (201, [])
    reply = await api("POST", PODS, pod("a", priorityClassName="high"))
    spec = reply.json["spec"]
    assert (spec["priority"], spec["preemptionPolicy"], reply.warnings) == (1000, "Never", [])
    made = await api.ok("POST", PODS, pod("b", priorityClassName="system-node-critical"))
    assert made["spec"]["priority"] == 2000001000
    made = await api.ok("POST", PODS, pod("c"))
    assert (made["spec"]["priority"], made["spec"]["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    assert "priorityClassName" not in made["spec"]


async def test_the_default_class_is_for_pods_that_name_none(api: Api) -> None:
    await api.ok("POST", PRIORITIES, {"metadata": {"name": "usual"}, "value": 7, "globalDefault": True})
    made = await api.ok("POST", PODS, pod())
    assert (made["spec"]["priority"], made["spec"]["priorityClassName"]) == (7, "usual")
    other = {"metadata": {"name": "other"}, "value": 8, "globalDefault": True}
    assert await refusal(api, "POST", PRIORITIES, other) == (
        "PriorityClass usual is already marked as default. Only one default can exist"
    )


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"priorityClassName": "none"}, "no PriorityClass with name none was found"),
        (
            {"priorityClassName": "high", "priority": 5},
            "the integer value of priority (5) must not be provided in pod spec; priority admission controller "
            "computed 1000 from the given PriorityClass name",
        ),
        (
            {"priorityClassName": "high", "preemptionPolicy": "Never"},
            "the string value of PreemptionPolicy (Never) must not be provided in pod spec; priority admission "
            "controller computed PreemptLowerPriority from the given PriorityClass name",
        ),
    ],
)
async def test_a_priority_cannot_be_given(api: Api, spec: Object, why: str) -> None:
    await api.ok("POST", PRIORITIES, {"metadata": {"name": "high"}, "value": 1000})
    assert await refusal(api, "POST", PODS, pod(**spec)) == why
    await api.ok("POST", PODS, pod(priorityClassName="high", priority=1000))


# ---- RuntimeClass


def runtime(**more: Any) -> Object:
    return {"metadata": {"name": "boxed"}, "handler": "crun", **more}


async def test_a_runtime_class_gives_overhead_and_says_where(api: Api) -> None:
    toleration = {"key": "boxed", "operator": "Exists"}
    scheduling = {"nodeSelector": {"boxed": "yes"}, "tolerations": [toleration]}
    overhead = {"podFixed": {"cpu": "100m", "memory": "64Mi"}}
    reply = await api("POST", RUNTIMES, runtime(overhead=overhead, scheduling=scheduling))
    assert (reply.status, reply.warnings) == (201, [])
    made = await api.ok("POST", PODS, pod(runtimeClassName="boxed", nodeSelector={"disk": "ssd"}))
    assert made["spec"]["overhead"] == {"cpu": "100m", "memory": "64Mi"}
    assert made["spec"]["nodeSelector"] == {"disk": "ssd", "boxed": "yes"}
    assert toleration in made["spec"]["tolerations"]
    assert await refusal(api, "POST", PODS, pod("b", runtimeClassName="boxed", nodeSelector={"boxed": "no"})) == (
        "conflict: runtimeClass.scheduling.nodeSelector[boxed] = yes; pod.spec.nodeSelector[boxed] = no"
    )  # fmt: skip
    assert await refusal(api, "POST", PODS, pod("b", runtimeClassName="boxed", overhead={"cpu": "1"})) == (
        "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
    )


async def test_runtimes_that_are_not_there(api: Api) -> None:
    assert await refusal(api, "POST", PODS, pod(runtimeClassName="none")) == (
        'pod rejected: RuntimeClass "none" not found'
    )
    assert await refusal(api, "POST", PODS, pod(overhead={"cpu": "1"})) == (
        "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
    )
    await api.ok("POST", RUNTIMES, runtime(handler="gvisor"))
    assert await refusal(api, "POST", PODS, pod(runtimeClassName="boxed")) == (
        'pod rejected: RuntimeClass "boxed" needs the handler "gvisor", which no node of this cluster has; there is: crun'
    )


# ---- storage


def storage(name: str, default: bool = False, **more: Any) -> Object:
    metadata: Object = {"name": name}
    if default:
        metadata["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {"metadata": metadata, "provisioner": "example.com/disk", **more}


async def test_a_claim_without_a_class_gets_the_default_one(api: Api) -> None:
    made = await api.ok("POST", CLAIMS, claim("before"))
    assert "storageClassName" not in made["spec"]
    for name, default in (("b", True), ("a", True), ("c", False)):
        await api.ok("POST", STORAGE, storage(name, default))
    assert (await api.ok("POST", CLAIMS, claim("none", storageClassName="")))["spec"][
        "storageClassName"
    ] == ""
    assert (await api.ok("POST", CLAIMS, claim("c", storageClassName="c")))["spec"]["storageClassName"] == "c"
    made = await api.ok("POST", CLAIMS, claim("default"))
    assert made["spec"]["storageClassName"] in ("a", "b")


async def test_only_a_bound_claim_of_a_class_that_allows_it_grows(api: Api) -> None:
    await api.ok("POST", STORAGE, storage("fixed"))
    await api.ok("POST", STORAGE, storage("elastic", allowVolumeExpansion=True))
    grown = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    for name in ("fixed", "elastic"):
        made = await api.ok("POST", CLAIMS, claim(name, storageClassName=name, volumeName="disk"))
        reply = await api("PATCH", f"{CLAIMS}/{name}", grown, content_type=MERGE)
        assert reply.status in (403, 422), reply.body
        made["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
        await api.ok("PUT", f"{CLAIMS}/{name}/status", made)
    reply = await api("PATCH", f"{CLAIMS}/fixed", grown, content_type=MERGE)
    assert (reply.status, reply.json["message"].partition(" is forbidden: ")[2]) == (
        403,
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
    await api.ok("PATCH", f"{CLAIMS}/elastic", grown, content_type=MERGE)


@pytest.fixture
async def cluster(api: Api) -> AsyncIterator[Cluster]:
    async with running(Manager(api.app.client(), cluster_ca="CA").run()):
        yield Cluster(api.app.client())


async def gone(cluster: Cluster, resource: Resource, name: str) -> None:
    namespace = "default" if resource.namespaced else ""
    await cluster.until(
        resource, lambda all_: not any(o["metadata"]["name"] == name for o in all_), namespace
    )


async def test_a_claim_in_use_stays_until_its_pod_is_gone(api: Api, cluster: Cluster) -> None:
    for name in ("used", "free"):
        made = await api.ok("POST", CLAIMS, claim(name))
        assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    # Pods with claims cannot be made through the API here yet: the controller is shown one of the store.
    body = pod("user", nodeName="n", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}])
    await put(api, body)
    await api.ok("DELETE", f"{CLAIMS}/free")
    await gone(cluster, PERSISTENTVOLUMECLAIMS, "free")
    held = await api.ok("DELETE", f"{CLAIMS}/used")
    assert held["metadata"]["deletionTimestamp"]
    await api.ok("DELETE", f"{PODS}/user?gracePeriodSeconds=0")
    await gone(cluster, PERSISTENTVOLUMECLAIMS, "used")


async def put(api: Api, body: Object) -> None:
    from sampan.api.objects import new_uid, now
    from sampan.api.resources import PODS as ROW

    body["metadata"] |= {"namespace": "default", "uid": new_uid(), "creationTimestamp": now()}
    await api.app._registry.put_new(ROW, body, dry_run=False)


async def test_a_bound_volume_stays(api: Api, cluster: Cluster) -> None:
    made = await api.ok("POST", VOLUMES, volume())
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
    made["status"] = {"phase": "Bound"}
    made = await api.ok("PUT", f"{VOLUMES}/disk/status", made)
    made = await api.ok("DELETE", f"{VOLUMES}/disk")
    assert made["metadata"]["deletionTimestamp"]
    made["status"] = {"phase": "Released"}
    await api.ok("PUT", f"{VOLUMES}/disk/status", made)
    await gone(cluster, PERSISTENTVOLUMES, "disk")


async def test_a_class_that_a_claim_has_stays(api: Api, cluster: Cluster) -> None:
    classes = "/apis/storage.k8s.io/v1/volumeattributesclasses"
    body = {"metadata": {"name": "fast"}, "driverName": "example.com", "parameters": {"a": "b"}}
    made = await api.ok("POST", classes, body)
    assert made["metadata"]["finalizers"] == ["kubernetes.io/vac-protection"]
    await api.ok("POST", CLAIMS, claim(storageClassName="x", volumeAttributesClassName="fast"))
    await cluster.until(PERSISTENTVOLUMECLAIMS, lambda all_: all_)
    made = await api.ok("DELETE", f"{classes}/fast")
    assert made["metadata"]["deletionTimestamp"]
    await api.ok("DELETE", f"{CLAIMS}/data")
    await gone(cluster, VOLUMEATTRIBUTESCLASSES, "fast")
