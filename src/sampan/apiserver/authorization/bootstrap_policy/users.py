"""Roles for people, for nodes, and for the parts of a cluster that are no controllers."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.apiserver.authorization.bootstrap_policy.rules import (
    EVENTS,
    GROUP,
    READ,
    READ_UPDATE,
    READ_WRITE,
    WRITE,
    binding,
    role,
    rule,
    urls,
)

_AUTHENTICATION, _AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"
_CERTIFICATES, _COORDINATION = "certificates.k8s.io", "coordination.k8s.io"
_RESOURCE, _STORAGE = "resource.k8s.io", "storage.k8s.io"
_GATEWAY = "gateway.networking.k8s.io"
_REVIEWS = (
    rule("create", _AUTHENTICATION, "tokenreviews"),
    rule("create", _AUTHORIZATION, "subjectaccessreviews"),
)

NODE_RULES: tuple[Object, ...] = (
    rule("create", _AUTHENTICATION, "tokenreviews"),
    rule("create", _AUTHORIZATION, "localsubjectaccessreviews subjectaccessreviews"),
    rule(READ, "", "services"),
    rule(f"create {READ}", "", "nodes"),
    rule("patch update", "", "nodes/status"),
    rule("patch update", "", "nodes"),
    rule("create patch update", "", "events"),
    rule(READ, "", "pods"),
    rule("create delete", "", "pods"),
    rule("patch update", "", "pods/status"),
    rule("create", "", "pods/eviction"),
    rule(READ, "", "configmaps secrets"),
    rule("get", "", "persistentvolumeclaims persistentvolumes"),
    rule("get", "", "endpoints"),
    rule(f"create {READ}", _CERTIFICATES, "certificatesigningrequests"),
    rule("create delete get patch update", _COORDINATION, "leases"),
    rule("get", _STORAGE, "volumeattachments"),
    rule("create", "", "serviceaccounts/token"),
    rule("get patch update", "", "persistentvolumeclaims/status"),
    rule(READ, _STORAGE, "csidrivers"),
    rule("create delete get patch update", _STORAGE, "csinodes"),
    rule(READ, "node.k8s.io", "runtimeclasses"),
    rule("get", _RESOURCE, "resourceclaims"),
    rule("deletecollection", _RESOURCE, "resourceslices"),
    rule("get", "", "serviceaccounts"),
)
"""What a node may, where the node authorizer does not look closer."""

_VIEWED = (
    rule(READ, "", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
                   "replicationcontrollers/scale serviceaccounts services services/status"),
    rule(READ, "", "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status "
                   "resourcequotas resourcequotas/status"),
    rule(READ, "", "namespaces"),
    rule(READ, "discovery.k8s.io", "endpointslices"),
    rule(READ, "apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status "
                       "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"),
    rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    rule(READ, "extensions", "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses "
                             "ingresses/status networkpolicies replicasets replicasets/scale replicasets/status "
                             "replicationcontrollers/scale"),
    rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    rule(READ, _RESOURCE, "resourceclaims resourceclaims/status resourceclaimtemplates"),
)  # fmt: skip
_GATEWAY_VIEWED = rule(READ, _GATEWAY, "gatewayclasses gatewayclasses/status gateways gateways/status grpcroutes grpcroutes/status "
                                       "httproutes httproutes/status referencegrants")  # fmt: skip
_GATEWAY_EDITED = rule(WRITE, _GATEWAY, "gatewayclasses gateways grpcroutes httproutes referencegrants")
_EDITED = (
    rule(READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    rule("impersonate", "", "serviceaccounts"),
    rule(WRITE, "", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    rule("create", "", "pods/eviction"),
    rule(WRITE, "", "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale "
                    "secrets serviceaccounts services services/proxy"),
    rule("create", "", "serviceaccounts/token"),
    rule(WRITE, "apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale "
                        "statefulsets statefulsets/scale"),
    rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
    rule(WRITE, "batch", "cronjobs jobs"),
    rule(WRITE, "extensions", "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies "
                              "replicasets replicasets/scale replicationcontrollers/scale"),
    rule(WRITE, "policy", "poddisruptionbudgets"),
    rule(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    rule(READ_WRITE, _COORDINATION, "leases"),
    rule(WRITE, _RESOURCE, "resourceclaims resourceclaimtemplates"),
)  # fmt: skip
_ADMINISTERED = (
    rule("create", _AUTHORIZATION, "localsubjectaccessreviews"),
    rule(READ_WRITE, GROUP, "rolebindings roles"),
)
_AGGREGATE = f"{GROUP}/aggregate-to-"
_HEALTH = "/healthz /livez /readyz /version /version/"


def roles() -> list[Object]:
    return [*_people(), *_nodes(), *_parts(), *_certificates()]


def _aggregated(name: str, *rules: Object, into: str = "") -> Object:
    """A role made of those with its label. It is shipped filled, in the order that the controller gives it."""
    made = role(name, *rules, labels=(_AGGREGATE + into,) if into else ())
    made["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {_AGGREGATE + name: "true"}}]}
    return made


def _people() -> list[Object]:
    return [
        role(
            "cluster-admin",
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ),
        _aggregated("admin", _GATEWAY_EDITED, _GATEWAY_VIEWED, *_EDITED, *_VIEWED, *_ADMINISTERED),
        _aggregated("edit", _GATEWAY_EDITED, _GATEWAY_VIEWED, *_EDITED, *_VIEWED, into="admin"),
        _aggregated("view", _GATEWAY_VIEWED, *_VIEWED, into="edit"),
        # Named and labelled as upstream ships them with the CustomResourceDefinitions.
        role(f"{_GATEWAY}:aggregate-to-edit", _GATEWAY_EDITED, labels=(_AGGREGATE + "admin", _AGGREGATE + "edit")),
        role(
            f"{_GATEWAY}:aggregate-to-view",
            _GATEWAY_VIEWED,
            labels=tuple(_AGGREGATE + to for to in ("admin", "edit", "view")),
        ),
        role("system:aggregate-to-admin", *_ADMINISTERED, labels=(_AGGREGATE + "admin",)),
        role("system:aggregate-to-edit", *_EDITED, labels=(_AGGREGATE + "edit",)),
        role("system:aggregate-to-view", *_VIEWED, labels=(_AGGREGATE + "view",)),
        role("system:discovery", urls(f"/api /api/* /apis /apis/* /openapi /openapi/* {_HEALTH}")),
        role(
            "system:basic-user",
            rule("create", _AUTHORIZATION, "selfsubjectaccessreviews selfsubjectrulesreviews"),
            rule("create", _AUTHENTICATION, "selfsubjectreviews"),
        ),
        role("system:public-info-viewer", urls(_HEALTH)),
        role(
            "system:monitoring",
            urls("/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),
            urls("/flagz"),
            urls("/statusz"),
        ),
        role(
            "system:service-account-issuer-discovery",
            urls("/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/"),
        ),
        role(
            "system:heapster",
            rule(READ, "", "events namespaces nodes pods"),
            rule(READ, "extensions", "deployments"),
        ),
    ]  # fmt: skip


def _nodes() -> list[Object]:
    return [
        role("system:node", *NODE_RULES),
        role("system:node-bootstrapper", rule(f"create {READ}", _CERTIFICATES, "certificatesigningrequests")),
        role(
            "system:node-problem-detector",
            rule("get", "", "nodes"),
            rule("patch", "", "nodes/status"),
            EVENTS,
        ),
        role(
            "system:node-proxier",
            rule("list watch", "", "endpoints services"),
            rule(READ, "", "nodes"),
            EVENTS,
            rule("list watch", "networking.k8s.io", "servicecidrs"),
            rule("list watch", "discovery.k8s.io", "endpointslices"),
        ),
        role(
            "sampan:node-ingress",
            rule("list watch", "", "services"),
            rule("list watch", "discovery.k8s.io", "endpointslices"),
            rule("list watch", "networking.k8s.io", "ingressclasses ingresses"),
            rule("list watch", _GATEWAY, "gatewayclasses gateways grpcroutes httproutes referencegrants"),
            rule("list watch", "", "namespaces"),
        ),
        role(
            "sampan:network-policy",
            rule("list watch", "", "namespaces pods"),
            rule("list watch", "networking.k8s.io", "networkpolicies"),
        ),
        role(
            "system:kubelet-api-admin",
            rule(READ, "", "nodes"),
            rule("proxy", "", "nodes"),
            rule("*", "", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
            rule("*", "", "nodes/configz nodes/healthz nodes/pods"),
        ),
    ]


def _parts() -> list[Object]:
    return [
        role("system:auth-delegator", *_REVIEWS),
        role("system:kube-aggregator", rule(READ, "", "endpoints services")),
        role("system:kube-dns", rule("list watch", "", "endpoints services")),
        role(
            "sampan:node-dns",
            rule("list watch", "", "namespaces services"),
            rule("list watch", "discovery.k8s.io", "endpointslices"),
        ),
        role(
            "system:persistent-volume-provisioner",
            rule(f"create delete {READ}", "", "persistentvolumes"),
            rule(f"{READ} update", "", "persistentvolumeclaims"),
            rule(READ, _STORAGE, "storageclasses"),
            rule("watch", "", "events"),
            EVENTS,
        ),
        role(
            "system:volume-scheduler",
            rule(READ_UPDATE, "", "persistentvolumes"),
            rule(READ, _STORAGE, "storageclasses"),
            rule(READ_UPDATE, "", "persistentvolumeclaims"),
        ),
        role(
            "system:kube-controller-manager",
            EVENTS,
            rule("create", _COORDINATION, "leases"),
            rule("get update", _COORDINATION, "leases", "kube-controller-manager"),
            rule("create", "", "secrets serviceaccounts"),
            rule("delete", "", "secrets"),
            rule("get", "", "configmaps namespaces secrets serviceaccounts"),
            rule("update", "", "secrets serviceaccounts"),
            *_REVIEWS,
            rule("list watch", "*", "*"),
            rule("create", "", "serviceaccounts/token"),
        ),
        role(
            "system:kube-scheduler",
            EVENTS,
            rule("create", _COORDINATION, "leases"),
            rule("get update", _COORDINATION, "leases", "kube-scheduler"),
            rule(READ, "", "nodes"),
            rule(f"delete {READ}", "", "pods"),
            rule("create", "", "bindings pods/binding"),
            rule("patch update", "", "pods/status"),
            rule(READ, "", "replicationcontrollers services"),
            rule(READ, "apps,extensions", "replicasets"),
            rule(READ, "apps", "statefulsets"),
            rule(READ, "policy", "poddisruptionbudgets"),
            rule(READ, "", "persistentvolumeclaims persistentvolumes"),
            *_REVIEWS,
            rule(READ, _STORAGE, "csinodes"),
            rule(READ, _STORAGE, "volumeattachments"),
            rule(READ, "", "namespaces"),
            rule(READ, _STORAGE, "csidrivers"),
            rule(READ, _STORAGE, "csistoragecapacities"),
            rule(READ, _RESOURCE, "deviceclasses"),
            rule(READ_UPDATE, _RESOURCE, "resourceclaims"),
            rule(READ_UPDATE, _RESOURCE, "resourceclaims/status"),
            rule(READ_UPDATE, "", "pods/finalizers"),
            rule(READ, _RESOURCE, "resourceslices"),
            rule("create delete", _RESOURCE, "resourceclaims"),
        ),
    ]


def _certificates() -> list[Object]:
    requests = "certificatesigningrequests"
    return [
        *(
            role(f"system:{_CERTIFICATES}:{requests}:{kind}", rule("create", _CERTIFICATES, f"{requests}/{kind}"))
            for kind in ("nodeclient", "selfnodeclient")
        ),
        *(
            role(f"system:{_CERTIFICATES}:{signer}-approver", rule("approve", _CERTIFICATES, "signers", f"kubernetes.io/{signer}"))
            for signer in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
        ),
    ]  # fmt: skip


def bindings() -> list[Object]:
    """A node's rights come from the node authorizer: `system:node` is bound to nobody, as upstream has it. Of our own
    are `sampan:node-proxier`, `sampan:node-dns`, `sampan:node-ingress` and `sampan:network-policy`: a node here is its own proxy, DNS
    server and front door, and keeps from its pods what policies forbid."""
    everybody = ("Group", "system:authenticated")
    return [
        binding("cluster-admin", ("Group", "system:masters")),
        binding("system:monitoring", ("Group", "system:monitoring")),
        binding("system:discovery", everybody),
        binding("system:basic-user", everybody),
        binding("system:public-info-viewer", everybody, ("Group", "system:unauthenticated")),
        binding("system:service-account-issuer-discovery", ("Group", "system:serviceaccounts")),
        binding("system:node-proxier", ("User", "system:kube-proxy")),
        binding("system:node-proxier", ("Group", "system:nodes"), name="sampan:node-proxier"),
        binding("sampan:node-dns", ("Group", "system:nodes")),
        binding("sampan:network-policy", ("Group", "system:nodes")),
        binding("sampan:node-ingress", ("Group", "system:nodes")),
        binding("system:kube-controller-manager", ("User", "system:kube-controller-manager")),
        binding("system:kube-dns", ("ServiceAccount", "kube-system:kube-dns")),
        binding("system:kube-scheduler", ("User", "system:kube-scheduler")),
        binding("system:volume-scheduler", ("User", "system:kube-scheduler")),
        binding("system:node"),
    ]
