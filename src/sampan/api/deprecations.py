"""What is a bad idea in volumes, claims, classes and Ingresses: upstream's warnings, not ours.

Upstream: `pkg/api/{persistentvolume,persistentvolumeclaim,storage,node}`, `pkg/registry/networking/ingress`. Those of pods are in
`support`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sampan.api import quantity
from sampan.api.errors import Object
from sampan.api.ingress_classes import CLASS_ANNOTATION
from sampan.api.resources import (
    CSISTORAGECAPACITIES,
    INGRESSES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    RUNTIMECLASSES,
    STORAGECLASSES,
    Resource,
)

NODE_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
"""Labels of nodes that have a new name."""
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_SOURCES = {
    "cephfs": ("v1.28", "v1.31"),
    "glusterfs": ("v1.25", "v1.26"),
    "photonPersistentDisk": ("v1.11", "v1.16"),
    "rbd": ("v1.28", "v1.31"),
    "scaleIO": ("v1.16", "v1.22"),
    "storageos": ("v1.22", "v1.25"),
}
"""Types of volume: deprecated in, without effect from."""


def of(resource: Resource, obj: Object) -> Iterator[str]:
    """The warnings for who writes an object of such a kind."""
    told = _TOLD.get(resource.key_stem)
    return told(obj) if told is not None else iter(())


def _noted_class(obj: Object) -> Iterator[str]:
    if _CLASS_ANNOTATION in ((obj.get("metadata") or {}).get("annotations") or ()):
        at = f"metadata.annotations[{_CLASS_ANNOTATION}]"
        yield f'{at}: deprecated since v1.8; use "storageClassName" attribute instead'


def _of_ingress(obj: Object) -> Iterator[str]:
    meta, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    if CLASS_ANNOTATION in (meta.get("annotations") or ()) and spec.get("ingressClassName") is None:
        yield f"annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"


def _of_volume(obj: Object) -> Iterator[str]:
    yield from _noted_class(obj)
    spec = obj.get("spec") or {}
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        yield (
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended "
            "approach is to use dynamic provisioning."
        )
    wanted = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    for i, term in enumerate(wanted):
        at = f"spec.nodeAffinity.required.nodeSelectorTerms[{i}]"
        yield from _expressions(term, at)
    for name, (deprecated, gone) in _SOURCES.items():
        if spec.get(name) is not None:
            yield f"spec.{name}: deprecated in {deprecated}, non-functional in {gone}+"


def _expressions(selector: Object, path: str) -> Iterator[str]:
    for i, rule in enumerate(selector.get("matchExpressions") or ()):
        key = rule.get("key") or ""
        if key in NODE_LABELS:
            yield f"{path}.matchExpressions[{i}].key: {key} is {NODE_LABELS[key]}"


def _of_claim(obj: Object) -> Iterator[str]:
    yield from _noted_class(obj)
    amounts = (obj.get("spec") or {}).get("resources") or {}
    for part in ("requests", "limits"):
        value = (amounts.get(part) or {}).get("storage")
        if value is not None and quantity.parse(value) % 1:
            at = f"spec.resources.{part}[storage]"
            yield f'{at}: fractional byte value "{quantity.format(value)}" is invalid, must be an integer'


def _of_storage_class(obj: Object) -> Iterator[str]:
    for i, term in enumerate(obj.get("allowedTopologies") or ()):
        for j, rule in enumerate(term.get("matchLabelExpressions") or ()):
            key = rule.get("key") or ""
            if key in NODE_LABELS:
                yield f"allowedTopologies[{i}].matchLabelExpressions[{j}].key: {NODE_LABELS[key]}"


def _of_capacity(obj: Object) -> Iterator[str]:
    topology = obj.get("nodeTopology") or {}
    yield from _expressions(topology, "nodeTopology")
    for key in topology.get("matchLabels") or ():
        if key in NODE_LABELS:
            yield f"nodeTopology.matchLabels.{key}: {NODE_LABELS[key]}"


def _of_runtime_class(obj: Object) -> Iterator[str]:
    for key in (obj.get("scheduling") or {}).get("nodeSelector") or ():
        if key in NODE_LABELS:
            yield f"scheduling.nodeSelector: {NODE_LABELS[key]}"


_TOLD: dict[str, Callable[[Object], Iterator[str]]] = {
    PERSISTENTVOLUMES.key_stem: _of_volume,
    PERSISTENTVOLUMECLAIMS.key_stem: _of_claim,
    STORAGECLASSES.key_stem: _of_storage_class,
    CSISTORAGECAPACITIES.key_stem: _of_capacity,
    RUNTIMECLASSES.key_stem: _of_runtime_class,
    INGRESSES.key_stem: _of_ingress,
}
