"""PriorityClasses and RuntimeClasses."""

from __future__ import annotations

import pytest

from sampan.api import priority_classes, strategy, tables, validation
from sampan.api.errors import Object
from sampan.api.resources import PRIORITYCLASSES, RUNTIMECLASSES, Resource

from .test_validation import changed, problems, ready

HIGH: Object = {"metadata": {"name": "high"}, "value": 1000}
RUNTIME: Object = {
    "metadata": {"name": "sandboxed"},
    "handler": "gvisor",
    "overhead": {"podFixed": {"cpu": "100m"}},
    "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]},
}
RESERVED = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: "
CASES: list[tuple[Resource, Object, str, object, list[str]]] = [
    (PRIORITYCLASSES, HIGH, "value", 1000000000, []),
    (PRIORITYCLASSES, HIGH, "value", -5, []),
    (PRIORITYCLASSES, HIGH, "value", 1000000001, ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]),
    (PRIORITYCLASSES, HIGH, "metadata/name", "system-x", [RESERVED + "system-x is not a known system priority class"]),
    (PRIORITYCLASSES, HIGH, "metadata/name", "system-node-critical", [RESERVED + "value of system-node-critical PriorityClass must be 2000001000"]),
    (PRIORITYCLASSES, priority_classes.system()[0], "globalDefault", True,
     [RESERVED + "globalDefault of system-cluster-critical PriorityClass must be false"]),
    (PRIORITYCLASSES, HIGH, "preemptionPolicy", "Never", []),
    (PRIORITYCLASSES, HIGH, "preemptionPolicy", "Sometimes",
     ['preemptionPolicy: Unsupported value: "Sometimes": supported values: "Never", "PreemptLowerPriority"']),
    (RUNTIMECLASSES, RUNTIME, "handler", "", ['handler: Invalid value: "": a lowercase RFC 1123 label must consist of']),
    (RUNTIMECLASSES, RUNTIME, "handler", "a.b", ['handler: Invalid value: "a.b": must not contain dots']),
    (RUNTIMECLASSES, RUNTIME, "overhead/podFixed/cpu", "-1", ['overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0']),
    (RUNTIMECLASSES, RUNTIME, "scheduling/nodeSelector", {"a b": "c"}, ['scheduling.nodeSelector: Invalid value: "a b": name part must consist of']),
    (RUNTIMECLASSES, RUNTIME, "scheduling/tolerations/0/operator", "Is",
     ['scheduling.tolerations[0].operator: Unsupported value: "Is": supported values: "Equal", "Exists"']),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "base", "path", "value", "expected"), CASES)
def test_create(resource: Resource, base: Object, path: str, value: object, expected: list[str]) -> None:
    assert problems(resource, base) == []
    found = problems(resource, changed(base, path, value))
    assert len(found) == len(expected), found
    for text, begins in zip(found, expected, strict=True):
        assert text.startswith(begins)


UPDATES: list[tuple[Resource, Object, str, object, list[str]]] = [
    (PRIORITYCLASSES, HIGH, "value", 1, ["value: Forbidden: may not be changed in an update."]),
    (PRIORITYCLASSES, HIGH, "preemptionPolicy", "Never", ['preemptionPolicy: Invalid value: "Never": field is immutable']),
    (PRIORITYCLASSES, HIGH, "description", "for what matters", []),
    (PRIORITYCLASSES, HIGH, "globalDefault", True, []),
    (RUNTIMECLASSES, RUNTIME, "handler", "kata", ['handler: Invalid value: "kata": field is immutable']),
    (RUNTIMECLASSES, RUNTIME, "overhead", "~", []),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "base", "path", "value", "expected"), UPDATES)
def test_update(resource: Resource, base: Object, path: str, value: object, expected: list[str]) -> None:
    old = ready(resource, base)
    assert [str(p) for p in validation.update(resource, changed(old, path, value), old)] == expected


def test_a_priority_class_has_one_generation() -> None:
    old = ready(PRIORITYCLASSES, HIGH)
    assert old["metadata"]["generation"] == 1
    assert old["preemptionPolicy"] == "PreemptLowerPriority"
    new = changed(old, "description", "x")
    strategy.prepare_update(PRIORITYCLASSES, new, old)
    assert new["metadata"]["generation"] == 1


def test_tables() -> None:
    born = {"creationTimestamp": "2025-12-31T23:00:00Z"}

    def cells(resource: Resource, obj: Object) -> list[object]:
        obj = {**obj, "metadata": {**obj["metadata"], **born}}
        (row,) = tables.render(resource, [obj], now=1767225600.0)["rows"]
        return row["cells"]  # type: ignore[no-any-return]

    high = ready(PRIORITYCLASSES, HIGH)
    assert cells(PRIORITYCLASSES, high) == ["high", 1000, False, "60m", "PreemptLowerPriority"]
    assert cells(RUNTIMECLASSES, RUNTIME) == ["sandboxed", "gvisor", "60m"]
