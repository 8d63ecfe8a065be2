"""The values that upstream v1.36 fills in where an object leaves them out, and its deprecated aliases.

`apply` is called on every decoded object that a client sent, before anything else looks at it. One module a group.
"""

from __future__ import annotations

from collections.abc import Callable

from sampan.api.defaults import (
    apps,
    autoscaling,
    batch,
    core,
    devices,
    flowcontrol,
    gateway,
    loadbalancer,
    networking,
    pods,
    quota,
    rbac,
    replication_controllers,
    scheduling,
    services,
    storage,
)
from sampan.api.errors import Object
from sampan.api.resources import Resource

_DEFAULTS: dict[tuple[str, str], Callable[[Object], None]] = {
    ("", "Pod"): pods.pod,
    ("", "Service"): services.service,
    ("", "Endpoints"): services.endpoints,
    ("discovery.k8s.io", "EndpointSlice"): services.endpoint_slice,
    ("", "Secret"): core.secret,
    ("", "Namespace"): core.namespace,
    ("", "Node"): core.node,
    ("", "Binding"): core.binding,
    ("", "LimitRange"): quota.limit_range,
    ("", "PersistentVolume"): storage.persistent_volume,
    ("", "PersistentVolumeClaim"): storage.persistent_volume_claim,
    ("scheduling.k8s.io", "PriorityClass"): scheduling.priority_class,
    ("storage.k8s.io", "StorageClass"): storage.storage_class,
    ("storage.k8s.io", "CSIDriver"): storage.csi_driver,
    ("storage.k8s.io", "VolumeAttachment"): storage.volume_attachment,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): flowcontrol.flow_schema,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): flowcontrol.priority_level_configuration,
    ("apps", "Deployment"): apps.deployment,
    ("apps", "ReplicaSet"): apps.replica_set,
    ("apps", "DaemonSet"): apps.daemon_set,
    ("apps", "StatefulSet"): apps.stateful_set,
    ("", "ReplicationController"): replication_controllers.replication_controller,
    ("", "PodTemplate"): replication_controllers.pod_template,
    ("autoscaling", "HorizontalPodAutoscaler"): autoscaling.horizontal_pod_autoscaler,
    ("batch", "Job"): batch.job,
    ("batch", "CronJob"): batch.cron_job,
    ("networking.k8s.io", "IngressClass"): networking.ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): networking.network_policy,
    ("loadbalancer.sampan.io", "IPAddressPool"): loadbalancer.ip_address_pool,
    **{(gateway.GROUP, kind): gateway.apply(kind) for kind in gateway.KINDS},
    ("resource.k8s.io", "ResourceClaim"): devices.claim_with_status,
    ("resource.k8s.io", "ResourceClaimTemplate"): devices.claim_template,
    ("resource.k8s.io", "ResourceSlice"): devices.resource_slice,
    ("rbac.authorization.k8s.io", "RoleBinding"): rbac.binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): rbac.binding,
}


def apply(resource: Resource, obj: Object) -> None:
    """Fill in the defaults of an object of this resource, in place. Its types must have been checked before. (An object in
    a form in which it is not stored gets them when it is converted.)

    What is left empty in its metadata is taken away (a patch that removes the last owner leaves an empty list).
    """
    metadata = obj.get("metadata") or {}
    for name in ("annotations", "finalizers", "labels", "ownerReferences"):
        if name in metadata and not metadata[name]:
            del metadata[name]
    make = _DEFAULTS.get((resource.group, resource.kind))
    if make is not None and not resource.storage:
        make(obj)
