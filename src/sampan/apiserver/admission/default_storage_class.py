"""DefaultStorageClass: a claim that says nothing about its class gets the default one, if there is one.

A claim that names the class "" wants none. Upstream: `plugin/pkg/admission/storage/storageclass/setdefault`.
"""

from __future__ import annotations

from sampan.api.resources import PERSISTENTVOLUMECLAIMS, STORAGECLASSES
from sampan.apiserver.admission.default_class import default_class
from sampan.apiserver.admission.plugin import CREATE, Plugin
from sampan.apiserver.types import Attributes, ReadCache

DEFAULT = "storageclass.kubernetes.io/is-default-class"
_OLD_DEFAULT = "storageclass.beta.kubernetes.io/is-default-class"
_OLD_ANNOTATION = "volume.beta.kubernetes.io/storage-class"


class DefaultStorageClass(Plugin):
    resources = frozenset((PERSISTENTVOLUMECLAIMS.key_stem,))
    operations = CREATE

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def mutate(self, attributes: Attributes) -> None:
        claim = attributes.obj
        if attributes.subresource or claim is None:
            return
        spec = claim.setdefault("spec", {})
        annotations = claim["metadata"].get("annotations") or {}
        if spec.get("storageClassName") is not None or _OLD_ANNOTATION in annotations:
            return
        name = default_class(self._cache.list(STORAGECLASSES), DEFAULT, _OLD_DEFAULT)
        if name is not None:
            spec["storageClassName"] = name
