"""From objects of the API to values: what a NetworkPolicy says, what of a Pod matters."""

from __future__ import annotations

import ipaddress
import sys
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
    """What `pod_of` reads of a Pod, and nothing else: every node keeps a copy of all of them. Labels that several have are kept
    once."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    kept = {key: meta[key] for key in ("namespace", "name", "uid", "resourceVersion") if key in meta}
    ended = status.get("phase") in ("Succeeded", "Failed")
    labels = {sys.intern(key): sys.intern(value) for key, value in (meta.get("labels") or {}).items()}
    return {
        "metadata": {**kept, "labels": labels},
        "node": sys.intern(spec.get("nodeName") or ""),
        "left out": "host network" if spec.get("hostNetwork") else "ended" if ended else "",
        "addresses": tuple(ip["ip"] for ip in status.get("podIPs") or ()),
        "ports": _named_ports(spec),
    }


def _named_ports(spec: Object) -> tuple[tuple[str, str, int], ...]:
    """Of the containers that run as long as the pod does."""
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    return tuple(
        (sys.intern(port.get("protocol") or "TCP"), sys.intern(port["name"]), port["containerPort"])
        for container in (*(spec.get("containers") or ()), *sidecars)
        for port in container.get("ports") or ()
        if port.get("name")
    )


def pod_of(pod: Object, node: str, addresses: tuple[str, ...] | None = None) -> Pod | None:
    """What matters to the node named `node` of a Pod that was `trimmed`; None where it has ended or has the network of its
    node. `addresses` are those that it has for certain, whatever its status says: while it has any, it has not ended."""
    if pod["left out"] and not (pod["left out"] == "ended" and addresses):
        return None
    meta = pod["metadata"]
    return Pod(
        meta["uid"],
        meta["namespace"],
        meta["name"],
        meta["labels"],
        pod["addresses"] if addresses is None else addresses,
        pod["ports"],
        pod["node"] == node,
    )
