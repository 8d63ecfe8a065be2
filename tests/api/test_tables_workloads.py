"""The tables of what makes, scales and protects pods."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api import conversion, resources, tables
from sampan.api.resources import Resource
from tests.api.test_tables import cells

TEMPLATE = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]},
}
WIDE = ["c,d", "i,j", "a=b"]
SELECTOR = {"matchLabels": {"a": "b"}}
START = "2025-12-31T23:30:00Z"


def true(type_: str) -> Any:
    return {"conditions": [{"type": type_, "status": "True"}]}


def job(status: Any = None, **spec: Any) -> Any:
    return {"spec": {"selector": SELECTOR, "template": TEMPLATE, **spec}, "status": status or {}}


def cron_job(status: Any = None, **spec: Any) -> Any:
    made = {"spec": {"template": TEMPLATE}}
    return {
        "spec": {"schedule": "@daily", "suspend": False, "jobTemplate": made, **spec},
        "status": status or {},
    }


@pytest.mark.parametrize(
    ("resource", "obj", "expected"),
    [
        (resources.DAEMONSETS, {"spec": {"selector": SELECTOR, "template": TEMPLATE}},
         ["x", 0, 0, 0, 0, 0, "<none>", "60m", *WIDE]),
        (resources.DAEMONSETS,
         {"spec": {"selector": SELECTOR, "template": {"spec": {"nodeSelector": {"disk": "ssd"}}}},
          "status": {"desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3,
                     "updatedNumberScheduled": 2, "numberAvailable": 1}},
         ["x", 5, 4, 3, 2, 1, "disk=ssd", "60m", "", "", "a=b"]),
        (resources.STATEFULSETS, {"spec": {"replicas": 3, "template": TEMPLATE}, "status": {"readyReplicas": 2}},
         ["x", "2/3", "60m", "c,d", "i,j"]),
        (resources.CONTROLLERREVISIONS, {"revision": 7}, ["x", "<none>", 7, "60m"]),
        (resources.CONTROLLERREVISIONS,
         {"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": True}]}},
         ["x", "statefulset.apps/web", 0, "60m"]),
        (resources.REPLICATIONCONTROLLERS,
         {"spec": {"replicas": 3, "selector": {"a": "b"}, "template": TEMPLATE}, "status": {"replicas": 2, "readyReplicas": 1}},
         ["x", 3, 2, 1, "60m", *WIDE]),
        (resources.PODTEMPLATES, {"template": TEMPLATE}, ["x", "c,d", "i,j", "a=b"]),
        (resources.PODDISRUPTIONBUDGETS, {"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}},
         ["x", "50%", "N/A", 2, "60m"]),
        (resources.PODDISRUPTIONBUDGETS, {"spec": {"maxUnavailable": 0}}, ["x", "N/A", "0", 0, "60m"]),
        (resources.JOBS, job({"succeeded": 1}, completions=3), ["x", "Running", "1/3", "", "60m", *WIDE]),
        (resources.JOBS, job(parallelism=2), ["x", "Running", "0/1 of 2", "", "60m", *WIDE]),
        (resources.JOBS, job({"startTime": START}), ["x", "Running", "0/1", "30m", "60m", *WIDE]),
        (resources.JOBS, job({"startTime": START, "completionTime": "2025-12-31T23:31:00Z", **true("Complete")}),
         ["x", "Complete", "0/1", "60s", "60m", *WIDE]),
        (resources.JOBS, job(true("Failed")), ["x", "Failed", "0/1", "", "60m", *WIDE]),
        (resources.JOBS, job(true("Suspended")), ["x", "Suspended", "0/1", "", "60m", *WIDE]),
        (resources.JOBS, job(true("FailureTarget")), ["x", "FailureTarget", "0/1", "", "60m", *WIDE]),
        (resources.JOBS, {**job(), "metadata": {"deletionTimestamp": START}}, ["x", "Terminating", "0/1", "", "60m", *WIDE]),
        (resources.CRONJOBS, cron_job(), ["x", "@daily", "<none>", "False", 0, "<none>", "60m", "c,d", "i,j", "<none>"]),
        (resources.CRONJOBS, cron_job({"active": [{}], "lastScheduleTime": START}, timeZone="UTC", suspend=True),
         ["x", "@daily", "UTC", "True", 1, "30m", "60m", "c,d", "i,j", "<none>"]),
    ],
)  # fmt: skip
def test_cells(resource: Resource, obj: Any, expected: list[Any]) -> None:
    assert cells(resource, obj) == expected


def metric(kind: str, source: str, target: Any, **more: Any) -> Any:
    return {"type": kind, source: {**more, "target": target}}


CPU = metric("Resource", "resource", {"averageUtilization": 80}, name="cpu")
CPU_NOW = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}}


@pytest.mark.parametrize(
    ("metrics", "current", "text"),
    [
        ([], [], "<none>"),
        ([CPU], [], "cpu: <unknown>/80%"),
        ([CPU], [CPU_NOW], "cpu: 12%/80%"),
        ([metric("Resource", "resource", {"averageValue": "1Gi"}, name="memory")], [], "memory: <unknown>/1Gi"),
        ([metric("ContainerResource", "containerResource", {"averageUtilization": 5}, name="cpu", container="c")], [],
         "cpu: <unknown>/5%"),
        ([metric("Pods", "pods", {"averageValue": "10"})],
         [{"type": "Pods", "pods": {"current": {"averageValue": "3"}}}], "3/10"),
        ([metric("Object", "object", {"value": "10"})], [], "<unknown>/10"),
        ([metric("External", "external", {"averageValue": "10"})],
         [{"type": "External", "external": {"current": {"averageValue": "4"}}}], "4/10 (avg)"),
        ([CPU, CPU, CPU, CPU], [CPU_NOW], "cpu: 12%/80%, cpu: <unknown>/80% + 2 more..."),
    ],
)  # fmt: skip
def test_what_an_autoscaler_looks_at(metrics: Any, current: Any, text: str) -> None:
    spec = {
        "scaleTargetRef": {"kind": "Deployment", "name": "web"},
        "minReplicas": 1,
        "maxReplicas": 5,
        "metrics": metrics,
    }
    obj = {"spec": spec, "status": {"currentReplicas": 2, "currentMetrics": current}}
    expected = ["x", "Deployment/web", text, "1", 5, 2, "60m"]
    assert cells(resources.HORIZONTALPODAUTOSCALERS, obj) == expected
    v1 = conversion.shown(resources.HORIZONTALPODAUTOSCALERS_V1, {**obj, "metadata": {"name": "x"}})
    assert cells(resources.HORIZONTALPODAUTOSCALERS_V1, v1) == expected


def test_columns() -> None:
    def names(resource: Resource) -> list[str]:
        return [c.name for c in tables.columns(resource) if not c.priority]

    assert names(resources.DAEMONSETS) == [
        "Name", "Desired", "Current", "Ready", "Up-to-date", "Available", "Node Selector", "Age",
    ]  # fmt: skip
    assert names(resources.JOBS) == ["Name", "Status", "Completions", "Duration", "Age"]
    assert names(resources.CRONJOBS) == [
        "Name", "Schedule", "Timezone", "Suspend", "Active", "Last Schedule", "Age",
    ]  # fmt: skip
    assert names(resources.HORIZONTALPODAUTOSCALERS) == [
        "Name", "Reference", "Targets", "MinPods", "MaxPods", "Replicas", "Age",
    ]  # fmt: skip
