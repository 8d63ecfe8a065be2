"""From objects of the API to values: what a NetworkPolicy says, what of a Pod matters."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from sampan.api.errors import Object
from sampan.api.selectors import EVERYTHING, LabelSelector, from_object
from sampan.networkpolicy.types import Block, NamedPort, Peer, Pod, PodSelection, Policy, Port, Ports, Rule

LAST_PORT = 65535


def policy_of(obj: Object) -> Policy:
    """A NetworkPolicy that the API accepted, defaults included."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    namespace = meta["namespace"]
    types = spec.get("policyTypes") or ()
    return Policy(
        f"{namespace}/{meta['name']}",
        PodSelection(namespace, None, _selector(spec.get("podSelector") or {})),
        _rules(namespace, spec.get("ingress"), "from") if "Ingress" in types else None,
        _rules(namespace, spec.get("egress"), "to") if "Egress" in types else None,
    )


def _rules(namespace: str, given: Iterable[Object] | None, peers: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            tuple(_peer(namespace, p) for p in rule[peers]) if rule.get(peers) else None,
            tuple(_port(p) for p in rule["ports"]) if rule.get("ports") else None,
        )
        for rule in given or ()
    )


def _peer(namespace: str, peer: Object) -> Peer:
    block = peer.get("ipBlock")
    if block is not None:
        excepts = tuple(ipaddress.ip_network(e, strict=False) for e in block.get("except") or ())
        return Block(ipaddress.ip_network(block["cidr"], strict=False), excepts)
    pods, namespaces = peer.get("podSelector"), peer.get("namespaceSelector")
    chosen = EVERYTHING if pods is None else _selector(pods)
    if namespaces is None:
        return PodSelection(namespace, None, chosen)
    return PodSelection("", _selector(namespaces), chosen)


def _port(given: Object) -> Port:
    protocol, port = given.get("protocol") or "TCP", given.get("port")
    if port is None:
        return Ports(protocol, 0, LAST_PORT)
    if isinstance(port, str):
        return NamedPort(protocol, port)
    return Ports(protocol, port, given.get("endPort") or port)


def _selector(given: Object) -> LabelSelector:
    """With its requirements in order, so that two that say the same are the same."""
    requirements = set(from_object(given).requirements)
    return LabelSelector(tuple(sorted(requirements, key=lambda r: (r.key, r.operator, sorted(r.values)))))


def trimmed(pod: Object) -> Object:
    """What `pod_of` reads of a Pod, and nothing else: every node keeps a copy of all of them."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    kept = ("namespace", "name", "uid", "labels", "resourceVersion")
    return {
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {
            "nodeName": spec.get("nodeName", ""),
            "hostNetwork": bool(spec.get("hostNetwork")),
            "containers": [{"ports": ports} for ports in _named_ports(spec)],
        },
        "status": {"phase": status.get("phase", ""), "podIPs": status.get("podIPs") or []},
    }


def _named_ports(spec: Object) -> Iterable[list[Object]]:
    """Of the containers that run as long as the pod does."""
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        ports = [p for p in container.get("ports") or () if p.get("name")]
        if ports:
            yield ports


def pod_of(pod: Object, node: str, addresses: tuple[str, ...] | None = None) -> Pod | None:
    """What matters of a Pod to the node named `node`; None where it has ended or has the network of its node. `addresses`
    are those that it has for certain, whatever its status says."""
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    if spec.get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    if addresses is None:
        addresses = tuple(ip["ip"] for ip in status.get("podIPs") or ())
    ports = tuple(
        (p.get("protocol") or "TCP", p["name"], p["containerPort"]) for c in _named_ports(spec) for p in c
    )
    return Pod(
        meta["uid"],
        meta["namespace"],
        meta["name"],
        meta.get("labels") or {},
        addresses,
        ports,
        spec.get("nodeName") == node,
    )
