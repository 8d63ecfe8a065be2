"""What policies come to, as text: a node's whole desired state, to read and to compare."""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest

from sampan.api.selectors import from_object
from sampan.network.nftables import Family
from sampan.networkpolicy import desired
from sampan.networkpolicy.content import number_of, render, show
from sampan.networkpolicy.fake import FakeTable
from sampan.networkpolicy.types import Block, PodSelection, Policy, Ports, Rule
from tests.networkpolicy.model import Object, World
from tests.networkpolicy.worlds import Node, pod, policy

NAMESPACES = {"default": {"team": "a"}}


def shown(*policies: Object, pods: tuple[Object, ...]) -> list[str]:
    """Names that are made of hashes are numbered in the order of the lines."""
    node = Node("node-1")
    node.load(World(policies, pods, NAMESPACES))
    text = show(node.desired.content)
    for number, name in enumerate(dict.fromkeys(re.findall(r"-([0-9a-f]{12})\b", text)), 1):
        text = text.replace(name, str(number))
    for item in node.desired.content:
        if item.kind == "chain":
            text = text.replace(number_of(item.name).hex(), "N")
    return sorted(text.splitlines())


def test_a_policy_as_text() -> None:
    db = pod("default", "db", "10.244.0.2", "fd00:244::2", labels={"app": "db"}, ports=[("sql", "TCP", 5432)])
    web = pod("default", "web", "10.244.1.3", labels={"app": "web"}, node="node-2")
    peers = [
        {"podSelector": {"matchLabels": {"app": "web"}}},
        {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}},
    ]
    ports = [{"protocol": "TCP", "port": "sql"}, {"protocol": "UDP", "port": 53, "endPort": 60}]
    lines = shown(
        policy("default", "p", podSelector={"matchLabels": {"app": "db"}}, ingress=[{"from": peers, "ports": ports}]),
        pods=(db, web),
    )  # fmt: skip
    v4 = [line.removeprefix("ip ") for line in lines if line.startswith("ip ")]
    assert v4 == [
        "block-1 192.0.2.0-192.0.2.127",
        "block-1: '192.0.2.0/24 except 192.0.2.128/25'",
        "ingress 10.244.0.2 : N",
        "ingress-2 { pods-3 ports-4; pods-3 named-5; block-1 ports-4; block-1 named-5; drop }",
        "ingress-chains N : ingress-2",
        "named-5 10.244.0.2 TCP 5432",
        "named-5: 'sql/TCP'",
        "pods-3 10.244.1.3",
        "pods-3: 'default: app=web'",
        "ports-4 UDP 53-60",
        "ports-4: 'UDP 53-60'",
        "self 10.244.0.2",
    ]
    v6 = [line for line in lines if line.startswith("ip6 ")]
    assert "ip6 self fd00:244::2" in v6
    assert not [line for line in v6 if "block" in line], "the block is of the other family"


def test_pods_of_one_kind_share_all_and_others_have_nothing() -> None:
    pods = [pod("default", f"p{n}", f"10.244.0.{n}", labels={"app": "kept"}) for n in range(2, 12)]
    pods.append(pod("default", "free", "10.244.0.50", labels={"app": "free"}))
    lines = shown(
        policy("default", "p", podSelector={"matchLabels": {"app": "kept"}}),
        policy("default", "elsewhere", podSelector={"matchLabels": {"app": "none"}}, ingress=[{"from": [{"podSelector": {}}]}]),
        pods=tuple(pods),
    )  # fmt: skip
    assert sum(line.startswith("ip ingress 10.244.0.") for line in lines) == 10
    assert sum("{ drop }" in line for line in lines) == 1
    assert not [line for line in lines if "10.244.0.50" in line or "pods-" in line]


def test_two_chains_never_have_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number is part of a hash: of two chains with the same, one is named anew."""

    def colliding(*given: object) -> object:
        name, chain, sources = render(*given)  # type: ignore[arg-type]
        direction, _, found = name.rpartition("-")
        salt = given[3] if len(given) > 3 else 0
        return f"{direction}-{'0' * 8 if not salt else found[:8]}{found[8:]}", chain, sources

    node = Node("node-1")
    monkeypatch.setattr(desired, "render", colliding)
    pods = tuple(pod("default", n, f"10.244.0.{i}", labels={"app": n}) for i, n in enumerate("abc", 2))
    policies = tuple(
        policy("default", n, podSelector={"matchLabels": {"app": n}}, ingress=[{"ports": [{"protocol": "TCP", "port": i}]}])
        for i, n in enumerate("abc", 80)
    )  # fmt: skip
    node.load(World(policies, pods, NAMESPACES))
    chains = [i.name for i in node.desired.content if i.kind == "chain"]
    assert len({number_of(name) for name in chains}) == 3
    assert isinstance(node.table, FakeTable)
    for i, port in enumerate((80, 81, 82), 2):
        passing = [p for p in (80, 81, 82) if node.table.passes("192.0.2.1", f"10.244.0.{i}", "TCP", p)]
        assert passing == [port]


def test_a_rule_for_the_other_family_needs_no_sets() -> None:
    """Two policies that mean the same to a family have one chain there, whichever of them came first."""
    rule = Rule((Block(ip_network("10.0.0.0/8")),), (Ports("TCP", 0, 65535),))
    policy = Policy("x/p", PodSelection("x", None, from_object({})), ingress=(rule,))
    assert len(render(Family.IP, "ingress", [policy])[2]) == 2
    assert render(Family.IP6, "ingress", [policy])[2] == {}
