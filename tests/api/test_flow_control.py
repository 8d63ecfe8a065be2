"""FlowSchemas and PriorityLevelConfigurations: each case is a change of a good object and what upstream says about it."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api import flow_control, strategy, tables, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import FLOWSCHEMAS, PRIORITYLEVELCONFIGURATIONS, Resource

from .test_validation import changed, problems, ready

RULE: Object = {
    "subjects": [{"kind": "User", "user": {"name": "*"}}],
    "resourceRules": [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["default"]}
    ],
    "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}],
}
SCHEMA: Object = {
    "metadata": {"name": "mine"},
    "spec": {
        "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [RULE],
    },
}
LEVEL: Object = {
    "metadata": {"name": "mine"},
    "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}},
}
R, RR, NR = "spec/rules/0/", "spec/rules/0/resourceRules/0/", "spec/rules/0/nonResourceRules/0/"
SUBJECT, AT = R + "subjects/0", "spec.rules[0].subjects[0]"
LIM, Q = "spec/limited/", "spec/limited/limitResponse/queuing/"
FS, PL = FLOWSCHEMAS, PRIORITYLEVELCONFIGURATIONS
CASES: list[tuple[Resource, Object, str, object, list[str]]] = [
    (FS, SCHEMA, "spec/matchingPrecedence", -1, ["spec.matchingPrecedence: Invalid value: -1: must be a positive value"]),
    (FS, SCHEMA, "spec/matchingPrecedence", 10001, ["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"]),
    (FS, SCHEMA, "spec/matchingPrecedence", 1, ["spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1"]),
    (FS, SCHEMA, "spec/distinguisherMethod/type", "ByTea", ['spec.distinguisherMethod.type: Unsupported value: {"type":"ByTea"}: supported values: "ByNamespace", "ByUser"']),
    (FS, SCHEMA, "spec/priorityLevelConfiguration/name", "", ["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"]),
    (FS, SCHEMA, "spec/priorityLevelConfiguration/name", "A", ['spec.priorityLevelConfiguration.name: Invalid value: "A"']),
    (FS, SCHEMA, R + "subjects", [], ["spec.rules[0].subjects: Required value: subjects must contain at least one value"]),
    (FS, SCHEMA, SUBJECT, {"kind": "Robot"}, [AT + '.kind: Unsupported value: "Robot": supported values: "Group", "ServiceAccount", "User"']),
    (FS, SCHEMA, SUBJECT, {"kind": "User"}, [AT + ".user: Required value: user is required when subject kind is 'User'"]),
    (FS, SCHEMA, SUBJECT, {"kind": "Group", "group": {"name": "g"}, "user": {"name": "u"}}, [AT + ".user: Forbidden: user is forbidden when subject kind is not 'User'"]),
    (FS, SCHEMA, SUBJECT, {"kind": "ServiceAccount", "serviceAccount": {"name": "A", "namespace": ""}},
     [AT + '.serviceAccount.name: Invalid value: "A"', AT + ".serviceAccount.namespace: Required value: must specify namespace for service account"]),
    (FS, SCHEMA, "spec/rules/0", {"subjects": RULE["subjects"]}, ["spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty"]),
    (FS, SCHEMA, RR + "verbs", [], ["spec.rules[0].resourceRules[0].verbs: Required value: verbs must contain at least one value"]),
    (FS, SCHEMA, RR + "verbs", ["*", "get"], ["spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs"]),
    (FS, SCHEMA, RR + "verbs", ["sing"], ['spec.rules[0].resourceRules[0].verbs: Unsupported value: ["sing"]: supported values: "create"']),
    (FS, SCHEMA, RR + "apiGroups", [], ["spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group"]),
    (FS, SCHEMA, RR + "resources", ["*", "pods"], ["spec.rules[0].resourceRules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources"]),
    (FS, SCHEMA, RR + "namespaces", [], ["spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace"]),
    (FS, SCHEMA, RR + "namespaces", ["A"], ["spec.rules[0].resourceRules[0].namespaces[0]: Invalid value: \"A\": each member of this list must be '*' or a DNS-1123 label; a lowercase"]),
    (FS, SCHEMA, NR + "nonResourceURLs", ["api", "/a b", "/a//b", "/a*", "/*/x", "/"],
     ['spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "api": must start with slash',
      'spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/a b": must not contain white-space',
      'spec.rules[0].nonResourceRules[0].nonResourceURLs[2]: Invalid value: "/a//b": must not contain double slash',
      'spec.rules[0].nonResourceRules[0].nonResourceURLs[3]: Invalid value: "/a*": wildcard can only do suffix matching',
      'spec.rules[0].nonResourceRules[0].nonResourceURLs[4]: Invalid value: "/*/x": wildcard can only do suffix matching']),
    (FS, flow_control.MANDATORY_SCHEMAS["catch-all"], "spec/matchingPrecedence", 9999, ["spec: Invalid value: {"]),
    (PL, LEVEL, "spec/type", "Exempt", ["spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'", "spec.limited: Forbidden: must be nil if the type is not Limited"]),
    (PL, LEVEL, "spec/type", "Free", ['spec.type: Unsupported value: "Free": supported values: "Exempt", "Limited"']),
    (PL, LEVEL, "spec/limited", "~", ["spec.limited: Required value: must not be empty when type is Limited"]),
    (PL, LEVEL, "spec/exempt", {}, ["spec.exempt: Forbidden: must be nil if the type is Limited"]),
    (PL, LEVEL, LIM + "nominalConcurrencyShares", -1, ["spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer"]),
    (PL, LEVEL, LIM + "nominalConcurrencyShares", 0, []),
    (PL, LEVEL, LIM + "lendablePercent", 101, ["spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive"]),
    (PL, LEVEL, LIM + "borrowingLimitPercent", -1, ["spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer"]),
    (PL, LEVEL, LIM + "limitResponse", {"type": "Reject", "queuing": {}}, ["spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited"]),
    (PL, LEVEL, LIM + "limitResponse", {"type": "Queue"}, ["spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited"]),
    (PL, LEVEL, LIM + "limitResponse", {"type": ""}, ['spec.limited.limitResponse.type: Unsupported value: "": supported values: "Queue", "Reject"']),
    (PL, LEVEL, Q + "queues", 10000001, ["spec.limited.limitResponse.queuing.queues: Invalid value: 10000001: must not be greater than 10000000", "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits"]),
    (PL, LEVEL, Q + "handSize", 65, ["spec.limited.limitResponse.queuing.handSize: Invalid value: 65: should not be greater than queues (64)"]),
    (PL, LEVEL, Q + "handSize", 11, ["spec.limited.limitResponse.queuing.handSize: Invalid value: 11: required entropy bits of deckSize 64 and handSize 11 should not be greater than 60"]),
    (PL, LEVEL, Q + "queueLengthLimit", -1, ["spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive"]),
    (PL, flow_control.MANDATORY_LEVELS["exempt"], "spec/exempt/lendablePercent", 50, []),
    (PL, flow_control.MANDATORY_LEVELS["catch-all"], LIM + "lendablePercent", 50, ["spec: Invalid value: {"]),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "base", "path", "value", "expected"), CASES)
def test_create(resource: Resource, base: Object, path: str, value: object, expected: list[str]) -> None:
    assert problems(resource, base) == []
    found = problems(resource, changed(base, path, value))
    assert len(found) == len(expected), found
    for text, begins in zip(found, expected, strict=True):
        assert text.startswith(begins)


@pytest.mark.parametrize(
    ("resource", "known"),
    [
        (FS, flow_control.MANDATORY_SCHEMAS | flow_control.SUGGESTED_SCHEMAS),
        (PL, flow_control.MANDATORY_LEVELS | flow_control.SUGGESTED_LEVELS),
    ],
)
def test_what_every_cluster_has_is_right_and_complete(resource: Resource, known: dict[str, Object]) -> None:
    for name, obj in known.items():
        assert problems(resource, obj) == []
        assert ready(resource, obj)["spec"] == obj["spec"], name


def test_every_schema_names_a_level_that_is_there() -> None:
    levels = flow_control.MANDATORY_LEVELS.keys() | flow_control.SUGGESTED_LEVELS.keys()
    for schema in (flow_control.MANDATORY_SCHEMAS | flow_control.SUGGESTED_SCHEMAS).values():
        assert schema["spec"]["priorityLevelConfiguration"]["name"] in levels


def test_defaults() -> None:
    assert ready(FS, SCHEMA)["spec"]["matchingPrecedence"] == 1000
    limited = ready(PL, LEVEL)["spec"]["limited"]
    assert (limited["nominalConcurrencyShares"], limited["lendablePercent"]) == (30, 0)
    assert limited["limitResponse"]["queuing"] == {"handSize": 8, "queues": 64, "queueLengthLimit": 50}
    bare = {"metadata": {"name": "exempt"}, "spec": {"type": "Exempt"}}
    assert ready(PL, bare)["spec"] == flow_control.MANDATORY_LEVELS["exempt"]["spec"]


def test_generation_and_status() -> None:
    old = ready(FS, SCHEMA)
    assert (old["metadata"]["generation"], old["status"]) == (1, {})
    new = changed(
        changed(old, "spec/matchingPrecedence", 5), "status", {"conditions": [{"type": "Dangling"}]}
    )
    strategy.prepare_update(FS, new, old)
    assert (new["metadata"]["generation"], new["status"]) == (2, {})
    new = changed(old, "status", {"conditions": [{"type": "Dangling"}, {"type": "Dangling"}, {"type": ""}]})
    strategy.prepare_update(FS, new, old, "status")
    assert [str(p) for p in validation.update(FS, new, old, "status")] == [
        'status.conditions[1].type: Duplicate value: "Dangling"',
        "status.conditions[2].type: Required value: must not be empty",
    ]


ROWS: list[tuple[Resource, Object, list[Any]]] = [
    (FS, SCHEMA, ["mine", "global-default", 1000, "ByUser", "60m", "?"]),
    (FS, flow_control.MANDATORY_SCHEMAS["exempt"], ["exempt", "exempt", 1, "<none>", "60m", "?"]),
    (PL, LEVEL, ["mine", "Limited", 30, 64, 8, 50, "60m"]),
    (PL, flow_control.MANDATORY_LEVELS["exempt"], ["exempt", "Exempt", "<none>", "<none>", "<none>", "<none>", "60m"]),
    (PL, flow_control.MANDATORY_LEVELS["catch-all"], ["catch-all", "Limited", 5, "<none>", "<none>", "<none>", "60m"]),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "obj", "cells"), ROWS)
def test_rows(resource: Resource, obj: Object, cells: list[Any]) -> None:
    made = ready(resource, deep_copy(obj))
    made["metadata"]["creationTimestamp"] = "2025-12-31T23:00:00Z"
    assert tables.render(resource, [made], now=1767225600.0)["rows"][0]["cells"] == cells
