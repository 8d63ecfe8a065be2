"""Events of both groups (in the form in which they are stored), Leases, EndpointSlices and bindings."""

from __future__ import annotations

import pytest

from sampan.api import conversion, strategy, support, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import BINDINGS, ENDPOINTSLICES, EVENTS, EVENTS_V1, LEASES, Resource

from .test_validation import SLICE, changed, problems, ready

TIME = "2026-01-01T00:00:00.000000Z"
OLD: Object = {"metadata": {"name": "e"}, "involvedObject": {"namespace": "default", "name": "p"}, "type": "Odd"}  # fmt: skip
NEW: Object = {
    "metadata": {"name": "e", "namespace": "default"},
    "regarding": {"namespace": "default", "name": "p"},
    "eventTime": TIME,
    "reportingController": "a.b/c",
    "reportingInstance": "c-1",
    "action": "Act",
    "reason": "Why",
    "note": "what",
    "type": "Normal",
}


def stored(given: Object) -> Object:
    return conversion.kept(EVENTS_V1, EVENTS, deep_copy(given))


@pytest.mark.parametrize(
    ("path", "value", "texts"),
    [
        ("type", "Other", []),
        ("involvedObject/namespace", "other", ['involvedObject.namespace: Invalid value: "other": does not match event.namespace']),
        ("involvedObject/namespace", "", []),
        ("reason", "x" * 200, []),
        ("eventTime", TIME, ["reportingController: Required value", 'reportingController: Invalid value: ""', "reportingController", "reportingInstance: Required value", "action: Required value", "reason: Required value"]),
    ],
)  # fmt: skip
def test_core_events_are_taken_as_they_always_were(path: str, value: object, texts: list[str]) -> None:
    found = problems(EVENTS, changed(OLD, path, value))
    assert len(found) == len(texts), found
    for said, text in zip(found, texts, strict=True):
        assert said.startswith(text)


@pytest.mark.parametrize(
    ("path", "value", "texts"),
    [
        ("note", "other", []),
        ("eventTime", "~", ["eventTime: Required value"]),
        ("type", "Odd", ['type: Invalid value: "": has invalid value: Odd']),
        ("deprecatedCount", 3, ['count: Invalid value: "": needs to be unset']),
        ("deprecatedSource", {"component": "c"}, ['source: Invalid value: "": needs to be unset']),
        ("deprecatedFirstTimestamp", "2026-01-01T00:00:00Z", ['firstTimestamp: Invalid value: "": needs to be unset']),
        ("note", "x" * 1025, ['message: Invalid value: "": can have at most 1024 characters']),
        ("action", "x" * 129, ['action: Invalid value: "": can have at most 128 characters']),
        ("series", {"count": 1}, ['series.count: Invalid value: "": should be at least 2', "series.lastObservedTime: Required value"]),
        ("regarding/namespace", "", []),
        ("regarding/namespace", "other", []),
    ],
)  # fmt: skip
def test_new_events_say_all(path: str, value: object, texts: list[str]) -> None:
    found = [str(p) for p in validation.create(EVENTS_V1, stored(changed(NEW, path, value)))]
    assert len(found) == len(texts), found
    for said, text in zip(found, texts, strict=True):
        assert said.startswith(text)


def test_only_the_series_of_a_new_event_goes_on() -> None:
    old = stored(NEW)
    series = stored(changed(NEW, "series", {"count": 2, "lastObservedTime": TIME}))
    assert validation.update(EVENTS_V1, series, old) == []
    other = stored(changed(changed(NEW, "note", "x"), "reportingController", "d"))
    assert [str(p) for p in validation.update(EVENTS_V1, other, old)] == [
        'message: Invalid value: "x": field is immutable',
        'reportingController: Invalid value: "d": field is immutable',
    ]
    assert validation.update(EVENTS, other, old) == [], "through the core group it may"


@pytest.mark.parametrize(
    ("spec", "texts"),
    [
        ({"holderIdentity": "a", "leaseDurationSeconds": 15}, []),
        ({"leaseDurationSeconds": 0, "leaseTransitions": -1}, ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0", "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"]),
        ({"strategy": "OldestEmulationVersion", "preferredHolder": "b"}, []),
        ({"strategy": "example.com/mine"}, []),
        ({"strategy": "Newest"}, ['spec.strategy.strategy: Unsupported value: "Newest": supported values: "OldestEmulationVersion"']),
        ({"preferredHolder": "b"}, ["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"]),
    ],
)  # fmt: skip
def test_leases(spec: Object, texts: list[str]) -> None:
    lease = {"metadata": {"name": "l"}, "spec": spec}
    assert problems(LEASES, lease) == texts
    warned = [w.partition(":")[0] for w in support.unsupported(LEASES, lease)[0]]
    assert warned == [f"spec.{n}" for n in ("strategy", "preferredHolder") if n in spec]


@pytest.mark.parametrize(
    ("path", "value", "texts"),
    [
        ("endpoints/0/addresses", ["x"], ['endpoints[0].addresses[0]: Invalid value: "x": must be a valid IPv4 address', 'endpoints[0].addresses[0]: Invalid value: "x": must be a valid IP address']),
        ("endpoints/0/addresses", ["::1"], ['endpoints[0].addresses[0]: Invalid value: "::1": must be a valid IPv4 address', 'endpoints[0].addresses[0]: Invalid value: "::1": may not be in the loopback range']),
        ("endpoints/0/hints", {"forZones": [{"name": "a"}, {"name": "a"}]}, ['endpoints[0].hints.forZones[1].name: Duplicate value: "a"']),
        ("endpoints/0/hints", {"forZones": [{"name": "a b"}]}, ['endpoints[0].hints.forZones[0].name: Invalid value: "a b"']),
        ("endpoints/0/hints", {"forZones": [{"name": f"z{i}"} for i in range(9)]}, ["endpoints[0].hints.forZones: Too many: 9: must have at most 8 items"]),
        ("endpoints/0/hints", {"forNodes": [{"name": "N"}]}, ['endpoints[0].hints.forNodes[0].name: Invalid value: "N"']),
    ],
)  # fmt: skip
def test_endpoint_slices(path: str, value: object, texts: list[str]) -> None:
    found = problems(ENDPOINTSLICES, changed(SLICE, path, value))
    assert len(found) == len(texts), found
    for said, text in zip(found, texts, strict=True):
        assert said.startswith(text)


def test_topology_is_not_taken_any_more() -> None:
    topology = {"kubernetes.io/hostname": "n"}
    old = ready(ENDPOINTSLICES, changed(SLICE, "endpoints/0/deprecatedTopology", topology))
    assert "deprecatedTopology" not in old["endpoints"][0]
    old["endpoints"][0]["deprecatedTopology"] = topology  # stored long ago
    kept = changed(old, "metadata/labels", {"a": "b"})
    strategy.prepare_update(ENDPOINTSLICES, kept, old)
    assert kept["endpoints"][0]["deprecatedTopology"] == topology
    more = deep_copy(old)
    more["endpoints"].append({"addresses": ["10.0.0.2"], "deprecatedTopology": topology})
    strategy.prepare_update(ENDPOINTSLICES, more, old)
    assert all("deprecatedTopology" not in e for e in more["endpoints"])


def test_a_binding_names_a_node() -> None:
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Pod", "name": ""}}
    assert problems(BINDINGS, binding) == [
        'target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"',
        "target.name: Required value",
    ]
    resource: Resource = BINDINGS
    assert problems(resource, {"metadata": {"name": "p"}, "target": {"name": "n1"}}) == []
