"""PersistentVolumeClaims: their number and the storage that they ask for, altogether and by StorageClass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sampan.api import quantity
from sampan.api.errors import Object
from sampan.api.pod_resources import Amounts
from sampan.api.quota import scopes
from sampan.api.quota.evaluator import Evaluator
from sampan.api.resources import PERSISTENTVOLUMECLAIMS

_CLASS = ".storageclass.storage.k8s.io/"
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_CLAIMS, _STORAGE = "persistentvolumeclaims", "requests.storage"


class PersistentVolumeClaims(Evaluator):
    counts_only = False

    def __init__(self) -> None:
        super().__init__(PERSISTENTVOLUMECLAIMS)
        self.names = frozenset((_CLAIMS, _STORAGE, self.count))

    def handles(self, operation: str, subresource: str, new: Object, old: Object | None) -> bool:
        if subresource == "status":
            return operation == "UPDATE" and old is not None and self.released(old, new)
        return operation in ("CREATE", "UPDATE") and not subresource

    def named(self, names: Iterable[str]) -> list[str]:
        return [n for n in names if n in self.names or n.endswith((_CLASS + _CLAIMS, _CLASS + _STORAGE))]

    def in_scope(self, rule: Mapping[str, Any], obj: Object) -> bool:
        return rule.get("scopeName") == "VolumeAttributesClass" and scopes.selects(
            rule, attributes_classes(obj)
        )

    def usage(self, obj: Object) -> Amounts:
        used: Amounts = {self.count: "1", _CLAIMS: "1"}
        name = storage_class(obj)
        if name:
            used[name + _CLASS + _CLAIMS] = "1"
        storage = _storage(obj)
        if storage is not None:
            used[_STORAGE] = storage
            if name:
                used[name + _CLASS + _STORAGE] = storage
        return used

    def released(self, old: Object, new: Object) -> bool:
        return _allocated(old) != _allocated(new) or attributes_classes(old) != attributes_classes(new)


def storage_class(claim: Object) -> str:
    """The name of a claim's StorageClass, by its annotation from before there was a field; "" for none."""
    annotation = (claim["metadata"].get("annotations") or {}).get(_CLASS_ANNOTATION)
    return str(annotation if annotation is not None else claim["spec"].get("storageClassName") or "")


def _allocated(claim: Object) -> str | None:
    found: str | None = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage")
    return found


def _storage(claim: Object) -> str | None:
    """What a claim asks for in whole bytes, or what an expansion under way has taken if that is more."""
    asked = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage")
    if asked is None:
        return None
    allocated = _allocated(claim)
    if allocated is not None and quantity.compare(allocated, asked) > 0:
        asked = allocated
    exact = quantity.parse(asked)
    return quantity.format(asked) if exact == exact.to_integral_value() else str(quantity.value(asked))


def attributes_classes(claim: Object | None) -> frozenset[str]:
    """The VolumeAttributesClasses that a claim (or a volume) wants, has or is getting."""
    if claim is None:
        return frozenset()
    status = claim.get("status") or {}
    names = (
        claim["spec"].get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return frozenset(n for n in names if n)
