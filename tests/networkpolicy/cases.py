"""Policies for a cluster of three namespaces `x`, `y`, `z` with three pods `a`, `b`, `c` in each, by name.

The cases are those that upstream's suite has (test/e2e/network/netpol), and more. A pod has the label `pod`, a namespace `ns`; pods
serve 80 and 81 with TCP and UDP under names such as `serve-81-udp`.
"""

from __future__ import annotations

from tests.networkpolicy.model import Object
from tests.networkpolicy.worlds import pod, policy

NAMESPACES = {name: {"ns": name, "kubernetes.io/metadata.name": name} for name in "xyz"}
PODS = [(namespace, name) for namespace in "xyz" for name in "abc"]
OUTSIDE = ("192.0.2.7", "2001:db8::7")


def addresses(namespace: str, name: str) -> tuple[str, str]:
    number = PODS.index((namespace, name)) + 2
    return f"10.244.0.{number}", f"fd00:244::{number}"


V4 = {f"{n}/{p}": addresses(n, p)[0] for n, p in PODS}
V6 = {f"{n}/{p}": addresses(n, p)[1] for n, p in PODS}
SERVED = [(f"serve-{port}-{protocol.lower()}", protocol, port) for port in (80, 81) for protocol in ("TCP", "UDP")]  # fmt: skip


def pods() -> list[Object]:
    return [pod(n, p, *addresses(n, p), labels={"pod": p}, ports=SERVED) for n, p in PODS]


def labels(**found: str) -> Object:
    return {"matchLabels": found}


def within(key: str, operator: str, *values: str) -> Object:
    return {
        "matchExpressions": [
            {"key": key, "operator": operator, **({"values": list(values)} if values else {})}
        ]
    }


A = labels(pod="a")
EVERYONE: Object = {}
_80, _81 = {"protocol": "TCP", "port": 80}, {"protocol": "TCP", "port": 81}
_BOTH = ["Ingress", "Egress"]


def _in(spec_from: list[Object] | None = None, ports: list[Object] | None = None, of: Object = A) -> Object:
    rule: Object = {}
    if spec_from is not None:
        rule["from"] = spec_from
    if ports is not None:
        rule["ports"] = ports
    return policy("x", "in", podSelector=of, ingress=[rule])


def _out(spec_to: list[Object] | None = None, ports: list[Object] | None = None, of: Object = A) -> Object:
    rule: Object = {}
    if spec_to is not None:
        rule["to"] = spec_to
    if ports is not None:
        rule["ports"] = ports
    return policy("x", "out", podSelector=of, policyTypes=["Egress"], egress=[rule])


def _pods(selector: Object) -> Object:
    return {"podSelector": selector}


def _namespaces(selector: Object, of_pods: Object | None = None) -> Object:
    return {"namespaceSelector": selector} | ({} if of_pods is None else {"podSelector": of_pods})


def _block(cidr: str, *excepts: str) -> Object:
    return {"ipBlock": {"cidr": cidr} | ({"except": list(excepts)} if excepts else {})}


