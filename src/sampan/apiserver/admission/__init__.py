"""What happens to a write between authorization and the store: plugins that complete an object or refuse it.

The chain runs in upstream's order (`PLUGINS`), first every plugin's `mutate`, later every plugin's `validate`. One file
a plugin, named as upstream names it; what is off unless asked for is loaded when it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.apiserver import authorization
from sampan.apiserver.admission.dra_admin_access import DRAAdminAccess
from sampan.apiserver.admission.plugin import OPERATIONS, Plugin
from sampan.apiserver.admission.privilege_escalation import PrivilegeEscalation
from sampan.apiserver.authorization import UnionAuthorizer
from sampan.apiserver.config import Config
from sampan.apiserver.types import Attributes, ReadCache
from sampan.client.types import Client


@dataclass(frozen=True, slots=True)
class Parts:
    """What plugins may be made of."""

    config: Config
    cache: ReadCache
    client: Client
    authorizer: UnionAuthorizer


class Chain:
    """The `Admission` of a server: each write meets the plugins that care about its operation and resource, and of
    these only what they do."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = plugins
        # By operation, then by the identity of the resource's row: found without computing anything.
        self._mutating: dict[str, dict[int, list[Plugin]]] = {op: {} for op in OPERATIONS}
        self._validating: dict[str, dict[int, list[Plugin]]] = {op: {} for op in OPERATIONS}

    async def mutate(self, attributes: Attributes) -> None:
        plugins = self._mutating[attributes.operation].get(id(attributes.resource))
        if plugins is None:
            plugins = self._find(self._mutating, attributes, "mutate")
        for plugin in plugins:
            await plugin.mutate(attributes)

    async def validate(self, attributes: Attributes) -> None:
        plugins = self._validating[attributes.operation].get(id(attributes.resource))
        if plugins is None:
            plugins = self._find(self._validating, attributes, "validate")
        for plugin in plugins:
            await plugin.validate(attributes)

    def _find(
        self, known: dict[str, dict[int, list[Plugin]]], attributes: Attributes, step: str
    ) -> list[Plugin]:
        resource, operation = attributes.resource, attributes.operation
        found = [
            p
            for p in self.plugins
            if p.cares(operation, resource.key_stem) and getattr(type(p), step) is not getattr(Plugin, step)
        ]
        known[operation][id(resource)] = found
        return found


@dataclass(frozen=True, slots=True)
class Offer:
    """A plugin that can be had. Its class has its name; `module` is where it is."""

    module: str
    on: bool = True
    make: Callable[[type[Plugin], Parts], Plugin] = lambda made, parts: made(parts.cache)  # type: ignore[call-arg]


def _alone(made: type[Plugin], parts: Parts) -> Plugin:
    return made()


def _with_config(made: type[Plugin], parts: Parts) -> Plugin:
    return made(parts.config)  # type: ignore[call-arg]


def _with_client(made: type[Plugin], parts: Parts) -> Plugin:
    return made(parts.cache, parts.client)  # type: ignore[call-arg]


def _with_authorizer(made: type[Plugin], parts: Parts) -> Plugin:
    return made(parts.authorizer)  # type: ignore[call-arg]


