"""What a write may touch: the parts of an object that belong to its user, to its status writer, and to the server.

The API server calls these after defaulting and before admission and validation. Both change the new object in place.
Upstream: the `PrepareForCreate` and `PrepareForUpdate` of `pkg/registry/*/strategy.go`, and `rest.BeforeUpdate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.api import qos, service_fields
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import Resource

_GENERATION = {"pods", "deployments.apps", "replicasets.apps", "ingresses.networking.k8s.io",
               "ingressclasses.networking.k8s.io", "endpointslices.discovery.k8s.io"}  # fmt: skip
"""Resources whose generation upstream counts (key stems)."""

_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
"""Metadata that an update may leave out, and gets back."""


def prepare_create(resource: Resource, obj: Object) -> None:
    """Drop from a new object what its creator may not set (status, generation), and give it its first status."""
    stem = resource.key_stem
    meta = obj.setdefault("metadata", {})
    meta.pop("generation", None)
    meta.pop("selfLink", None)
    if stem in _GENERATION:
        meta["generation"] = 1
    first = _FIRST_STATUS.get(stem)
    if first is not None:
        obj["status"] = first(obj)
    if stem == "namespaces":
        finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
        if "kubernetes" not in finalizers:
            finalizers.append("kubernetes")
    elif stem == "services":
        service_fields.normalize_cluster_ips(obj, None)
    elif stem == "nodes":
        _node_cidrs(obj)


def prepare_update(resource: Resource, new: Object, old: Object, subresource: str = "") -> None:
    """Give a changed object back what this write may not touch, and count its generation.

    `subresource` is "" for the object itself, else `status`, `scale`, `finalize`, `ephemeralcontainers`.
    """
    stem = resource.key_stem
    meta, before = new.setdefault("metadata", {}), old["metadata"]
    meta.pop("selfLink", None)
    for name in _SERVER_OWNED:
        if name in before and (name not in meta or name in ("creationTimestamp", "deletionTimestamp")):
            meta[name] = before[name]
    if "generation" in before:
        meta["generation"] = before["generation"]
    else:
        meta.pop("generation", None)

    if subresource == "status":
        _keep(new, old, "spec")
        if stem == "deployments.apps":
            _keep(meta, before, "labels")
        elif stem == "pods":
            _keep(meta, before, "ownerReferences")
            new.setdefault("status", {}).setdefault("qosClass", qos.of(new))
        return
    if subresource == "finalize":
        _keep(new, old, "status")
        return
    if subresource == "ephemeralcontainers":
        _only_ephemeral(new, old)
        meta = new["metadata"]
    if stem in _FIRST_STATUS or stem == "nodes":
        _keep(new, old, "status")
    if stem == "namespaces":
        new.setdefault("spec", {})
        _keep(new["spec"], old.get("spec") or {}, "finalizers")
    elif stem == "services":
        service_fields.keep_allocated(new, old)
        service_fields.normalize_cluster_ips(new, old)
        service_fields.drop_of_other_type(new, old)
    elif stem == "nodes":
        _node_cidrs(new)
    if stem in _GENERATION and _changed(stem, new, old):
        meta["generation"] = int(before.get("generation") or 0) + 1


def _keep(new: Object, old: Object, name: str) -> None:
    """The old value of one field, shared with the old object (objects are not changed once they are written)."""
    if name in old:
        new[name] = deep_copy(old[name])
    else:
        new.pop(name, None)


def _changed(stem: str, new: Object, old: Object) -> bool:
    if stem == "endpointslices.discovery.k8s.io":
        parts = ("endpoints", "ports", "addressType")
        labels = (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {})
        return labels or any(not same(new.get(p), old.get(p)) for p in parts)
    if not same(new.get("spec"), old.get("spec")):
        return True
    if stem == "deployments.apps":
        return (new["metadata"].get("annotations") or {}) != (old["metadata"].get("annotations") or {})
    return False


def same(a: Any, b: Any) -> bool:
    """Whether two values mean the same to upstream: absent and an empty list or text are equal."""
    if a == b:
        return True
    if isinstance(a, dict) and isinstance(b, dict):
        return all(same(a.get(k), b.get(k)) for k in a.keys() | b.keys())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return (a is None and b in ([], "")) or (b is None and a in ([], ""))


def _only_ephemeral(new: Object, old: Object) -> None:
    wanted = (new.get("spec") or {}).get("ephemeralContainers")
    _keep(new, old, "spec")
    if wanted is not None:
        new["spec"]["ephemeralContainers"] = wanted
    meta = {k: v for k, v in old["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    for name in ("resourceVersion", "managedFields"):
        if name in new["metadata"]:
            meta[name] = new["metadata"][name]
    new["metadata"] = deep_copy(meta)


def _node_cidrs(node: Object) -> None:
    """`podCIDR` and `podCIDRs` say the same."""
    spec = node.setdefault("spec", {})
    if spec.get("podCIDR") and not spec.get("podCIDRs"):
        spec["podCIDRs"] = [spec["podCIDR"]]
    elif spec.get("podCIDRs") and not spec.get("podCIDR"):
        spec["podCIDR"] = spec["podCIDRs"][0]


def _pod_status(pod: Object) -> Object:
    status: Object = {"phase": "Pending", "qosClass": qos.of(pod)}
    if (pod.get("spec") or {}).get("schedulingGates"):
        status["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]
    return status


_FIRST_STATUS: dict[str, Callable[[Object], Object]] = {
    "pods": _pod_status,
    "namespaces": lambda _: {"phase": "Active"},
    "services": lambda _: {"loadBalancer": {}},
    "ingresses.networking.k8s.io": lambda _: {"loadBalancer": {}},
    "deployments.apps": lambda _: {},
    "replicasets.apps": lambda _: {"replicas": 0},
}
"""The status that a new object gets, for the resources whose status has a writer of its own."""
