"""The kinds of resource.k8s.io: each case is a change of a good object and what upstream says about it."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api import decoding, defaults, schema, selectors, strategy, support, tables, validation
from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import (
    DEVICECLASSES,
    RESOURCECLAIMS,
    RESOURCECLAIMTEMPLATES,
    RESOURCESLICES,
    Resource,
)

from .test_validation import changed, problems, ready

CEL = {"cel": {"expression": 'device.driver == "gpu.example.com"'}}
OPAQUE = {"opaque": {"driver": "gpu.example.com", "parameters": {"a": 1}}}
CLASS: Object = {"metadata": {"name": "gpu.example.com"}, "spec": {"selectors": [CEL], "config": [OPAQUE]}}
CLAIM: Object = {
    "metadata": {"name": "c"},
    "spec": {
        "devices": {
            "requests": [
                {"name": "one", "exactly": {"deviceClassName": "gpu.example.com", "selectors": [CEL]}},
                {
                    "name": "either",
                    "firstAvailable": [
                        {"name": "big", "deviceClassName": "big", "count": 2},
                        {"name": "small", "deviceClassName": "small"},
                    ],
                },
            ],
            "constraints": [{"requests": ["one", "either/big"], "matchAttribute": "gpu.example.com/numa"}],
            "config": [{"requests": ["either"], **OPAQUE}],
        }
    },
}
TEMPLATE: Object = {
    "metadata": {"name": "t"},
    "spec": {"metadata": {"labels": {"a": "b"}}, "spec": CLAIM["spec"]},
}
SLICE: Object = {
    "metadata": {"name": "n1-gpu"},
    "spec": {
        "driver": "gpu.example.com",
        "nodeName": "n1",
        "pool": {"name": "n1/left", "generation": 1, "resourceSliceCount": 1},
        "devices": [
            {
                "name": "gpu-0",
                "attributes": {"model": {"string": "x"}, "gpu.example.com/version": {"version": "1.2.3-a+b"}},
                "capacity": {"memory": {"value": "10Gi"}},
            }
        ],
    },
}
SHARED: Object = changed(
    changed(SLICE, "spec/devices/0/allowMultipleAllocations", True),
    "spec/devices/0/capacity/memory/requestPolicy",
    {"default": "1Gi", "validRange": {"min": "1Gi", "max": "9Gi", "step": "2Gi"}},
)
R, F, D = "spec/devices/requests/", "spec/devices/requests/1/firstAvailable/", "spec/devices/0/"
POLICY = D + "capacity/memory/requestPolicy"
E = "exactly one of `exactly` or `firstAvailable` is required"
REF = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
CASES: list[tuple[Resource, Object, str, object, list[str]]] = [
    (DEVICECLASSES, CLASS, "spec/selectors/0", {}, ["spec.selectors[0].cel: Required value"]),
    (DEVICECLASSES, CLASS, "spec/selectors/0/cel/expression", "x" * 10241, ["spec.selectors[0].cel.expression: Too long: may not be more than 10240 bytes"]),
    (DEVICECLASSES, CLASS, "spec/selectors", [CEL] * 33, ["spec.selectors: Too many: 33: must have at most 32 items"]),
    (DEVICECLASSES, CLASS, "spec/config/0", {}, ["spec.config[0].opaque: Required value"]),
    (DEVICECLASSES, CLASS, "spec/config/0/opaque/driver", "", ["spec.config[0].opaque.driver: Required value", 'spec.config[0].opaque.driver: Invalid value: ""']),
    (DEVICECLASSES, CLASS, "spec/config/0/opaque/driver", "GPU.Example.com", []),
    (DEVICECLASSES, CLASS, "spec/config/0/opaque/parameters", [1], ['spec.config[0].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object']),
    (DEVICECLASSES, CLASS, "spec/config/0/opaque/parameters", {"a": "x" * 10240}, ["spec.config[0].opaque.parameters: Too long: may not be more than 10240 bytes"]),
    (DEVICECLASSES, CLASS, "spec/extendedResourceName", "example.com/gpu", []),
    (DEVICECLASSES, CLASS, "spec/extendedResourceName", "cpu", ['spec.extendedResourceName: Invalid value: "cpu": must be a valid extended resource name']),
    (RESOURCECLAIMS, CLAIM, R + "0/exactly", "~", ["spec.devices.requests[0]: Required value: " + E]),
    (RESOURCECLAIMS, CLAIM, R + "1/exactly", {"deviceClassName": "a"}, [f"spec.devices.requests[1]: Invalid value: null: {E}, but multiple fields are set"]),
    (RESOURCECLAIMS, CLAIM, R + "0/name", "One", ['spec.devices.requests[0].name: Invalid value: "One"', 'spec.devices.constraints[0].requests[0]: Invalid value: "one": ' + REF]),
    (RESOURCECLAIMS, CLAIM, R + "1/name", "one", ['spec.devices.requests[1]: Duplicate value: "one"', "spec.devices.constraints[0].requests[1]", "spec.devices.config[0].requests[0]"]),
    (RESOURCECLAIMS, CLAIM, R + "0/exactly/deviceClassName", "", ["spec.devices.requests[0].exactly.deviceClassName: Required value"]),
    (RESOURCECLAIMS, CLAIM, R + "0/exactly/count", -1, ["spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero"]),
    (RESOURCECLAIMS, CLAIM, R + "0/exactly/allocationMode", "Some", ['spec.devices.requests[0].exactly.allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount"']),
    (RESOURCECLAIMS, CLAIM, F + "0/allocationMode", "All", ["spec.devices.requests[1].firstAvailable[0].count: Invalid value: 2: must not be specified when allocationMode is 'All'"]),
    (RESOURCECLAIMS, CLAIM, F + "1/name", "big", ['spec.devices.requests[1].firstAvailable[1]: Duplicate value: "big"']),
    (RESOURCECLAIMS, CLAIM, R + "0/exactly/tolerations", [{"key": "a", "operator": "Exists", "value": "b"}, {"operator": "Like", "effect": "PreferNoSchedule"}],
     ['spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: "b": must be empty for operator `Exists`',
      'spec.devices.requests[0].exactly.tolerations[1].operator: Unsupported value: "Like": supported values: "Equal", "Exists"',
      'spec.devices.requests[0].exactly.tolerations[1].effect: Unsupported value: "PreferNoSchedule": supported values: "NoExecute", "NoSchedule", "None"']),
    (RESOURCECLAIMS, CLAIM, "spec/devices/constraints/0/requests", ["either/tiny", "a/b/c", "one", "one"],
     ['spec.devices.constraints[0].requests[0]: Invalid value: "either/tiny": ' + REF, 'spec.devices.constraints[0].requests[1]: Invalid value: "a/b/c": ' + REF,
      'spec.devices.constraints[0].requests[3]: Duplicate value: "one"']),
    (RESOURCECLAIMS, CLAIM, "spec/devices/constraints/0/matchAttribute", "numa",
     ['spec.devices.constraints[0].matchAttribute: Invalid value: "numa": a fully qualified name must be a domain and a name separated by a slash']),
    (RESOURCECLAIMS, CLAIM, "spec/devices/constraints/0/matchAttribute", "a.b/c/d", ['spec.devices.constraints[0].matchAttribute: Invalid value: "a.b/c/d": must not contain more than one slash']),
    (RESOURCECLAIMS, CLAIM, "spec/devices/constraints/0", {}, ['spec.devices.constraints[0]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is required']),
    (RESOURCECLAIMS, CLAIM, "spec/devices", {}, []),
    (RESOURCECLAIMTEMPLATES, TEMPLATE, "spec/metadata/labels", {"a b": ""}, ['spec.metadata.labels: Invalid value: "a b"']),
    (RESOURCECLAIMTEMPLATES, TEMPLATE, "spec/spec/devices/requests/0/exactly", "~", ["spec.spec.devices.requests[0]: Required value: " + E]),
    (RESOURCESLICES, SLICE, "spec/driver", "a_b", ['spec.driver: Invalid value: "a_b": a lowercase RFC 1123 subdomain must consist of']),
    (RESOURCESLICES, SLICE, "spec/pool", {"name": "", "generation": -1, "resourceSliceCount": 0},
     ["spec.pool.name: Required value", "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero", "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero"]),
    (RESOURCESLICES, SLICE, "spec/nodeName", "~", ["spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"]),
    (RESOURCESLICES, SLICE, "spec/allNodes", True, ['spec: Invalid value: "{`nodeName`, `allNodes`}": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set']),
    (RESOURCESLICES, SLICE, "spec/allNodes", False, ["spec.allNodes: Invalid value: false: must be either unset or set to true"]),
    (RESOURCESLICES, changed(SLICE, "spec/nodeName", "~"), "spec/nodeSelector", {"nodeSelectorTerms": []},
     ["spec.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector term", "spec.nodeSelector.nodeSelectorTerms: Invalid value: []: must have exactly one node selector term"]),
    (RESOURCESLICES, SLICE, "spec/sharedCounters", [{"name": "s", "counters": {"c": {"value": "1"}}}], ['spec: Invalid value: "": only one of `sharedCounters` or `devices` is allowed']),
    (RESOURCESLICES, changed(SLICE, "spec/devices", "~"), "spec/sharedCounters", [{"name": "", "counters": {}}], ["spec.sharedCounters[0].name: Required value", "spec.sharedCounters[0].counters: Required value"]),
    (RESOURCESLICES, SLICE, "spec/devices", [{"name": "a"}] * 2, ['spec.devices[1]: Duplicate value: "a"']),
    (RESOURCESLICES, SLICE, "spec/devices", [{"name": f"d{i}"} for i in range(129)], ["spec.devices: Too many: 129: must have at most 128 items"]),
    (RESOURCESLICES, SLICE, "spec/devices", [{"name": f"d{i}", "taints": [{"key": "a", "effect": "NoSchedule"}]} for i in range(65)], ["spec.devices: Too many: 65: must have at most 64 items"]),
    (RESOURCESLICES, SLICE, D + "attributes", {f"a{i}": {"int": 1} for i in range(32)}, ["spec.devices[0]: Invalid value: 33: the total number of attributes and capacities must not exceed 32"]),
    (RESOURCESLICES, SLICE, D + "attributes", {"1a": {"int": 1}}, ['spec.devices[0].attributes: Invalid value: "1a": a valid C identifier must start with alphabetic character or']),
    (RESOURCESLICES, SLICE, D + "attributes", {"a": {}}, ['spec.devices[0].attributes[a]: Invalid value: "": exactly one value must be specified']),
    (RESOURCESLICES, SLICE, D + "attributes", {"a": {"int": 1, "bool": False}}, ['spec.devices[0].attributes[a]: Invalid value: {"int":1,"bool":false}: exactly one value must be specified']),
    (RESOURCESLICES, SLICE, D + "attributes", {"a": {"version": "1.2"}}, ['spec.devices[0].attributes[a].version: Invalid value: "1.2": must be a string compatible with semver.org spec 2.0.0']),
    (RESOURCESLICES, SLICE, D + "attributes", {"a": {"string": "x" * 65}}, ["spec.devices[0].attributes[a].string: Too long: may not be more than 64 bytes"]),
    (RESOURCESLICES, SLICE, D + "taints", [{"key": "", "effect": ""}], ["spec.devices[0].taints[0].key: Invalid value: \"\": name part must be non-empty", "spec.devices[0].taints[0].key", "spec.devices[0].taints[0].effect: Required value"]),
    (RESOURCESLICES, SLICE, D + "nodeName", "n1", ["spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"]),
    (RESOURCESLICES, changed(changed(SLICE, "spec/nodeName", "~"), "spec/perDeviceNodeSelection", True), D + "name", "gpu-0",
     ["spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"]),
    (RESOURCESLICES, SLICE, D + "bindingConditions", ["a"], ["spec.devices[0].bindingFailureConditions: Invalid value: []: bindingFailureConditions are required to use bindingConditions"]),
    (RESOURCESLICES, SLICE, D + "consumesCounters", [{"counterSet": "s", "counters": {"A": {"value": "1"}}}], ['spec.devices[0].consumesCounters[0].counters: Invalid value: "A"']),
    (RESOURCESLICES, SHARED, D + "allowMultipleAllocations", False, ["spec.devices[0].capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true"]),
    (RESOURCESLICES, SHARED, POLICY + "/validRange/step", "3Gi", ['spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: "9Gi": value is not a multiple of a given step (3Gi) from (1Gi)']),
    (RESOURCESLICES, SHARED, POLICY + "/validRange/max", "11Gi", ['spec.devices[0].capacity[memory].requestPolicy.validRange.max: Invalid value: "11Gi": max is larger than capacity value: 10Gi']),
    (RESOURCESLICES, SHARED, POLICY, {"validValues": ["1Gi"]}, ["spec.devices[0].capacity[memory].requestPolicy.default: Required value: required when validValues is defined"]),
    (RESOURCESLICES, SHARED, POLICY, {"default": "3Gi", "validValues": ["2Gi", "1Gi", "20Gi"]},
     ['spec.devices[0].capacity[memory].requestPolicy.validValues[1]: Invalid value: "1Gi": values must be sorted in ascending order',
      'spec.devices[0].capacity[memory].requestPolicy.validValues[2]: Invalid value: "20Gi": option is larger than capacity value: 10Gi',
      'spec.devices[0].capacity[memory].requestPolicy.validValues: Invalid value: "3Gi": default value is not valid according to the requestPolicy']),
]  # fmt: skip


@pytest.mark.parametrize(
    ("resource", "obj"),
    [
        (DEVICECLASSES, CLASS),
        (RESOURCECLAIMS, CLAIM),
        (RESOURCECLAIMTEMPLATES, TEMPLATE),
        (RESOURCESLICES, SLICE),
        (RESOURCESLICES, SHARED),
    ],
)
def test_good_objects(resource: Resource, obj: Object) -> None:
    assert problems(resource, obj) == []


@pytest.mark.parametrize(("resource", "obj", "path", "value", "texts"), CASES)
def test_rules(resource: Resource, obj: Object, path: str, value: object, texts: list[str]) -> None:
    given = changed(obj, path, value)
    decoding.check(schema.node(resource.definition), given)
    if resource.namespaced:
        given["metadata"].setdefault("namespace", "default")
    defaults.apply(resource, given)
    strategy.prepare_create(resource, given)
    found = [str(p) for p in validation.create(resource, given)]
    assert len(found) == len(texts), found
    for said, text in zip(found, texts, strict=True):
        assert said.startswith(text)


@pytest.mark.parametrize(
    ("resource", "obj", "path", "value", "texts"),
    [
        (DEVICECLASSES, CLASS, "spec/selectors", [], []),
        (RESOURCECLAIMS, CLAIM, "spec/devices/config", [], ["spec: Invalid value: "]),
        (RESOURCECLAIMS, CLAIM, "metadata/labels", {"a": "b"}, []),
        (RESOURCECLAIMTEMPLATES, TEMPLATE, "spec/metadata/labels", {}, ["spec: Invalid value: "]),
        (RESOURCESLICES, SLICE, "spec/pool/name", "other", ['spec.pool.name: Invalid value: "other": field is immutable']),
        (RESOURCESLICES, SLICE, "spec/driver", "a.b", ['spec.driver: Invalid value: "a.b": field is immutable']),
        (RESOURCESLICES, SLICE, "spec/nodeName", "n2", ['spec.nodeName: Invalid value: "n2": field is immutable']),
        (RESOURCESLICES, SLICE, "spec/devices", [], []),
    ],
)  # fmt: skip
def test_updates(resource: Resource, obj: Object, path: str, value: object, texts: list[str]) -> None:
    old = ready(resource, obj)
    assert validation.update(resource, deep_copy(old), old) == []
    new = changed(old, path, value)
    strategy.prepare_update(resource, new, old)
    found = [str(p) for p in validation.update(resource, new, old)]
    assert len(found) == len(texts), found
    for said, text in zip(found, texts, strict=True):
        assert said.startswith(text)


# ---- the status of a claim

RESULT = {"request": "one", "driver": "gpu.example.com", "pool": "n1", "device": "gpu-0"}
DEVICE = {"driver": "gpu.example.com", "pool": "n1", "device": "gpu-0"}
USER = {"resource": "pods", "name": "p", "uid": "u1"}
ALLOCATED = {"allocation": {"devices": {"results": [RESULT]}}}
TIME = "2026-01-01T00:00:00Z"


def status_problems(status: Object, before: Object | None = None, **metadata: Any) -> list[str]:
    old = ready(RESOURCECLAIMS, CLAIM)
    old["status"] = before or {}
    old["metadata"].update(metadata)
    new = deep_copy(old)
    new["status"] = deep_copy(status)
    assert decoding.check(schema.node(RESOURCECLAIMS.definition), new) == []
    defaults.apply(RESOURCECLAIMS, new)
    strategy.prepare_update(RESOURCECLAIMS, new, old, "status")
    return [str(p) for p in validation.update(RESOURCECLAIMS, new, old, "status")]


@pytest.mark.parametrize(
    ("status", "before", "texts"),
    [
        (ALLOCATED, {}, []),
        ({**ALLOCATED, "reservedFor": [USER]}, ALLOCATED, []),
        ({"reservedFor": [USER]}, {}, ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]),
        ({**ALLOCATED, "reservedFor": [USER, USER]}, {}, ['status.reservedFor[1]: Duplicate value: "u1"']),
        ({**ALLOCATED, "reservedFor": [{"resource": "", "name": "", "uid": ""}]}, {},
         ["status.reservedFor[0].resource: Required value", "status.reservedFor[0].name: Required value", "status.reservedFor[0].uid: Required value"]),
        ({"allocation": {"devices": {"results": []}}}, ALLOCATED, ["status.allocation: Invalid value: "]),
        ({}, ALLOCATED, []),
        ({"allocation": {"devices": {"results": [{**RESULT, "request": "two"}]}}}, {}, [f'status.allocation.devices.results[0].request: Invalid value: "two": {REF}']),
        ({"allocation": {"devices": {"config": [{"source": "FromPod", **OPAQUE}]}}}, {},
         ['status.allocation.devices.config[0].source: Unsupported value: "FromPod": supported values: "FromClaim", "FromClass"']),
        ({**ALLOCATED, "devices": [{**DEVICE, "networkData": {"interfaceName": "eth1", "ips": ["10.0.0.5/24"]}}]}, ALLOCATED, []),
        ({**ALLOCATED, "devices": [{**DEVICE, "device": "gpu-1"}]}, ALLOCATED, ['status.devices[0]: Invalid value: "gpu.example.com/n1/gpu-1": must be an allocated device in the claim']),
        ({**ALLOCATED, "devices": [{**DEVICE, "networkData": {"ips": ["10.0.0.5"]}}]}, ALLOCATED, ['status.devices[0].networkData.ips[0]: Invalid value: "10.0.0.5": must be a valid address in CIDR form']),
        ({**ALLOCATED, "devices": [{**DEVICE, "conditions": [{"type": "Ready", "status": "Yes", "reason": "a b", "message": "", "lastTransitionTime": TIME}]}]}, ALLOCATED,
         ['status.devices[0].conditions[0].status: Unsupported value: "Yes": supported values: "False", "True", "Unknown"',
          'status.devices[0].conditions[0].reason: Invalid value: "a b": a condition reason must start with alphabetic character']),
        ({"allocation": {"devices": {"results": [{**RESULT, "shareID": "x"}]}}}, {}, ['status.allocation.devices.results[0].shareID: Invalid value: "x": error validating uid']),
    ],
)  # fmt: skip
def test_status(status: Object, before: Object, texts: list[str]) -> None:
    found = status_problems(status, before)
    assert len(found) == len(texts), found
    for said, text in zip(found, texts, strict=True):
        assert said.startswith(text)


def test_nobody_joins_a_claim_that_is_to_go() -> None:
    before = {**ALLOCATED, "reservedFor": [USER]}
    more = {**before, "reservedFor": [USER, {**USER, "uid": "u2"}]}
    assert status_problems(before, before, deletionTimestamp=TIME) == []
    assert status_problems(more, before, deletionTimestamp=TIME) == [
        "status.reservedFor: Forbidden: new entries may not be added while `deallocationRequested` or "
        "`deletionTimestamp` are set"
    ]


def test_what_was_told_of_a_device_goes_with_its_allocation() -> None:
    old = ready(RESOURCECLAIMS, CLAIM)
    assert old["status"] == {}
    old["status"] = {**ALLOCATED, "devices": [DEVICE]}
    new = deep_copy(old)
    del new["status"]["allocation"]
    strategy.prepare_update(RESOURCECLAIMS, new, old, "status")
    assert new["status"] == {}


# ---- defaults, generations, warnings, selectors, tables


def test_defaults() -> None:
    claim = ready(RESOURCECLAIMS, changed(CLAIM, R + "0/exactly/tolerations", [{"key": "a"}]))
    one, either = claim["spec"]["devices"]["requests"]
    assert (one["exactly"]["allocationMode"], one["exactly"]["count"]) == ("ExactCount", 1)
    assert one["exactly"]["tolerations"] == [{"key": "a", "operator": "Equal"}]
    assert [a["count"] for a in either["firstAvailable"]] == [2, 1]
    everything = ready(RESOURCECLAIMS, changed(CLAIM, R + "0/exactly/allocationMode", "All"))
    assert "count" not in everything["spec"]["devices"]["requests"][0]["exactly"]
    template = ready(RESOURCECLAIMTEMPLATES, TEMPLATE)
    assert template["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"] == 1
    tainted = ready(RESOURCESLICES, changed(SLICE, D + "taints", [{"key": "a", "effect": "None"}]))
    assert tainted["spec"]["devices"][0]["taints"][0]["timeAdded"]


@pytest.mark.parametrize(
    ("resource", "obj", "generation"),
    [
        (DEVICECLASSES, CLASS, 2),
        (RESOURCESLICES, SLICE, 2),
        (RESOURCECLAIMS, CLAIM, None),
        (RESOURCECLAIMTEMPLATES, TEMPLATE, None),
    ],
)
def test_generations(resource: Resource, obj: Object, generation: int | None) -> None:
    old = ready(resource, obj)
    new = changed(old, "spec/x", "y")
    strategy.prepare_update(resource, new, old)
    assert new["metadata"].get("generation") == generation


def test_expressions_are_stored_with_a_warning() -> None:
    said = "{}: CEL expressions are not compiled here: it is stored as it is, right or wrong"
    for resource, obj, path in (
        (DEVICECLASSES, CLASS, "spec.selectors[0].cel.expression"),
        (RESOURCECLAIMS, CLAIM, "spec.devices.requests[0].exactly.selectors[0].cel.expression"),
        (RESOURCECLAIMTEMPLATES, TEMPLATE, "spec.spec.devices.requests[0].exactly.selectors[0].cel.expression"),
    ):  # fmt: skip
        warnings, refusals = support.unsupported(resource, ready(resource, obj))
        assert said.format(path) in warnings
        assert any("dynamic resource allocation is not implemented" in w for w in warnings)
        assert refusals == []
    warnings, _ = support.unsupported(RESOURCESLICES, changed(SLICE, "spec/driver", "GPU.example.com"))
    assert (
        'spec.driver: driver names should be lowercase; "GPU.example.com" contains uppercase characters'
        in warnings
    )


def test_slices_are_selected_by_node_and_driver() -> None:
    fields = selectors.fields_of(RESOURCESLICES, SLICE)
    for text, matches in (
        ("spec.nodeName=n1", True),
        ("spec.nodeName=n1,spec.driver!=gpu.example.com", False),
        ("spec.nodeName=", False),
    ):
        assert selectors.parse_fields(RESOURCESLICES, text).matches(fields) is matches
    with pytest.raises(StatusError, match="field label not supported"):
        selectors.parse_fields(RESOURCESLICES, "spec.pool=a")


@pytest.mark.parametrize(
    ("resource", "obj", "row"),
    [
        (DEVICECLASSES, CLASS, ["gpu.example.com", "60m"]),
        (RESOURCECLAIMTEMPLATES, TEMPLATE, ["t", "60m"]),
        (RESOURCECLAIMS, CLAIM, ["c", "pending", "60m"]),
        (RESOURCECLAIMS, {**CLAIM, "status": ALLOCATED}, ["c", "allocated", "60m"]),
        (RESOURCECLAIMS, {**CLAIM, "status": {**ALLOCATED, "reservedFor": [USER]}}, ["c", "allocated,reserved", "60m"]),
        (RESOURCECLAIMS, changed(CLAIM, "metadata/deletionTimestamp", TIME), ["c", "deleted", "60m"]),
        (RESOURCESLICES, SLICE, ["n1-gpu", "n1", "gpu.example.com", "n1/left", "60m"]),
    ],
)  # fmt: skip
def test_rows(resource: Resource, obj: Object, row: list[Any]) -> None:
    given = changed(obj, "metadata/creationTimestamp", "2025-12-31T23:00:00Z")
    assert tables.render(resource, [given], now=1767225600.0)["rows"][0]["cells"] == row
