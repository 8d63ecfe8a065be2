"""The roles and bindings that every cluster starts with, as data.

Facts of upstream's bootstrap policy (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`), for the API groups that exist
here and the common ones that come later, so that a binding to `edit` means the same as elsewhere. `admin`, `edit` and
`view` are shipped already aggregated; they carry their aggregation rules too, for the controller that keeps them.
"""

from __future__ import annotations

from sampan.api.errors import Object

GROUP = "rbac.authorization.k8s.io"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_READ = "get list watch"
_WRITE = "create delete deletecollection patch update"
_READ_WRITE = f"{_WRITE} get list watch"


def _rule(verbs: str, group: str, resources: str, names: str = "") -> Object:
    rule: Object = {"apiGroups": [group], "resources": sorted(resources.split()), "verbs": verbs.split()}
    if names:
        rule["resourceNames"] = names.split()
    return rule


def _urls(urls: str) -> Object:
    return {"nonResourceURLs": urls.split(), "verbs": ["get"]}


_EVENTS = (
    _rule("create patch update", "", "events"),
    _rule("create patch update", "events.k8s.io", "events"),
)
_LEADER = (_rule("create get list watch update", "coordination.k8s.io", "leases"),)

NODE_RULES: tuple[Object, ...] = (
    _rule("create", "authentication.k8s.io", "tokenreviews"),
    _rule("create", "authorization.k8s.io", "subjectaccessreviews localsubjectaccessreviews"),
    _rule(_READ, "", "services endpoints"),
    _rule(_READ, "discovery.k8s.io", "endpointslices"),
    _rule("create get list watch", "", "nodes"),
    _rule("patch update", "", "nodes nodes/status"),
    *_EVENTS,
    _rule("create delete", "", "pods"),
    _rule("patch update", "", "pods/status"),
    _rule("create", "", "pods/eviction"),
    _urls("/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"),
)
"""For the node authorizer; no role of this content is bound to anybody. A node here is also its own proxy and router,
hence the right to read Services' endpoints and the other Nodes."""

