"""Which Secrets and ConfigMaps Ingresses refer to: nodes that are front doors may read these.

Kept up to date by the cache's changes, from the first question on.
"""

from __future__ import annotations

from collections import Counter

from sampan.api import resources
from sampan.api.errors import Object
from sampan.api.ingress_references import references
from sampan.apiserver.types import ReadCache


class IngressReferences:
    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache
        self._filled = False
        self._counts: Counter[tuple[str, str, str]] = Counter()
        """How many Ingresses refer to (plural, namespace, name)."""
        cache.on_change(resources.INGRESSES, self._changed)

    def refers(self, plural: str, namespace: str, name: str) -> bool:
        """Whether any Ingress of that namespace refers to the object."""
        if not self._filled:
            # Not before, so that it does not matter whether the cache was full when we were made.
            self._filled = True
            for ingress in self._cache.list(resources.INGRESSES):
                self._count(ingress, 1)
        return (plural, namespace, name) in self._counts

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if self._filled:
            self._count(old, -1)
            self._count(new, 1)

    def _count(self, ingress: Object | None, step: int) -> None:
        if ingress is None:
            return
        namespace = ingress["metadata"].get("namespace", "")
        for plural, name in references(ingress):
            key = (plural, namespace, name)
            self._counts[key] += step
            if not self._counts[key]:
                del self._counts[key]
