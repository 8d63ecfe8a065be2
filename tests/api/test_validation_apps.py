"""The rules of the kinds of `apps`: one change to a good object and what upstream says about it."""

from __future__ import annotations

import pytest

from sampan.api import resources, strategy, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import (
    CONTROLLERREVISIONS,
    DAEMONSETS,
    DEPLOYMENTS,
    REPLICASETS,
    STATEFULSETS,
    Resource,
)
from tests.api.test_validation import changed, problems, ready

TEMPLATE: Object = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "nginx"}]},
}


def workload(**spec: object) -> Object:
    return {
        "metadata": {"name": "w"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": deep_copy(TEMPLATE), **spec},
    }


CLAIM: Object = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
STATEFUL: Object = changed(
    workload(serviceName="web", volumeClaimTemplates=[CLAIM]),
    "spec/template/spec/containers/0/volumeMounts",
    [{"name": "data", "mountPath": "/data"}],
)
REVISION: Object = {"metadata": {"name": "r"}, "data": {"spec": {}}, "revision": 1}

CASES: list[tuple[Resource, Object, str, object, str]] = [
    (DAEMONSETS, workload(), "spec/selector", {"matchLabels": {"a": "c"}},
     'spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`'),
    (DAEMONSETS, workload(), "spec/selector", {}, "spec.selector: Invalid value: {}: empty selector is invalid for daemonset"),
    (DAEMONSETS, workload(), "spec/template/spec/restartPolicy", "Never",
     'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'),
    (DAEMONSETS, workload(), "spec/template/spec/activeDeadlineSeconds", 5,
     "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported"),
    (DAEMONSETS, workload(), "spec/minReadySeconds", -1, "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"),
    (DAEMONSETS, workload(), "spec/revisionHistoryLimit", -1, "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"),
    (DAEMONSETS, workload(), "spec/updateStrategy", {"type": "Recreate"},
     'spec.updateStrategy: Unsupported value: {"type":"Recreate"}: supported values: "RollingUpdate", "OnDelete"'),
    (DAEMONSETS, workload(), "spec/updateStrategy", {"rollingUpdate": {"maxUnavailable": 0}},
     "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"),
    (DAEMONSETS, workload(), "spec/updateStrategy", {"rollingUpdate": {"maxSurge": 1}},
     "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"),
    (DAEMONSETS, workload(), "spec/updateStrategy", {"rollingUpdate": {"maxUnavailable": "101%"}},
     'spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%'),
    (DAEMONSETS, workload(), "spec/updateStrategy", {"rollingUpdate": {"maxUnavailable": "some"}},
     'spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "some": a valid percent string must be'),
    (STATEFULSETS, STATEFUL, "spec/serviceName", "a.b", 'spec.serviceName: Invalid value: "a.b": must not contain dots'),
    (STATEFULSETS, STATEFUL, "spec/podManagementPolicy", "Any", "spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'"),
    (STATEFULSETS, STATEFUL, "spec/updateStrategy", {"type": "Recreate"},
     "spec.updateStrategy: Invalid value: {\"type\":\"Recreate\"}: must be 'RollingUpdate' or 'OnDelete'"),
    (STATEFULSETS, STATEFUL, "spec/updateStrategy", {"type": "OnDelete", "rollingUpdate": {"partition": 1}},
     "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'"),
    (STATEFULSETS, STATEFUL, "spec/updateStrategy", {"rollingUpdate": {"partition": -1}},
     "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0"),
    (STATEFULSETS, STATEFUL, "spec/updateStrategy", {"rollingUpdate": {"maxUnavailable": 0}},
     "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"),
    (STATEFULSETS, STATEFUL, "spec/persistentVolumeClaimRetentionPolicy", {"whenScaled": "Recycle"},
     'spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "Recycle": supported values: "Retain", "Delete"'),
    (STATEFULSETS, STATEFUL, "spec/replicas", -1, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    (STATEFULSETS, STATEFUL, "spec/ordinals", {"start": -1}, "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"),
    (STATEFULSETS, STATEFUL, "spec/selector", {}, "spec.selector: Invalid value: {}: empty selector is invalid for statefulset"),
    (STATEFULSETS, STATEFUL, "spec/volumeClaimTemplates", [], 'spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"'),
    (STATEFULSETS, STATEFUL, "spec/template/spec/restartPolicy", "OnFailure",
     'spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always"'),
    (STATEFULSETS, STATEFUL, "spec/template/spec/activeDeadlineSeconds", 5,
     "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported"),
    (STATEFULSETS, STATEFUL, "spec/volumeClaimTemplates/0/spec/accessModes", [],
     "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required"),
    (DEPLOYMENTS, workload(), "spec/strategy", {"rollingUpdate": {"maxUnavailable": "0%", "maxSurge": 0}},
     'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0'),
    (DEPLOYMENTS, workload(), "spec/strategy", {"rollingUpdate": {"maxUnavailable": "101%"}},
     'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%'),
    (DEPLOYMENTS, workload(), "spec/progressDeadlineSeconds", 0, "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"),
    (REPLICASETS, workload(), "spec/selector", {}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
    (REPLICASETS, workload(), "spec/template/spec/activeDeadlineSeconds", 5,
     "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"),
    (CONTROLLERREVISIONS, REVISION, "data", "~", "data: Required value: data is mandatory"),
    (CONTROLLERREVISIONS, REVISION, "revision", -1, "revision: Invalid value: -1: must be greater than or equal to 0"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "obj", "path", "value", "text"), CASES)
def test_one_thing_wrong(resource: Resource, obj: Object, path: str, value: object, text: str) -> None:
    found = problems(resource, changed(obj, path, value))
    assert any(text in p for p in found), found


@pytest.mark.parametrize(
    ("resource", "obj"),
    [
        (DAEMONSETS, workload()),
        (DAEMONSETS, workload(updateStrategy={"type": "OnDelete"})),
        (DAEMONSETS, workload(updateStrategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "10%"}})),
        (STATEFULSETS, STATEFUL),
        (STATEFULSETS, workload()),
        (CONTROLLERREVISIONS, REVISION),
        (DEPLOYMENTS, workload(strategy={"type": "Recreate"})),
        (REPLICASETS, workload(replicas=0)),
    ],
)
def test_good(resource: Resource, obj: Object) -> None:
    assert problems(resource, obj) == []


IMMUTABLE = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"  # fmt: skip
UPDATES: list[tuple[Resource, Object, str, object, str]] = [
    (DAEMONSETS, workload(), "spec/template/metadata/labels/x", "y", ""),
    (DAEMONSETS, workload(), "spec/selector/matchLabels", {"a": "c"}, 'spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable'),
    (STATEFULSETS, STATEFUL, "spec/replicas", 3, ""),
    (STATEFULSETS, STATEFUL, "spec/ordinals", {"start": 2}, ""),
    (STATEFULSETS, STATEFUL, "spec/minReadySeconds", 3, ""),
    (STATEFULSETS, STATEFUL, "spec/revisionHistoryLimit", 3, ""),
    (STATEFULSETS, STATEFUL, "spec/updateStrategy/rollingUpdate/partition", 1, ""),
    (STATEFULSETS, STATEFUL, "spec/template/spec/containers/0/image", "nginx:2", ""),
    (STATEFULSETS, STATEFUL, "spec/persistentVolumeClaimRetentionPolicy/whenDeleted", "Delete", ""),
    (STATEFULSETS, STATEFUL, "spec/serviceName", "other", "spec: Forbidden: " + IMMUTABLE),
    (STATEFULSETS, STATEFUL, "spec/podManagementPolicy", "Parallel", "spec: Forbidden: " + IMMUTABLE),
    (STATEFULSETS, STATEFUL, "spec/volumeClaimTemplates/0/spec/resources/requests/storage", "2Gi", "spec: Forbidden: " + IMMUTABLE),
    (CONTROLLERREVISIONS, REVISION, "revision", 2, ""),
    (CONTROLLERREVISIONS, REVISION, "data", {"spec": {"a": 1}}, 'data: Invalid value: {"spec":{"a":1}}: field is immutable'),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "obj", "path", "value", "text"), UPDATES)
