"""An Ingress that names no class gets the default one, if there is one."""

from __future__ import annotations

from sampan.api import resources
from sampan.api.ingress_classes import CLASS_ANNOTATION
from sampan.apiserver.admission.default_class import default_class
from sampan.apiserver.admission.plugin import CREATE, Plugin
from sampan.apiserver.types import Attributes, ReadCache

DEFAULT = "ingressclass.kubernetes.io/is-default-class"


class DefaultIngressClass(Plugin):
    resources = frozenset(("ingresses.networking.k8s.io",))
    operations = CREATE

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def mutate(self, attributes: Attributes) -> None:
        ingress = attributes.obj
        if attributes.subresource or ingress is None:
            return
        spec = ingress.setdefault("spec", {})
        annotations = ingress["metadata"].get("annotations") or {}
        if spec.get("ingressClassName") is not None or CLASS_ANNOTATION in annotations:
            return
        name = default_class(self._cache.list(resources.INGRESSCLASSES), DEFAULT)
        if name is not None:
            spec["ingressClassName"] = name
