"""Tables of volumes and their claims, and of storage.k8s.io."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sampan.api import quantity
from sampan.api.errors import Object
from sampan.api.tables.cells import AGE, NAME, NONE, Column, age, integer, joined, name, section, wide

_UNSET = "<unset>"
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def access_modes(modes: Iterable[str] | None) -> str:
    """Access modes in their short form, always in the same order."""
    given = set(modes or ())
    return joined(short for mode, short in _MODES.items() if mode in given)


def _size(amounts: Object | None) -> str:
    return quantity.format((amounts or {}).get("storage", "0"))


def _class(obj: Object) -> str:
    """The class of a volume or claim: an old annotation goes before the field."""
    noted = (obj["metadata"].get("annotations") or {}).get(_BETA_CLASS)
    return str(noted if noted is not None else section(obj, "spec").get("storageClassName") or "")


def _phase(obj: Object) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str(section(obj, "status").get("phase") or "")


_STATUS = Column("Status", description="Whether a claim and a volume belong to each other.")
_STORAGE_CLASS = Column("StorageClass", description="Its class.")
_ATTRIBUTES_CLASS = Column("VolumeAttributesClass", description="The class of its changeable attributes.")
_ACCESS = Column("Access Modes", description="Who can mount it at a time.")
_MODE = wide("VolumeMode", "Whether it is used as a file system or as a block device.")

PV_COLUMNS = (
    NAME,
    Column("Capacity", description="Its size."),
    _ACCESS,
    Column("Reclaim Policy", description="What becomes of it when its claim goes."),
    _STATUS,
    Column("Claim", description="The claim that has it."),
    _STORAGE_CLASS,
    _ATTRIBUTES_CLASS,
    Column("Reason", description="Why it is in its state."),
    AGE,
    _MODE,
)


def pv_row(volume: Object, now: float) -> list[Any]:
    spec = section(volume, "spec")
    claim = spec.get("claimRef")
    return [
        name(volume),
        _size(spec.get("capacity")),
        access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy") or "",
        _phase(volume),
        f"{claim.get('namespace') or ''}/{claim.get('name') or ''}" if claim else "",
        _class(volume),
        spec.get("volumeAttributesClassName") or _UNSET,
        section(volume, "status").get("reason") or "",
        age(volume, now),
        spec.get("volumeMode") or _UNSET,
    ]


PVC_COLUMNS = (
    NAME,
    _STATUS,
    Column("Volume", description="The volume that it has."),
    Column("Capacity", description="The size of its volume."),
    _ACCESS,
    _STORAGE_CLASS,
    _ATTRIBUTES_CLASS,
    AGE,
    _MODE,
)


def pvc_row(claim: Object, now: float) -> list[Any]:
    spec, status = section(claim, "spec"), section(claim, "status")
    bound = spec.get("volumeName") or ""
    return [
        name(claim),
        _phase(claim),
        bound,
        _size(status.get("capacity")) if bound else "",
        access_modes(status.get("accessModes")) if bound else "",
        _class(claim),
        spec.get("volumeAttributesClassName") or _UNSET,
        age(claim, now),
        spec.get("volumeMode") or _UNSET,
    ]


_DEFAULT_CLASS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_DEFAULT_ATTRIBUTES_CLASS = ("volumeattributesclass.alpha.kubernetes.io/is-default-class",)


def _named(obj: Object, default_annotations: Iterable[str]) -> str:
    notes = obj["metadata"].get("annotations") or {}
    default = any(notes.get(a) == "true" for a in default_annotations)
    return f"{name(obj)} (default)" if default else name(obj)


STORAGECLASS_COLUMNS = (
    NAME,
    Column("Provisioner", description="Who makes its volumes."),
    Column("ReclaimPolicy", description="What becomes of its volumes when their claims go."),
    Column("VolumeBindingMode", description="When its volumes are made and bound."),
    Column("AllowVolumeExpansion", description="Whether its volumes can grow."),
    AGE,
)


def storageclass_row(klass: Object, now: float) -> list[Any]:
    return [
        _named(klass, _DEFAULT_CLASS),
        klass.get("provisioner") or "",
        klass.get("reclaimPolicy") or "Delete",
        klass.get("volumeBindingMode") or "Immediate",
        bool(klass.get("allowVolumeExpansion")),
        age(klass, now),
    ]


VOLUMEATTRIBUTESCLASS_COLUMNS = (
    NAME,
    Column("DriverName", description="The CSI driver that it is for."),
    AGE,
)


def volumeattributesclass_row(klass: Object, now: float) -> list[Any]:
    return [_named(klass, _DEFAULT_ATTRIBUTES_CLASS), klass.get("driverName") or "", age(klass, now)]


VOLUMEATTACHMENT_COLUMNS = (
    NAME,
    Column("Attacher", format="name", description="The driver that attaches it."),
    Column("PV", description="The volume."),
    Column("Node", description="The node that it is attached to."),
    Column("Attached", "boolean", description="Whether it is attached."),
    AGE,
)


def volumeattachment_row(attachment: Object, now: float) -> list[Any]:
    spec = section(attachment, "spec")
    return [
        name(attachment),
        spec.get("attacher") or "",
        (spec.get("source") or {}).get("persistentVolumeName") or "",
        spec.get("nodeName") or "",
        bool(section(attachment, "status").get("attached")),
        age(attachment, now),
    ]


CSINODE_COLUMNS = (NAME, integer("Drivers", "How many CSI drivers run on the node."), AGE)


def csinode_row(node: Object, now: float) -> list[Any]:
    return [name(node), len(section(node, "spec").get("drivers") or ()), age(node, now)]


CSIDRIVER_COLUMNS = (
    NAME,
    Column(
        "AttachRequired", "boolean", description="Whether its volumes are attached before they are mounted."
    ),
    Column("PodInfoOnMount", "boolean", description="Whether it is told of the pod that it mounts for."),
    Column(
        "StorageCapacity", "boolean", description="Whether the scheduler looks at the capacity that it tells."
    ),
    Column("TokenRequests", description="The audiences of the tokens that it gets."),
    Column("RequiresRepublish", "boolean", description="Whether volumes are mounted anew from time to time."),
    Column("Modes", description="The kinds of volume that it has."),
    AGE,
)


def csidriver_row(driver: Object, now: float) -> list[Any]:
    spec = section(driver, "spec")
    tokens = spec.get("tokenRequests")
    return [
        name(driver),
        spec.get("attachRequired") is not False,
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        _UNSET if tokens is None else joined(t.get("audience") or "" for t in tokens),
        bool(spec.get("requiresRepublish")),
        joined(spec.get("volumeLifecycleModes") or ()) or NONE,
        age(driver, now),
    ]


CSISTORAGECAPACITY_COLUMNS = (
    NAME,
    Column("StorageClassName", description="The class that the capacity is for."),
    Column("Capacity", description="How much there is."),
)


def csistoragecapacity_row(capacity: Object, now: float) -> list[Any]:
    amount = capacity.get("capacity")
    return [
        name(capacity),
        capacity.get("storageClassName") or "",
        _UNSET if amount is None else quantity.format(amount),
    ]