CASES: dict[str, list[Object]] = {
    "no policy": [],
    "deny all ingress": [policy("x", "p", policyTypes=["Ingress"])],
    "deny all egress": [policy("x", "p", policyTypes=["Egress"])],
    "deny all of both": [policy("x", "p", policyTypes=_BOTH)],
    "deny all in every namespace": [policy(n, "p", policyTypes=_BOTH) for n in "xyz"],
    "types that are not said: ingress": [policy("x", "p", ingress=[])],
    "types that are not said: egress, too": [policy("x", "p", egress=[{}])],
    "allow all ingress": [_in(of=EVERYONE)],
    "allow all egress": [_out(of=EVERYONE)],
    "allow all of both": [policy("x", "p", ingress=[{}], egress=[{}])],
    "from pods of the own namespace": [_in([_pods(labels(pod="b"))])],
    "from all pods of the own namespace": [_in([_pods(EVERYONE)])],
    "from a namespace": [_in([_namespaces(labels(ns="y"))])],
    "from all namespaces": [_in([_namespaces(EVERYONE)])],
    "from a namespace by its name": [_in([_namespaces({"matchLabels": {"kubernetes.io/metadata.name": "z"}})])],
    "from pods of a namespace": [_in([_namespaces(labels(ns="y"), labels(pod="b"))])],
    "from a namespace or from pods": [_in([_namespaces(labels(ns="y")), _pods(labels(pod="b"))])],
    "from pods of all namespaces": [_in([_namespaces(EVERYONE, labels(pod="b"))])],
    "from namespaces by expression": [_in([_namespaces(within("ns", "NotIn", "x"))])],
    "from pods by expression": [_in([_namespaces(within("ns", "In", "x", "y"), within("pod", "In", "b", "c"))])],
    "from pods that have a label": [_in([_namespaces(EVERYONE, within("pod", "Exists"))])],
    "from pods that lack a label": [_in([_namespaces(EVERYONE, within("pod", "DoesNotExist"))])],
    "subject by expression": [_in([_pods(EVERYONE)], of=within("pod", "NotIn", "a"))],
    "on a port": [_in(ports=[_80])],
    "on another port": [_in(ports=[_81])],
    "on a port by its name": [_in(ports=[{"protocol": "TCP", "port": "serve-81-tcp"}])],
    "on a name that is another protocol's": [_in(ports=[{"protocol": "UDP", "port": "serve-81-tcp"}])],
    "on a name that nobody has": [_in(ports=[{"protocol": "TCP", "port": "none"}])],
    "on a protocol": [_in(ports=[{"protocol": "UDP"}])],
    "on the port of a protocol": [_in(ports=[{"protocol": "UDP", "port": 80}])],
    "on a range of ports": [_in(ports=[{"protocol": "TCP", "port": 81, "endPort": 90}])],
    "on a range of ports of both": [_in(ports=[{"protocol": p, "port": 1, "endPort": 80} for p in ("TCP", "UDP")])],
    "on no protocol that there is": [_in(ports=[{"protocol": "SCTP"}])],
    "from a namespace on a port": [_in([_namespaces(labels(ns="y"))], [_81])],
    "two rules": [policy("x", "p", podSelector=A, ingress=[
        {"from": [_namespaces(labels(ns="y"))], "ports": [_80]}, {"from": [_pods(labels(pod="c"))], "ports": [_81]},
    ])],
    "policies add up": [
        policy("x", "p", podSelector=A, ingress=[{"from": [_namespaces(labels(ns="y"))]}]),
        policy("x", "q", ingress=[{"ports": [_81]}]),
        policy("x", "r"),
    ],
    "policies of two namespaces": [_in([_namespaces(labels(ns="y"))]), policy("y", "p", policyTypes=["Egress"])],
    "from a block": [_in([_block("10.244.0.0/30")])],
    "from a block without a part": [_in([_block("10.244.0.0/16", "10.244.0.4/30", f"{V4['z/c']}/32")])],
    "from a block without parts that overlap": [_in([_block("0.0.0.0/0", "10.244.0.0/29", "10.244.0.0/30")])],
    "from everywhere of one family": [_in([_block("0.0.0.0/0")])],
    "from a block of the other family": [_in([_block("fd00:244::/64", f"{V6['y/a']}/128")])],
    "from outside alone": [_in([_block("192.0.2.0/24"), _block("2001:db8::/32")])],
    "from a block on a port": [_in([_block("0.0.0.0/0", "192.0.2.0/24")], [_80])],
    "from a block or a namespace": [_in([_block(f"{V4['x/b']}/32"), _namespaces(labels(ns="z"))])],
    "to pods of the own namespace": [_out([_pods(labels(pod="b"))])],
    "to a namespace": [_out([_namespaces(labels(ns="y"))])],
    "to pods of a namespace": [_out([_namespaces(labels(ns="y"), labels(pod="b"))])],
    "to a port": [_out(ports=[_80])],
    "to a port by its name": [_out(ports=[{"protocol": "UDP", "port": "serve-80-udp"}])],
    "to a namespace on a port by its name": [_out([_namespaces(labels(ns="z"))], [{"protocol": "TCP", "port": "serve-80-tcp"}])],
    "to a range of ports": [_out(ports=[{"protocol": "TCP", "port": 80, "endPort": 81}])],
    "to a block": [_out([_block(f"{V4['y/a']}/32")])],
    "to a block without a part": [_out([_block("10.244.0.0/24", "10.244.0.8/29")])],
    "to outside alone": [_out([_block("192.0.2.0/24"), _block("2001:db8::/32")])],
    "to everywhere but the pods": [_out([_block("0.0.0.0/0", "10.244.0.0/16")])],
    "both must agree": [
        policy("x", "p", podSelector=A, policyTypes=["Egress"], egress=[{"to": [_namespaces(labels(ns="y"))]}]),
        policy("y", "p", podSelector=labels(pod="b"), ingress=[{"from": [_namespaces(labels(ns="x"))], "ports": [_80]}]),
        policy("y", "q", podSelector=labels(pod="c")),
    ],
    "one policy for both": [policy(
        "x", "p", podSelector=A, ingress=[{"from": [_namespaces(labels(ns="y"))]}], egress=[{"to": [_namespaces(labels(ns="z"))], "ports": [_81]}],
    )],
}  # fmt: skip
