"""LimitRanges and ResourceQuotas: each case is a change of a good object and what upstream says about it."""

from __future__ import annotations

import pytest

from sampan.api import defaults, strategy, tables, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import LIMITRANGES, RESOURCEQUOTAS, Resource

from .test_validation import changed, problems, ready

LIMITS: Object = {
    "metadata": {"name": "l"},
    "spec": {
        "limits": [
            {
                "type": "Container",
                "max": {"cpu": "2", "memory": "1Gi"},
                "min": {"cpu": "100m"},
                "default": {"cpu": "1"},
                "defaultRequest": {"cpu": "500m"},
                "maxLimitRequestRatio": {"cpu": "4"},
            },
            {"type": "Pod", "max": {"cpu": "4"}},
            {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
        ]
    },
}
QUOTA: Object = {
    "metadata": {"name": "q"},
    "spec": {
        "hard": {
            "pods": "10",
            "requests.cpu": "4",
            "limits.memory": "8Gi",
            "count/deployments.apps": "5",
            "requests.example.com/gpu": "2",
        }
    },
}
L0, S = "spec/limits/0/", "spec/scopeSelector/matchExpressions"
MATCH = "spec.scopeSelector.matchExpressions"
CASES: list[tuple[Resource, Object, str, object, list[str]]] = [
    (LIMITRANGES, LIMITS, "spec/limits", [], []),
    (LIMITRANGES, LIMITS, L0 + "type", "", ['spec.limits[0].type: Invalid value: "": name part must be non-empty', 'spec.limits[0].type: Invalid value: "": name part must consist of']),
    (LIMITRANGES, LIMITS, L0 + "type", "Node", ['spec.limits[0].type: Invalid value: "Node": must be a standard limit type or fully qualified']),
    (LIMITRANGES, LIMITS, "spec/limits/1/type", "example.com/x", []),
    (LIMITRANGES, LIMITS, "spec/limits/1/type", "Container", ['spec.limits[1].type: Duplicate value: "Container"']),
    (LIMITRANGES, LIMITS, "spec/limits/1/max/tea", "1",
     ['spec.limits[1].max[tea]: Invalid value: "tea": must be a standard resource type or fully qualified',
      'spec.limits[1].max[tea]: Invalid value: "tea": must be a standard resource for containers']),
    (LIMITRANGES, LIMITS, "spec/limits/1/default", {"cpu": "1"}, ["spec.limits[1].default: Forbidden: may not be specified when `type` is 'Pod'"]),
    (LIMITRANGES, LIMITS, "spec/limits/1/defaultRequest", {"cpu": "1"}, ["spec.limits[1].defaultRequest: Forbidden: may not be specified when `type` is 'Pod'"]),
    (LIMITRANGES, LIMITS, "spec/limits/2/max", {}, ["spec.limits[2].limits: Required value: either minimum or maximum storage value is required, but neither was provided"]),
    (LIMITRANGES, LIMITS, L0 + "min/memory", "2Gi",
     ['spec.limits[0].min[memory]: Invalid value: "2Gi": min value 2Gi is greater than max value 1Gi',
      'spec.limits[0].defaultRequest[memory]: Invalid value: "1Gi": min value 2Gi is greater than default request value 1Gi',
      'spec.limits[0].default[memory]: Invalid value: "2Gi": min value 2Gi is greater than default value 1Gi']),
    (LIMITRANGES, LIMITS, L0 + "defaultRequest/cpu", "50m",
     ['spec.limits[0].defaultRequest[cpu]: Invalid value: "50m": min value 100m is greater than default request value 50m']),
    (LIMITRANGES, LIMITS, L0 + "defaultRequest/cpu", "3",
     ['spec.limits[0].defaultRequest[cpu]: Invalid value: "3": default request value 3 is greater than max value 2',
      'spec.limits[0].defaultRequest[cpu]: Invalid value: "3": default request value 3 is greater than default limit value 1']),
    (LIMITRANGES, LIMITS, L0 + "default/cpu", "3", ['spec.limits[0].default[cpu]: Invalid value: "2": default value 3 is greater than max value 2']),
    (LIMITRANGES, LIMITS, L0 + "maxLimitRequestRatio/cpu", "500m", ['spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1']),
    (LIMITRANGES, LIMITS, L0 + "maxLimitRequestRatio/cpu", "21",
     ['spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "21": ratio 21 is greater than max/min = 20.000000']),
    (RESOURCEQUOTAS, QUOTA, "spec/hard", {}, []),
    (RESOURCEQUOTAS, QUOTA, "spec/hard/tea", "1",
     ['spec.hard[tea]: Invalid value: "tea": must be a standard resource type or fully qualified',
      'spec.hard[tea]: Invalid value: "tea": must be a standard resource for quota']),
    (RESOURCEQUOTAS, QUOTA, "spec/hard/storage", "1", ['spec.hard[storage]: Invalid value: "storage": must be a standard resource for quota']),
    (RESOURCEQUOTAS, QUOTA, "spec/hard/pods", "-1", ['spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0']),
    (RESOURCEQUOTAS, QUOTA, "spec/hard/pods", "1500m", ['spec.hard[pods]: Invalid value: "1500m": must be an integer']),
    (RESOURCEQUOTAS, QUOTA, "spec/hard/services.nodeports", "100m", ['spec.hard[services.nodeports]: Invalid value: "100m": must be an integer']),
    (RESOURCEQUOTAS, QUOTA, "spec/hard/requests.hugepages-2Mi", "4Mi", []),
    (RESOURCEQUOTAS, QUOTA, "spec/scopes", ["Terminating"], []),
    (RESOURCEQUOTAS, QUOTA, "spec/scopes", ["Sometimes"], ['spec.scopes: Invalid value: ["Sometimes"]: unsupported scope']),
    (RESOURCEQUOTAS, QUOTA, "spec/scopes", ["BestEffort"], ['spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource']),
    (RESOURCEQUOTAS, QUOTA, "spec/scopes", ["Terminating", "NotTerminating"],
     ['spec.scopes: Invalid value: ["Terminating","NotTerminating"]: conflicting scopes']),
    (RESOURCEQUOTAS, QUOTA, S, [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}], []),
    (RESOURCEQUOTAS, QUOTA, S, [{"scopeName": "PriorityClass", "operator": "In"}],
     [MATCH + ".values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"]),
    (RESOURCEQUOTAS, QUOTA, S, [{"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]}],
     [MATCH + ".values: Invalid value: [\"a\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"]),
    (RESOURCEQUOTAS, QUOTA, S, [{"scopeName": "PriorityClass", "operator": "Is"}], [MATCH + '.operator: Invalid value: "Is": not a valid selector operator']),
    (RESOURCEQUOTAS, QUOTA, S, [{"scopeName": "Terminating", "operator": "DoesNotExist"}], [MATCH + ".operator: Invalid value: \"DoesNotExist\": must be 'Exists' when scope is any of"]),
    (RESOURCEQUOTAS, QUOTA, S, [{"scopeName": "Never", "operator": "Exists"}], [MATCH + '.scopeName: Invalid value: "Never": unsupported scope']),
    (RESOURCEQUOTAS, QUOTA, S, [{"scopeName": "VolumeAttributesClass", "operator": "Exists"}], [MATCH + ": Invalid value: {"]),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "base", "path", "value", "expected"), CASES)
def test_create(resource: Resource, base: Object, path: str, value: object, expected: list[str]) -> None:
    assert problems(resource, base) == []
    found = problems(resource, changed(base, path, value))
    assert len(found) == len(expected), found
    for text, begins in zip(found, expected, strict=True):
        assert text.startswith(begins)


def test_default_and_request_of_what_cannot_be_overcommitted_are_equal() -> None:
    obj = changed(LIMITS, L0 + "default", {"example.com/gpu": "2"})
    obj["spec"]["limits"][0]["defaultRequest"] = {"example.com/gpu": "1"}
    obj["spec"]["limits"][0]["min"] = {}
    assert problems(LIMITRANGES, obj) == [
        'spec.limits[0].defaultRequest[example.com/gpu]: Invalid value: "1": '
        "default value 2 must equal to defaultRequest value 1 in example.com/gpu"
    ]


@pytest.mark.parametrize(
    ("given", "default", "asked"),
    [
        ({"max": {"cpu": "2"}}, {"cpu": "2"}, {"cpu": "2"}),
        ({"min": {"cpu": "1"}}, None, {"cpu": "1"}),
        ({"max": {"cpu": "2"}, "min": {"cpu": "1"}}, {"cpu": "2"}, {"cpu": "2"}),
        ({"max": {"cpu": "2"}, "default": {"cpu": "1"}}, {"cpu": "1"}, {"cpu": "1"}),
        ({"default": {"cpu": "2"}, "defaultRequest": {"cpu": "1"}}, {"cpu": "2"}, {"cpu": "1"}),
    ],
)
def test_defaults_of_containers(given: Object, default: Object | None, asked: Object) -> None:
    obj: Object = {"spec": {"limits": [{"type": "Container", **given}, {"type": "Pod", **deep_copy(given)}]}}
    defaults.apply(LIMITRANGES, obj)
    container, pod = obj["spec"]["limits"]
    assert (container.get("default"), container.get("defaultRequest")) == (default, asked)
    assert pod == {"type": "Pod", **given}


def test_the_status_of_a_quota_is_its_controllers() -> None:
    old = ready(RESOURCEQUOTAS, {**QUOTA, "status": {"used": {"pods": "3"}}})
    assert old["status"] == {}
    assert "generation" not in old["metadata"]
    new = changed(changed(old, "spec/hard/pods", "3"), "status", {"used": {"pods": "1"}})
    strategy.prepare_update(RESOURCEQUOTAS, new, old)
    assert (new["spec"]["hard"]["pods"], new["status"]) == ("3", {})
    new = changed(changed(old, "spec/hard/pods", "3"), "status", {"used": {"pods": "1", "tea": "1"}})
    strategy.prepare_update(RESOURCEQUOTAS, new, old, "status")
    assert new["spec"] == old["spec"]
    assert [str(p) for p in validation.update(RESOURCEQUOTAS, new, old, "status")] == [
        'status.used[tea]: Invalid value: "tea": must be a standard resource type or fully qualified',
        'status.used[tea]: Invalid value: "tea": must be a standard resource for quota',
    ]


def test_the_scopes_of_a_quota_stay() -> None:
    old = ready(RESOURCEQUOTAS, QUOTA)
    new = changed(old, "spec/scopes", ["Terminating"])
    assert [str(p) for p in validation.update(RESOURCEQUOTAS, new, old)] == [
        'spec.scopes: Invalid value: ["Terminating"]: field is immutable'
    ]


def test_table() -> None:
    status = {
        "hard": {"pods": "10", "limits.cpu": "2", "requests.cpu": "1"},
        "used": {"pods": "3", "limits.cpu": "500m"},
    }
    obj = {"metadata": {"name": "q", "creationTimestamp": "2025-12-31T23:00:00Z"}, "status": status}
    made = tables.render(RESOURCEQUOTAS, [obj], now=1767225600.0)
    assert [c["name"] for c in made["columnDefinitions"]] == ["Name", "Request", "Limit", "Age"]
    assert made["rows"][0]["cells"] == ["q", "pods: 3/10, requests.cpu: 0/1", "limits.cpu: 500m/2", "60m"]
    made = tables.render(LIMITRANGES, [obj], now=1767225600.0)
    assert [c["name"] for c in made["columnDefinitions"]] == ["Name", "Created At"]
