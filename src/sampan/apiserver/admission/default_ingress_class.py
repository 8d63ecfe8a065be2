"""An Ingress that names no class gets the default one, if there is one."""

from __future__ import annotations

from sampan.api import resources
from sampan.apiserver.admission.plugin import CREATE, Plugin
from sampan.apiserver.types import Attributes, ReadCache

DEFAULT = "ingressclass.kubernetes.io/is-default-class"
_OLD_ANNOTATION = "kubernetes.io/ingress.class"


class DefaultIngressClass(Plugin):
    resources = frozenset(("ingresses.networking.k8s.io",))
    operations = CREATE

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def mutate(self, attributes: Attributes) -> None:
        ingress = attributes.obj
        if attributes.operation != "CREATE" or attributes.subresource or ingress is None:
            return
        spec = ingress.setdefault("spec", {})
        annotations = ingress["metadata"].get("annotations") or {}
        if spec.get("ingressClassName") is not None or _OLD_ANNOTATION in annotations:
            return
        defaults = [
            c["metadata"]
            for c in self._cache.list(resources.INGRESSCLASSES)
            if (c["metadata"].get("annotations") or {}).get(DEFAULT) == "true"
        ]
        if defaults:
            # Of several the newest, and of equally new ones the first by name: as upstream.
            newest = max(m.get("creationTimestamp") or "" for m in defaults)
            spec["ingressClassName"] = min(
                m["name"] for m in defaults if (m.get("creationTimestamp") or "") == newest
            )
