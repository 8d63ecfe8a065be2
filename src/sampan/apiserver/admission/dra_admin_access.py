"""DRAAdminAccess: a claim may look into devices that others use only where its namespace is marked for it.

Upstream does this in the claims' own storage (`pkg/registry/resource/authorization.go`), for the same reason: the rule
needs the namespace.
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api import errors
from sampan.api.errors import Object
from sampan.api.resources import NAMESPACES, RESOURCECLAIMS, RESOURCECLAIMTEMPLATES
from sampan.apiserver.admission.plugin import WRITES, Plugin
from sampan.apiserver.types import Attributes, ReadCache

LABEL = "resource.kubernetes.io/admin-access"


class DRAAdminAccess(Plugin):
    resources = frozenset({RESOURCECLAIMS.key_stem, RESOURCECLAIMTEMPLATES.key_stem})
    operations = WRITES

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None or (attributes.operation != "CREATE" and attributes.subresource != "status"):
            return
        before = set(_asked(attributes.old, attributes.subresource)) if attributes.old is not None else set()
        path = next((p for p in _asked(obj, attributes.subresource) if p not in before), "")
        if not path:
            return
        namespace = self._cache.get(NAMESPACES, "", attributes.namespace)
        labels = (namespace or {"metadata": {}})["metadata"].get("labels") or {}
        if labels.get(LABEL) != "true":
            why = f"admin access to devices requires the `{LABEL}: true` label on the containing namespace"
            kind, name = attributes.resource.kind, obj["metadata"].get("name", "")
            raise errors.invalid(kind, name, [errors.forbidden_field(path, why)], attributes.resource.group)


def _asked(obj: Object, subresource: str) -> Iterator[str]:
    """The fields of an object that ask for it."""
    if subresource == "status":
        allocation = (obj.get("status") or {}).get("allocation") or {}
        for i, result in enumerate((allocation.get("devices") or {}).get("results") or ()):
            if result.get("adminAccess"):
                yield f"status.allocation.devices.results[{i}].adminAccess"
        return
    spec, at = obj.get("spec") or {}, "spec"
    if obj.get("kind") == RESOURCECLAIMTEMPLATES.kind:
        spec, at = spec.get("spec") or {}, "spec.spec"
    for i, request in enumerate((spec.get("devices") or {}).get("requests") or ()):
        if (request.get("exactly") or {}).get("adminAccess"):
            yield f"{at}.devices.requests[{i}].adminAccess"