def test_updates(resource: Resource, obj: Object, path: str, value: object, text: str) -> None:
    old = ready(resource, obj)
    assert validation.update(resource, deep_copy(old), old) == []
    new = changed(old, path, value)
    strategy.prepare_update(resource, new, old)
    found = [str(p) for p in validation.update(resource, new, old)]
    assert found == [] if not text else any(text in p for p in found), found


STATUS_CASES: list[tuple[Resource, Object, str]] = [
    (DAEMONSETS, {"numberReady": -1, "collisionCount": 2}, "status.numberReady: Invalid value: -1: must be greater than or equal to 0"),
    (DAEMONSETS, {"collisionCount": 1}, "status.collisionCount: Invalid value: 1: cannot be decremented"),
    (STATEFULSETS, {"replicas": 1, "currentReplicas": 2, "collisionCount": 2},
     "status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas"),
    (STATEFULSETS, {"replicas": 2, "availableReplicas": 2, "readyReplicas": 1, "collisionCount": 2},
     "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas"),
    (DEPLOYMENTS, {"replicas": 2, "availableReplicas": 2, "readyReplicas": 1, "collisionCount": 2},
     "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"),
    (REPLICASETS, {"replicas": 1, "fullyLabeledReplicas": 2}, "status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "status", "text"), STATUS_CASES)
def test_status(resource: Resource, status: Object, text: str) -> None:
    old = ready(resource, workload())
    old["status"]["collisionCount"] = 2
    new = {**deep_copy(old), "status": status}
    strategy.prepare_update(resource, new, old, "status")
    assert [str(p) for p in validation.update(resource, new, old, "status")] == [text]


def test_a_daemon_set_counts_its_templates() -> None:
    old = ready(DAEMONSETS, workload())
    note = "deprecated.daemonset.template.generation"
    assert old["metadata"]["annotations"] == {note: "1"}
    assert old["status"] == {
        "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
    }  # fmt: skip
    new = changed(old, "spec/template/metadata/labels/x", "y")
    del new["metadata"]["annotations"]
    strategy.prepare_update(DAEMONSETS, new, old)
    assert (new["metadata"]["generation"], new["metadata"]["annotations"][note]) == (2, "2")
    newer = changed(new, "spec/minReadySeconds", 3)
    strategy.prepare_update(DAEMONSETS, newer, new)
    assert (newer["metadata"]["generation"], newer["metadata"]["annotations"][note]) == (3, "2")


def test_defaults() -> None:
    daemons = ready(DAEMONSETS, workload())["spec"]
    assert daemons["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
    }
    assert daemons["revisionHistoryLimit"] == 10
    stateful = ready(STATEFULSETS, STATEFUL)
    spec = stateful["spec"]
    assert spec["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"partition": 0, "maxUnavailable": 1},
    }
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["podManagementPolicy"]) == (
        1,
        10,
        "OrderedReady",
    )
    (claim,) = spec["volumeClaimTemplates"]
    assert (claim["kind"], claim["spec"]["volumeMode"], claim["status"]) == (
        "PersistentVolumeClaim", "Filesystem", {"phase": "Pending"},
    )  # fmt: skip
    assert stateful["status"] == {"availableReplicas": 0, "replicas": 0}
    assert "rollingUpdate" not in ready(STATEFULSETS, workload(updateStrategy={"type": "RollingUpdate"}))["spec"]["updateStrategy"]  # fmt: skip


@pytest.mark.parametrize("resource", [resources.DAEMONSETS, resources.STATEFULSETS, resources.REPLICASETS])
def test_the_status_is_its_own(resource: Resource) -> None:
    """A status write leaves the spec, an update leaves the status."""
    old = ready(resource, workload())
    new = changed(changed(old, "spec/minReadySeconds", 9), "status/observedGeneration", 7)
    strategy.prepare_update(resource, new, old, "status")
    assert new["spec"] == old["spec"]
    assert new["status"]["observedGeneration"] == 7
    new = changed(changed(old, "spec/minReadySeconds", 9), "status/observedGeneration", 7)
    strategy.prepare_update(resource, new, old)
    assert new["status"] == old["status"]
    assert new["metadata"]["generation"] == 2
