"""Pods and nodes in few words, as the API would give them out, and the scheduler's view of them."""

from __future__ import annotations

import itertools
from typing import Any

from sampan.api import defaults, resources
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.scheduler.cache import Cache, NodeInfo, PodInfo, pod_info

_uids = itertools.count()


def pod(
    name: str = "p",
    *,
    labels: dict[str, str] | None = None,
    requests: dict[str, str] | None = None,
    host_ports: tuple[int, ...] = (),
    owner: str = "",
    namespace: str = "default",
    **spec: Any,
) -> Object:
    container: Object = {"name": "c", "image": "i"}
    if requests:
        container["resources"] = {"requests": requests}
    if host_ports:
        container["ports"] = [{"containerPort": p, "hostPort": p} for p in host_ports]
    meta: Object = {
        "name": name,
        "namespace": namespace,
        "uid": f"u{next(_uids)}",
        "labels": labels or {},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    if owner:
        meta["ownerReferences"] = [{"uid": owner, "controller": True}]
    obj: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [container], **deep_copy(spec)},
    }
    defaults.apply(resources.PODS, obj)
    return obj


def node(
    name: str = "n1",
    *,
    labels: dict[str, str] | None = None,
    taints: list[Object] | None = None,
    unschedulable: bool = False,
    allocatable: dict[str, str] | None = None,
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {
            **({"taints": taints} if taints else {}),
            **({"unschedulable": True} if unschedulable else {}),
        },
        "status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "110", **(allocatable or {})}},
    }


def info(*args: Any, **kwargs: Any) -> PodInfo:
    return pod_info(pod(*args, **kwargs))


def cache(*nodes: Object, pods: dict[str, list[Object]] | None = None) -> Cache:
    """A cache of nodes with pods on them, by the node's name."""
    made = Cache()
    for one in nodes:
        made.set_node(one)
    for where, placed in (pods or {}).items():
        for one in placed:
            one["spec"]["nodeName"] = where
            made.set_pod(one)
    return made


def node_info(**kwargs: Any) -> NodeInfo:
    return cache(node(**kwargs)).nodes[kwargs.get("name", "n1")]


def term(key: str, selector: Object | None = None, **more: Any) -> Object:
    return {"topologyKey": key, "labelSelector": selector or {"matchLabels": {"app": "web"}}, **more}


def affinity(kind: str, *terms: Object, weight: int = 0) -> Object:
    """`podAffinity` or `podAntiAffinity`: required, or preferred with a weight."""
    if weight:
        preferred = [{"weight": weight, "podAffinityTerm": t} for t in terms]
        return {kind: {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def node_affinity(*expressions: Object, fields: list[Object] | None = None) -> Object:
    chosen: Object = {"matchExpressions": list(expressions)}
    if fields:
        chosen["matchFields"] = fields
    required = {"nodeSelectorTerms": [chosen]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
