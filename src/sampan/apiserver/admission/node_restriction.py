"""A node changes itself, its pods and what it says of itself elsewhere, and nothing that would draw other people's pods
to it. Upstream: `plugin/pkg/admission/noderestriction`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sampan.api import errors, resources
from sampan.api.errors import Object
from sampan.api.front_doors import CONDITION, FRONT_DOORS
from sampan.api.objects import condition_true
from sampan.apiserver.admission.plugin import Plugin, refuse
from sampan.apiserver.admission.service_account import MIRROR
from sampan.apiserver.authorization.node import LEASE_NAMESPACE, node_name, references
from sampan.apiserver.types import Attributes, ReadCache

_OWN_LABELS = frozenset(
    (
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    )
)
_OWN_LABEL_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")


class NodeRestriction(Plugin):
    resources = frozenset(
        r.key_stem
        for r in (
            resources.NODES,
            resources.PODS,
            resources.LEASES,
            resources.PERSISTENTVOLUMECLAIMS,
            resources.CSINODES,
            resources.RESOURCESLICES,
        )
    )

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def mutate(self, attributes: Attributes) -> None:
        node = node_name(attributes.user)
        if node is None:
            return
        if not node:
            raise refuse(attributes, f'could not determine node from user "{attributes.user.name}"')
        if attributes.resource is resources.PODS:
            self._pod(node, attributes)
        elif attributes.resource is resources.NODES:
            self._node(node, attributes)
        elif attributes.resource is resources.LEASES:
            self._lease(node, attributes)
        elif attributes.resource is resources.RESOURCESLICES:
            self._resource_slice(node, attributes)
        elif attributes.resource is resources.PERSISTENTVOLUMECLAIMS:
            self._claim(node, attributes)
        elif attributes.resource is resources.CSINODES and _name(attributes) != node:
            raise refuse(attributes, "can only access CSINode with the same name as the requesting node")
        # A token request is held to the node's pods where the token is made (`tokens.create_token_request`).

    def _resource_slice(self, node: str, attributes: Attributes) -> None:
        """The authorizer sees to the rest: it does not know what is in a new object, nor each of a collection."""
        for operation, obj in (("CREATE", attributes.obj), ("DELETE", attributes.old)):
            if attributes.operation == operation and ((obj or {}).get("spec") or {}).get("nodeName") != node:
                verb = operation.lower()
                why = f"can only {verb} ResourceSlice with the same NodeName as the requesting node"
                raise refuse(attributes, why)

    # ---- pods

    def _pod(self, node: str, attributes: Attributes) -> None:
        operation = attributes.operation
        match attributes.subresource, operation:
            case "", "CREATE":
                self._create_pod(node, attributes)
            case "", "DELETE":
                if self._bound_to(attributes) != node:
                    why = f'node "{node}" can only delete pods with spec.nodeName set to itself'
                    raise refuse(attributes, why)
            case "", _:
                why = f'unexpected operation "{operation}", node "{node}" can only create and delete mirror pods'
                raise refuse(attributes, why)
            case "status", "UPDATE":
                self._pod_status(node, attributes)
            case "eviction", "CREATE":
                if self._bound_to(attributes) != node:
                    why = f"node {node} can only evict pods with spec.nodeName set to itself"
                    raise refuse(attributes, why)
            case "status" | "eviction", _:
                raise refuse(attributes, f'unexpected operation "{operation}"')
            case subresource, _:
                why = (
                    f"unexpected pod subresource \"{subresource}\", only 'status' and 'eviction' are allowed"
                )
                raise refuse(attributes, why)

    def _bound_to(self, attributes: Attributes) -> str:
        name = _name(attributes)
        pod = self._cache.get(resources.PODS, attributes.namespace, name)
        if pod is None:
            raise errors.not_found("pods", name)
        return str(pod["spec"].get("nodeName") or "")

    def _create_pod(self, node: str, attributes: Attributes) -> None:
        pod = attributes.obj or {}
        meta, spec = pod["metadata"], pod["spec"]
        if MIRROR not in (meta.get("annotations") or {}):
            why = f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
            raise refuse(attributes, why)
        if spec.get("nodeName") != node:
            raise refuse(attributes, f'node "{node}" can only create pods with spec.nodeName set to itself')
        self._owned_by(node, attributes, meta.get("ownerReferences") or [])
        found = {plural for plural, _ in references(pod)}
        if found:
            what = "a service account" if "serviceaccounts" in found else min(found)
            raise refuse(attributes, f'node "{node}" can not create pods that reference {what}')
        if any("persistentVolumeClaim" in v for v in spec.get("volumes") or ()):
            why = f'node "{node}" can not create pods that reference persistentvolumeclaims'
            raise refuse(attributes, why)
        for volume in spec.get("volumes") or ():
            for source in (volume.get("projected") or {}).get("sources") or ():
                for kind in ("clusterTrustBundle", "podCertificate"):
                    if source.get(kind) is not None:
                        why = f'node "{node}" can not create pods that reference {kind.lower()}s'
                        raise refuse(attributes, why)

    def _owned_by(self, node: str, attributes: Attributes, owners: list[Object]) -> None:
        if len(owners) > 1:
            why = f'node "{node}" can only create pods with a single owner reference set to itself'
            raise refuse(attributes, why)
        owner = owners[0] if owners else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            why = f'node "{node}" can only create pods with an owner reference set to itself'
            raise refuse(attributes, why)
        if not owner.get("controller"):
            why = f'node "{node}" can only create pods with a controller owner reference set to itself'
            raise refuse(attributes, why)
        if owner.get("blockOwnerDeletion"):
            why = f'node "{node}" must not set blockOwnerDeletion on an owner reference'
            raise refuse(attributes, why)
        present = self._cache.get(resources.NODES, "", node)
        if present is None:
            raise errors.not_found("nodes", node)
        uid, given = present["metadata"]["uid"], owner.get("uid")
        if given != uid:
            raise refuse(attributes, f"node {node} UID mismatch: expected {given} got {uid}")

    def _pod_status(self, node: str, attributes: Attributes) -> None:
        old, new = attributes.old or {}, attributes.obj or {}
        if (old.get("spec") or {}).get("nodeName") != node:
            why = f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
            raise refuse(attributes, why)
        if _labels(old) != _labels(new):
            raise refuse(attributes, f'node "{node}" cannot update labels through pod status')
        status, before = ((p.get("status") or {}) for p in (new, old))
        if (status.get("resourceClaimStatuses") or []) != (before.get("resourceClaimStatuses") or []):
            raise refuse(attributes, f'node "{node}" cannot update resource claim statues')
        if status.get("extendedResourceClaimStatus") != before.get("extendedResourceClaimStatus"):
            raise refuse(attributes, f'node "{node}" cannot update extended resource claim status')

    # ---- nodes

    def _node(self, node: str, attributes: Attributes) -> None:
        new, old = attributes.obj or {}, attributes.old or {}
        name = _name(attributes)
        if name != node:
            raise refuse(attributes, f'node "{node}" is not allowed to modify node "{name}"')
        if attributes.operation == "CREATE" and not attributes.subresource:
            self._check_labels(node, attributes, _labels(new), {}, "set the following labels: ")
        if attributes.operation == "UPDATE":
            if (new.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
                raise refuse(attributes, f'node "{node}" is not allowed to modify taints')
            owners, before = ((o.get("metadata") or {}).get("ownerReferences") or [] for o in (new, old))
            if owners != before:
                raise refuse(attributes, f'node "{node}" is not allowed to modify ownerReferences')
            self._check_labels(node, attributes, _labels(new), _labels(old), "modify labels: ")
        if condition_true(new, CONDITION) and FRONT_DOORS not in attributes.user.groups:
            # Whoever is led to front doors would be led to it.
            if not condition_true(old, CONDITION):
                why = f'node "{node}" is not allowed to set condition {CONDITION}: it is no front door'
                raise refuse(attributes, why)
            # It was a front door once, or took the name of one. Refused, it could not say any more that it lives.
            status = new["status"]
            new["status"] = {
                **status,
                "conditions": [c for c in status["conditions"] if c.get("type") != CONDITION],
            }

    def _check_labels(
        self, node: str, attributes: Attributes, new: Mapping[str, str], old: Mapping[str, str], what: str
    ) -> None:
        changed = {k for k in new.keys() | old.keys() if new.get(k) != old.get(k)}
        refused = sorted(k for k in changed if not _own_label(k))
        if refused:
            raise refuse(attributes, f'node "{node}" is not allowed to {what}{", ".join(refused)}')

    # ---- leases

    def _lease(self, node: str, attributes: Attributes) -> None:
        if attributes.namespace != LEASE_NAMESPACE:
            why = f'can only access leases in the "{LEASE_NAMESPACE}" system namespace'
            raise refuse(attributes, why)
        if _name(attributes) != node:
            why = "can only access node lease with the same name as the requesting node"
            raise refuse(attributes, why)

    # ---- storage

    def _claim(self, node: str, attributes: Attributes) -> None:
        """A node says how large a volume has become after it was resized, and nothing else."""
        if attributes.subresource != "status":
            raise refuse(attributes, "may only update PVC status")
        if attributes.operation != "UPDATE":
            raise refuse(attributes, f'unexpected operation "{attributes.operation}"')
        if _fixed(attributes.obj or {}) != _fixed(attributes.old or {}):
            why = f'node "{node}" is not allowed to update fields other than {", ".join(_OF_RESIZE)}'
            raise refuse(attributes, why)


_OF_RESIZE = (
    "status.capacity",
    "status.conditions",
    "status.allocatedResources",
    "status.allocatedResourceStatuses",
)


def _fixed(claim: Object) -> Object:
    """A claim without what its node may change, and without what changes by itself."""
    metadata = {k: v for k, v in claim["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    status = {k: v for k, v in (claim.get("status") or {}).items() if f"status.{k}" not in _OF_RESIZE}
    return {**claim, "metadata": metadata, "status": status}


def _name(attributes: Attributes) -> str:
    return attributes.name or str(((attributes.obj or {}).get("metadata") or {}).get("name", ""))


def _labels(obj: Object) -> dict[str, str]:
    return (obj.get("metadata") or {}).get("labels") or {}


def _own_label(key: str) -> bool:
    """Whether a node may put this label on itself: any outside Kubernetes' own domains, and some inside."""
    domain, slash, _ = key.partition("/")
    if not slash or key in _OWN_LABELS:
        return True
    if any(domain == d or domain.endswith("." + d) for d in _OWN_LABEL_DOMAINS):
        return True
    return not any(domain == d or domain.endswith("." + d) for d in ("kubernetes.io", "k8s.io"))
