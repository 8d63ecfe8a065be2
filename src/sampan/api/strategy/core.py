"""Pods, Namespaces, Services and Nodes."""

from __future__ import annotations

from sampan.api import qos, service_fields
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.strategy.types import Strategy, keep, spec_changed


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


def _pod_update(new: Object, old: Object, subresource: str) -> None:
    if subresource not in ("ephemeralcontainers", "resize"):
        return
    wanted = new.get("spec") or {}
    keep(new, old, "spec")
    if subresource == "resize":
        _resize(new["spec"], wanted)
    elif wanted.get("ephemeralContainers") is not None:
        new["spec"]["ephemeralContainers"] = wanted["ephemeralContainers"]
    _keep_metadata(new, old)


def _resize(spec: Object, wanted: Object) -> None:
    """Take over what containers are to have, and nothing else; validation refuses other containers."""
    for kind in ("containers", "initContainers"):
        present, given = spec.get(kind) or [], wanted.get(kind) or []
        if [c.get("name") for c in present] != [c.get("name") for c in given]:
            spec[kind] = given
            continue
        for container, asked in zip(present, given, strict=True):
            keep(container, asked, "resources")
            keep(container, asked, "resizePolicy")


def _keep_metadata(new: Object, old: Object) -> None:
    """All metadata but what a writer says of his write: the version he saw and his fields."""
    meta = {k: v for k, v in old["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    for name in ("resourceVersion", "managedFields"):
        if name in new["metadata"]:
            meta[name] = new["metadata"][name]
    new["metadata"] = deep_copy(meta)


def _pod_status_update(new: Object, old: Object) -> None:
    keep(new["metadata"], old["metadata"], "ownerReferences")
    new.setdefault("status", {}).setdefault("qosClass", qos.of(new))


def _namespace_create(namespace: Object) -> None:
    finalizers = namespace.setdefault("spec", {}).setdefault("finalizers", [])
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")


def _namespace_renamed(namespace: Object, _: str) -> None:
    namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = namespace["metadata"]["name"]


def _namespace_update(new: Object, old: Object, subresource: str) -> None:
    if subresource != "finalize":
        keep(new.setdefault("spec", {}), old.get("spec") or {}, "finalizers")


def _service_create(service: Object) -> None:
    service_fields.normalize_cluster_ips(service, None)


def _service_update(new: Object, old: Object, _: str) -> None:
    service_fields.keep_allocated(new, old)
    service_fields.normalize_cluster_ips(new, old)
    service_fields.drop_of_other_type(new, old)


def _node_cidrs(node: Object) -> None:
    """`podCIDR` and `podCIDRs` say the same."""
    spec = node.setdefault("spec", {})
    if spec.get("podCIDR") and not spec.get("podCIDRs"):
        spec["podCIDRs"] = [spec["podCIDR"]]
    elif spec.get("podCIDRs") and not spec.get("podCIDR"):
        spec["podCIDR"] = spec["podCIDRs"][0]


STRATEGIES: dict[str, Strategy] = {
    "pods": Strategy(
        generation=spec_changed,
        first_status=_pod_status,
        update=_pod_update,
        status_update=_pod_status_update,
    ),
    "namespaces": Strategy(
        first_status=lambda _: {"phase": "Active"},
        create=_namespace_create,
        renamed=_namespace_renamed,
        update=_namespace_update,
    ),
    "services": Strategy(
        first_status=lambda _: {"loadBalancer": {}}, create=_service_create, update=_service_update
    ),
    "nodes": Strategy(status_kept=True, create=_node_cidrs, update=lambda new, old, _: _node_cidrs(new)),
}
