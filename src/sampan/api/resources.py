"""The resources that the API serves: one row a resource, the only list of them there is.

A kind is a row here, a definition in the OpenAPI of the release (`schema`), a `strategy` and a `table`. Discovery,
routing, storage keys, the typed client and RBAC all read this table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

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

    `definition` is its name in the OpenAPI document. `storage` is the `key_stem` where it is another row's: rows that
    share it are one object under several names (core and events.k8s.io Events). `deprecated` is what whoever uses the
    resource is warned of.
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
    deprecated: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored(self) -> bool:
        """Whether its objects are kept: reviews and bindings are not."""
        return "list" in self.verbs or bool(self.storage)

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    @property
    def key_stem(self) -> str:
        """What its objects are known by among all that is stored: `pods`, `deployments.apps`."""
        return self.storage or (f"{self.plural}.{self.group}" if self.group else self.plural)

    @property
    def storage_path(self) -> str:
        """Where the keys of its objects are below /registry, as upstream has them: `pods`, `services/specs`."""
        return _STORAGE_PATHS.get(self.key_stem, self.plural)

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


_STORAGE_PATHS = {
    "endpoints": "services/endpoints",
    "ingresses.networking.k8s.io": "ingress",
    "nodes": "minions",
    "replicationcontrollers": "controllers",
    "services": "services/specs",
}
"""Those that are not their plural (upstream: `pkg/kubeapiserver/default_storage_factory_builder.go`)."""


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
    Subresource("resize", ("get", "patch", "update")),
    STATUS,
))  # fmt: skip
SERVICES = Resource("", "v1", "services", "Service", _CORE + "Service", True, ("svc",), _A, ALL, (_connect("proxy", "ServiceProxyOptions", *_PROXY_VERBS), STATUS))  # fmt: skip
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints", _CORE + "Endpoints", True, ("ep",), deprecated=("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",))  # fmt: skip
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap", _CORE + "ConfigMap", True, ("cm",))
SECRETS = Resource("", "v1", "secrets", "Secret", _CORE + "Secret")
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", _CORE + "ServiceAccount", True, ("sa",), (), ALL, (Subresource("token", ("create",), "TokenRequest", "authentication.k8s.io", "v1"),))  # fmt: skip
EVENTS = Resource("", "v1", "events", "Event", _CORE + "Event", True, ("ev",))
EVENTS_V1 = Resource("events.k8s.io", "v1", "events", "Event", "io.k8s.api.events.v1.Event", True, ("ev",), (), ALL, (), "events")  # fmt: skip
BINDINGS = Resource("", "v1", "bindings", "Binding", _CORE + "Binding", True, (), (), ("create",))
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", "io.k8s.api.apps.v1.Deployment", True, ("deploy",), _A, ALL, (SCALE, STATUS))  # fmt: skip
REPLICASETS = Resource("apps", "v1", "replicasets", "ReplicaSet", "io.k8s.api.apps.v1.ReplicaSet", True, ("rs",), _A, ALL, (SCALE, STATUS))  # fmt: skip
DAEMONSETS = Resource("apps", "v1", "daemonsets", "DaemonSet", "io.k8s.api.apps.v1.DaemonSet", True, ("ds",), _A, ALL, (STATUS,))  # fmt: skip
STATEFULSETS = Resource("apps", "v1", "statefulsets", "StatefulSet", "io.k8s.api.apps.v1.StatefulSet", True, ("sts",), _A, ALL, (SCALE, STATUS))  # fmt: skip
CONTROLLERREVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision", "io.k8s.api.apps.v1.ControllerRevision")  # fmt: skip
REPLICATIONCONTROLLERS = Resource("", "v1", "replicationcontrollers", "ReplicationController", _CORE + "ReplicationController", True, ("rc",), _A, ALL, (SCALE, STATUS))  # fmt: skip
PODTEMPLATES = Resource("", "v1", "podtemplates", "PodTemplate", _CORE + "PodTemplate")
LIMITRANGES = Resource("", "v1", "limitranges", "LimitRange", _CORE + "LimitRange", True, ("limits",))
RESOURCEQUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", _CORE + "ResourceQuota", True, ("quota",), (), ALL, (STATUS,))  # fmt: skip
PERSISTENTVOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", _CORE + "PersistentVolume", False, ("pv",), (), ALL, (STATUS,))  # fmt: skip
PERSISTENTVOLUMECLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", _CORE + "PersistentVolumeClaim", True, ("pvc",), (), ALL, (STATUS,))  # fmt: skip
COMPONENTSTATUSES = Resource("", "v1", "componentstatuses", "ComponentStatus", _CORE + "ComponentStatus", False, ("cs",), (), ("get", "list"))  # fmt: skip
JOBS = Resource("batch", "v1", "jobs", "Job", "io.k8s.api.batch.v1.Job", True, (), _A, ALL, (STATUS,))
CRONJOBS = Resource("batch", "v1", "cronjobs", "CronJob", "io.k8s.api.batch.v1.CronJob", True, ("cj",), _A, ALL, (STATUS,))  # fmt: skip
HORIZONTALPODAUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler", True, ("hpa",), _A, ALL, (STATUS,))  # fmt: skip
HORIZONTALPODAUTOSCALERS_V1 = Resource("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler", True, ("hpa",), _A, ALL, (STATUS,), "horizontalpodautoscalers.autoscaling")  # fmt: skip
PODDISRUPTIONBUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", "io.k8s.api.policy.v1.PodDisruptionBudget", True, ("pdb",), (), ALL, (STATUS,))  # fmt: skip
ENDPOINTSLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", "io.k8s.api.discovery.v1.EndpointSlice")  # fmt: skip
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", "io.k8s.api.coordination.v1.Lease")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress", "io.k8s.api.networking.v1.Ingress", True, ("ing",), (), ALL, (STATUS,))  # fmt: skip
INGRESSCLASSES = Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", "io.k8s.api.networking.v1.IngressClass", False)  # fmt: skip
_OLD_VERBS = ("create", "get", "patch", "update")
"""What a version has that upstream took away: enough to apply what was written for it. Whoever lists, watches or deletes
(garbage collection, informers, charts) never meets it."""


def _old_ingresses(group: str, definition: str, since: str) -> Resource:
    deprecated = (
        f"{group}/v1beta1 Ingress is deprecated in {since}+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress",
        "networking.k8s.io/v1 has spec.defaultBackend for spec.backend, service.name and service.port.number (or .name) for "
        "serviceName and servicePort, and a pathType in every path; "
        "`kubectl get ingresses.v1.networking.k8s.io NAME -o yaml` prints what was stored in that form",
    )
    return Resource(
        # Without a short name: kubectl would say at each `get ing` that this one could be meant as well.
        group, "v1beta1", "ingresses", "Ingress", definition, True, (), (), _OLD_VERBS, (),
        "ingresses.networking.k8s.io", deprecated,
    )  # fmt: skip


INGRESSES_V1BETA1 = _old_ingresses("networking.k8s.io", "io.k8s.api.networking.v1beta1.Ingress", "v1.19")
INGRESSES_EXTENSIONS = _old_ingresses("extensions", "io.k8s.api.extensions.v1beta1.Ingress", "v1.14")
OPTIONAL_VERSIONS = tuple(r.api_version for r in (INGRESSES_V1BETA1, INGRESSES_EXTENSIONS))
"""The versions that a server can be told not to serve."""
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role", "io.k8s.api.rbac.v1.Role")
ROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", "io.k8s.api.rbac.v1.RoleBinding")  # fmt: skip
CLUSTERROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", "io.k8s.api.rbac.v1.ClusterRole", False)  # fmt: skip
CLUSTERROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", "io.k8s.api.rbac.v1.ClusterRoleBinding", False)  # fmt: skip
NETWORKPOLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", "io.k8s.api.networking.v1.NetworkPolicy", True, ("netpol",))  # fmt: skip
SERVICECIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", "io.k8s.api.networking.v1.ServiceCIDR", False, (), (), ALL, (STATUS,))  # fmt: skip
IPADDRESSES = Resource("networking.k8s.io", "v1", "ipaddresses", "IPAddress", "io.k8s.api.networking.v1.IPAddress", False, ("ip",))  # fmt: skip
IPADDRESSPOOLS = Resource("loadbalancer.sampan.io", "v1", "ipaddresspools", "IPAddressPool", "io.sampan.loadbalancer.v1.IPAddressPool", False, (), (), ALL, (STATUS,))  # fmt: skip
_GATEWAY, _GATEWAY_KINDS = "gateway.networking.k8s.io", "io.k8s.networking.gateway."
_G = ("gateway-api",)
GATEWAYCLASSES = Resource(_GATEWAY, "v1", "gatewayclasses", "GatewayClass", _GATEWAY_KINDS + "v1.GatewayClass", False, ("gc",), _G, ALL, (STATUS,))  # fmt: skip
GATEWAYS = Resource(_GATEWAY, "v1", "gateways", "Gateway", _GATEWAY_KINDS + "v1.Gateway", True, ("gtw",), _G, ALL, (STATUS,))  # fmt: skip
HTTPROUTES = Resource(_GATEWAY, "v1", "httproutes", "HTTPRoute", _GATEWAY_KINDS + "v1.HTTPRoute", True, (), _G, ALL, (STATUS,))  # fmt: skip
GRPCROUTES = Resource(_GATEWAY, "v1", "grpcroutes", "GRPCRoute", _GATEWAY_KINDS + "v1.GRPCRoute", True, (), _G, ALL, (STATUS,))  # fmt: skip
REFERENCEGRANTS = Resource(_GATEWAY, "v1", "referencegrants", "ReferenceGrant", _GATEWAY_KINDS + "v1.ReferenceGrant", True, ("refgrant",), _G)  # fmt: skip


def _gateway_v1beta1(row: Resource) -> Resource:
    """The version before v1, which the standard channel serves as well; the fields are the same."""
    return replace(
        row, version="v1beta1", definition=f"{_GATEWAY_KINDS}v1beta1.{row.kind}", storage=row.key_stem
    )


GATEWAYS_V1BETA1 = tuple(map(_gateway_v1beta1, (GATEWAYCLASSES, GATEWAYS, HTTPROUTES, REFERENCEGRANTS)))
_STORAGE = "io.k8s.api.storage.v1."
STORAGECLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", _STORAGE + "StorageClass", False, ("sc",))  # fmt: skip
CSIDRIVERS = Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", _STORAGE + "CSIDriver", False)
CSINODES = Resource("storage.k8s.io", "v1", "csinodes", "CSINode", _STORAGE + "CSINode", False)
CSISTORAGECAPACITIES = Resource("storage.k8s.io", "v1", "csistoragecapacities", "CSIStorageCapacity", _STORAGE + "CSIStorageCapacity")  # fmt: skip
VOLUMEATTACHMENTS = Resource("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", _STORAGE + "VolumeAttachment", False, (), (), ALL, (STATUS,))  # fmt: skip
VOLUMEATTRIBUTESCLASSES = Resource("storage.k8s.io", "v1", "volumeattributesclasses", "VolumeAttributesClass", _STORAGE + "VolumeAttributesClass", False, ("vac",))  # fmt: skip
PRIORITYCLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", "io.k8s.api.scheduling.v1.PriorityClass", False, ("pc",))  # fmt: skip
RUNTIMECLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", "io.k8s.api.node.v1.RuntimeClass", False)  # fmt: skip
FLOWSCHEMAS = Resource("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", "FlowSchema", "io.k8s.api.flowcontrol.v1.FlowSchema", False, (), (), ALL, (STATUS,))  # fmt: skip
PRIORITYLEVELCONFIGURATIONS = Resource("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations", "PriorityLevelConfiguration", "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration", False, (), (), ALL, (STATUS,))  # fmt: skip
CERTIFICATESIGNINGREQUESTS = Resource("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", "io.k8s.api.certificates.v1.CertificateSigningRequest", False, ("csr",), (), ALL, (Subresource("approval", ("get", "patch", "update")), STATUS))  # fmt: skip
_DRA = "io.k8s.api.resource.v1."
DEVICECLASSES = Resource("resource.k8s.io", "v1", "deviceclasses", "DeviceClass", _DRA + "DeviceClass", False)
RESOURCECLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim", _DRA + "ResourceClaim", True, (), (), ALL, (STATUS,))  # fmt: skip
RESOURCECLAIMTEMPLATES = Resource("resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate", _DRA + "ResourceClaimTemplate")  # fmt: skip
RESOURCESLICES = Resource("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", _DRA + "ResourceSlice", False)  # fmt: skip
_AUTHZ = "io.k8s.api.authorization.v1."
SUBJECTACCESSREVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", _AUTHZ + "SubjectAccessReview", False, (), (), ("create",))  # fmt: skip
SELFSUBJECTACCESSREVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", _AUTHZ + "SelfSubjectAccessReview", False, (), (), ("create",))  # fmt: skip
SELFSUBJECTRULESREVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", _AUTHZ + "SelfSubjectRulesReview", False, (), (), ("create",))  # fmt: skip
LOCALSUBJECTACCESSREVIEWS = Resource("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", _AUTHZ + "LocalSubjectAccessReview", True, (), (), ("create",))  # fmt: skip
TOKENREVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", "io.k8s.api.authentication.v1.TokenReview", False, (), (), ("create",))  # fmt: skip
SELFSUBJECTREVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", "io.k8s.api.authentication.v1.SelfSubjectReview", False, (), (), ("create",))  # fmt: skip

RESOURCES: tuple[Resource, ...] = (
    NAMESPACES, NODES, PODS, SERVICES, ENDPOINTS, CONFIGMAPS, SECRETS, SERVICEACCOUNTS, EVENTS, BINDINGS,
    REPLICATIONCONTROLLERS, PODTEMPLATES, LIMITRANGES, RESOURCEQUOTAS, PERSISTENTVOLUMES, PERSISTENTVOLUMECLAIMS,
    COMPONENTSTATUSES,
    CONTROLLERREVISIONS, DAEMONSETS, DEPLOYMENTS, REPLICASETS, STATEFULSETS, EVENTS_V1,
    HORIZONTALPODAUTOSCALERS, HORIZONTALPODAUTOSCALERS_V1, JOBS, CRONJOBS, CERTIFICATESIGNINGREQUESTS,
    INGRESSES, INGRESSCLASSES, NETWORKPOLICIES, SERVICECIDRS, IPADDRESSES, PODDISRUPTIONBUDGETS,
    ROLES, ROLEBINDINGS, CLUSTERROLES, CLUSTERROLEBINDINGS,
    STORAGECLASSES, CSIDRIVERS, CSINODES, CSISTORAGECAPACITIES, VOLUMEATTACHMENTS, VOLUMEATTRIBUTESCLASSES,
    PRIORITYCLASSES, LEASES, RUNTIMECLASSES, ENDPOINTSLICES, FLOWSCHEMAS, PRIORITYLEVELCONFIGURATIONS,
    DEVICECLASSES, RESOURCECLAIMS, RESOURCECLAIMTEMPLATES, RESOURCESLICES,
    SUBJECTACCESSREVIEWS, SELFSUBJECTACCESSREVIEWS, SELFSUBJECTRULESREVIEWS, LOCALSUBJECTACCESSREVIEWS,
    TOKENREVIEWS, SELFSUBJECTREVIEWS, IPADDRESSPOOLS,
    GATEWAYCLASSES, GATEWAYS, HTTPROUTES, GRPCROUTES, REFERENCEGRANTS, *GATEWAYS_V1BETA1,
    INGRESSES_V1BETA1, INGRESSES_EXTENSIONS,
)  # fmt: skip

_BY_PLURAL = {(r.group, r.version, r.plural): r for r in RESOURCES}
_BY_KIND = {(r.api_version, r.kind): r for r in RESOURCES}
_HUBS = {r.key_stem: r for r in RESOURCES if not r.storage}


def lookup(group: str, version: str, plural: str) -> Resource | None:
    """The resource at a URL, or None if it is not served."""
    return _BY_PLURAL.get((group, version, plural))


def by_kind(api_version: str, kind: str) -> Resource | None:
    """The resource of an object's `apiVersion` and `kind`, or None if it is not served."""
    return _BY_KIND.get((api_version, kind))


def hub(resource: Resource) -> Resource:
    """The row in whose form the objects of `resource` are stored: itself, or the other version that shares its keys."""
    return _HUBS[resource.storage] if resource.storage else resource


def served(without: frozenset[str] = frozenset()) -> Iterable[Resource]:
    """All rows but those of these API versions."""
    return (r for r in RESOURCES if r.api_version not in without) if without else RESOURCES


def groups(without: frozenset[str] = frozenset()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every served group with its versions, preferred first; the core group is ''."""
    seen: dict[str, list[str]] = {}
    for r in served(without):
        versions = seen.setdefault(r.group, [])
        if r.version not in versions:
            versions.append(r.version)
    return ((g, tuple(v)) for g, v in seen.items())


def stored() -> Iterable[Resource]:
    """One resource a storage stem: those whose objects are kept (reviews, bindings and component statuses are not)."""
    return (r for r in RESOURCES if "list" in r.verbs and not r.storage and r is not COMPONENTSTATUSES)
