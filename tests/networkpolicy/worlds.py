"""Pods, namespaces and policies as the API has them, by hand and made by hypothesis; and the tables that they come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import strategies as st

from sampan.networkpolicy.content import difference
from sampan.networkpolicy.desired import Desired
from sampan.networkpolicy.fake import FakeTable
from sampan.networkpolicy.reading import pod_of, policy_of, trimmed
from sampan.networkpolicy.table import Table
from tests.networkpolicy.model import Object, World

NODES = ("node-1", "node-2")
NAMESPACES = ("x", "y", "z")
OUTSIDE = ("172.29.0.1", "192.0.2.7", "fd00:29::1", "2001:db8::7")


def pod(
    namespace: str,
    name: str,
    *addresses: str,
    labels: Mapping[str, str] | None = None,
    node: str = "node-1",
    ports: Iterable[tuple[str, str, int]] = (),
    phase: str = "Running",
    **spec: Any,
) -> Object:
    """`ports` are (name, protocol, number)."""
    return {
        "metadata": {
            "namespace": namespace, "name": name, "uid": f"uid-{namespace}-{name}", "resourceVersion": "1",
            "labels": {"pod": name} if labels is None else dict(labels),
        },
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "ports": [{"name": n, "protocol": p, "containerPort": c} for n, p, c in ports]}],
            **spec,
        },
        "status": {"phase": phase, "podIPs": [{"ip": a} for a in addresses]},
    }  # fmt: skip


def policy(namespace: str, name: str, **spec: Any) -> Object:
    """With upstream's defaults."""
    spec.setdefault("podSelector", {})
    spec.setdefault("policyTypes", ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}


class Node:
    """What one node makes of the world, with a table that is told the differences only."""

    def __init__(self, name: str, table: Table | None = None) -> None:
        self.name = name
        self.desired = Desired()
        self.table: Table = table or FakeTable()

    def load(self, world: World) -> None:
        for namespace, labels in world.namespaces.items():
            self.desired.set_namespace(namespace, labels)
        for one in world.pods:
            self.set_pod(one["metadata"]["uid"], one)
        for one in world.policies:
            self.set_policy(one)
        self.flush()

    def set_pod(self, uid: str, obj: Object | None) -> None:
        self.desired.set_pod(uid, None if obj is None else pod_of(trimmed(obj), self.name))

    def set_policy(self, obj: Object) -> None:
        meta = obj["metadata"]
        self.desired.set_policy(f"{meta['namespace']}/{meta['name']}", policy_of(obj))

    def flush(self) -> None:
        self.table.apply(*self.desired.take())

    def settled(self) -> bool:
        """Whether the table holds what it should, and nothing else."""
        return difference(self.table.read(), self.desired.content) == ({}, {})


# ---- made by hypothesis