PLUGINS: dict[str, Offer] = {
    "NamespaceAutoProvision": Offer("namespace_auto_provision", on=False, make=_with_client),
    "NamespaceLifecycle": Offer("namespace_lifecycle"),
    "LimitPodHardAntiAffinityTopology": Offer("limit_pod_hard_anti_affinity_topology", on=False, make=_alone),
    "LimitRanger": Offer("limit_ranger"),
    "ServiceAccount": Offer("service_account"),
    "NodeRestriction": Offer("node_restriction"),
    "TaintNodesByCondition": Offer("taint_nodes_by_condition", make=_alone),
    "AlwaysPullImages": Offer("always_pull_images", on=False, make=_alone),
    "PodSecurity": Offer("pod_security"),
    "PodNodeSelector": Offer("pod_node_selector", on=False),
    "Priority": Offer("priority"),
    "DefaultTolerationSeconds": Offer("default_toleration_seconds", make=_with_config),
    "PodTolerationRestriction": Offer("pod_toleration_restriction", on=False),
    "ExtendedResourceToleration": Offer("extended_resource_toleration", on=False, make=_alone),
    "DefaultStorageClass": Offer("default_storage_class"),
    "StorageObjectInUseProtection": Offer("storage_object_in_use_protection", make=_alone),
    "OwnerReferencesPermissionEnforcement": Offer(
        "owner_references_permission_enforcement", on=False, make=_with_authorizer
    ),
    "PersistentVolumeClaimResize": Offer("persistent_volume_claim_resize"),
    "RuntimeClass": Offer("runtime_class"),
    "CertificateApproval": Offer("certificate_approval", make=_with_authorizer),
    "CertificateSigning": Offer("certificate_signing", make=_with_authorizer),
    "CertificateSubjectRestriction": Offer("certificate_subject_restriction", make=_alone),
    "DefaultIngressClass": Offer("default_ingress_class"),
    "DenyServiceExternalIPs": Offer("deny_service_external_ips", on=False, make=_alone),
    "PodTopologyLabels": Offer("pod_topology_labels"),
    "ResourceQuota": Offer("resource_quota", make=_with_client),
}
"""Every plugin by name, in the order in which they run (upstream: `pkg/kubeapiserver/options/plugins.go`).
NodeRestriction is on here: there always are nodes, and kubeadm turns it on as well."""

NOT_HERE = frozenset((
    "AlwaysAdmit", "AlwaysDeny", "ClusterTrustBundleAttest", "EventRateLimit", "ImagePolicyWebhook", "JobValidation",
    "MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "NamespaceExists", "NodeDeclaredFeatureValidator",
    "PodGroupProtection", "PodGroupWorkloadExists", "PodResizeValidator", "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
))  # fmt: skip
"""Plugins of upstream's that are not implemented; who asks for one is told so."""


def enabled(enable: Iterable[str] = (), disable: Iterable[str] = ()) -> list[str]:
    """The plugins that run, in their order. A name in both is on, as upstream."""
    asked, unwanted = set(enable), set(disable)
    return [name for name, offer in PLUGINS.items() if name in asked or (offer.on and name not in unwanted)]


def problems(names: Iterable[str]) -> list[str]:
    """What is wrong with the names of plugins that somebody asks for."""
    import difflib

    found = []
    for name in names:
        if name in NOT_HERE:
            found.append(f'the admission plugin "{name}" is not implemented')
        elif name not in PLUGINS:
            close = difflib.get_close_matches(name, PLUGINS, 1)
            meant = f', did you mean "{close[0]}"?' if close else f"; there are: {', '.join(PLUGINS)}"
            found.append(f'there is no admission plugin "{name}"{meant}')
    return found


def build(
    config: Config, cache: ReadCache, client: Client, authorizer: UnionAuthorizer | None = None
) -> Chain:
    """The chain of a server. Give the server's own authorizer, so that there is one index of roles. `client` is for
    plugins that write."""
    parts = Parts(config, cache, client, authorizer or authorization.build(config, cache))
    names = enabled(config.enable_admission_plugins, config.disable_admission_plugins)
    plugins = {name: _make(name, parts) for name in names}
    # What upstream does in the storage of some kinds comes after all else, but before anything is charged.
    last = plugins.pop("ResourceQuota", None)
    storage = (DRAAdminAccess(cache), PrivilegeEscalation(cache, parts.authorizer))
    return Chain((*plugins.values(), *storage, *((last,) if last else ())))


def _make(name: str, parts: Parts) -> Plugin:
    offer = PLUGINS[name]
    module = importlib.import_module(f"{__name__}.{offer.module}")
    return offer.make(getattr(module, name), parts)
