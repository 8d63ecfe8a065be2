"""The controller manager: one set of informers, and every controller on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sampan.api.errors import Object
from sampan.client.events import Recorder
from sampan.client.types import Client
from sampan.controllers.bootstrap_signer import BootstrapSigner
from sampan.controllers.certificates import (
    CSRApprovingController,
    CSRCleanerController,
    CSRSigningController,
    KubeletServingApprovingController,
)
from sampan.controllers.certificates.authority import Authority
from sampan.controllers.controller import Context, Controller
from sampan.controllers.deployment import DeploymentController
from sampan.controllers.endpoints import EndpointsController
from sampan.controllers.endpointslice import EndpointSliceController
from sampan.controllers.endpointslice.mirroring import EndpointSliceMirroringController
from sampan.controllers.garbage_collector import GarbageCollector
from sampan.controllers.informers import Informers
from sampan.controllers.local_tls import LocalTlsController
from sampan.controllers.namespace import NamespaceController
from sampan.controllers.node_ipam import NodeIpamController, NodeRanges
from sampan.controllers.node_lifecycle import NodeLifecycleController
from sampan.controllers.pod_gc import PodGarbageController
from sampan.controllers.replicaset import ReplicaSetController
from sampan.controllers.resource_quota import ResourceQuotaController
from sampan.controllers.role_aggregation import ClusterRoleAggregationController
from sampan.controllers.root_ca import RootCaController
from sampan.controllers.service_account_tokens import ServiceAccountTokensController
from sampan.controllers.service_cidr import ServiceCIDRController
from sampan.controllers.serviceaccount import ServiceAccountController
from sampan.controllers.storage_protection import (
    PVCProtectionController,
    PVProtectionController,
    VACProtectionController,
)
from sampan.controllers.taint_eviction import TaintEvictionController
from sampan.controllers.token_cleaner import TokenCleaner

CONTROLLERS: tuple[type[Controller], ...] = (
    ServiceAccountController,
    RootCaController,
    DeploymentController,
    ReplicaSetController,
    EndpointSliceController,
    NodeLifecycleController,
    TaintEvictionController,
    GarbageCollector,
    NamespaceController,
    PodGarbageController,
    EndpointsController,
    EndpointSliceMirroringController,
    ClusterRoleAggregationController,
    ServiceCIDRController,
    ServiceAccountTokensController,
    TokenCleaner,
    CSRApprovingController,
    CSRSigningController,
    CSRCleanerController,
    KubeletServingApprovingController,
    BootstrapSigner,
    NodeIpamController,
    LocalTlsController,
    ResourceQuotaController,
    PVCProtectionController,
    PVProtectionController,
    VACProtectionController,
)


class Manager:
    """Runs every controller against `client`. `cluster_ca` (PEM) is published in every namespace; `sign_token` makes
    the tokens that are kept in Secrets; `authority` the certificates that were asked for and approved, `local_authority`
    those of Ingresses; `node_monitor_grace_period` is how many seconds a node may be silent (0: upstream's); `node_ranges` says
    where Nodes get the ranges of their pods from."""

    def __init__(
        self,
        client: Client,
        cluster_ca: str,
        sign_token: Callable[[Object, Object], str] | None = None,
        authority: Authority | None = None,
        local_authority: Authority | None = None,
        node_monitor_grace_period: float = 0.0,
        node_ranges: NodeRanges | None = None,
    ) -> None:
        self._client = client
        self._cluster_ca = cluster_ca
        self._sign_token = sign_token
        self._authority = authority
        self._local_authority = local_authority
        self._node_monitor_grace_period = node_monitor_grace_period
        self._node_ranges = node_ranges

    async def run(self) -> None:
        """Control until cancelled. A controller's failure to do one thing is logged and tried again, never raised."""
        informers = Informers(self._client)
        recorders: dict[str, Recorder] = {}

        def recorder(component: str) -> Recorder:
            return recorders.setdefault(component, Recorder(self._client, component))

        context = Context(
            self._client,
            informers,
            recorder,
            self._cluster_ca,
            self._sign_token,
            self._authority,
            self._local_authority,
            self._node_monitor_grace_period,
            self._node_ranges,
        )
        controllers = [make(context) for make in CONTROLLERS]  # type: ignore[call-arg]
        async with asyncio.TaskGroup() as group:
            group.create_task(informers.run(), name="informers")
            await informers.synced()
            for controller in controllers:
                group.create_task(controller.run(), name=f"controller {controller.name}")
            for component, made in recorders.items():
                group.create_task(made.run(), name=f"events of {component}")
