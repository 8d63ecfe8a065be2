"""Which Secrets and ConfigMaps Ingresses of our classes refer to: nodes that are front doors may read these.

Kept up to date by the cache's changes, from the first question on.
"""

from __future__ import annotations

from collections import Counter

from sampan.api import resources
from sampan.api.errors import Object
from sampan.api.ingress_classes import class_of, is_ours
from sampan.api.ingress_references import references
from sampan.apiserver.types import ReadCache


class IngressReferences:
    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache
        self._filled = False
        self._counts: dict[tuple[str, str, str], Counter[str]] = {}
        """By class, how many Ingresses refer to (plural, namespace, name)."""
        cache.on_change(resources.INGRESSES, self._changed)

    def refers(self, plural: str, namespace: str, name: str) -> bool:
        """Whether any Ingress of that namespace, and of a class that front doors serve, refers to the object."""
        if not self._filled:
            # Not before, so that it does not matter whether the cache was full when we were made.
            self._filled = True
            for ingress in self._cache.list(resources.INGRESSES):
                self._count(ingress, 1)
        return any(
            is_ours(self._cache.get(resources.INGRESSCLASSES, "", class_name))
            for class_name in self._counts.get((plural, namespace, name), ())
        )

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if self._filled:
            self._count(old, -1)
            self._count(new, 1)

    def _count(self, ingress: Object | None, step: int) -> None:
        if ingress is None:
            return
        namespace, class_name = ingress["metadata"].get("namespace", ""), class_of(ingress)
        for plural, name in references(ingress):
            key = (plural, namespace, name)
            by_class = self._counts.setdefault(key, Counter())
            by_class[class_name] += step
            if not by_class[class_name]:
                del by_class[class_name]
            if not by_class:
                del self._counts[key]
