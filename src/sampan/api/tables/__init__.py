"""`meta.k8s.io/v1` Tables: what `kubectl get` prints, made by the server.

Upstream: `k8s.io/kubernetes/pkg/printers/internalversion`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.api.tables import (
    autoscaling,
    batch,
    certificates,
    classes,
    core,
    devices,
    flowcontrol,
    gateway,
    loadbalancer,
    network,
    pods,
    policy,
    quota,
    storage,
    workloads,
)
from sampan.api.tables.cells import Column, Row, human_duration

__all__ = ["Column", "columns", "human_duration", "render"]

Include = Literal["Metadata", "None", "Object"]

_TABLES: dict[str, tuple[tuple[Column, ...], Row]] = {
    "namespaces": (core.NAMESPACE_COLUMNS, core.namespace_row),
    "nodes": (core.NODE_COLUMNS, core.node_row),
    "pods": (pods.COLUMNS, pods.row),
    "services": (network.SERVICE_COLUMNS, network.service_row),
    "endpoints": (network.ENDPOINTS_COLUMNS, network.endpoints_row),
    "configmaps": (core.CONFIGMAP_COLUMNS, core.configmap_row),
    "secrets": (core.SECRET_COLUMNS, core.secret_row),
    "serviceaccounts": (core.SERVICEACCOUNT_COLUMNS, core.serviceaccount_row),
    "events": (core.EVENT_COLUMNS, core.event_row),
    "deployments.apps": (workloads.DEPLOYMENT_COLUMNS, workloads.deployment_row),
    "replicasets.apps": (workloads.REPLICASET_COLUMNS, workloads.replicaset_row),
    "daemonsets.apps": (workloads.DAEMONSET_COLUMNS, workloads.daemonset_row),
    "statefulsets.apps": (workloads.STATEFULSET_COLUMNS, workloads.statefulset_row),
    "controllerrevisions.apps": (workloads.CONTROLLERREVISION_COLUMNS, workloads.controllerrevision_row),
    "replicationcontrollers": (workloads.REPLICATIONCONTROLLER_COLUMNS, workloads.replicationcontroller_row),
    "podtemplates": (workloads.PODTEMPLATE_COLUMNS, workloads.podtemplate_row),
    "jobs.batch": (batch.JOB_COLUMNS, batch.job_row),
    "cronjobs.batch": (batch.CRONJOB_COLUMNS, batch.cronjob_row),
    "horizontalpodautoscalers.autoscaling": (autoscaling.COLUMNS, autoscaling.row),
    "scales.autoscaling": (autoscaling.SCALE_COLUMNS, autoscaling.scale_row),
    "poddisruptionbudgets.policy": (policy.COLUMNS, policy.row),
    "endpointslices.discovery.k8s.io": (network.ENDPOINTSLICE_COLUMNS, network.endpointslice_row),
    "leases.coordination.k8s.io": (core.LEASE_COLUMNS, core.lease_row),
    "componentstatuses": (core.COMPONENTSTATUS_COLUMNS, core.componentstatus_row),
    "resourcequotas": (quota.RESOURCEQUOTA_COLUMNS, quota.resourcequota_row),
    "persistentvolumes": (storage.PV_COLUMNS, storage.pv_row),
    "persistentvolumeclaims": (storage.PVC_COLUMNS, storage.pvc_row),
    "storageclasses.storage.k8s.io": (storage.STORAGECLASS_COLUMNS, storage.storageclass_row),
    "csidrivers.storage.k8s.io": (storage.CSIDRIVER_COLUMNS, storage.csidriver_row),
    "csinodes.storage.k8s.io": (storage.CSINODE_COLUMNS, storage.csinode_row),
    "csistoragecapacities.storage.k8s.io": (
        storage.CSISTORAGECAPACITY_COLUMNS,
        storage.csistoragecapacity_row,
    ),
    "volumeattachments.storage.k8s.io": (storage.VOLUMEATTACHMENT_COLUMNS, storage.volumeattachment_row),
    "volumeattributesclasses.storage.k8s.io": (
        storage.VOLUMEATTRIBUTESCLASS_COLUMNS,
        storage.volumeattributesclass_row,
    ),
    "priorityclasses.scheduling.k8s.io": (classes.PRIORITYCLASS_COLUMNS, classes.priorityclass_row),
    "runtimeclasses.node.k8s.io": (classes.RUNTIMECLASS_COLUMNS, classes.runtimeclass_row),
    "certificatesigningrequests.certificates.k8s.io": (certificates.CSR_COLUMNS, certificates.csr_row),
    "flowschemas.flowcontrol.apiserver.k8s.io": (flowcontrol.FLOWSCHEMA_COLUMNS, flowcontrol.flowschema_row),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": (
        flowcontrol.PRIORITYLEVEL_COLUMNS,
        flowcontrol.prioritylevel_row,
    ),
    "ingresses.networking.k8s.io": (network.INGRESS_COLUMNS, network.ingress_row),
    "ingressclasses.networking.k8s.io": (network.INGRESSCLASS_COLUMNS, network.ingressclass_row),
    "networkpolicies.networking.k8s.io": (network.NETWORKPOLICY_COLUMNS, network.networkpolicy_row),
    "servicecidrs.networking.k8s.io": (network.SERVICECIDR_COLUMNS, network.servicecidr_row),
    "ipaddresses.networking.k8s.io": (network.IPADDRESS_COLUMNS, network.ipaddress_row),
    "gatewayclasses.gateway.networking.k8s.io": (gateway.GATEWAYCLASS_COLUMNS, gateway.gatewayclass_row),
    "gateways.gateway.networking.k8s.io": (gateway.GATEWAY_COLUMNS, gateway.gateway_row),
    "httproutes.gateway.networking.k8s.io": (gateway.ROUTE_COLUMNS, gateway.route_row),
    "grpcroutes.gateway.networking.k8s.io": (gateway.ROUTE_COLUMNS, gateway.route_row),
    "referencegrants.gateway.networking.k8s.io": (devices.AGED_COLUMNS, devices.aged_row),
    "ipaddresspools.loadbalancer.sampan.io": (
        loadbalancer.IPADDRESSPOOL_COLUMNS,
        loadbalancer.ipaddresspool_row,
    ),
    "deviceclasses.resource.k8s.io": (devices.AGED_COLUMNS, devices.aged_row),
    "resourceclaims.resource.k8s.io": (devices.RESOURCECLAIM_COLUMNS, devices.resourceclaim_row),
    "resourceclaimtemplates.resource.k8s.io": (devices.AGED_COLUMNS, devices.aged_row),
    "resourceslices.resource.k8s.io": (devices.RESOURCESLICE_COLUMNS, devices.resourceslice_row),
    "rolebindings.rbac.authorization.k8s.io": (core.BINDING_COLUMNS, core.binding_row),
    "clusterrolebindings.rbac.authorization.k8s.io": (core.BINDING_COLUMNS, core.binding_row),
}
_OTHER = (core.CREATED_COLUMNS, core.created_row)
_ROW_CONDITIONS: dict[str, Callable[[Object], list[Object]]] = {"pods": pods.row_conditions}
_ORDER: dict[str, Callable[[Object], Any]] = {
    "flowschemas.flowcontrol.apiserver.k8s.io": flowcontrol.flowschema_order
}


def columns(resource: Resource) -> tuple[Column, ...]:
    """The columns of a kind, the wide ones among them."""
    return _TABLES.get(resource.key_stem, _OTHER)[0]


def order(resource: Resource) -> Callable[[Object], Any] | None:
    """By what the rows of a list are sorted; None where they come as the objects do."""
    return _ORDER.get(resource.key_stem)


def render(
    resource: Resource, objects: Iterable[Object], *, now: float, include: Include = "Metadata"
) -> Object:
    """A Table of the objects, in their order. `now` is the present in seconds since the epoch.

    Each row carries its object's metadata, nothing, or the whole object (`include`). The table's own `metadata` is
    empty: a list's resource version is the caller's to set.
    """
    its_columns, row = _TABLES.get(resource.key_stem, _OTHER)
    conditions = _ROW_CONDITIONS.get(resource.key_stem)
    rows: list[Any] = []
    for obj in objects:
        made: Object = {"cells": row(obj, now)}
        if conditions is not None and (found := conditions(obj)):
            made["conditions"] = found
        if include == "Metadata":
            made["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": obj["metadata"],
            }
        elif include == "Object":
            made["object"] = obj
        rows.append(made)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [c.definition() for c in its_columns],
        "rows": rows,
    }
