"""What happens to a write between authorization and the store: plugins that complete an object or refuse it.

The chain runs in upstream's order, first every plugin's `mutate`, later every plugin's `validate`. One file a plugin,
named as upstream names it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sampan.apiserver import authorization
from sampan.apiserver.admission.default_ingress_class import DefaultIngressClass
from sampan.apiserver.admission.default_toleration_seconds import DefaultTolerationSeconds
from sampan.apiserver.admission.dra_admin_access import DRAAdminAccess
from sampan.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from sampan.apiserver.admission.node_restriction import NodeRestriction
from sampan.apiserver.admission.plugin import Plugin
from sampan.apiserver.admission.pod_security import PodSecurity
from sampan.apiserver.admission.priority import Priority
from sampan.apiserver.admission.privilege_escalation import PrivilegeEscalation
from sampan.apiserver.admission.service_account import ServiceAccount
from sampan.apiserver.admission.taint_nodes_by_condition import TaintNodesByCondition
from sampan.apiserver.authorization import UnionAuthorizer
from sampan.apiserver.config import Config
from sampan.apiserver.types import Attributes, ReadCache
from sampan.client.types import Client


class Chain:
    """The `Admission` of a server: each write meets the plugins that care about its resource."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._plugins = plugins
        self._by_resource: dict[str, list[Plugin]] = {}

    async def mutate(self, attributes: Attributes) -> None:
        for plugin in self._for(attributes):
            await plugin.mutate(attributes)

    async def validate(self, attributes: Attributes) -> None:
        for plugin in self._for(attributes):
            await plugin.validate(attributes)

    def _for(self, attributes: Attributes) -> list[Plugin]:
        stem = attributes.resource.key_stem
        plugins = self._by_resource.get(stem)
        if plugins is None:
            plugins = [p for p in self._plugins if p.resources is None or stem in p.resources]
            self._by_resource[stem] = plugins
        return plugins


def build(
    config: Config, cache: ReadCache, client: Client, authorizer: UnionAuthorizer | None = None
) -> Chain:
    """The chain of a server. Give the server's own authorizer, so that there is one index of roles. `client` is for
    plugins that read past the cache; with a cache that is current up to the last write none needs to."""
    del client
    authorizer = authorizer or authorization.build(config, cache)
    return Chain(
        (
            NamespaceLifecycle(cache),
            ServiceAccount(cache),
            NodeRestriction(cache),
            TaintNodesByCondition(),
            PodSecurity(cache),
            Priority(cache),
            DefaultTolerationSeconds(),
            DefaultIngressClass(cache),
            DRAAdminAccess(cache),
            PrivilegeEscalation(cache, authorizer),
        )
    )
