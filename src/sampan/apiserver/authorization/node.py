"""What a node may: fixed rules for what every node needs, and a graph for what belongs to its own pods.

A node reads a Secret or ConfigMap, or asks for a ServiceAccount's token, only while a pod bound to it refers to
that object. Whose objects a node changes (its own Node, its own pods) is checked at admission, by `NodeRestriction`,
where the object is at hand.

Upstream: `plugin/pkg/auth/authorizer/node` and the node rules of the bootstrap policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from sampan.api import resources
from sampan.api.errors import Object
from sampan.apiserver.authorization import bootstrap_policy
from sampan.apiserver.authorization.rbac import Rule
from sampan.apiserver.tokens import NODE_PREFIX, NODES_GROUP
from sampan.apiserver.types import Decision, ReadCache, RequestInfo, User

LEASE_NAMESPACE = "kube-node-lease"
_READ = ("get", "list", "watch")
_YES = Decision(True)
_NO = Decision(False)

Reference = tuple[str, str]
"""A resource's plural and an object's name; the namespace is the pod's."""


def node_name(user: User) -> str | None:
    """The node that a user is, "" for a node without a name, None for anybody else."""
    if NODES_GROUP not in user.groups:
        return None
    return user.name.removeprefix(NODE_PREFIX) if user.name.startswith(NODE_PREFIX) else ""


def references(pod: Object) -> frozenset[Reference]:
    """Everything in its namespace that a pod needs a node to read for it."""
    return frozenset(_references(pod["spec"]))


def _references(spec: Object) -> Iterator[Reference]:
    if account := spec.get("serviceAccountName"):
        yield "serviceaccounts", account
    for pull in spec.get("imagePullSecrets") or ():
        yield "secrets", pull.get("name", "")
    for volume in spec.get("volumes") or ():
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            if config_map := source.get("configMap"):
                yield "configmaps", config_map.get("name", "")
            if secret := source.get("secret"):
                yield "secrets", secret.get("secretName") or secret.get("name", "")
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            yield from _container_references(container)


def _container_references(container: Object) -> Iterator[Reference]:
    for env in container.get("env") or ():
        source = env.get("valueFrom") or {}
        yield from _environment(source.get("configMapKeyRef"), source.get("secretKeyRef"))
    for source in container.get("envFrom") or ():
        yield from _environment(source.get("configMapRef"), source.get("secretRef"))


def _environment(config_map: Object | None, secret: Object | None) -> Iterator[Reference]:
    if config_map:
        yield "configmaps", config_map.get("name", "")
    if secret:
        yield "secrets", secret.get("name", "")


