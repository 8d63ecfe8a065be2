"""StorageObjectInUseProtection: volumes, claims and their attributes' classes are held by a finalizer as long as somebody
uses them.

Controllers of the same names take it off. Upstream: `plugin/pkg/admission/storage/storageobjectinuseprotection`.
"""

from __future__ import annotations

from sampan.api.resources import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, VOLUMEATTRIBUTESCLASSES
from sampan.apiserver.admission.plugin import CREATE, Plugin
from sampan.apiserver.types import Attributes

FINALIZERS = {
    PERSISTENTVOLUMECLAIMS.key_stem: "kubernetes.io/pvc-protection",
    PERSISTENTVOLUMES.key_stem: "kubernetes.io/pv-protection",
    VOLUMEATTRIBUTESCLASSES.key_stem: "kubernetes.io/vac-protection",
}


class StorageObjectInUseProtection(Plugin):
    resources = frozenset(FINALIZERS)
    operations = CREATE

    async def mutate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if attributes.subresource or obj is None:
            return
        finalizer = FINALIZERS[attributes.resource.key_stem]
        present = obj["metadata"].get("finalizers") or []
        if finalizer not in present:
            obj["metadata"]["finalizers"] = [*present, finalizer]
