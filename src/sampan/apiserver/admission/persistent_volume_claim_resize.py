"""PersistentVolumeClaimResize: a claim grows only if it is bound and its StorageClass allows that.

Upstream: `plugin/pkg/admission/storage/persistentvolume/resize`.
"""

from __future__ import annotations

from sampan.api import quantity
from sampan.api.errors import Object
from sampan.api.quota.persistent_volume_claims import storage_class
from sampan.api.resources import PERSISTENTVOLUMECLAIMS, STORAGECLASSES
from sampan.apiserver.admission.plugin import UPDATE, Plugin, refuse
from sampan.apiserver.types import Attributes, ReadCache


class PersistentVolumeClaimResize(Plugin):
    resources = frozenset((PERSISTENTVOLUMECLAIMS.key_stem,))
    operations = UPDATE

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def validate(self, attributes: Attributes) -> None:
        new, old = attributes.obj, attributes.old
        if attributes.subresource or new is None or old is None:
            return
        if quantity.compare(_size(new), _size(old)) <= 0:
            return
        if (old.get("status") or {}).get("phase") != "Bound":
            raise refuse(attributes, "Only bound persistent volume claims can be expanded")
        name = storage_class(new)
        found = self._cache.get(STORAGECLASSES, "", name) if name and name == storage_class(old) else None
        if found is None or not found.get("allowVolumeExpansion"):
            why = (
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize"
            )
            raise refuse(attributes, why)


def _size(claim: Object) -> str:
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return str(requests.get("storage", "0"))
