"""NamespaceAutoProvision: the namespace of a new object is made if there is none.

Upstream: `plugin/pkg/admission/namespace/autoprovision`.
"""

from __future__ import annotations

from sampan.api.errors import StatusError
from sampan.api.resources import NAMESPACES
from sampan.apiserver.admission.plugin import CREATE, Plugin
from sampan.apiserver.types import Attributes, ReadCache
from sampan.client.types import Client


class NamespaceAutoProvision(Plugin):
    operations = CREATE

    def __init__(self, cache: ReadCache, client: Client) -> None:
        self._cache = cache
        self._client = client

    async def mutate(self, attributes: Attributes) -> None:
        name = attributes.namespace
        if not attributes.resource.namespaced or attributes.dry_run or not name:
            return
        if not attributes.resource.stored or self._cache.get(NAMESPACES, "", name) is not None:
            return
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        try:
            await self._client.create(NAMESPACES, body)
        except StatusError as e:
            if e.reason != "AlreadyExists":
                raise
