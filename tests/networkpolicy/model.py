"""What networking.k8s.io/v1 says, as plainly as it can be put: a function of objects as the API has them.

It shares nothing with the code under test: labels are compared here, networks are `ipaddress`'s.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class World:
    """`namespaces`: name -> labels. `nodes`: name -> addresses; what a node sends has one of them."""

    policies: tuple[Object, ...]
    pods: tuple[Object, ...]
    namespaces: Mapping[str, Mapping[str, str]]


def allowed(world: World, source: str, destination: str, protocol: str, port: int) -> bool:
    """Whether a connection between two addresses is allowed where it is not between a pod and its own node."""
    if source == destination:
        return True
    sender, receiver = _pod_at(world, source), _pod_at(world, destination)
    return _side(world, "Egress", sender, receiver, destination, receiver, protocol, port) and _side(
        world, "Ingress", receiver, sender, source, receiver, protocol, port
    )


def _side(
    world: World,
    type_: str,
    own: Object | None,
    peer: Object | None,
    peer_address: str,
    receiver: Object | None,
    protocol: str,
    port: int,
) -> bool:
    if own is None:
        return True
    selecting = [
        p
        for p in world.policies
        if p["metadata"]["namespace"] == own["metadata"]["namespace"]
        and _labels_match(p["spec"].get("podSelector") or {}, own["metadata"].get("labels") or {})
        and type_ in _types(p)
    ]
    if not selecting:
        return True
    field, peers = ("egress", "to") if type_ == "Egress" else ("ingress", "from")
    return any(
        _peers_match(world, policy, rule.get(peers), peer, peer_address)
        and _ports_match(rule.get("ports"), receiver, protocol, port)
        for policy in selecting
        for rule in policy["spec"].get(field) or ()
    )


def _types(policy: Object) -> list[str]:
    spec = policy["spec"]
    if spec.get("policyTypes"):
        return list(spec["policyTypes"])
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _peers_match(
    world: World, policy: Object, peers: Iterable[Object] | None, pod: Object | None, address: str
) -> bool:
    if not peers:
        return True
    return any(_peer_matches(world, policy, peer, pod, address) for peer in peers)


def _peer_matches(world: World, policy: Object, peer: Object, pod: Object | None, address: str) -> bool:
    if "ipBlock" in peer:
        where = ipaddress.ip_address(address)
        excepts = (ipaddress.ip_network(e) for e in peer["ipBlock"].get("except") or ())
        return where in ipaddress.ip_network(peer["ipBlock"]["cidr"]) and not any(where in e for e in excepts)
    if pod is None:
        return False
    namespace = pod["metadata"]["namespace"]
    if "namespaceSelector" in peer:
        labels = world.namespaces.get(namespace)
        if labels is None or not _labels_match(peer["namespaceSelector"], labels):
            return False
    elif namespace != policy["metadata"]["namespace"]:
        return False
    return _labels_match(peer.get("podSelector") or {}, pod["metadata"].get("labels") or {})


def _ports_match(ports: Iterable[Object] | None, receiver: Object | None, protocol: str, port: int) -> bool:
    if not ports:
        return True
    for given in ports:
        if (given.get("protocol") or "TCP") != protocol:
            continue
        number = given.get("port")
        if number is None:
            return True
        if isinstance(number, str):
            if receiver is not None and (number, protocol, port) in _named(receiver):
                return True
        elif number <= port <= int(given.get("endPort") or number):
            return True
    return False


def _named(pod: Object) -> set[tuple[str, str, int]]:
    return {
        (p["name"], p.get("protocol") or "TCP", p["containerPort"])
        for c in pod["spec"]["containers"]
        for p in c.get("ports") or ()
        if p.get("name")
    }


def _labels_match(selector: Object, labels: Mapping[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or ():
        key, values = expression["key"], expression.get("values") or []
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[expression["operator"]]
        if not holds:
            return False
    return True


def _pod_at(world: World, address: str) -> Object | None:
    for pod in world.pods:
        if pod["spec"].get("hostNetwork") or pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        if any(ip["ip"] == address for ip in pod["status"].get("podIPs") or ()):
            return pod
    return None