_KEYS, _VALUES = ("app", "tier"), ("a", "b")
labels = st.dictionaries(st.sampled_from(_KEYS), st.sampled_from(_VALUES), max_size=2)
_values = st.lists(st.sampled_from(_VALUES), min_size=1, max_size=2, unique=True)
_expressions = st.one_of(
    st.builds(
        lambda k, o, v: {"key": k, "operator": o, "values": v},
        st.sampled_from(_KEYS), st.sampled_from(("In", "NotIn")), _values,
    ),
    st.builds(
        lambda k, o: {"key": k, "operator": o}, st.sampled_from(_KEYS), st.sampled_from(("Exists", "DoesNotExist"))
    ),
)  # fmt: skip
selectors = st.one_of(
    st.just({}),
    st.sampled_from(({"matchLabels": {"app": "a"}}, {"matchLabels": {"tier": "b"}})),
    st.builds(lambda found: {"matchLabels": found}, labels),
    st.builds(lambda found: {"matchExpressions": found}, st.lists(_expressions, min_size=1, max_size=2)),
)
_BLOCKS = (
    {"cidr": "10.244.0.0/16"}, {"cidr": "0.0.0.0/0", "except": ["10.244.1.0/24", "172.29.0.0/16"]},
    {"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}, {"cidr": "192.0.2.0/24", "except": ["192.0.2.7/32"]},
    {"cidr": "fd00:244::/64", "except": ["fd00:244::1:0/112"]}, {"cidr": "10.244.1.2/32"},
    {"cidr": "128.0.0.0/1", "except": ["192.0.2.0/25", "192.0.0.0/16", "255.0.0.0/8"]},
)  # fmt: skip
_pod_peers = st.fixed_dictionaries({"podSelector": selectors})
_namespace_peers = st.fixed_dictionaries(
    {"namespaceSelector": selectors}, optional={"podSelector": selectors}
)
_peers = st.one_of(
    _pod_peers, _namespace_peers, st.sampled_from(_BLOCKS).map(lambda block: {"ipBlock": block})
)
PROTOCOLS = ("TCP", "UDP", "SCTP")
_ports = st.one_of(
    st.fixed_dictionaries({"protocol": st.sampled_from(PROTOCOLS)}),
    st.builds(
        lambda protocol, port: {"protocol": protocol, "port": port},
        st.sampled_from(PROTOCOLS),
        st.sampled_from((80, 81, "http", "other", "dns")),
    ),
    st.sampled_from(({"protocol": "TCP", "port": 80, "endPort": 90}, {"protocol": "TCP", "port": 85, "endPort": 65535})),
)  # fmt: skip


def _direction(peers: str) -> st.SearchStrategy[list[Object]]:
    several = st.lists(_peers, min_size=1, max_size=3)
    rule = st.one_of(
        st.fixed_dictionaries({peers: several}),
        st.fixed_dictionaries({peers: several, "ports": st.lists(_ports, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"ports": st.lists(_ports, min_size=1, max_size=2)}),
        st.just({}),
    )
    return st.lists(rule, min_size=1, max_size=2)


@st.composite
def policies(draw: st.DrawFn) -> Object:
    types = draw(st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"], None)))
    spec: Object = {"podSelector": draw(st.just({}) | selectors)}
    if types is not None:
        spec["policyTypes"] = types
    if draw(st.integers(0, 5)):
        spec["ingress"] = draw(_direction("from"))
    if (types is None or "Egress" in types) and draw(st.integers(0, 5)):
        spec["egress"] = draw(_direction("to"))
    return policy(draw(st.sampled_from(NAMESPACES)), draw(st.sampled_from(("p", "q", "r"))), **spec)


@st.composite
def pods(draw: st.DrawFn) -> Object:
    namespace, name = draw(st.sampled_from(NAMESPACES)), draw(st.sampled_from(("a", "b")))
    number = NAMESPACES.index(namespace) * 2 + "ab".index(name) + 2
    return pod_with(namespace, name, number, draw)


def every_pod() -> list[Object]:
    return [
        pod_with(ns, name, 2 * i + j + 2) for i, ns in enumerate(NAMESPACES) for j, name in enumerate("ab")
    ]


def pod_with(namespace: str, name: str, number: int, draw: st.DrawFn | None = None) -> Object:
    """One of some pods; without `draw` as plain as can be."""
    v4, v6 = f"10.244.{number % 2}.{number}", f"fd00:244::{number % 2}:{number}"
    choices: dict[str, tuple[Any, ...]] = {
        "addresses": ((v4, v6), (v4,), (f"10.244.{number % 2}.{number + 100}",), ()),
        "ports": (
            (("http", "TCP", 80),),
            (),
            (("http", "TCP", 8080), ("dns", "UDP", 53), ("other", "TCP", 81)),
        ),
        "phase": ("Running", "Running", "Running", "Succeeded"),
        "host": (False, False, False, False, True),
    }
    chosen = {k: draw(st.sampled_from(of)) if draw else of[0] for k, of in choices.items()}
    return pod(
        namespace, name, *chosen["addresses"], labels=draw(labels) if draw else {"app": "ab"[number % 2]},
        node=NODES[number // 2 % 2], ports=chosen["ports"], phase=chosen["phase"], hostNetwork=chosen["host"],
    )  # fmt: skip
