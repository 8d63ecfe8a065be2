"""`pods/resize`: a pod's containers ask for other resources, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.conftest import Api
from tests.apiserver.test_deletion import PODS, bind, pod

MERGE = "application/strategic-merge-patch+json"
BEFORE = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}


async def started(api: Api, **spec: Any) -> Any:
    containers = [{"name": "c", "image": "i", "resources": BEFORE}]
    await pod(api, containers=containers, **spec)
    await bind(api)
    return await api.ok("GET", f"{PODS}/p")


async def resize(api: Api, container: Any, kind: str = "containers") -> Any:
    body = {"spec": {kind: [{"name": "c", **container}]}}
    return await api("PATCH", f"{PODS}/p/resize", body, content_type=MERGE)


async def test_a_container_gets_more(api: Api) -> None:
    before = await started(api)
    reply = await resize(api, {"resources": {"requests": {"cpu": "200m"}, "limits": {"memory": "256Mi"}}})
    assert reply.status == 200
    assert any("resizing a running container is not implemented" in w for w in reply.warnings)
    after = reply.json
    assert after["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"memory": "256Mi"},
    }  # fmt: skip
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    managers = after["metadata"]["managedFields"]
    assert [m["subresource"] for m in managers if "subresource" in m] == ["resize"]
    again = await resize(api, {"resources": after["spec"]["containers"][0]["resources"]})
    assert again.json["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


async def test_nothing_else_changes(api: Api) -> None:
    before = await started(api)
    new = await api.ok("GET", f"{PODS}/p/resize")
    new["metadata"]["labels"] = {"a": "b"}
    new["spec"]["containers"][0] |= {"image": "other", "resources": {**BEFORE, "limits": {"memory": "1Gi"}}}
    new["spec"]["activeDeadlineSeconds"] = 5
    new["status"]["phase"] = "Failed"
    after = await api.ok("PUT", f"{PODS}/p/resize", new)
    assert "labels" not in after["metadata"]
    assert after["status"] == before["status"]
    expected = before["spec"]
    expected["containers"][0]["resources"]["limits"]["memory"] = "1Gi"
    assert after["spec"] == expected


@pytest.mark.parametrize(
    ("container", "problem"),
    [
        ({"resources": {"limits": {"memory": None}}}, "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"),
        ({"resources": {"requests": {"cpu": None}}}, "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"),
        ({"resources": {"requests": {"ephemeral-storage": "1Gi"}}}, "spec: Forbidden: only cpu and memory resources are mutable"),
        ({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}, "spec: Forbidden: only cpu and memory resources are mutable"),
        ({"resources": {"requests": {"memory": "1Gi"}}}, "must be less than or equal to memory limit of 128Mi"),
        ({"resources": {"requests": {"cpu": "1", "memory": "128Mi"}, "limits": {"cpu": "1"}}},
         'spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing'),
        ({"name": "d", "image": "i"}, "spec.containers: Forbidden: containers may not be added or removed on resize"),
    ],
)  # fmt: skip
async def test_what_is_refused(api: Api, container: Any, problem: str) -> None:
    await started(api)
    reply = await resize(api, container)
    assert reply.status == 422
    assert problem in reply.json["message"]


@pytest.mark.parametrize(("policy", "status"), [("Always", 200), (None, 422)])
async def test_init_containers(api: Api, policy: str | None, status: int) -> None:
    """Only those that run on beside the others."""
    init = {"name": "s", "image": "i", "resources": {"requests": {"cpu": "1m"}}}
    if policy:
        init["restartPolicy"] = policy
    await started(api, initContainers=[init])
    reply = await resize(api, {"name": "s", "resources": {"requests": {"cpu": "2m"}}}, "initContainers")
    assert reply.status == status
    if status == 422:
        problem = "spec.initContainers[0].resources: Forbidden: resources for non-sidecar init containers are immutable"
        assert problem in reply.json["message"]


async def test_order(api: Api) -> None:
    containers = [{"name": n, "image": "i", "resources": BEFORE} for n in ("c", "d")]
    await pod(api, containers=containers)
    body = {"spec": {"containers": [{"name": n, "resources": BEFORE} for n in ("d", "c")]}}
    reply = await api("PATCH", f"{PODS}/p/resize", body, content_type=MERGE)
    assert (
        "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize, "
        "spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize"
    ) in reply.json["message"]


async def test_resources_stand_otherwise(api: Api) -> None:
    await started(api)
    body = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}
    reply = await api("PATCH", f"{PODS}/p", body, content_type=MERGE)
    assert reply.status == 422
    assert "pod updates may not change fields other than" in reply.json["message"]
