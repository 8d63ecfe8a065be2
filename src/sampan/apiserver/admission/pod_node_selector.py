"""PodNodeSelector: a namespace's annotation says on which nodes its pods run.

Upstream: `plugin/pkg/admission/podnodeselector`.
"""

from __future__ import annotations

from sampan.api.errors import StatusError
from sampan.api.resources import NAMESPACES
from sampan.apiserver.admission.plugin import CREATE, Plugin, refuse
from sampan.apiserver.types import Attributes, ReadCache

ANNOTATION = "scheduler.alpha.kubernetes.io/node-selector"


class PodNodeSelector(Plugin):
    resources = frozenset(("pods",))
    operations = CREATE

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def mutate(self, attributes: Attributes) -> None:
        wanted = self._wanted(attributes)
        if wanted and attributes.obj is not None:
            spec = attributes.obj["spec"]
            spec["nodeSelector"] = {**wanted, **(spec.get("nodeSelector") or {})}

    async def validate(self, attributes: Attributes) -> None:
        self._wanted(attributes)

    def _wanted(self, attributes: Attributes) -> dict[str, str]:
        """The labels that the namespace wants. Raises StatusError if the pod wants others."""
        if attributes.subresource or attributes.obj is None:
            return {}
        namespace = self._cache.get(NAMESPACES, "", attributes.namespace) or {"metadata": {}}
        text = (namespace["metadata"].get("annotations") or {}).get(ANNOTATION) or ""
        wanted: dict[str, str] = {}
        for term in filter(None, (t.strip() for t in text.split(","))):
            key, equals, value = term.partition("=")
            if not equals:
                raise StatusError(500, "InternalError", f"invalid selector: {term}")
            wanted[key.strip()] = value.strip()
        given = attributes.obj["spec"].get("nodeSelector") or {}
        if any(given.get(k, v) != v for k, v in wanted.items()):
            why = "pod node label selector conflicts with its namespace node label selector"
            raise refuse(attributes, why)
        return wanted