class PodGraph:
    """Which objects the pods of each node refer to, kept up to date by the cache's changes."""

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache
        self._nodes: dict[str, dict[tuple[str, str], Object]] | None = None
        self._referred: dict[tuple[str, str], frozenset[Reference]] = {}
        cache.on_change(resources.PODS, self._changed)

    def _by_node(self) -> dict[str, dict[tuple[str, str], Object]]:
        # Filled at the first question, so that it does not matter whether the cache was full when we were made.
        if self._nodes is None:
            self._nodes = {}
            for pod in self._cache.list(resources.PODS):
                self._add(self._nodes, pod)
        return self._nodes

    @staticmethod
    def _add(nodes: dict[str, dict[tuple[str, str], Object]], pod: Object) -> None:
        if node := pod["spec"].get("nodeName"):
            meta = pod["metadata"]
            nodes.setdefault(node, {})[meta.get("namespace", ""), meta["name"]] = pod

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if self._nodes is None:
            return
        pod = new if new is not None else old
        if pod is None:
            return
        meta = pod["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        self._referred.pop(key, None)
        if old is not None and (node := old["spec"].get("nodeName")) and node in self._nodes:
            self._nodes[node].pop(key, None)
            if not self._nodes[node]:
                del self._nodes[node]
        if new is not None:
            self._add(self._nodes, new)

    def has_pod(self, node: str, namespace: str, name: str) -> bool:
        return (namespace, name) in self._by_node().get(node, ())

    def refers(self, node: str, namespace: str, reference: Reference) -> bool:
        """Whether a pod in `namespace` on `node` refers to an object there."""
        for key, pod in self._by_node().get(node, {}).items():
            if key[0] == namespace:
                referred = self._referred.get(key)
                if referred is None:
                    referred = self._referred[key] = references(pod)
                if reference in referred:
                    return True
        return False


class NodeAuthorizer:
    """Speaks about nodes only: None means that it has no opinion."""

    def __init__(self, cache: ReadCache) -> None:
        self._graph = PodGraph(cache)
        self._rules = tuple(Rule.compile(r) for r in bootstrap_policy.NODE_RULES)
        self._special: dict[tuple[str, str], Callable[[str, RequestInfo], Decision]] = {
            ("", "secrets"): self._referred,
            ("", "configmaps"): self._referred,
            ("", "serviceaccounts"): self._service_account,
            ("", "pods"): self._pod,
            ("coordination.k8s.io", "leases"): self._lease,
        }

    def authorize(self, user: User, info: RequestInfo) -> Decision | None:
        node = node_name(user)
        if node is None:
            return None
        if not node:
            return Decision(False, f'unknown node for user "{user.name}"')
        if info.is_resource:
            special = self._special.get((info.group, info.plural))
            if special is not None:
                return special(node, info)
        return _YES if _allowed(self._rules, info) else _NO

    def _referred(self, node: str, info: RequestInfo) -> Decision:
        if info.verb not in _READ or info.subresource:
            return Decision(False, "can only read resources of this type")
        name = info.name or _field(info.field_selector, "metadata.name")
        if not name:
            return Decision(False, f"No Object name found, {_unrelated(node)}")
        if not info.namespace:
            return Decision(False, "can only read namespaced object of this type")
        return self._related(node, info.namespace, (info.plural, name))

    def _service_account(self, node: str, info: RequestInfo) -> Decision:
        if (info.verb, info.subresource) == ("create", "token"):
            return self._related(node, info.namespace, (info.plural, info.name))
        if info.verb == "get" and not info.subresource:
            return self._related(node, info.namespace, (info.plural, info.name))
        return Decision(False, "can only create tokens for individual service accounts")

    def _pod(self, node: str, info: RequestInfo) -> Decision:
        if info.subresource or info.verb not in _READ:
            return _YES if _allowed(self._rules, info) else _NO
        if info.verb == "get":
            if self._graph.has_pod(node, info.namespace, info.name):
                return _YES
            return Decision(False, _unrelated(node))
        if _field(info.field_selector, "spec.nodeName") == node:
            return _YES
        name = info.name or _field(info.field_selector, "metadata.name")
        if name and self._graph.has_pod(node, info.namespace, name):
            return _YES
        return Decision(False, "can only list/watch pods with spec.nodeName field selector")

    def _lease(self, node: str, info: RequestInfo) -> Decision:
        if info.verb not in ("get", "create", "update", "patch", "delete") or info.subresource:
            return Decision(False, "can only get, create, update, patch, or delete a node lease")
        if info.namespace != LEASE_NAMESPACE:
            return Decision(False, f'can only access leases in the "{LEASE_NAMESPACE}" system namespace')
        # The name of a new lease is in the body; NodeRestriction looks at it.
        if info.verb != "create" and info.name != node:
            return Decision(False, "can only access node lease with the same name as the requesting node")
        return _YES

    def _related(self, node: str, namespace: str, reference: Reference) -> Decision:
        if reference[1] and self._graph.refers(node, namespace, reference):
            return _YES
        return Decision(False, _unrelated(node))


def _unrelated(node: str) -> str:
    return f"no relationship found between node '{node}' and this object"


def _allowed(rules: Iterable[Rule], info: RequestInfo) -> bool:
    return any(rule.allows(info) for rule in rules)


def _field(selector: str, name: str) -> str:
    """The value that a field selector demands of a field, or ""."""
    for term in selector.split(","):
        key, _, value = term.strip().partition("=")
        if key == name:
            return value.removeprefix("=")
    return ""
