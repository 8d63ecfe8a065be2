"""The rules of each kind: the one table from a kind to its checks."""

from __future__ import annotations

from sampan.api.validation import (
    Rules,
    apps,
    autoscaling,
    batch,
    certificates,
    core,
    devices,
    flowcontrol,
    formats,
    gateway,
    loadbalancer,
    networking,
    persistent_volumes,
    pods,
    policy,
    priority,
    quota,
    rbac,
    replication_controllers,
    resource_slices,
    runtime_class,
    services,
    storage,
)

_RBAC = "rbac.authorization.k8s.io"
_NETWORKING = "networking.k8s.io"
_STORAGE = "storage.k8s.io"
_DEVICES = "resource.k8s.io"
_GATEWAY = "gateway.networking.k8s.io"
_FLOWCONTROL = "flowcontrol.apiserver.k8s.io"

RULES: dict[tuple[str, str], Rules] = {
    ("", "Pod"): Rules(create=pods.create, update=pods.update),
    ("", "Binding"): Rules(create=pods.binding),
    ("", "Namespace"): Rules(formats.dns1123_label, core.namespace, core.namespace_update),
    ("", "Node"): Rules(create=core.node, update=core.node_update),
    ("", "Service"): Rules(formats.dns1035_label, services.create, services.update),
    ("", "Endpoints"): Rules(create=services.endpoints),
    ("", "ConfigMap"): Rules(create=core.config_map, update=core.config_map_update),
    ("", "Secret"): Rules(create=core.secret, update=core.secret_update),
    ("", "Event"): Rules(create=core.event, update=core.event_update),
    ("events.k8s.io", "Event"): Rules(create=core.event_v1, update=core.event_v1_update),
    ("apps", "Deployment"): Rules(create=apps.deployment, update=apps.deployment_update),
    ("apps", "ReplicaSet"): Rules(create=apps.replica_set, update=apps.replica_set_update),
    ("apps", "DaemonSet"): Rules(create=apps.daemon_set, update=apps.daemon_set_update),
    ("apps", "StatefulSet"): Rules(create=apps.stateful_set, update=apps.stateful_set_update),
    ("apps", "ControllerRevision"): Rules(
        create=apps.controller_revision, update=apps.controller_revision_update
    ),
    ("", "ReplicationController"): Rules(
        create=replication_controllers.replication_controller,
        update=replication_controllers.replication_controller_update,
    ),
    ("", "PodTemplate"): Rules(create=replication_controllers.pod_template),
    ("autoscaling", "HorizontalPodAutoscaler"): Rules(
        create=autoscaling.horizontal_pod_autoscaler, update=autoscaling.horizontal_pod_autoscaler_update
    ),
    ("policy", "PodDisruptionBudget"): Rules(
        create=policy.pod_disruption_budget, update=policy.pod_disruption_budget_update
    ),
    ("batch", "Job"): Rules(create=batch.job, update=batch.job_update),
    ("batch", "CronJob"): Rules(create=batch.cron_job, update=batch.cron_job_update),
    ("discovery.k8s.io", "EndpointSlice"): Rules(
        create=services.endpoint_slice, update=services.endpoint_slice_update
    ),
    ("coordination.k8s.io", "Lease"): Rules(create=core.lease),
    ("certificates.k8s.io", "CertificateSigningRequest"): Rules(
        formats.path_segment,
        certificates.certificate_signing_request,
        certificates.certificate_signing_request_update,
    ),
    ("", "LimitRange"): Rules(create=quota.limit_range),
    ("", "ResourceQuota"): Rules(create=quota.resource_quota, update=quota.resource_quota_update),
    ("", "PersistentVolume"): Rules(
        create=persistent_volumes.persistent_volume, update=persistent_volumes.persistent_volume_update
    ),
    ("", "PersistentVolumeClaim"): Rules(
        create=persistent_volumes.persistent_volume_claim,
        update=persistent_volumes.persistent_volume_claim_update,
    ),
    (_STORAGE, "StorageClass"): Rules(create=storage.storage_class, update=storage.storage_class_update),
    (_STORAGE, "CSIDriver"): Rules(create=storage.csi_driver, update=storage.csi_driver_update),
    (_STORAGE, "CSINode"): Rules(create=storage.csi_node, update=storage.csi_node_update),
    (_STORAGE, "CSIStorageCapacity"): Rules(
        create=storage.csi_storage_capacity, update=storage.csi_storage_capacity_update
    ),
    (_STORAGE, "VolumeAttachment"): Rules(
        create=storage.volume_attachment, update=storage.volume_attachment_update
    ),
    (_STORAGE, "VolumeAttributesClass"): Rules(
        create=storage.volume_attributes_class, update=storage.volume_attributes_class_update
    ),
    ("scheduling.k8s.io", "PriorityClass"): Rules(
        create=priority.priority_class, update=priority.priority_class_update
    ),
    ("node.k8s.io", "RuntimeClass"): Rules(
        create=runtime_class.runtime_class, update=runtime_class.runtime_class_update
    ),
    (_FLOWCONTROL, "FlowSchema"): Rules(
        create=flowcontrol.flow_schema, update=flowcontrol.flow_schema_update
    ),
    (_FLOWCONTROL, "PriorityLevelConfiguration"): Rules(
        create=flowcontrol.priority_level_configuration,
        update=flowcontrol.priority_level_configuration_update,
    ),
    (_NETWORKING, "Ingress"): Rules(create=networking.ingress_create, update=networking.ingress_update),
    (_NETWORKING, "IngressClass"): Rules(
        create=networking.ingress_class, update=networking.ingress_class_update
    ),
    (_NETWORKING, "NetworkPolicy"): Rules(create=networking.network_policy),
    (_NETWORKING, "ServiceCIDR"): Rules(
        create=networking.service_cidr, update=networking.service_cidr_update
    ),
    (_NETWORKING, "IPAddress"): Rules(
        formats.canonical_ip, networking.ip_address, networking.ip_address_update
    ),
    ("loadbalancer.sampan.io", "IPAddressPool"): Rules(create=loadbalancer.ip_address_pool),
    (_GATEWAY, "GatewayClass"): Rules(create=gateway.gateway_class, update=gateway.gateway_class_update),
    (_GATEWAY, "Gateway"): Rules(create=gateway.gateway, update=gateway.whole(gateway.gateway)),
    (_GATEWAY, "HTTPRoute"): Rules(create=gateway.http, update=gateway.whole(gateway.http)),
    (_GATEWAY, "GRPCRoute"): Rules(create=gateway.grpc, update=gateway.whole(gateway.grpc)),
    (_GATEWAY, "ReferenceGrant"): Rules(create=gateway.reference_grant),
    (_DEVICES, "DeviceClass"): Rules(create=devices.device_class),
    (_DEVICES, "ResourceClaim"): Rules(create=devices.resource_claim, update=devices.resource_claim_update),
    (_DEVICES, "ResourceClaimTemplate"): Rules(
        create=devices.resource_claim_template, update=devices.resource_claim_template_update
    ),
    (_DEVICES, "ResourceSlice"): Rules(
        create=resource_slices.resource_slice, update=resource_slices.resource_slice_update
    ),
    (_RBAC, "Role"): Rules(formats.path_segment, rbac.role),
    (_RBAC, "ClusterRole"): Rules(formats.path_segment, rbac.cluster_role),
    (_RBAC, "RoleBinding"): Rules(formats.path_segment, rbac.role_binding, rbac.role_binding_update),
    (_RBAC, "ClusterRoleBinding"): Rules(
        formats.path_segment, rbac.cluster_role_binding, rbac.cluster_role_binding_update
    ),
}
"""Keyed by group and kind. What is not here has the name of a DNS subdomain and no more rules."""
