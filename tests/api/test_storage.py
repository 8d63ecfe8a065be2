"""Volumes, claims and storage.k8s.io: each case is a change of a good object and what upstream says about it."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api import deprecations, protobuf, strategy, support, tables, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import (
    CSIDRIVERS,
    CSINODES,
    CSISTORAGECAPACITIES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    RUNTIMECLASSES,
    STORAGECLASSES,
    VOLUMEATTACHMENTS,
    VOLUMEATTRIBUTESCLASSES,
    Resource,
)

from .test_protobuf import envelope, field
from .test_validation import changed, problems, ready

PV: Object = {
    "metadata": {"name": "v"},
    "spec": {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/data"},
        "storageClassName": "manual",
    },
}
CSI: Object = {
    "metadata": {"name": "v"},
    "spec": {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOncePod"],
        "csi": {
            "driver": "CSI.example.com",
            "volumeHandle": "1",
            "nodePublishSecretRef": {"name": "s", "namespace": "n"},
        },
        "volumeAttributesClassName": "gold",
    },
}
PVC: Object = {
    "metadata": {"name": "c"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
CLASS: Object = {"metadata": {"name": "fast"}, "provisioner": "example.com/p", "parameters": {"a": "b"}}
ATTRIBUTES: Object = {
    "metadata": {"name": "gold"},
    "driverName": "csi.example.com",
    "parameters": {"iops": "10"},
}
ATTACHMENT: Object = {
    "metadata": {"name": "a"},
    "spec": {"attacher": "csi.example.com", "nodeName": "node-1", "source": {"persistentVolumeName": "v"}},
}
INLINE: Object = changed(ATTACHMENT, "spec/source", {
    "inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d.example.com", "volumeHandle": "1"}},
})  # fmt: skip
DRIVER: Object = {
    "metadata": {"name": "csi.example.com"},
    "spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 600}]},
}
NODE: Object = {
    "metadata": {"name": "node-1"},
    "spec": {
        "drivers": [
            {
                "name": "csi.example.com",
                "nodeID": "n",
                "topologyKeys": ["example.com/zone"],
                "allocatable": {"count": 3},
            }
        ]
    },
}
CAPACITY: Object = {
    "metadata": {"name": "cap"},
    "storageClassName": "fast",
    "capacity": "1Gi",
    "nodeTopology": {"matchLabels": {"a": "b"}},
}
HOST, AFFINITY = (
    {"hostPath": {"path": "/a"}},
    {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}},
)
SECOND = "may not specify more than 1 volume type"
DRIVER0, TOPOLOGY = "spec/drivers/0/", [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]

CASES: list[tuple[Resource, Object, str, object, list[str]]] = [
    (PERSISTENTVOLUMES, PV, "spec/accessModes", [], ["spec.accessModes: Required value"]),
    (PERSISTENTVOLUMES, PV, "spec/accessModes", ["Both"], ['spec.accessModes: Unsupported value: "Both": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"']),
    (PERSISTENTVOLUMES, PV, "spec/accessModes", ["ReadWriteOncePod", "ReadWriteOnce"], ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"]),
    (PERSISTENTVOLUMES, PV, "spec/capacity", {}, ["spec.capacity: Required value", 'spec.capacity: Unsupported value: {}: supported values: "storage"']),
    (PERSISTENTVOLUMES, PV, "spec/capacity", {"storage": "1", "cpu": "1"}, ["spec.capacity: Unsupported value: "]),
    (PERSISTENTVOLUMES, PV, "spec/capacity/storage", "0", ['spec.capacity[storage]: Invalid value: "0": must be greater than zero']),
    (PERSISTENTVOLUMES, PV, "spec/persistentVolumeReclaimPolicy", "Keep", ['spec.persistentVolumeReclaimPolicy: Unsupported value: "Keep": supported values: "Delete", "Recycle", "Retain"']),
    (PERSISTENTVOLUMES, PV, "spec/hostPath", "~", ["spec: Required value: must specify a volume type"]),
    (PERSISTENTVOLUMES, PV, "spec/hostPath", {"path": ""}, ["spec.hostPath.path: Required value"]),
    (PERSISTENTVOLUMES, PV, "spec/hostPath/path", "/a/../b", ['spec.hostPath.path: Invalid value: "/a/../b": must not contain \'..\'']),
    (PERSISTENTVOLUMES, PV, "spec/hostPath/type", "Disk", ['spec.hostPath.type: Unsupported value: "Disk"']),
    (PERSISTENTVOLUMES, PV, "spec/nfs", {"server": "s", "path": "/p"}, [f"spec.nfs: Forbidden: {SECOND}"]),
    (PERSISTENTVOLUMES, changed(PV, "spec/hostPath", "~"), "spec/nfs", {"server": "", "path": "p"}, ["spec.nfs.server: Required value", 'spec.nfs.path: Invalid value: "p": must be an absolute path']),
    (PERSISTENTVOLUMES, changed(PV, "spec/hostPath", "~"), "spec/local", {"path": "/d"}, ["spec.nodeAffinity: Required value: Local volume requires node affinity"]),
    (PERSISTENTVOLUMES, changed(PV, "spec/hostPath", "~"), "spec/iscsi", {"targetPortal": "1.2.3.4", "iqn": "x", "lun": 256},
     ['spec.iscsi.iqn: Invalid value: "x": must be valid format', "spec.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive"]),
    (PERSISTENTVOLUMES, changed(PV, "spec/hostPath", "~"), "spec/fc", {"targetWWNs": ["a"]}, ["spec.fc.lun: Required value: lun is required if targetWWNs is specified"]),
    (PERSISTENTVOLUMES, changed(PV, "spec/hostPath", "~"), "spec/flexVolume", {"driver": "d", "options": {"x.k8s.io/a": "b"}},
     ['spec.flexVolume.options[x.k8s.io/a]: Invalid value: "x.k8s.io/a": kubernetes.io and k8s.io namespaces are reserved']),
    (PERSISTENTVOLUMES, changed(PV, "spec/hostPath", {"path": "/"}), "spec/persistentVolumeReclaimPolicy", "Recycle", ["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"]),
    (PERSISTENTVOLUMES, PV, "spec/nodeAffinity", {}, ["spec.nodeAffinity.required: Required value"]),
    (PERSISTENTVOLUMES, PV, "spec/nodeAffinity", {"required": {"nodeSelectorTerms": []}}, ["spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term"]),
    (PERSISTENTVOLUMES, PV, "spec/storageClassName", "A_b", ['spec.storageClassName: Invalid value: "A_b": a lowercase RFC 1123 subdomain']),
    (PERSISTENTVOLUMES, PV, "spec/volumeMode", "Tape", ['spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"']),
    (PERSISTENTVOLUMES, PV, "spec/volumeAttributesClassName", "gold", ["spec.csi: Required value: has to be specified when using volumeAttributesClassName"]),
    (PERSISTENTVOLUMES, CSI, "spec/volumeAttributesClassName", "", ["spec.volumeAttributesClassName: Required value: an empty string is disallowed"]),
    (PERSISTENTVOLUMES, CSI, "spec/csi/driver", "a" * 64, ["spec.csi.driver: Too long: may not be more than 63 bytes"]),
    (PERSISTENTVOLUMES, CSI, "spec/csi/volumeHandle", "", ["spec.csi.volumeHandle: Required value"]),
    (PERSISTENTVOLUMES, CSI, "spec/csi/nodePublishSecretRef", {}, ["spec.csi.nodePublishSecretRef.name: Required value", "spec.csi.nodePublishSecretRef.namespace: Required value"]),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/accessModes", [], ["spec.accessModes: Required value: at least 1 access mode is required"]),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/resources", {}, ["spec.resources[storage]: Required value"]),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/resources/requests/storage", "-1", ['spec.resources[storage]: Invalid value: "-1": must be greater than zero']),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/selector", {"matchLabels": {"a b": "c"}}, ['spec.selector.matchLabels: Invalid value: "a b"']),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/storageClassName", "", []),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/storageClassName", "A", ['spec.storageClassName: Invalid value: "A"']),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/dataSource", {"kind": "PersistentVolumeClaim", "name": "d"}, []),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/dataSource", {"kind": "VolumeSnapshot", "name": "d"},
     ["spec.dataSource: Invalid value: \"VolumeSnapshot\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
      "spec.dataSourceRef: Invalid value: \"VolumeSnapshot\": must be 'PersistentVolumeClaim' when referencing the default apiGroup"]),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/dataSourceRef", {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "d", "namespace": "other"}, []),
    (PERSISTENTVOLUMECLAIMS, changed(PVC, "spec/dataSource", {"kind": "PersistentVolumeClaim", "name": "d"}), "spec/dataSourceRef", {"kind": "PersistentVolumeClaim", "name": "e"},
     ['spec: Invalid value: "spec.dataSource": must match dataSourceRef']),
    (STORAGECLASSES, CLASS, "provisioner", "", ["provisioner: Required value"]),
    (STORAGECLASSES, CLASS, "provisioner", "a/b/c", ['provisioner: Invalid value: "a/b/c": a valid label key must consist of']),
    (STORAGECLASSES, CLASS, "parameters", {"": "x"}, ['parameters: Invalid value: "": field can not be empty.']),
    (STORAGECLASSES, CLASS, "parameters", {"a": "x" * 262144}, ["parameters: Too long: may not be more than 262144 bytes"]),
    (STORAGECLASSES, CLASS, "parameters", {str(i): "" for i in range(513)}, ["parameters: Too long: may not be more than 512 bytes"]),
    (STORAGECLASSES, CLASS, "reclaimPolicy", "Recycle", ['reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"']),
    (STORAGECLASSES, CLASS, "volumeBindingMode", "Later", ['volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer"']),
    (STORAGECLASSES, CLASS, "allowedTopologies", TOPOLOGY, []),
    (STORAGECLASSES, CLASS, "allowedTopologies", [*TOPOLOGY, *TOPOLOGY], ['allowedTopologies[1].matchLabelExpressions: Duplicate value: ""']),
    (STORAGECLASSES, CLASS, "allowedTopologies", [{"matchLabelExpressions": [{"key": "z", "values": []}]}], ["allowedTopologies[0].matchLabelExpressions[0].values: Required value"]),
    (VOLUMEATTRIBUTESCLASSES, ATTRIBUTES, "driverName", "", ["driverName: Required value"]),
    (VOLUMEATTRIBUTESCLASSES, ATTRIBUTES, "parameters", {}, ["parameters: Required value: must contain at least one key/value pair"]),
    (VOLUMEATTACHMENTS, ATTACHMENT, "spec/attacher", "", ["spec.attacher: Required value", 'spec.attacher: Invalid value: ""']),
    (VOLUMEATTACHMENTS, ATTACHMENT, "spec/source", {}, ["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"]),
    (VOLUMEATTACHMENTS, INLINE, "spec/source/persistentVolumeName", "v", ["spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName"]),
    (VOLUMEATTACHMENTS, INLINE, "spec/source/inlineVolumeSpec/capacity", {"storage": "1"}, ["spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes"]),
    (VOLUMEATTACHMENTS, INLINE, "spec/source/inlineVolumeSpec/csi", "~",
     ["spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes", "spec.source.inlineVolumeSpec: Required value: must specify a volume type"]),
    (VOLUMEATTACHMENTS, ATTACHMENT, "spec/source/persistentVolumeName", "", ["spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName"]),
    (VOLUMEATTACHMENTS, ATTACHMENT, "spec/nodeName", "A", ['spec.nodeName: Invalid value: "A"']),
    (CSINODES, NODE, DRIVER0 + "nodeID", "", ["spec.drivers[0].nodeID: Required value"]),
    (CSINODES, NODE, DRIVER0 + "nodeID", "n" * 257, ['spec.drivers[0].nodeID: Invalid value: "' + "n" * 257 + '": must be 256 characters or less']),
    (CSINODES, NODE, DRIVER0 + "topologyKeys", ["a", "a"], ['spec.drivers[0]: Duplicate value: "a"']),
    (CSINODES, NODE, DRIVER0 + "allocatable/count", -1, ["spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0"]),
    (CSINODES, NODE, "spec/drivers", [NODE["spec"]["drivers"][0]] * 2, ['spec.drivers[1].name: Duplicate value: "csi.example.com"']),
    (CSIDRIVERS, DRIVER, "spec/fsGroupPolicy", "All", ['spec.fsGroupPolicy: Unsupported value: "All": supported values: "File", "None", "ReadWriteOnceWithFSType"']),
    (CSIDRIVERS, DRIVER, "spec/tokenRequests/0/expirationSeconds", 599, ["spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"]),
    (CSIDRIVERS, DRIVER, "spec/tokenRequests", [{"audience": ""}, {"audience": ""}], ['spec.tokenRequests[1].audience: Duplicate value: ""']),
    (CSIDRIVERS, DRIVER, "spec/serviceAccountTokenInSecrets", True, []),
    (CSIDRIVERS, {"metadata": {"name": "d"}, "spec": {}}, "spec/serviceAccountTokenInSecrets", True, ["spec.serviceAccountTokenInSecrets: Forbidden: may be set only when tokenRequests is"]),
    (CSIDRIVERS, DRIVER, "spec/volumeLifecycleModes", ["Forever"], ['spec.volumeLifecycleModes: Unsupported value: "Forever": supported values: "Persistent", "Ephemeral"']),
    (CSIDRIVERS, DRIVER, "spec/nodeAllocatableUpdatePeriodSeconds", 9, ["spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds"]),
    (CSISTORAGECAPACITIES, CAPACITY, "storageClassName", "", ['storageClassName: Invalid value: "": a lowercase RFC 1123 subdomain']),
    (CSISTORAGECAPACITIES, CAPACITY, "capacity", "-1", ['capacity: Invalid value: "-1": must be greater than or equal to 0']),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "base", "path", "value", "expected"), CASES)
def test_create(resource: Resource, base: Object, path: str, value: object, expected: list[str]) -> None:
    if "hostPath" in base.get("spec", {}) or resource is not PERSISTENTVOLUMES:
        assert problems(resource, base) == []
    found = problems(resource, changed(base, path, value))
    assert len(found) == len(expected), found
    for text, begins in zip(found, expected, strict=True):
        assert text.startswith(begins)


BOUND: Object = {**PVC, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
IMMUTABLE_SPEC = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
UPDATES: list[tuple[Resource, Object, str, object, list[str]]] = [
    (PERSISTENTVOLUMES, PV, "spec/hostPath/path", "/other", ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]),
    (PERSISTENTVOLUMES, PV, "spec/persistentVolumeReclaimPolicy", "Delete", []),
    (PERSISTENTVOLUMES, PV, "spec/capacity/storage", "2Gi", []),
    (PERSISTENTVOLUMES, PV, "spec/volumeMode", "Block", ['volumeMode: Invalid value: "Block": field is immutable']),
    (PERSISTENTVOLUMES, PV, "spec/nodeAffinity", AFFINITY, []),
    (PERSISTENTVOLUMES, changed(PV, "spec/nodeAffinity", AFFINITY), "spec/nodeAffinity", "~", ["nodeAffinity: Invalid value: null: field is immutable"]),
    (PERSISTENTVOLUMES, CSI, "spec/csi/controllerExpandSecretRef", {"name": "s", "namespace": "n"}, []),
    (PERSISTENTVOLUMES, CSI, "spec/volumeAttributesClassName", "~", ["spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"]),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/volumeName", "v", []),
    (PERSISTENTVOLUMECLAIMS, changed(PVC, "spec/volumeName", "v"), "spec/volumeName", "w", [IMMUTABLE_SPEC]),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/storageClassName", "fast", []),
    (PERSISTENTVOLUMECLAIMS, changed(PVC, "spec/storageClassName", "fast"), "spec/storageClassName", "slow", [IMMUTABLE_SPEC]),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/resources/requests/storage", "2Gi", [IMMUTABLE_SPEC]),
    (PERSISTENTVOLUMECLAIMS, BOUND, "spec/resources/requests/storage", "2Gi", []),
    (PERSISTENTVOLUMECLAIMS, BOUND, "spec/resources/requests/storage", "1Mi", ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]),
    (PERSISTENTVOLUMECLAIMS, BOUND, "spec/accessModes", ["ReadWriteMany"], [IMMUTABLE_SPEC]),
    (PERSISTENTVOLUMECLAIMS, BOUND, "spec/volumeAttributesClassName", "gold", []),
    (PERSISTENTVOLUMECLAIMS, changed(BOUND, "spec/volumeAttributesClassName", "gold"), "spec/volumeAttributesClassName", "",
     ["spec.volumeAttributesClassName: Forbidden: update from non-nil value to an empty string is forbidden"]),
    (STORAGECLASSES, CLASS, "parameters", {"a": "c"}, ["parameters: Forbidden: updates to parameters are forbidden."]),
    (STORAGECLASSES, CLASS, "provisioner", "other", ["provisioner: Forbidden: updates to provisioner are forbidden."]),
    (STORAGECLASSES, CLASS, "reclaimPolicy", "Retain", ["reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."]),
    (STORAGECLASSES, CLASS, "volumeBindingMode", "WaitForFirstConsumer", ['volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable']),
    (STORAGECLASSES, CLASS, "allowVolumeExpansion", True, []),
    (VOLUMEATTRIBUTESCLASSES, ATTRIBUTES, "parameters/iops", "20", ["parameters: Forbidden: updates to parameters are forbidden."]),
    (VOLUMEATTACHMENTS, ATTACHMENT, "spec/nodeName", "node-2", ["spec: Invalid value: {"]),
    (CSINODES, NODE, DRIVER0 + "allocatable/count", 5, []),
    (CSINODES, NODE, DRIVER0 + "nodeID", "other", ["spec.drivers: Invalid value: {"]),
    (CSIDRIVERS, DRIVER, "spec/attachRequired", False, ["spec.attachedRequired: Invalid value: false: field is immutable"]),
    (CSIDRIVERS, DRIVER, "spec/requiresRepublish", True, []),
    (CSISTORAGECAPACITIES, CAPACITY, "storageClassName", "slow", ['storageClassName: Invalid value: "slow": field is immutable']),
    (CSISTORAGECAPACITIES, CAPACITY, "nodeTopology", "~", ["nodeTopology: Invalid value: null: field is immutable"]),
    (CSISTORAGECAPACITIES, CAPACITY, "capacity", "2Gi", []),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "base", "path", "value", "expected"), UPDATES)
def test_update(resource: Resource, base: Object, path: str, value: object, expected: list[str]) -> None:
    old = ready(resource, base)
    if "status" in base:
        old["status"] = deep_copy(base["status"])
    assert validation.update(resource, deep_copy(old), old) == []
    found = [str(p) for p in validation.update(resource, changed(old, path, value), old)]
    assert len(found) == len(expected), found
    for text, begins in zip(found, expected, strict=True):
        assert text.startswith(begins)


def test_the_old_annotation_of_a_class_becomes_the_field_and_stays() -> None:
    noted = {"annotations": {"volume.beta.kubernetes.io/storage-class": "fast"}}
    old = ready(PERSISTENTVOLUMECLAIMS, {**PVC, "metadata": {"name": "c", **noted}})
    assert validation.update(PERSISTENTVOLUMECLAIMS, changed(old, "spec/storageClassName", "fast"), old) == []
    found = validation.update(PERSISTENTVOLUMECLAIMS, changed(old, "metadata/annotations", {}), old)
    assert [p.path for p in found] == ["metadata.annotations[volume.beta.kubernetes.io/storage-class]"]


def test_the_status_of_a_claim() -> None:
    old = ready(PERSISTENTVOLUMECLAIMS, PVC)
    assert old["status"] == {"phase": "Pending"}
    new = changed(old, "status", {
        "capacity": {"storage": "-1"},
        "allocatedResources": {"cpu": "1"},
        "allocatedResourceStatuses": {"storage": "Growing"},
    })  # fmt: skip
    assert [str(p).partition(": supported")[0] for p in validation.update(PERSISTENTVOLUMECLAIMS, new, old, "status")] == [
        'status.capacity[storage]: Invalid value: "-1": must be a valid resource quantity',
        'status.allocatedResourceStatus: Unsupported value: "storage"',
        'status.allocatedResources: Unsupported value: "cpu"',
    ]  # fmt: skip


def test_defaults() -> None:
    volume = ready(PERSISTENTVOLUMES, PV)["spec"]
    assert (volume["persistentVolumeReclaimPolicy"], volume["volumeMode"]) == ("Retain", "Filesystem")
    assert volume["hostPath"] == {"path": "/data", "type": ""}
    assert ready(PERSISTENTVOLUMECLAIMS, PVC)["spec"]["volumeMode"] == "Filesystem"
    klass = ready(STORAGECLASSES, CLASS)
    assert (klass["reclaimPolicy"], klass["volumeBindingMode"]) == ("Delete", "Immediate")
    assert ready(CSIDRIVERS, {"metadata": {"name": "d"}, "spec": {"preventPodSchedulingIfMissing": True}})[
        "spec"
    ] == {
        "attachRequired": True,
        "podInfoOnMount": False,
        "storageCapacity": False,
        "fsGroupPolicy": "ReadWriteOnceWithFSType",
        "requiresRepublish": False,
        "seLinuxMount": False,
        "volumeLifecycleModes": ["Persistent"],
    }


def test_the_phase_of_a_volume_notes_when_it_changed() -> None:
    old = ready(PERSISTENTVOLUMES, {**PV, "status": {"phase": "Bound"}})
    assert old["status"]["phase"] == "Pending"
    old["status"]["lastPhaseTransitionTime"] = "2020-01-01T00:00:00Z"
    new = changed(old, "status/phase", "Available")
    strategy.prepare_update(PERSISTENTVOLUMES, new, old, "status")
    assert new["status"]["lastPhaseTransitionTime"] > "2024"
    same = changed(old, "status/message", "m")
    strategy.prepare_update(PERSISTENTVOLUMES, same, old, "status")
    assert same["status"]["lastPhaseTransitionTime"] == "2020-01-01T00:00:00Z"


def test_both_names_of_a_data_source() -> None:
    source = {"kind": "PersistentVolumeClaim", "name": "d"}
    assert (
        ready(PERSISTENTVOLUMECLAIMS, changed(PVC, "spec/dataSource", source))["spec"]["dataSourceRef"]
        == source
    )
    assert (
        ready(PERSISTENTVOLUMECLAIMS, changed(PVC, "spec/dataSourceRef", source))["spec"]["dataSource"]
        == source
    )
    far = {**source, "namespace": "other"}
    assert "dataSource" not in ready(PERSISTENTVOLUMECLAIMS, changed(PVC, "spec/dataSourceRef", far))["spec"]


def test_a_driver_counts_generations_from_its_first_change() -> None:
    old = ready(CSIDRIVERS, DRIVER)
    assert "generation" not in old["metadata"]
    new = changed(old, "spec/requiresRepublish", True)
    strategy.prepare_update(CSIDRIVERS, new, old)
    assert new["metadata"]["generation"] == 1


DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}
ROWS: list[tuple[Resource, Object, list[Any]]] = [
    (PERSISTENTVOLUMES, PV, ["v", "1Gi", "RWO", "Retain", "Pending", "", "manual", "<unset>", "", "60m", "Filesystem"]),
    (PERSISTENTVOLUMES, changed(CSI, "spec/claimRef", {"namespace": "n", "name": "c"}), ["v", "1Gi", "RWOP", "Retain", "Pending", "n/c", "", "gold", "", "60m", "Filesystem"]),
    (PERSISTENTVOLUMECLAIMS, PVC, ["c", "Pending", "", "", "", "", "<unset>", "60m", "Filesystem"]),
    (STORAGECLASSES, CLASS, ["fast", "example.com/p", "Delete", "Immediate", False, "60m"]),
    (STORAGECLASSES, changed(CLASS, "metadata/annotations", DEFAULT), ["fast (default)", "example.com/p", "Delete", "Immediate", False, "60m"]),
    (VOLUMEATTRIBUTESCLASSES, ATTRIBUTES, ["gold", "csi.example.com", "60m"]),
    (VOLUMEATTACHMENTS, ATTACHMENT, ["a", "csi.example.com", "v", "node-1", False, "60m"]),
    (CSINODES, NODE, ["node-1", 1, "60m"]),
    (CSIDRIVERS, DRIVER, ["csi.example.com", True, False, False, "a", False, "Persistent", "60m"]),
    (CSISTORAGECAPACITIES, CAPACITY, ["cap", "fast", "1Gi"]),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "obj", "cells"), ROWS)
def test_rows(resource: Resource, obj: Object, cells: list[Any]) -> None:
    made = ready(resource, obj)
    made["metadata"]["creationTimestamp"] = "2025-12-31T23:00:00Z"
    table = tables.render(resource, [made], now=1767225600.0)
    assert table["rows"][0]["cells"] == cells
    assert len(table["columnDefinitions"]) == len(cells)


def test_the_row_of_a_bound_claim_and_of_one_that_goes() -> None:
    claim = ready(PERSISTENTVOLUMECLAIMS, changed(PVC, "spec/volumeName", "v"))
    claim["metadata"] |= {
        "creationTimestamp": "2025-12-31T23:00:00Z",
        "deletionTimestamp": "2025-12-31T23:30:00Z",
    }
    claim["status"] = {
        "phase": "Bound",
        "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
    }
    (row,) = tables.render(PERSISTENTVOLUMECLAIMS, [claim], now=1767225600.0)["rows"]
    assert row["cells"][:5] == ["c", "Terminating", "v", "2Gi", "RWO,RWX"]


OLD, NEW = "beta.kubernetes.io/os", 'deprecated since v1.14; use "kubernetes.io/os" instead'
NOTED = {"volume.beta.kubernetes.io/storage-class": "fast"}
AGAIN = 'metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use "storageClassName" attribute instead'
ASKED: Object = {"key": OLD, "operator": "Exists"}
WARNINGS: list[tuple[Resource, Object, str, object, list[str]]] = [
    (PERSISTENTVOLUMES, PV, "metadata/annotations", NOTED, [AGAIN]),
    (PERSISTENTVOLUMES, PV, "spec/persistentVolumeReclaimPolicy", "Recycle",
     ["spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."]),
    (PERSISTENTVOLUMES, PV, "spec/nodeAffinity", {"required": {"nodeSelectorTerms": [{"matchExpressions": [ASKED]}]}},
     [f"spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: {OLD} is {NEW}"]),
    (PERSISTENTVOLUMES, changed(PV, "spec/hostPath", "~"), "spec/rbd", {"monitors": ["m"], "image": "i"}, ["spec.rbd: deprecated in v1.28, non-functional in v1.31+"]),
    (PERSISTENTVOLUMECLAIMS, PVC, "metadata/annotations", NOTED, [AGAIN]),
    (PERSISTENTVOLUMECLAIMS, PVC, "spec/resources/requests/storage", "1500m", ['spec.resources.requests[storage]: fractional byte value "1500m" is invalid, must be an integer']),
    (STORAGECLASSES, CLASS, "allowedTopologies", [{"matchLabelExpressions": [{"key": OLD, "values": ["linux"]}]}], [f"allowedTopologies[0].matchLabelExpressions[0].key: {NEW}"]),
    (CSISTORAGECAPACITIES, CAPACITY, "nodeTopology/matchLabels", {OLD: "linux"}, [f"nodeTopology.matchLabels.{OLD}: {NEW}"]),
    (RUNTIMECLASSES, {"metadata": {"name": "r"}, "handler": "h"}, "scheduling", {"nodeSelector": {OLD: "linux"}}, [f"scheduling.nodeSelector: {NEW}"]),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "base", "path", "value", "expected"), WARNINGS)
def test_warnings(resource: Resource, base: Object, path: str, value: object, expected: list[str]) -> None:
    assert list(deprecations.of(resource, ready(resource, base))) == []
    given = ready(resource, changed(base, path, value))
    assert list(deprecations.of(resource, given)) == expected
    assert set(expected) <= set(support.unsupported(resource, given)[0])


def test_a_volume_as_go_clients_send_it() -> None:
    """The source of a volume is a message of its own on the wire, and none in JSON."""
    capacity = field(1, "storage") + field(2, field(1, "1Gi"))
    host = field(3, field(1, "/data") + field(2, "Directory"))
    spec = (
        field(1, capacity)
        + field(2, host)
        + field(3, "ReadWriteOnce")
        + field(5, "Retain")
        + field(8, "Block")
    )
    raw = field(1, field(1, "v")) + field(2, spec) + field(3, field(1, "Pending") + field(2, ""))
    got = protobuf.decode(envelope("v1", "PersistentVolume", raw))
    assert got["spec"] == {
        "capacity": {"storage": "1Gi"},
        "hostPath": {"path": "/data", "type": "Directory"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "volumeMode": "Block",
    }
    assert got["status"] == {"phase": "Pending"}
