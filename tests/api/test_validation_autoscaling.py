"""The rules of HorizontalPodAutoscalers, and the same object as autoscaling/v1 has it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.api import conversion, decoding, schema, strategy, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import HORIZONTALPODAUTOSCALERS, HORIZONTALPODAUTOSCALERS_V1
from tests.api.test_validation import changed, problems, ready

TARGET: Object = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
V2, V1 = HORIZONTALPODAUTOSCALERS, HORIZONTALPODAUTOSCALERS_V1


def scaler(**spec: object) -> Object:
    return {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": TARGET, "maxReplicas": 5, **spec}}


def metric(kind: str, **source: object) -> list[Object]:
    return [{"type": kind, kind[0].lower() + kind[1:]: source}]


AVERAGE: Object = {"type": "AverageValue", "averageValue": "10"}
VALUE: Object = {"type": "Value", "value": "10"}
NAMED: Object = {"name": "queue"}
M = "spec.metrics[0]"
UP = "spec.behavior.scaleUp"

CASES: list[tuple[str, object, str]] = [
    ("spec/minReplicas", 0, "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"),
    ("spec/maxReplicas", 0, "spec.maxReplicas: Required value: must be set and greater than 0"),
    ("spec/maxReplicas", -1, "spec.maxReplicas: Invalid value: -1: must be greater than 0"),
    ("spec/minReplicas", 6, "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"),
    ("spec/scaleTargetRef", {"kind": "Deployment", "name": ""}, "spec.scaleTargetRef.name: Required value"),
    ("spec/scaleTargetRef", {"kind": "a/b", "name": "x"}, "spec.scaleTargetRef.kind: Invalid value: \"a/b\": may not contain '/'"),
    ("spec/scaleTargetRef", {"apiVersion": "v1", "kind": "Pod", "name": "x"},
     'spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group'),
    ("spec/scaleTargetRef", {"apiVersion": "a/b/c", "kind": "ReplicationController", "name": "x"},
     'spec.scaleTargetRef.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c'),
    ("spec/metrics", [{"type": "Disk"}], f'{M}.type: Unsupported value: "Disk": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"'),
    ("spec/metrics", [{"type": "Pods"}], f"{M}.pods: Required value: must populate information for the given metric source"),
    ("spec/metrics", [{**metric("Pods", metric=NAMED, target=AVERAGE)[0], "resource": {"name": "cpu", "target": AVERAGE}}],
     f"{M}.resource: Forbidden: must populate the given metric source only"),
    ("spec/metrics", metric("Resource", name="cpu", target={"type": "Utilization"}),
     f"{M}.resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"),
    ("spec/metrics", metric("Resource", name="cpu", target={**AVERAGE, "averageUtilization": 1}),
     f"{M}.resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization"),
    ("spec/metrics", metric("Resource", name="cpu", target={"type": "Utilization", "averageUtilization": 0}),
     f"{M}.resource.target.averageUtilization: Invalid value: 0: must be greater than 0"),
    ("spec/metrics", metric("Resource", name="cpu", target={"type": "Share", "averageUtilization": 5}),
     f'{M}.resource.target.type: Invalid value: "Share": must be either Utilization, Value, or AverageValue'),
    ("spec/metrics", metric("Resource", name="", target=AVERAGE), f"{M}.resource.name: Required value: must specify a resource name"),
    ("spec/metrics", metric("ContainerResource", name="cpu", container="", target=AVERAGE), f"{M}.containerResource.container: Required value: must specify a container"),
    ("spec/metrics", metric("Pods", metric={"name": ""}, target=AVERAGE), f"{M}.pods.metric.name: Required value: must specify a metric name"),
    ("spec/metrics", metric("Pods", metric=NAMED, target=VALUE), f"{M}.pods.target.averageValue: Required value: must specify a positive target averageValue"),
    ("spec/metrics", metric("Pods", metric=NAMED, target={**AVERAGE, "averageValue": "-1"}), f'{M}.pods.target.averageValue: Invalid value: "-1": must be positive'),
    ("spec/metrics", metric("Object", metric=NAMED, describedObject=TARGET, target={"type": "Value"}),
     f"{M}.object.target.averageValue: Required value: must set either a target value or averageValue"),
    ("spec/metrics", metric("External", metric=NAMED, target={"type": "Value", "value": "1", "averageValue": "1"}),
     f"{M}.external.target.value: Forbidden: may not set both a target value for metric and a per-pod target"),
    ("spec/behavior", {"scaleUp": {"policies": []}}, f"{UP}.policies: Required value: must specify at least one Policy"),
    ("spec/behavior", {"scaleUp": {"stabilizationWindowSeconds": 3601}}, f"{UP}.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600"),
    ("spec/behavior", {"scaleUp": {"selectPolicy": "Any"}}, f'{UP}.selectPolicy: Unsupported value: "Any": supported values: "Disabled", "Max", "Min"'),
    ("spec/behavior", {"scaleUp": {"tolerance": "-1"}}, f'{UP}.tolerance: Invalid value: "-1": must be greater than or equal to 0'),
    ("spec/behavior", {"scaleUp": {"policies": [{"type": "Node", "value": 0, "periodSeconds": 1801}]}},
     f"{UP}.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "text"), CASES)
def test_one_thing_wrong(path: str, value: object, text: str) -> None:
    found = problems(V2, changed(scaler(), path, value))
    assert any(text in p for p in found), found


def test_what_can_be_scaled() -> None:
    controller = scaler(scaleTargetRef={"apiVersion": "v1", "kind": "ReplicationController", "name": "x"})
    assert problems(V2, controller) == []
    # What is there already may stay.
    old = ready(V2, scaler(scaleTargetRef={"kind": "Deployment", "name": "x"}))
    assert validation.update(V2, changed(old, "spec/maxReplicas", 7), old) == []
    assert validation.update(V2, changed(old, "spec/scaleTargetRef/kind", "ReplicaSet"), old) != []


def test_defaults() -> None:
    obj = ready(V2, scaler(behavior={"scaleDown": {"stabilizationWindowSeconds": 60}}))
    assert validation.create(V2, obj) == []
    spec = obj["spec"]
    target = {"type": "Utilization", "averageUtilization": 80}
    assert spec["minReplicas"] == 1
    assert spec["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    percent = {"type": "Percent", "value": 100, "periodSeconds": 15}
    assert spec["behavior"]["scaleDown"] == {
        "stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [percent],
    }  # fmt: skip
    assert spec["behavior"]["scaleUp"]["policies"] == [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        percent,
    ]
    assert obj["status"] == {"desiredReplicas": 0}


def test_a_status_counts_no_less_than_nothing() -> None:
    old = ready(V2, scaler())
    new = {**deep_copy(old), "status": {"currentReplicas": -1, "desiredReplicas": 1}}
    strategy.prepare_update(V2, new, old, "status")
    (problem,) = validation.update(V2, new, old, "status")
    assert str(problem) == "status.currentReplicas: Invalid value: -1: must be greater than or equal to 0"


CPU = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
}
SELECTED: Object = {"name": "queue", "selector": {"matchLabels": {"a": "b"}}}
EVERYTHING: Object = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "h", "annotations": {"note": "kept"}},
    "spec": {
        "scaleTargetRef": TARGET,
        "minReplicas": 2,
        "maxReplicas": 5,
        "metrics": [
            CPU,
            *metric("Resource", name="memory", target={"type": "Utilization", "averageUtilization": 70}),
            *metric("Resource", name="cpu", target=AVERAGE),
            *metric("ContainerResource", name="cpu", container="c", target={"type": "Utilization", "averageUtilization": 1}),
            *metric("Pods", metric=SELECTED, target=AVERAGE),
            *metric("Object", metric=NAMED, describedObject=TARGET, target=VALUE),
            *metric("Object", metric=SELECTED, describedObject=TARGET, target=AVERAGE),
            *metric("External", metric=SELECTED, target=AVERAGE),
            *metric("External", metric=NAMED, target=VALUE),
        ],
        "behavior": {
            "scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}], "tolerance": "50m"},
            "scaleDown": {"stabilizationWindowSeconds": 9, "policies": [{"type": "Percent", "value": 1, "periodSeconds": 2}]},
        },
    },
    "status": {
        "currentReplicas": 2,
        "desiredReplicas": 3,
        "lastScaleTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 4,
        "currentMetrics": [
            *metric("Resource", name="cpu", current={"averageUtilization": 30, "averageValue": "10m"}),
            *metric("Object", metric=NAMED, describedObject=TARGET, current={"value": "3"}),
            *metric("External", metric=SELECTED, current={"averageValue": "3"}),
        ],
        "conditions": [{"type": "AbleToScale", "status": "True", "reason": "r", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    },
}  # fmt: skip


def test_nothing_is_lost_on_the_way_through_v1() -> None:
    before = deep_copy(EVERYTHING)
    shown = conversion.shown(V1, EVERYTHING)
    assert before == EVERYTHING
    assert decoding.check(schema.node(V1.definition), deep_copy(shown)) == []
    assert shown["apiVersion"] == "autoscaling/v1"
    assert shown["spec"] == {
        "scaleTargetRef": TARGET, "minReplicas": 2, "maxReplicas": 5, "targetCPUUtilizationPercentage": 50,
    }  # fmt: skip
    assert shown["status"] == {
        "currentReplicas": 2, "desiredReplicas": 3, "lastScaleTime": "2026-01-01T00:00:00Z", "observedGeneration": 4,
        "currentCPUUtilizationPercentage": 30,
    }  # fmt: skip
    notes = shown["metadata"]["annotations"]
    prefix = "autoscaling.alpha.kubernetes.io/"
    assert notes.keys() == {
        "note",
        *(prefix + n for n in ("metrics", "current-metrics", "conditions", "behavior")),
    }
    metrics = json.loads(notes[prefix + "metrics"])
    assert metrics[0] == {"type": "Resource", "resource": {"name": "memory", "targetAverageUtilization": 70}}
    assert metrics[4]["object"] == {"target": TARGET, "metricName": "queue", "targetValue": "10"}
    assert json.loads(notes[prefix + "behavior"])["ScaleUp"]["Policies"][0] == {
        "Type": "Pods",
        "Value": 4,
        "PeriodSeconds": 15,
    }
    assert conversion.kept(V1, V2, shown) == EVERYTHING


def test_what_a_v1_client_writes() -> None:
    given: Any = {**scaler(targetCPUUtilizationPercentage=20), "apiVersion": "autoscaling/v1"}
    stored = conversion.kept(V1, V2, given)
    assert stored["spec"]["metrics"][0]["resource"]["target"] == {
        "type": "Utilization",
        "averageUtilization": 20,
    }
    assert ready(V2, stored)["spec"]["minReplicas"] == 1
    broken = changed(given, "metadata/annotations", {"autoscaling.alpha.kubernetes.io/metrics": "no JSON"})
    assert conversion.kept(V1, V2, broken)["spec"]["metrics"] == stored["spec"]["metrics"]


def test_annotations_of_v1_are_none_in_v2() -> None:
    notes = {"autoscaling.alpha.kubernetes.io/behavior": "{}"}
    assert "annotations" not in ready(V2, changed(scaler(), "metadata/annotations", notes))["metadata"]
