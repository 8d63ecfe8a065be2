"""One object under two versions: read, written and owned through both."""

from __future__ import annotations

from typing import Any

from tests.apiserver.conftest import Api

TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}


def path(version: str, name: str = "") -> str:
    return f"/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers{name}"


def scaler(version: str, **spec: Any) -> Any:
    return {
        "apiVersion": f"autoscaling/{version}",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": TARGET, "maxReplicas": 5, **spec},
    }


async def applied(api: Api, manager: str, obj: Any, *, force: bool = False) -> Any:
    version = obj["apiVersion"].rpartition("/")[2]
    target = f"{path(version, '/h')}?fieldManager={manager}" + ("&force=true" if force else "")
    return await api("PATCH", target, obj, content_type="application/apply-patch+yaml")


async def test_both_versions_are_one_object(api: Api) -> None:
    memory = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
    }
    made = await api.ok(
        "POST", path("v2"), scaler("v2", metrics=[memory], behavior={"scaleUp": {"selectPolicy": "Min"}})
    )
    stream = api.watch(f"{path('v1')}?watch=1&resourceVersion={made['metadata']['resourceVersion']}")
    v1 = await api.ok("GET", path("v1", "/h"))
    assert v1["metadata"]["uid"] == made["metadata"]["uid"]
    assert "targetCPUUtilizationPercentage" not in v1["spec"]
    v1["spec"] |= {"targetCPUUtilizationPercentage": 30, "maxReplicas": 7}
    assert (await api.ok("PUT", path("v1", "/h"), v1))["spec"]["maxReplicas"] == 7
    event = await stream.next()
    assert event["object"]["apiVersion"] == "autoscaling/v1"
    assert event["object"]["spec"]["targetCPUUtilizationPercentage"] == 30
    v2 = await api.ok("GET", path("v2", "/h"))
    assert [m["resource"]["name"] for m in v2["spec"]["metrics"]] == ["cpu", "memory"]
    assert v2["spec"]["behavior"] == made["spec"]["behavior"]
    assert v2["spec"]["maxReplicas"] == 7
    status = {
        "currentReplicas": 1,
        "desiredReplicas": 2,
        "conditions": [{"type": "AbleToScale", "status": "True"}],
    }
    await api.ok("PUT", path("v2", "/h/status"), {**v2, "status": status})
    seen = await api.ok("GET", path("v1", "/h/status"))
    assert seen["status"] == {"currentReplicas": 1, "desiredReplicas": 2}
    seen["status"]["desiredReplicas"] = 3
    await api.ok("PUT", path("v1", "/h/status"), seen)
    assert (await api.ok("GET", path("v2", "/h")))["status"] == {**status, "desiredReplicas": 3}


async def test_a_v1_client_gets_the_default_of_v2(api: Api) -> None:
    made = await api.ok("POST", path("v1"), scaler("v1"))
    assert made["spec"]["targetCPUUtilizationPercentage"] == 80
    assert made["spec"]["minReplicas"] == 1
    wrong = await api("POST", path("v1"), scaler("v1", maxReplicas=0))
    assert wrong.status == 422
    assert "spec.maxReplicas: Required value: must be set and greater than 0" in wrong.json["message"]


async def test_managers_of_two_versions(api: Api) -> None:
    v1 = scaler("v1", targetCPUUtilizationPercentage=50)
    assert (await applied(api, "a", v1)).status == 201
    v2 = scaler("v2", maxReplicas=6)
    refused = await applied(api, "b", v2)
    assert refused.status == 409
    assert [c["field"] for c in refused.json["details"]["causes"]] == [".spec.maxReplicas"]
    owned = (await applied(api, "b", v2, force=True)).json["metadata"]["managedFields"]
    assert [(m["manager"], m["apiVersion"]) for m in owned] == [
        ("a", "autoscaling/v1"),
        ("b", "autoscaling/v2"),
    ]
    assert "f:maxReplicas" not in owned[0]["fieldsV1"]["f:spec"]
    refused = await applied(api, "a", v1)
    assert [c["field"] for c in refused.json["details"]["causes"]] == [".spec.maxReplicas"]
