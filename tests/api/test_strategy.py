"""What a write may touch, and what the server gives back."""

from __future__ import annotations

import pytest

from sampan.api import defaults, qos, resources, strategy
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import Resource


def created(resource: Resource, obj: Object) -> Object:
    defaults.apply(resource, obj)
    strategy.prepare_create(resource, obj)
    return obj


def updated(resource: Resource, new: Object, old: Object, subresource: str = "") -> Object:
    strategy.prepare_update(resource, new, old, subresource)
    return new


def deployment() -> Object:
    return created(
        resources.DEPLOYMENTS,
        {"metadata": {"name": "d", "generation": 7}, "spec": {"replicas": 1}, "status": {"replicas": 5}},
    )


def test_create_drops_status_and_counts_from_one() -> None:
    obj = deployment()
    assert obj["metadata"]["generation"] == 1
    assert obj["status"] == {}


@pytest.mark.parametrize(
    ("resource", "status"),
    [
        (resources.PODS, {"phase": "Pending", "qosClass": "BestEffort"}),
        (resources.NAMESPACES, {"phase": "Active"}),
        (resources.SERVICES, {"loadBalancer": {}}),
        (resources.REPLICASETS, {"replicas": 0}),
        (resources.NODES, {"phase": "given"}),
    ],
)
def test_first_status(resource: Resource, status: Object) -> None:
    obj = created(resource, {"metadata": {"name": "n"}, "spec": {}, "status": {"phase": "given"}})
    assert obj["status"] == status


def test_gated_pod_says_why_it_waits() -> None:
    obj = created(resources.PODS, {"spec": {"containers": [], "schedulingGates": [{"name": "a"}]}})
    assert obj["status"]["conditions"][0]["reason"] == "SchedulingGated"


def test_namespace_gets_its_finalizer() -> None:
    obj = created(resources.NAMESPACES, {"metadata": {"name": "n"}})
    assert obj["spec"]["finalizers"] == ["kubernetes"]
    new = deep_copy(obj)
    new["spec"]["finalizers"] = []
    assert updated(resources.NAMESPACES, new, obj)["spec"]["finalizers"] == ["kubernetes"]
    new["spec"]["finalizers"] = []
    assert updated(resources.NAMESPACES, new, obj, "finalize")["spec"]["finalizers"] == []


def test_update_keeps_status_and_counts_changes_of_the_spec() -> None:
    old = deployment()
    old["status"] = {"replicas": 1}
    old["metadata"] |= {"uid": "1", "creationTimestamp": "2024-01-01T00:00:00Z"}
    new = deep_copy(old)
    new["status"] = {"replicas": 9}
    for name in ("uid", "creationTimestamp", "generation"):
        del new["metadata"][name]
    updated(resources.DEPLOYMENTS, new, old)
    assert new == old
    new["spec"]["replicas"] = 2
    assert updated(resources.DEPLOYMENTS, new, old)["metadata"]["generation"] == 2
    annotated = deep_copy(old)
    annotated["metadata"]["annotations"] = {"a": "b"}
    assert updated(resources.DEPLOYMENTS, annotated, old)["metadata"]["generation"] == 2
    labelled = deep_copy(old)
    labelled["metadata"]["labels"] = {"a": "b"}
    assert updated(resources.DEPLOYMENTS, labelled, old)["metadata"]["generation"] == 1


def test_empty_and_absent_are_no_change() -> None:
    old = deployment()
    new = deep_copy(old)
    new["spec"]["template"] = None
    old["spec"]["template"] = None
    new["spec"]["x"] = []
    assert updated(resources.DEPLOYMENTS, new, old)["metadata"]["generation"] == 1


def test_status_update_keeps_the_spec() -> None:
    old = deployment()
    new = deep_copy(old)
    new["spec"]["replicas"] = 9
    new["metadata"]["labels"] = {"a": "b"}
    new["status"] = {"replicas": 1}
    updated(resources.DEPLOYMENTS, new, old, "status")
    assert new["spec"]["replicas"] == 1
    assert new["status"] == {"replicas": 1}
    assert new["metadata"]["generation"] == 1
    assert "labels" not in new["metadata"]


def test_deletion_cannot_be_undone() -> None:
    old = deployment()
    old["metadata"] |= {"deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
    new = deep_copy(old)
    del new["metadata"]["deletionTimestamp"], new["metadata"]["deletionGracePeriodSeconds"]
    assert updated(resources.DEPLOYMENTS, new, old) == old


def service(kind: str = "NodePort") -> Object:
    obj = created(
        resources.SERVICES,
        {
            "metadata": {"name": "s"},
            "spec": {"type": kind, "ports": [{"port": 80}], "clusterIP": "10.96.0.5"},
        },
    )
    if kind != "ClusterIP":
        obj["spec"]["ports"][0]["nodePort"] = 30001
    return obj


def test_service_keeps_what_was_allocated() -> None:
    old = service()
    assert old["spec"]["clusterIPs"] == ["10.96.0.5"]
    new: Object = {
        "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 81}]},
    }
    defaults.apply(resources.SERVICES, new)
    spec = updated(resources.SERVICES, new, old)["spec"]
    assert (spec["clusterIP"], spec["clusterIPs"]) == ("10.96.0.5", ["10.96.0.5"])
    assert [p.get("nodePort") for p in spec["ports"]] == [30001, None]


def test_service_that_changes_its_type() -> None:
    old = service()
    new = deep_copy(old)
    new["spec"]["type"] = "ClusterIP"
    spec = updated(resources.SERVICES, new, old)["spec"]
    assert "nodePort" not in spec["ports"][0]
    assert "externalTrafficPolicy" not in spec
    new["spec"] |= {"type": "ExternalName", "externalName": "a.b"}
    spec = updated(resources.SERVICES, new, service("ClusterIP"))["spec"]
    assert "clusterIP" not in spec
    assert "clusterIPs" not in spec


def test_pod_update_and_its_generation() -> None:
    old = created(
        resources.PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}}
    )
    old["status"]["podIP"] = "10.0.0.1"
    new = deep_copy(old)
    new["status"] = {}
    new["spec"]["containers"][0]["image"] = "a:2"
    updated(resources.PODS, new, old)
    assert new["status"] == old["status"]
    assert new["metadata"]["generation"] == 2


def test_ephemeral_containers_are_all_that_their_subresource_changes() -> None:
    old = created(
        resources.PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}}
    )
    new = deep_copy(old)
    new["metadata"]["labels"] = {"a": "b"}
    new["spec"]["containers"] = []
    new["spec"]["ephemeralContainers"] = [{"name": "e", "image": "i"}]
    updated(resources.PODS, new, old, "ephemeralcontainers")
    assert "labels" not in new["metadata"]
    assert new["spec"]["containers"] == old["spec"]["containers"]
    assert new["spec"]["ephemeralContainers"] == [{"name": "e", "image": "i"}]
    assert new["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "1", "memory": "1"}}], "Guaranteed"),
        (
            [{"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "1000m", "memory": "1"}}, {}],
            "Burstable",
        ),
        ([{"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}], "Burstable"),
        ([{"requests": {"cpu": "0"}}], "BestEffort"),
    ],
)
def test_quality_of_service(containers: list[Object], expected: str) -> None:
    assert qos.of({"spec": {"containers": [{"resources": r} for r in containers]}}) == expected
