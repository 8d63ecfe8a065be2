"""The rules of PodDisruptionBudgets, ReplicationControllers and PodTemplates."""

from __future__ import annotations

import pytest

from sampan.api import strategy, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import PODDISRUPTIONBUDGETS, PODTEMPLATES, REPLICATIONCONTROLLERS, Resource
from tests.api.test_validation import changed, problems, ready
from tests.api.test_validation_apps import TEMPLATE

BUDGET: Object = {
    "metadata": {"name": "b"},
    "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}},
}
CONTROLLER: Object = {"metadata": {"name": "c"}, "spec": {"selector": {"a": "b"}, "template": TEMPLATE}}
POD_TEMPLATE: Object = {"metadata": {"name": "t"}, "template": TEMPLATE}

CASES: list[tuple[Resource, Object, str, object, str]] = [
    (PODDISRUPTIONBUDGETS, BUDGET, "spec/maxUnavailable", 1, "minAvailable and maxUnavailable cannot be both set"),
    (PODDISRUPTIONBUDGETS, BUDGET, "spec/minAvailable", -1, "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"),
    (PODDISRUPTIONBUDGETS, BUDGET, "spec/minAvailable", "101%", 'spec.minAvailable: Invalid value: "101%": must not be greater than 100%'),
    (PODDISRUPTIONBUDGETS, BUDGET, "spec/minAvailable", "half", 'spec.minAvailable: Invalid value: "half": a valid percent string must be'),
    (PODDISRUPTIONBUDGETS, BUDGET, "spec/selector", {"matchLabels": {"a b": "c"}}, "spec.selector.matchLabels: Invalid value"),
    (PODDISRUPTIONBUDGETS, BUDGET, "spec/unhealthyPodEvictionPolicy", "Never",
     'spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget"'),
    (REPLICATIONCONTROLLERS, CONTROLLER, "spec/selector", {"a": "c"}, 'spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`'),
    (REPLICATIONCONTROLLERS, CONTROLLER, "spec/replicas", -1, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    (REPLICATIONCONTROLLERS, CONTROLLER, "spec/template", "~", "spec.template: Required value"),
    (REPLICATIONCONTROLLERS, CONTROLLER, "spec/template/spec/restartPolicy", "Never",
     'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'),
    (REPLICATIONCONTROLLERS, changed(CONTROLLER, "spec/selector", {}), "spec/template/metadata", {}, "spec.selector: Required value"),
    (PODTEMPLATES, POD_TEMPLATE, "template/spec/containers", [], "template.spec.containers: Required value"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "obj", "path", "value", "text"), CASES)
def test_one_thing_wrong(resource: Resource, obj: Object, path: str, value: object, text: str) -> None:
    found = problems(resource, changed(obj, path, value))
    assert any(text in p for p in found), found


@pytest.mark.parametrize(
    ("resource", "obj"),
    [(PODDISRUPTIONBUDGETS, BUDGET), (REPLICATIONCONTROLLERS, CONTROLLER), (PODTEMPLATES, POD_TEMPLATE)],
)
def test_good(resource: Resource, obj: Object) -> None:
    assert problems(resource, obj) == []


def test_a_replication_controller_takes_the_labels_of_its_template() -> None:
    made = ready(
        REPLICATIONCONTROLLERS, {"metadata": {"name": "c"}, "spec": {"template": deep_copy(TEMPLATE)}}
    )
    assert made["spec"]["selector"] == made["metadata"]["labels"] == {"a": "b"}
    assert (made["spec"]["replicas"], made["status"]) == (1, {"replicas": 0})


def test_a_selector_may_change_with_the_template() -> None:
    old = ready(REPLICATIONCONTROLLERS, CONTROLLER)
    new = changed(changed(old, "spec/selector", {"a": "c"}), "spec/template/metadata/labels", {"a": "c"})
    strategy.prepare_update(REPLICATIONCONTROLLERS, new, old)
    assert validation.update(REPLICATIONCONTROLLERS, new, old) == []
    assert new["metadata"]["generation"] == 2


def test_a_pod_template_counts_its_changes() -> None:
    old = ready(PODTEMPLATES, POD_TEMPLATE)
    new = changed(old, "template/metadata/labels/x", "y")
    strategy.prepare_update(PODTEMPLATES, new, old)
    assert (old["metadata"]["generation"], new["metadata"]["generation"]) == (1, 2)


def test_status_of_a_budget() -> None:
    old = ready(PODDISRUPTIONBUDGETS, BUDGET)
    counts = {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}
    assert (old["status"], old["metadata"]["generation"]) == (counts, 1)
    new = {**deep_copy(old), "status": {**counts, "currentHealthy": -1}}
    strategy.prepare_update(PODDISRUPTIONBUDGETS, new, old, "status")
    (problem,) = validation.update(PODDISRUPTIONBUDGETS, new, old, "status")
    assert str(problem) == "status.currentHealthy: Invalid value: -1: must be greater than or equal to 0"
