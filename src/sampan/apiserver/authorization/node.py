"""What a node may: fixed rules for what every node needs, and the graph for what belongs to its own pods.

A node reads a Secret or ConfigMap, or asks for a ServiceAccount's token, only while a pod bound to it refers to
that object. Nodes that are front doors, and chosen as such, read two things more: every Secret of the type kubernetes.io/tls, of all
namespaces and with its key, whether an Ingress refers to it or not (list and watch, by that field selector); and by name the Secrets, of
any type, and ConfigMaps that Ingresses of our classes refer to. Whose objects a node changes (its own Node, its own pods) is checked at
admission, by `NodeRestriction`, where the object is at hand.

Upstream: `plugin/pkg/auth/authorizer/node` and the node rules of the bootstrap policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sampan.api import resources
from sampan.api.front_doors import EVERY_NODE, FRONT_DOORS, Terms
from sampan.api.resources import Resource
from sampan.apiserver.authorization import bootstrap_policy
from sampan.apiserver.authorization.ingress_references import IngressReferences
from sampan.apiserver.authorization.node_graph import NodeGraph, references
from sampan.apiserver.authorization.rbac import Rule
from sampan.apiserver.tokens import node_name
from sampan.apiserver.types import Decision, ReadCache, RequestInfo, User

__all__ = ["LEASE_NAMESPACE", "NodeAuthorizer", "node_name", "references"]

LEASE_NAMESPACE = "kube-node-lease"
_READ = ("get", "list", "watch")
_OWN = ("get", "create", "update", "patch", "delete")
_YES = Decision(True)
_NO = Decision(False)


class NodeAuthorizer:
    """Nodes of the group FRONT_DOORS that `front_doors` choose read what front doors need, too: a certificate cannot be called back, a
    choice can."""

    def __init__(self, cache: ReadCache, front_doors: Terms = EVERY_NODE) -> None:
        self._front_doors = front_doors
        self._graph = NodeGraph(cache)
        self._ingresses = IngressReferences(cache)
        self._rules = tuple(Rule.compile(r) for r in bootstrap_policy.NODE_RULES)
        self._special: dict[tuple[str, str], Callable[[str, RequestInfo], Decision]] = {
            ("", "secrets"): self._referred,
            ("", "configmaps"): self._referred,
            ("", "persistentvolumeclaims"): self._volume_claim,
            ("", "persistentvolumes"): self._volume,
            ("", "serviceaccounts"): self._service_account,
            ("", "nodes"): self._node,
            ("", "pods"): self._pod,
            ("resource.k8s.io", "resourceclaims"): self._got,
            ("resource.k8s.io", "resourceslices"): self._resource_slice,
            ("storage.k8s.io", "volumeattachments"): self._volume_attachment,
            ("storage.k8s.io", "csinodes"): self._csi_node,
            ("coordination.k8s.io", "leases"): self._lease,
        }

    def authorize(self, user: User, info: RequestInfo) -> Decision | None:
        """The decision about a node's request; None where `user` is no node."""
        node = node_name(user)
        if node is None:
            return None
        if not node:
            return Decision(False, f'unknown node for user "{user.name}"')
        if info.is_resource:
            if FRONT_DOORS in user.groups and self._front_doors.choose(node) and self._of_ingress(info):
                return _YES
            special = self._special.get((info.group, info.plural))
            if special is not None:
                return special(node, info)
        return _YES if _allowed(self._rules, info) else _NO

    # -- objects that pods refer to

    def _referred(self, node: str, info: RequestInfo) -> Decision:
        if info.verb not in _READ:
            return Decision(False, "can only read resources of this type")
        if info.subresource:
            return Decision(False, "cannot read subresource")
        if not info.namespace:
            return Decision(False, "can only read namespaced object of this type")
        return self._related(node, info, self._refers)

    def _of_ingress(self, info: RequestInfo) -> bool:
        if (
            info.group
            or info.plural not in ("secrets", "configmaps")
            or info.verb not in _READ
            or info.subresource
        ):
            return False
        if not info.name:
            certificates = _field(info.field_selector, "type") == "kubernetes.io/tls"
            return info.plural == "secrets" and certificates and info.verb in ("list", "watch")
        return bool(info.namespace) and self._ingresses.refers(info.plural, info.namespace, info.name)

    def _got(self, node: str, info: RequestInfo) -> Decision:
        return _not_get(info) or self._related(node, info, self._refers)

    def _volume_claim(self, node: str, info: RequestInfo) -> Decision:
        if info.subresource == "status":
            if info.verb not in ("update", "patch"):
                return Decision(False, "can only get/update/patch this type")
            return self._related(node, info, self._refers)
        return self._got(node, info)

    def _volume(self, node: str, info: RequestInfo) -> Decision:
        return _not_get(info) or self._related(node, info, lambda n, i: self._graph.needs_volume(n, i.name))

    def _volume_attachment(self, node: str, info: RequestInfo) -> Decision:
        return _not_get(info) or self._related(node, info, self._names(resources.VOLUMEATTACHMENTS))

    def _service_account(self, node: str, info: RequestInfo) -> Decision:
        if info.verb == "get" and not info.subresource:
            return self._related(node, info, self._refers)
        if info.verb != "create" or not info.name:
            return Decision(False, "can only create tokens for individual service accounts")
        if info.subresource != "token":
            return Decision(False, "can only create token subresource of serviceaccount")
        return self._related(node, info, self._refers)

    def _refers(self, node: str, info: RequestInfo) -> bool:
        return self._graph.refers(node, info.plural, info.namespace, info.name)

    def _names(self, resource: Resource) -> Callable[[str, RequestInfo], bool]:
        return lambda node, info: self._graph.names_node(node, resource, info.name)

    def _related(self, node: str, info: RequestInfo, related: Callable[[str, RequestInfo], bool]) -> Decision:
        if not info.name:
            return Decision(False, "No Object name found")
        if related(node, info):
            return _YES
        return Decision(False, f"no relationship found between node '{node}' and this object")

    # -- the node's own objects

    def _node(self, node: str, info: RequestInfo) -> Decision:
        verb = info.verb
        if info.subresource:
            return _YES if info.subresource == "status" and verb in ("update", "patch") else _NO
        if verb in ("create", "update", "patch") or (verb in _READ and info.name == node):
            return _YES
        if verb not in _READ:
            return _NO
        if not info.name:
            return Decision(False, f"node '{node}' cannot read all nodes, only its own Node object")
        return Decision(False, f"node '{node}' cannot read '{info.name}', only its own Node object")

    def _pod(self, node: str, info: RequestInfo) -> Decision:
        verb = info.verb
        if info.subresource or verb not in _READ:
            allowed = {"": ("create", "delete"), "status": ("update", "patch"), "eviction": ("create",)}
            return _YES if verb in allowed.get(info.subresource, ()) else _NO
        if verb != "get" and _field(info.field_selector, "spec.nodeName") == node:
            return _YES
        if verb != "get" and not info.name:
            return Decision(False, "can only list/watch pods with spec.nodeName field selector")
        return self._related(node, info, lambda n, i: self._graph.has_pod(n, i.namespace, i.name))

    def _lease(self, node: str, info: RequestInfo) -> Decision:
        if info.verb not in _OWN or info.subresource:
            return Decision(False, "can only get, create, update, patch, or delete a node lease")
        if info.namespace != LEASE_NAMESPACE:
            return Decision(False, f'can only access leases in the "{LEASE_NAMESPACE}" system namespace')
        # The name of a new lease is in the body; NodeRestriction looks at it.
        if info.verb != "create" and info.name != node:
            return Decision(False, "can only access node lease with the same name as the requesting node")
        return _YES

    def _csi_node(self, node: str, info: RequestInfo) -> Decision:
        if info.verb not in _OWN:
            return Decision(False, "can only get, create, update, patch, or delete a CSINode")
        if info.subresource:
            return Decision(False, "cannot authorize CSINode subresources")
        if info.verb != "create" and info.name != node:
            return Decision(False, "can only access CSINode with the same name as the requesting node")
        return _YES

    def _resource_slice(self, node: str, info: RequestInfo) -> Decision:
        if info.subresource:
            return Decision(False, "cannot authorize ResourceSlice subresources")
        if info.verb == "create":
            return _YES
        if info.verb in ("get", "update", "patch", "delete"):
            return self._related(node, info, self._names(resources.RESOURCESLICES))
        if info.verb in ("list", "watch", "deletecollection"):
            if _field(info.field_selector, "spec.nodeName") == node:
                return _YES
            why = "can only list/watch/deletecollection resourceslices with nodeName field selector"
            return Decision(False, why)
        why = "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
        return Decision(False, why)


def _not_get(info: RequestInfo) -> Decision | None:
    if info.verb != "get":
        return Decision(False, "can only get individual resources of this type")
    return Decision(False, "cannot get subresource") if info.subresource else None


def _allowed(rules: Iterable[Rule], info: RequestInfo) -> bool:
    return any(rule.allows(info) for rule in rules)


def _field(selector: str, name: str) -> str:
    """The value that a field selector demands of a field, or ""."""
    for term in selector.split(","):
        key, _, value = term.strip().partition("=")
        if key == name:
            return value.removeprefix("=")
    return ""
