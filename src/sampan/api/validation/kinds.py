"""The rules of each kind: the one table from a kind to its checks."""

from __future__ import annotations

from sampan.api.validation import Rules, apps, core, formats, networking, pods, rbac, services

_RBAC = "rbac.authorization.k8s.io"
_NETWORKING = "networking.k8s.io"
_EVENT = Rules(create=core.event, update=core.event_update)

RULES: dict[tuple[str, str], Rules] = {
    ("", "Pod"): Rules(create=pods.create, update=pods.update),
    ("", "Binding"): Rules(create=pods.binding),
    ("", "Namespace"): Rules(formats.dns1123_label, core.namespace, core.namespace_update),
    ("", "Node"): Rules(create=core.node, update=core.node_update),
    ("", "Service"): Rules(formats.dns1035_label, services.create, services.update),
    ("", "Endpoints"): Rules(create=services.endpoints),
    ("", "ConfigMap"): Rules(create=core.config_map, update=core.config_map_update),
    ("", "Secret"): Rules(create=core.secret, update=core.secret_update),
    ("", "Event"): _EVENT,
    ("events.k8s.io", "Event"): _EVENT,
    ("apps", "Deployment"): Rules(create=apps.deployment, update=apps.deployment_update),
    ("apps", "ReplicaSet"): Rules(create=apps.replica_set, update=apps.replica_set_update),
    ("discovery.k8s.io", "EndpointSlice"): Rules(
        create=services.endpoint_slice, update=services.endpoint_slice_update
    ),
    ("coordination.k8s.io", "Lease"): Rules(create=core.lease),
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
    (_RBAC, "Role"): Rules(formats.path_segment, rbac.role),
    (_RBAC, "ClusterRole"): Rules(formats.path_segment, rbac.cluster_role),
    (_RBAC, "RoleBinding"): Rules(formats.path_segment, rbac.role_binding, rbac.role_binding_update),
    (_RBAC, "ClusterRoleBinding"): Rules(
        formats.path_segment, rbac.cluster_role_binding, rbac.cluster_role_binding_update
    ),
}
"""Keyed by group and kind. What is not here has the name of a DNS subdomain and no more rules."""
