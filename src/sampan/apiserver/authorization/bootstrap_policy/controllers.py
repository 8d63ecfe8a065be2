"""What each controller of a kube-controller-manager may, as the ServiceAccount of its name in kube-system."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.apiserver.authorization.bootstrap_policy.rules import (
    EVENTS,
    GROUP,
    READ,
    READ_UPDATE,
    binding,
    role,
    rule,
)

_PREFIX = "system:controller:"
_BOTH = "apps,extensions"
_CERTIFICATES = "certificates.k8s.io"
_STORAGE = "storage.k8s.io"
_SIGNERS = " ".join(f"kubernetes.io/{s}" for s in (
    "legacy-unknown", "kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving"
))  # fmt: skip

_RULES: dict[str, tuple[Object, ...]] = {
    "attachdetach-controller": (
        rule("list watch", "", "persistentvolumeclaims persistentvolumes"),
        rule(READ, "", "nodes"),
        rule("patch update", "", "nodes/status"),
        rule("list watch", "", "pods"),
        EVENTS,
        rule(f"create delete {READ}", _STORAGE, "volumeattachments"),
        rule(READ, _STORAGE, "csidrivers"),
        rule(READ, _STORAGE, "csinodes"),
    ),
    "certificate-controller": (
        rule(f"delete {READ}", _CERTIFICATES, "certificatesigningrequests"),
        rule(
            "update", _CERTIFICATES, "certificatesigningrequests/approval certificatesigningrequests/status"
        ),
        rule("approve", _CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client-kubelet"),
        rule("sign", _CERTIFICATES, "signers", _SIGNERS),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        EVENTS,
    ),
    "clusterrole-aggregation-controller": (rule(f"escalate {READ_UPDATE}", GROUP, "clusterroles"),),
    "cronjob-controller": (
        rule(f"{READ} update", "batch", "cronjobs"),
        rule(f"create delete {READ_UPDATE}", "batch", "jobs"),
        rule("update", "batch", "cronjobs/status"),
        rule("update", "batch", "cronjobs/finalizers"),
        rule("delete list watch", "", "pods"),
        EVENTS,
    ),
    "daemon-set-controller": (
        rule(READ, _BOTH, "daemonsets"),
        rule("update", _BOTH, "daemonsets/status"),
        rule("update", _BOTH, "daemonsets/finalizers"),
        rule("list watch", "", "nodes"),
        rule("create delete list patch watch", "", "pods"),
        rule("create", "", "pods/binding"),
        rule(f"create delete {READ_UPDATE}", "apps", "controllerrevisions"),
        EVENTS,
    ),
    "deployment-controller": (
        rule(f"{READ} update", _BOTH, "deployments"),
        rule("update", _BOTH, "deployments/status"),
        rule("update", _BOTH, "deployments/finalizers"),
        rule(f"create delete {READ_UPDATE}", _BOTH, "replicasets"),
        rule(f"{READ} update", "", "pods"),
        EVENTS,
    ),
    "device-taint-eviction-controller": (
        rule(f"delete {READ}", "", "pods"),
        rule("patch update", "", "pods/status"),
        rule(READ, "resource.k8s.io", "resourceclaims"),
        rule(READ, "resource.k8s.io", "resourceslices"),
        rule(READ, "resource.k8s.io", "deviceclasses"),
        EVENTS,
    ),
    "disruption-controller": (
        rule(READ, _BOTH, "deployments"),
        rule(READ, _BOTH, "replicasets"),
        rule(READ, "", "replicationcontrollers"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "apps", "statefulsets"),
        rule("update", "policy", "poddisruptionbudgets/status"),
        rule("patch update", "", "pods/status"),
        rule("get", "*", "*/scale"),
        EVENTS,
    ),
    "endpoint-controller": (
        rule(READ, "", "pods services"),
        rule(f"create delete {READ} update", "", "endpoints"),
        rule("create", "", "endpoints/restricted"),
        EVENTS,
    ),
    "endpointslice-controller": (
        rule(READ, "", "nodes pods services"),
        rule("update", "", "services/finalizers"),
        rule(f"create delete {READ} update", "discovery.k8s.io", "endpointslices"),
        EVENTS,
    ),
    "endpointslicemirroring-controller": (
        rule(READ, "", "endpoints services"),
        rule("update", "", "services/finalizers"),
        rule("update", "", "endpoints/finalizers"),
        rule(f"create delete {READ} update", "discovery.k8s.io", "endpointslices"),
        EVENTS,
    ),
    "ephemeral-volume-controller": (
        rule(READ, "", "pods"),
        rule("update", "", "pods/finalizers"),
        rule(f"create {READ}", "", "persistentvolumeclaims"),
        EVENTS,
    ),
    "expand-controller": (
        rule(READ_UPDATE, "", "persistentvolumes"),
        rule("patch update", "", "persistentvolumeclaims/status"),
        rule(READ, "", "persistentvolumeclaims"),
        EVENTS,
        rule("get", "", "services"),
    ),
    "generic-garbage-collector": (rule(f"delete {READ_UPDATE}", "*", "*"), EVENTS),
    "horizontal-pod-autoscaler": (
        rule(READ, "autoscaling", "horizontalpodautoscalers"),
        rule("update", "autoscaling", "horizontalpodautoscalers/status"),
        rule("get update", "*", "*/scale"),
        rule("list watch", "", "pods"),
        rule("list watch", "metrics.k8s.io", "pods"),
        rule(READ, "custom.metrics.k8s.io", "*"),
        rule(READ, "external.metrics.k8s.io", "*"),
        EVENTS,
    ),
    "job-controller": (
        rule(READ_UPDATE, "batch", "jobs"),
        rule("update", "batch", "jobs/status"),
        rule("update", "batch", "jobs/finalizers"),
        rule("create delete list patch watch", "", "pods"),
        EVENTS,
    ),
    "legacy-service-account-token-cleaner": (
        rule("get", "", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
        rule("delete patch", "", "secrets"),
    ),
    "namespace-controller": (
        rule(f"delete {READ}", "", "namespaces"),
        rule("update", "", "namespaces/finalize namespaces/status"),
        rule(f"delete deletecollection {READ}", "*", "*"),
    ),
    "node-controller": (
        rule(f"delete {READ_UPDATE}", "", "nodes"),
        rule("patch update", "", "nodes/status"),
        rule("patch update", "", "pods/status"),
        rule(f"delete {READ}", "", "pods"),
        EVENTS,
    ),
    "persistent-volume-binder": (
        rule(f"create delete {READ} update", "", "persistentvolumes"),
        rule("update", "", "persistentvolumes/status"),
        rule(f"{READ} update", "", "persistentvolumeclaims"),
        rule("update", "", "persistentvolumeclaims/status"),
        rule(f"create delete {READ}", "", "pods"),
        rule(READ, _STORAGE, "storageclasses"),
        rule("list watch", "", "nodes"),
        EVENTS,
        rule("watch", "", "events"),
        rule("get", "", "services"),
    ),
    "pod-garbage-collector": (
        rule("delete list watch", "", "pods"),
        rule(READ, "", "nodes"),
        rule("patch", "", "pods/status"),
    ),
    "pv-protection-controller": (rule(f"{READ} update", "", "persistentvolumes"), EVENTS),
    "pvc-protection-controller": (
        rule(f"{READ} update", "", "persistentvolumeclaims"),
        rule(READ, "", "pods"),
        EVENTS,
    ),
    "replicaset-controller": (
        rule(f"{READ} update", _BOTH, "replicasets"),
        rule("update", _BOTH, "replicasets/status"),
        rule("update", _BOTH, "replicasets/finalizers"),
        rule("create delete list patch watch", "", "pods"),
        EVENTS,
    ),
    "replication-controller": (
        rule(f"{READ} update", "", "replicationcontrollers"),
        rule("update", "", "replicationcontrollers/status"),
        rule("update", "", "replicationcontrollers/finalizers"),
        rule("create delete list patch watch", "", "pods"),
        EVENTS,
    ),
    "resource-claim-controller": (
        rule(READ, "", "pods"),
        rule("update", "", "pods/finalizers"),
        rule(f"create delete {READ}", "resource.k8s.io", "resourceclaims"),
        rule("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status"),
        rule("patch update", "", "pods/status"),
        EVENTS,
    ),
    "resourcequota-controller": (
        rule("list watch", "*", "*"),
        rule("update", "", "resourcequotas/status"),
        EVENTS,
    ),
    "root-ca-cert-publisher": (rule("create update", "", "configmaps"), EVENTS),
    "route-controller": (
        rule("list watch", "", "nodes"),
        rule("patch", "", "nodes/status"),
        EVENTS,
    ),
    "selinux-warning-controller": (
        EVENTS,
        rule(READ, "", "persistentvolumes"),
        rule(READ, "", "persistentvolumeclaims"),
        rule(READ, "", "pods"),
        rule(READ, _STORAGE, "csidrivers"),
    ),
    "service-account-controller": (rule("create", "", "serviceaccounts"), EVENTS),
    "service-cidrs-controller": (
        rule(READ_UPDATE, "networking.k8s.io", "servicecidrs"),
        rule("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
        rule("patch update", "networking.k8s.io", "servicecidrs/status"),
        rule(READ, "networking.k8s.io", "ipaddresses"),
        EVENTS,
    ),
    "service-controller": (
        rule(READ, "", "services"),
        rule("patch update", "", "services/status"),
        rule("list watch", "", "nodes"),
        EVENTS,
    ),
    "statefulset-controller": (
        rule("list watch", "", "pods"),
        rule(READ, "apps", "statefulsets"),
        rule("update", "apps", "statefulsets/status"),
        rule("update", "apps", "statefulsets/finalizers"),
        rule("create delete get patch update", "", "pods"),
        rule(f"create delete {READ_UPDATE}", "apps", "controllerrevisions"),
        rule(f"create {READ}", "", "persistentvolumeclaims"),
        rule("delete update", "", "persistentvolumeclaims"),
        rule("update", "", "pods/finalizers"),
        EVENTS,
    ),
    "ttl-after-finished-controller": (rule(f"delete {READ}", "batch", "jobs"), EVENTS),
    "ttl-controller": (rule("list patch update watch", "", "nodes"), EVENTS),
    "validatingadmissionpolicy-status-controller": (
        rule(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
        rule("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
        EVENTS,
    ),
    "volumeattributesclass-protection-controller": (
        rule(READ, "", "persistentvolumeclaims"),
        rule(READ, "", "persistentvolumes"),
        rule(f"{READ} update", _STORAGE, "volumeattributesclasses"),
        EVENTS,
    ),
}


def roles() -> list[Object]:
    return [role(_PREFIX + name, *rules) for name, rules in _RULES.items()]


def bindings() -> list[Object]:
    return [binding(_PREFIX + name, ("ServiceAccount", f"kube-system:{name}")) for name in _RULES]
