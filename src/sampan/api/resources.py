"""The resources that the API serves: one row a resource, the only list of them there is.

A kind is a row here, a definition in the OpenAPI of the release (`schema`), a `strategy` and a `table`. Discovery,
routing, storage keys, the typed client and RBAC all read this table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

READ = ("get", "list", "watch")
ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Subresource:
    """A path below an object: its own kind where it is not the parent's, and what it can do."""

    name: str
    verbs: tuple[str, ...]
    kind: str = ""
    group: str = ""
    version: str = ""


STATUS = Subresource("status", ("get", "patch", "update"))
SCALE = Subresource("scale", ("get", "patch", "update"), "Scale", "autoscaling", "v1")


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of one version.

    `definition` is its name in the OpenAPI document. `storage` is the stem of its keys in the store: rows that share
    it are one object under several names (core and events.k8s.io Events).
    """

    group: str
    version: str
    plural: str
    kind: str
    definition: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL
    subresources: tuple[Subresource, ...] = ()
    storage: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    @property
    def key_stem(self) -> str:
        """The stem of this resource's keys: `pods`, `deployments.apps`."""
        return self.storage or (f"{self.plural}.{self.group}" if self.group else self.plural)

    def subresource(self, name: str) -> Subresource | None:
        return next((s for s in self.subresources if s.name == name), None)

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of a collection, an object or a subresource."""
        path = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            path += f"/namespaces/{namespace}"
        path += f"/{self.plural}"
        if name:
            path += f"/{name}"
        return f"{path}/{subresource}" if subresource else path


def _connect(name: str, kind: str, *verbs: str) -> Subresource:
    return Subresource(name, verbs or ("create", "get"), kind)


_PROXY_VERBS = ("create", "delete", "get", "patch", "update")
_CORE = "io.k8s.api.core.v1."
_A = ("all",)

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", _CORE + "Namespace", False, ("ns",), (), tuple(v for v in ALL if v != "deletecollection"), (Subresource("finalize", ("update",)), STATUS))  # fmt: skip
NODES = Resource("", "v1", "nodes", "Node", _CORE + "Node", False, ("no",), (), ALL, (_connect("proxy", "NodeProxyOptions", *_PROXY_VERBS), STATUS))  # fmt: skip
PODS = Resource("", "v1", "pods", "Pod", _CORE + "Pod", True, ("po",), _A, ALL, (
    _connect("attach", "PodAttachOptions"),
    Subresource("binding", ("create",), "Binding"),
    Subresource("ephemeralcontainers", ("get", "patch", "update")),
    Subresource("eviction", ("create",), "Eviction", "policy", "v1"),
    _connect("exec", "PodExecOptions"),
    Subresource("log", ("get",)),
    _connect("portforward", "PodPortForwardOptions"),
    _connect("proxy", "PodProxyOptions", *_PROXY_VERBS),
    STATUS,
))  # fmt: skip
SERVICES = Resource("", "v1", "services", "Service", _CORE + "Service", True, ("svc",), _A, ALL, (_connect("proxy", "ServiceProxyOptions", *_PROXY_VERBS), STATUS))  # fmt: skip
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints", _CORE + "Endpoints", True, ("ep",))
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap", _CORE + "ConfigMap", True, ("cm",))
SECRETS = Resource("", "v1", "secrets", "Secret", _CORE + "Secret")
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", _CORE + "ServiceAccount", True, ("sa",), (), ALL, (Subresource("token", ("create",), "TokenRequest", "authentication.k8s.io", "v1"),))  # fmt: skip
EVENTS = Resource("", "v1", "events", "Event", _CORE + "Event", True, ("ev",))
EVENTS_V1 = Resource("events.k8s.io", "v1", "events", "Event", "io.k8s.api.events.v1.Event", True, ("ev",), (), ALL, (), "events")  # fmt: skip
BINDINGS = Resource("", "v1", "bindings", "Binding", _CORE + "Binding", True, (), (), ("create",))
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", "io.k8s.api.apps.v1.Deployment", True, ("deploy",), _A, ALL, (SCALE, STATUS))  # fmt: skip
REPLICASETS = Resource("apps", "v1", "replicasets", "ReplicaSet", "io.k8s.api.apps.v1.ReplicaSet", True, ("rs",), _A, ALL, (SCALE, STATUS))  # fmt: skip
# Kinds of which there is none: clients that list whatever may run (`kubectl cluster-info dump`) fail where these lists are
# missing. Validation refuses to make one before its controller is there.
DAEMONSETS = Resource(
    "apps", "v1", "daemonsets", "DaemonSet", "io.k8s.api.apps.v1.DaemonSet", True, ("ds",), _A
)
REPLICATIONCONTROLLERS = Resource("", "v1", "replicationcontrollers", "ReplicationController", _CORE + "ReplicationController", True, ("rc",), _A)  # fmt: skip
ENDPOINTSLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", "io.k8s.api.discovery.v1.EndpointSlice")  # fmt: skip
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", "io.k8s.api.coordination.v1.Lease")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress", "io.k8s.api.networking.v1.Ingress", True, ("ing",), (), ALL, (STATUS,))  # fmt: skip
INGRESSCLASSES = Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", "io.k8s.api.networking.v1.IngressClass", False)  # fmt: skip
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role", "io.k8s.api.rbac.v1.Role")
ROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", "io.k8s.api.rbac.v1.RoleBinding")  # fmt: skip
CLUSTERROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", "io.k8s.api.rbac.v1.ClusterRole", False)  # fmt: skip
CLUSTERROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", "io.k8s.api.rbac.v1.ClusterRoleBinding", False)  # fmt: skip
_AUTHZ = "io.k8s.api.authorization.v1."
SUBJECTACCESSREVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", _AUTHZ + "SubjectAccessReview", False, (), (), ("create",))  # fmt: skip
SELFSUBJECTACCESSREVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", _AUTHZ + "SelfSubjectAccessReview", False, (), (), ("create",))  # fmt: skip
SELFSUBJECTRULESREVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", _AUTHZ + "SelfSubjectRulesReview", False, (), (), ("create",))  # fmt: skip
LOCALSUBJECTACCESSREVIEWS = Resource("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", _AUTHZ + "LocalSubjectAccessReview", True, (), (), ("create",))  # fmt: skip
TOKENREVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", "io.k8s.api.authentication.v1.TokenReview", False, (), (), ("create",))  # fmt: skip
SELFSUBJECTREVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", "io.k8s.api.authentication.v1.SelfSubjectReview", False, (), (), ("create",))  # fmt: skip

RESOURCES: tuple[Resource, ...] = (
    NAMESPACES, NODES, PODS, SERVICES, ENDPOINTS, CONFIGMAPS, SECRETS, SERVICEACCOUNTS, EVENTS, BINDINGS,
    REPLICATIONCONTROLLERS, DAEMONSETS, DEPLOYMENTS, REPLICASETS, ENDPOINTSLICES, EVENTS_V1, LEASES, INGRESSES, INGRESSCLASSES,
    ROLES, ROLEBINDINGS, CLUSTERROLES, CLUSTERROLEBINDINGS,
    SUBJECTACCESSREVIEWS, SELFSUBJECTACCESSREVIEWS, SELFSUBJECTRULESREVIEWS, LOCALSUBJECTACCESSREVIEWS,
    TOKENREVIEWS, SELFSUBJECTREVIEWS,
)  # fmt: skip

_BY_PLURAL = {(r.group, r.version, r.plural): r for r in RESOURCES}
_BY_KIND = {(r.api_version, r.kind): r for r in RESOURCES}


def lookup(group: str, version: str, plural: str) -> Resource | None:
    """The resource at a URL, or None if it is not served."""
    return _BY_PLURAL.get((group, version, plural))


def by_kind(api_version: str, kind: str) -> Resource | None:
    """The resource of an object's `apiVersion` and `kind`, or None if it is not served."""
    return _BY_KIND.get((api_version, kind))


def groups() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every served group with its versions, preferred first; the core group is ''."""
    seen: dict[str, list[str]] = {}
    for r in RESOURCES:
        versions = seen.setdefault(r.group, [])
        if r.version not in versions:
            versions.append(r.version)
    return ((g, tuple(v)) for g, v in seen.items())


def stored() -> Iterable[Resource]:
    """One resource a storage stem: those whose objects are kept (reviews and bindings are not)."""
    return (r for r in RESOURCES if "list" in r.verbs and not r.storage)
