"""Nothing is made in a namespace that is not there or is going; the system's namespaces stay."""

from __future__ import annotations

from sampan.api import errors, resources
from sampan.apiserver.admission.plugin import Plugin, refuse
from sampan.apiserver.types import Attributes, ReadCache

IMMORTAL = frozenset(("default", "kube-system", "kube-public"))
_REVIEWS = "authorization.k8s.io"


class NamespaceLifecycle(Plugin):
    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def mutate(self, attributes: Attributes) -> None:
        resource, namespace = attributes.resource, attributes.namespace
        if attributes.operation == "DELETE":
            if (
                resource is resources.NAMESPACES
                and not attributes.subresource
                and attributes.name in IMMORTAL
            ):
                raise refuse(attributes, "this namespace may not be deleted")
            return
        if not resource.namespaced or resource.group == _REVIEWS:
            return
        found = self._cache.get(resources.NAMESPACES, "", namespace)
        if found is None:
            raise errors.not_found("namespaces", namespace)
        if attributes.operation != "CREATE":
            return
        if (found.get("status") or {}).get("phase") != "Terminating":
            return
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        error = refuse(attributes, why)
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
        error.details = {**(error.details or {}), "causes": [cause]}
        raise error
