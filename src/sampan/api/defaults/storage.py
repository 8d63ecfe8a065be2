"""Defaults of volumes and their claims, and of storage.k8s.io."""

from __future__ import annotations

from sampan.api.defaults import pods
from sampan.api.errors import Object

_PLAIN = {
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
}  # fmt: skip
"""Fields of a volume's spec that are no source."""


def persistent_volume(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("persistentVolumeReclaimPolicy"):
        spec["persistentVolumeReclaimPolicy"] = "Retain"
    volume_source(spec)


def volume_source(spec: Object) -> None:
    """A volume's spec, of its own or inline in an attachment."""
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    for name in spec.keys() - _PLAIN:
        pods.volume({name: spec[name]})


def persistent_volume_claim(obj: Object) -> None:
    claim_spec(obj.setdefault("spec", {}))


def claim_spec(spec: Object) -> None:
    """The spec of a claim, or of a template of claims."""
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"


def storage_class(obj: Object) -> None:
    if obj.get("reclaimPolicy") is None:
        obj["reclaimPolicy"] = "Delete"
    if obj.get("volumeBindingMode") is None:
        obj["volumeBindingMode"] = "Immediate"


_OF_DRIVERS: tuple[tuple[str, object], ...] = (
    ("attachRequired", True),
    ("podInfoOnMount", False),
    ("storageCapacity", False),
    ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
    ("requiresRepublish", False),
    ("seLinuxMount", False),
)


def csi_driver(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    for name, value in _OF_DRIVERS:
        if spec.get(name) is None:
            spec[name] = value
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def volume_attachment(obj: Object) -> None:
    inline = ((obj.get("spec") or {}).get("source") or {}).get("inlineVolumeSpec")
    if inline:
        volume_source(inline)