_VIEWED = (
    _rule(_READ, "", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
                     "replicationcontrollers/scale serviceaccounts services services/status"),
    _rule(_READ, "", "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status "
                     "resourcequotas resourcequotas/status"),
    _rule(_READ, "", "namespaces"),
    _rule(_READ, "discovery.k8s.io", "endpointslices"),
    _rule(_READ, "apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status "
                         "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"),
    _rule(_READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    _rule(_READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    _rule(_READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    _rule(_READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
)  # fmt: skip
_EDITED = (
    _rule(_READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    _rule("impersonate", "", "serviceaccounts"),
    _rule(_WRITE, "", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    _rule("create", "", "pods/eviction"),
    _rule(_WRITE, "", "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale "
                      "secrets serviceaccounts services services/proxy"),
    _rule("create", "", "serviceaccounts/token"),
    _rule(_WRITE, "apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale "
                          "statefulsets statefulsets/scale"),
    _rule(_WRITE, "autoscaling", "horizontalpodautoscalers"),
    _rule(_WRITE, "batch", "cronjobs jobs"),
    _rule(_WRITE, "policy", "poddisruptionbudgets"),
    _rule(_WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    _rule(_READ_WRITE, "coordination.k8s.io", "leases"),
)  # fmt: skip
_ADMINISTERED = (
    _rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    _rule(_READ_WRITE, GROUP, "rolebindings roles"),
)
_AGGREGATE = f"{GROUP}/aggregate-to-"


def _role(name: str, *rules: Object, aggregate_to: str = "", aggregates: str = "") -> Object:
    labels = dict(_LABELS)
    if aggregate_to:
        labels[f"{_AGGREGATE}{aggregate_to}"] = "true"
    role: Object = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}},
        "rules": list(rules),
    }
    if aggregates:
        selector = {"matchLabels": {f"{_AGGREGATE}{aggregates}": "true"}}
        role["aggregationRule"] = {"clusterRoleSelectors": [selector]}
    return role


def cluster_roles() -> list[Object]:
    """Every default ClusterRole, freshly made."""
    return [
        _role(
            "cluster-admin",
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ),
        _role("admin", *_ADMINISTERED, *_EDITED, *_VIEWED, aggregates="admin"),
        _role("edit", *_EDITED, *_VIEWED, aggregate_to="admin", aggregates="edit"),
        _role("view", *_VIEWED, aggregate_to="edit", aggregates="view"),
        _role("system:aggregate-to-admin", *_ADMINISTERED, aggregate_to="admin"),
        _role("system:aggregate-to-edit", *_EDITED, aggregate_to="edit"),
        _role("system:aggregate-to-view", *_VIEWED, aggregate_to="view"),
        _role(
            "system:discovery",
            _urls("/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"),
        ),
        _role(
            "system:basic-user",
            _rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            _rule("create", "authentication.k8s.io", "selfsubjectreviews"),
        ),
        _role("system:public-info-viewer", _urls("/healthz /livez /readyz /version /version/")),
        _role(
            "system:monitoring",
            _urls("/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),
        ),
        _role(
            "system:service-account-issuer-discovery",
            _urls(
                "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/"
            ),
        ),
        _role("system:heapster", _rule(_READ, "", "events namespaces nodes pods")),
        _role("system:node", *NODE_RULES[:-1]),
        _role(
            "system:node-problem-detector",
            _rule("get", "", "nodes"),
            _rule("patch", "", "nodes/status"),
            *_EVENTS,
        ),
        _role(
            "system:node-proxier",
            _rule("list watch", "", "endpoints services"),
            _rule(_READ, "", "nodes"),
            _rule("list watch", "discovery.k8s.io", "endpointslices"),
            *_EVENTS,
        ),
        _role(
            "system:kubelet-api-admin",
            _rule(_READ, "", "nodes"),
            _rule("*", "", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
        ),
        _role(
            "system:auth-delegator",
            _rule("create", "authentication.k8s.io", "tokenreviews"),
            _rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        ),
        _role("system:kube-aggregator", _rule(_READ, "", "endpoints services")),
        _role(
            "system:kube-dns",
            _rule("list watch", "", "endpoints services"),
            _rule("list watch", "discovery.k8s.io", "endpointslices"),
        ),
        _role(
            "system:kube-controller-manager",
            *_EVENTS,
            *_LEADER,
            _rule("create", "", "secrets serviceaccounts serviceaccounts/token"),
            _rule("delete", "", "secrets"),
            _rule("get", "", "configmaps namespaces secrets serviceaccounts"),
            _rule("update", "", "secrets serviceaccounts"),
            _rule("create", "authentication.k8s.io", "tokenreviews"),
            _rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            _rule("list watch", "*", "*"),
        ),
        _role(
            "system:kube-scheduler",
            *_EVENTS,
            *_LEADER,
            _rule(_READ, "", "namespaces nodes"),
            _rule("delete get list watch", "", "pods"),
            _rule("create", "", "bindings pods/binding"),
            _rule("patch update", "", "pods/status"),
            _rule(_READ, "", "persistentvolumeclaims persistentvolumes replicationcontrollers services"),
            _rule(_READ, "apps", "replicasets statefulsets"),
            _rule(_READ, "policy", "poddisruptionbudgets"),
            _rule("create", "authentication.k8s.io", "tokenreviews"),
            _rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        ),
    ]


def _subject(kind: str, name: str) -> Object:
    if kind == "ServiceAccount":
        namespace, _, name = name.partition(":")
        return {"kind": kind, "name": name, "namespace": namespace}
    return {"apiGroup": GROUP, "kind": kind, "name": name}


def _binding(role: str, kind: str, *subjects: str) -> Object:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": role, "labels": dict(_LABELS), "annotations": {AUTOUPDATE: "true"}},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [_subject(kind, s) for s in subjects],
    }


def cluster_role_bindings() -> list[Object]:
    """Every default ClusterRoleBinding, freshly made. A node's rights come from the node authorizer: `system:node`
    is bound to nobody."""
    node = _binding("system:node", "Group")
    del node["subjects"]
    return [
        _binding("cluster-admin", "Group", "system:masters"),
        _binding("system:monitoring", "Group", "system:monitoring"),
        _binding("system:discovery", "Group", "system:authenticated"),
        _binding("system:basic-user", "Group", "system:authenticated"),
        _binding("system:public-info-viewer", "Group", "system:authenticated", "system:unauthenticated"),
        _binding("system:service-account-issuer-discovery", "Group", "system:serviceaccounts"),
        _binding("system:node-proxier", "User", "system:kube-proxy"),
        _binding("system:kube-controller-manager", "User", "system:kube-controller-manager"),
        _binding("system:kube-dns", "ServiceAccount", "kube-system:kube-dns"),
        _binding("system:kube-scheduler", "User", "system:kube-scheduler"),
        node,
    ]
