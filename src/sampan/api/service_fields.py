"""The fields of a Service that depend on its type, and what an update keeps of what was allocated.

Upstream: `pkg/registry/core/service/strategy.go` and `.../storage`.
"""

from __future__ import annotations

from sampan.api.errors import Object


def needs_cluster_ip(service: Object) -> bool:
    return type_of(service) in ("ClusterIP", "NodePort", "LoadBalancer")


def needs_node_port(service: Object) -> bool:
    kind = type_of(service)
    if kind == "NodePort":
        return True
    return kind == "LoadBalancer" and service["spec"].get("allocateLoadBalancerNodePorts") is not False


def needs_health_check_node_port(service: Object) -> bool:
    return type_of(service) == "LoadBalancer" and service["spec"].get("externalTrafficPolicy") == "Local"


def type_of(service: Object) -> str:
    return str((service.get("spec") or {}).get("type") or "ClusterIP")


def normalize_cluster_ips(new: Object, old: Object | None) -> None:
    """Let `clusterIP` and `clusterIPs` follow each other when only one was set or changed."""
    spec = new.setdefault("spec", {})
    if old is None:
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        return
    before = old.get("spec") or {}
    if spec.get("clusterIP", "") == before.get("clusterIP", ""):
        return
    unchanged = (spec.get("clusterIPs") or []) == (before.get("clusterIPs") or [])
    if not spec.get("clusterIP"):
        if unchanged:
            spec.pop("clusterIPs", None)
    elif unchanged:
        spec["clusterIPs"] = [spec["clusterIP"]]


def keep_allocated(new: Object, old: Object) -> None:
    """Addresses and ports that an update leaves out stay as they were allocated."""
    spec, before = new.setdefault("spec", {}), old.get("spec") or {}
    if needs_cluster_ip(new) and needs_cluster_ip(old):
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
        if (
            not spec.get("clusterIPs")
            and before.get("clusterIPs")
            and spec.get("clusterIP") == before.get("clusterIP")
        ):
            spec["clusterIPs"] = list(before["clusterIPs"])
        # The families are those of the addresses.
        if not spec.get("ipFamilies") and spec.get("clusterIPs") == before.get("clusterIPs") != []:
            spec["ipFamilies"] = list(before.get("ipFamilies") or ())
    if may_have_node_ports(new) and may_have_node_ports(old):
        used = _node_ports(new) & _node_ports(old)
        known = {p.get("name") or "": p.get("nodePort") for p in before.get("ports") or ()}
        for port in spec.get("ports") or ():
            kept = known.pop(port.get("name") or "", 0)
            if kept and kept not in used and not port.get("nodePort"):
                port["nodePort"] = kept
    if (
        needs_health_check_node_port(new)
        and needs_health_check_node_port(old)
        and not spec.get("healthCheckNodePort")
        and before.get("healthCheckNodePort")
    ):
        spec["healthCheckNodePort"] = before["healthCheckNodePort"]


def may_have_node_ports(service: Object) -> bool:
    return type_of(service) in ("NodePort", "LoadBalancer")


def _node_ports(service: Object) -> set[int]:
    return {p["nodePort"] for p in service["spec"].get("ports") or () if p.get("nodePort")}


def drop_of_other_type(new: Object, old: Object) -> None:
    """When the type changes, fields that only the old type has and that the user did not touch go away; so does what the
    load balancer of a Service told that has none."""
    spec, before = new["spec"], old.get("spec") or {}

    def untouched(name: str) -> bool:
        return bool(spec.get(name)) and spec.get(name) == before.get(name)

    if needs_cluster_ip(old) and not needs_cluster_ip(new):
        for names in (("clusterIP", "clusterIPs"), ("ipFamilies",), ("ipFamilyPolicy",)):
            if all(map(untouched, names)):
                for name in names:
                    del spec[name]
    if may_have_node_ports(old) and not may_have_node_ports(new) and _node_ports(new) <= _node_ports(old):
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)
    if (
        needs_health_check_node_port(old)
        and not needs_health_check_node_port(new)
        and untouched("healthCheckNodePort")
    ):
        spec.pop("healthCheckNodePort", None)
    if type_of(old) == "LoadBalancer" and type_of(new) != "LoadBalancer":
        if spec.get("allocateLoadBalancerNodePorts") == before.get("allocateLoadBalancerNodePorts"):
            spec.pop("allocateLoadBalancerNodePorts", None)
        if untouched("loadBalancerClass"):
            spec.pop("loadBalancerClass", None)
        new["status"] = {**(new.get("status") or {}), "loadBalancer": {}}
    external = ("NodePort", "LoadBalancer")
    if (
        (type_of(old) in external or before.get("externalIPs"))
        and type_of(new) not in external
        and not spec.get("externalIPs")
        and untouched("externalTrafficPolicy")
    ):
        spec.pop("externalTrafficPolicy")
