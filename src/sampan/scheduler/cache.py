"""What the scheduler knows: every node with the pods on it and what they take together.

A change costs what it touches: one pod is added to or taken from one node's sums. Pods that were given a node but whose
binding the API has not shown yet are assumed: they take their place at once, so that no place is given twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sampan.api.errors import Object
from sampan.api.objects import controller_of
from sampan.client.informer import key_of
from sampan.scheduler.affinity import Spread, Terms, spreads_of, terms_of
from sampan.scheduler.requests import (
    UNSTATED,
    Amounts,
    HostPort,
    add,
    amounts,
    host_ports,
    pod_requests,
    subtract,
)

_NO_LABELS: Mapping[str, str] = {}


@dataclass(slots=True, eq=False)
class PodInfo:
    """A pod with what the scheduler reads in it. `obj` is shared with the informer and never changed."""

    obj: Object
    key: str
    uid: str
    namespace: str
    labels: Mapping[str, str]
    priority: int
    requests: Amounts
    compared: Amounts
    """The requests that nodes are compared by."""
    ports: tuple[HostPort, ...]
    terms: Terms
    spreads: tuple[Spread, ...]
    owner: str
    """The uid of the controlling owner, or ""."""
    node: str = ""
    """Where the pod is, or is assumed to be."""

    @property
    def spec(self) -> Object:
        return self.obj["spec"]  # type: ignore[no-any-return]

    @property
    def terminating(self) -> bool:
        return bool(self.obj["metadata"].get("deletionTimestamp"))

    def described_alike(self, obj: Object) -> bool:
        """Whether what the scheduler has read in the pod is still so in `obj`."""
        meta, before = obj["metadata"], self.obj["metadata"]
        return bool(
            obj["spec"] == self.obj["spec"]
            and meta.get("labels") == before.get("labels")
            and meta.get("ownerReferences") == before.get("ownerReferences")
        )


def pod_info(obj: Object) -> PodInfo:
    meta, spec = obj["metadata"], obj["spec"]
    namespace, labels = meta["namespace"], meta.get("labels") or _NO_LABELS
    owner = controller_of(obj)
    return PodInfo(
        obj=obj,
        key=key_of(obj),
        uid=meta["uid"],
        namespace=namespace,
        labels=labels,
        priority=spec.get("priority") or 0,
        requests=pod_requests(spec),
        compared=pod_requests(spec, UNSTATED),
        ports=host_ports(spec),
        terms=terms_of(spec, namespace, labels),
        spreads=spreads_of(spec, labels),
        owner=owner["uid"] if owner else "",
        node=spec.get("nodeName") or "",
    )


@dataclass(slots=True, eq=False)
class NodeInfo:
    """A node and the pods on it. Without `obj` it is not (or no longer) there, and only some pods say they are on it."""

    name: str
    obj: Object | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Object, ...] = ()
    unschedulable: bool = False
    allocatable: Amounts = field(default_factory=dict)
    pods: dict[str, PodInfo] = field(default_factory=dict)
    requested: Amounts = field(default_factory=dict)
    compared: Amounts = field(default_factory=dict)
    ports: dict[int, list[HostPort]] = field(default_factory=dict)
    """The ports that are taken, by number."""
    with_terms: dict[str, PodInfo] = field(default_factory=dict)
    """The pods that speak of other pods."""

    def set_object(self, obj: Object) -> None:
        spec = obj.get("spec") or {}
        self.obj = obj
        self.labels = obj["metadata"].get("labels") or {}
        self.taints = tuple(spec.get("taints") or ())
        self.unschedulable = bool(spec.get("unschedulable"))
        self.allocatable = amounts((obj.get("status") or {}).get("allocatable"))

    def add(self, pod: PodInfo) -> None:
        self.pods[pod.key] = pod
        add(self.requested, pod.requests)
        add(self.compared, pod.compared)
        for port in pod.ports:
            self.ports.setdefault(port.port, []).append(port)
        if pod.terms:
            self.with_terms[pod.key] = pod

    def remove(self, pod: PodInfo) -> None:
        if self.pods.get(pod.key) is not pod:
            return
        del self.pods[pod.key]
        subtract(self.requested, pod.requests)
        subtract(self.compared, pod.compared)
        for port in pod.ports:
            taken = self.ports[port.port]
            taken.remove(port)
            if not taken:
                del self.ports[port.port]
        self.with_terms.pop(pod.key, None)

    def copy(self) -> NodeInfo:
        """A copy to try changes of its pods on."""
        return NodeInfo(
            self.name,
            self.obj,
            self.labels,
            self.taints,
            self.unschedulable,
            self.allocatable,
            dict(self.pods),
            dict(self.requested),
            dict(self.compared),
            {number: list(taken) for number, taken in self.ports.items()},
            dict(self.with_terms),
        )


class Cache:
    """All nodes, and where every pod that takes room is. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._pods: dict[str, PodInfo] = {}
        self._assumed: set[str] = set()
        self.nodes: dict[str, NodeInfo] = {}
        """The nodes that are there."""
        self.with_terms: dict[str, PodInfo] = {}
        """The placed pods that speak of other pods; mostly none, and then nobody needs to look at the others."""

    def set_node(self, obj: Object) -> NodeInfo:
        name = obj["metadata"]["name"]
        node = self._nodes.setdefault(name, NodeInfo(name))
        node.set_object(obj)
        self.nodes[name] = node
        return node

    def remove_node(self, name: str) -> None:
        node = self.nodes.pop(name, None)
        if node is not None:
            node.obj = None
            if not node.pods:
                del self._nodes[name]

    def placed(self, key: str) -> PodInfo | None:
        """The pod of that key, if it is on a node or assumed to be."""
        return self._pods.get(key)

    def is_assumed(self, key: str) -> bool:
        return key in self._assumed

    def set_pod(self, obj: Object) -> None:
        """The API shows a pod on a node; what was assumed of it is now known."""
        key = key_of(obj)
        self._assumed.discard(key)
        known = self._pods.get(key)
        if (
            known is not None
            and known.uid == obj["metadata"]["uid"]
            and known.node == obj["spec"]["nodeName"]
            and known.described_alike(obj)
        ):
            known.obj = obj
            return
        self._put(pod_info(obj))

    def assume(self, pod: PodInfo, node: str) -> None:
        """Give a pod its place before the API has been told."""
        pod.node = node
        self._put(pod)
        self._assumed.add(pod.key)

    def forget(self, pod: PodInfo) -> bool:
        """The API did not take an assumed pod's place. False if it has been shown there (or gone) all the same."""
        if pod.key not in self._assumed or self._pods.get(pod.key) is not pod:
            return False
        self.remove_pod(pod.key)
        pod.node = ""
        return True

    def remove_pod(self, key: str) -> PodInfo | None:
        """The pod takes no room any more. Returns it, if it did."""
        self._assumed.discard(key)
        self.with_terms.pop(key, None)
        pod = self._pods.pop(key, None)
        if pod is None:
            return None
        node = self._nodes[pod.node]
        node.remove(pod)
        if node.obj is None and not node.pods:
            del self._nodes[pod.node]
        return pod

    def _put(self, pod: PodInfo) -> None:
        self.remove_pod(pod.key)
        self._pods[pod.key] = pod
        self._nodes.setdefault(pod.node, NodeInfo(pod.node)).add(pod)
        if pod.terms:
            self.with_terms[pod.key] = pod
