"""Every pod to every pod, and what is outside: what the specification expects of each policy against what packets find, with real
sockets through the tables of a real kernel."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.networkpolicy.nftables import NfTables
from tests.networkpolicy import cases
from tests.networkpolicy.inside import Inside
from tests.networkpolicy.model import Object, World, allowed
from tests.networkpolicy.prober import PORTS, PROTOCOLS, Probe, Prober, built
from tests.networkpolicy.worlds import Node, labels, pod, policy
from tests.networkpolicy.worlds import policies as random_policies

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with built([cases.addresses(*p) for p in cases.PODS], cases.OUTSIDE) as made:
        yield made


@pytest.fixture(scope="module")
def node(prober: Prober) -> Iterator[Node]:
    table = Inside(f"/run/netns/{prober.netns}", NfTables)
    made = Node("node-1", table)
    made.load(World((), tuple(cases.pods()), cases.NAMESPACES))
    yield made
    table.close()


def probes() -> list[Probe]:
    places = [cases.addresses(*p) for p in cases.PODS] + [cases.OUTSIDE]
    return [
        Probe(source[family], destination[family], protocol, port)
        for family in (0, 1)
        for source in places
        for destination in places
        if source != destination
        for protocol in PROTOCOLS
        for port in PORTS
    ]


def expected(world: World) -> set[Probe]:
    return {p for p in probes() if allowed(world, p.source, p.destination, p.protocol, p.port)}


def differences(seen: set[Probe], wanted: set[Probe]) -> list[str]:
    return [f"{p} passed" for p in sorted(seen - wanted, key=str)] + [
        f"{p} did not pass" for p in sorted(wanted - seen, key=str)
    ]


@pytest.mark.parametrize("case", cases.CASES)
def test_truth_table(prober: Prober, node: Node, case: str) -> None:
    policies = cases.CASES[case]
    for one in policies:
        node.set_policy(one)
    node.flush()
    world = World(tuple(policies), tuple(cases.pods()), cases.NAMESPACES)
    wanted = expected(world)
    try:
        assert differences(prober.run(probes(), wanted), wanted) == []
        assert node.settled()
    finally:
        for one in policies:
            node.desired.set_policy(_key(one), None)
        node.flush()


def test_there_are_forty() -> None:
    assert len(cases.CASES) >= 40


def _key(policy: Object) -> str:
    return f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"


_some_labels = st.lists(labels, min_size=len(cases.PODS), max_size=len(cases.PODS))


def test_random_policies(prober: Prober, node: Node) -> None:
    @settings(max_examples=25, deadline=None)
    @given(
        _some_labels, st.tuples(labels, labels, labels), st.lists(random_policies(), min_size=1, max_size=4)
    )
    def tables(pod_labels: list[dict[str, str]], of: tuple[dict[str, str], ...], found: list[Object]) -> None:
        namespaces = dict(zip("xyz", of, strict=True))
        pods = [
            pod(n, p, *cases.addresses(n, p), labels=chosen, ports=_RANDOM_PORTS)
            for (n, p), chosen in zip(cases.PODS, pod_labels, strict=True)
        ]
        policies = list({_key(p): p for p in found}.values())
        world = World(tuple(policies), tuple(pods), namespaces)
        node.load(world)
        wanted = expected(world)
        try:
            assert differences(prober.run(probes(), wanted), wanted) == []
        finally:
            for one in policies:
                node.desired.set_policy(_key(one), None)
            node.flush()

    try:
        tables()
    finally:
        node.load(World((), tuple(cases.pods()), cases.NAMESPACES))


_RANDOM_PORTS = (("http", "TCP", 80), ("dns", "UDP", 81), ("other", "TCP", 81))


@pytest.mark.parametrize(
    ("ports", "passing"),
    [
        (None, ["icmp", "sctp 80", "sctp 81"]),
        ([{"protocol": "TCP", "port": 80}], []),
        ([{"protocol": "SCTP", "port": 80}], ["sctp 80"]),
        ([{"protocol": "SCTP"}], ["sctp 80", "sctp 81"]),
        ([{"protocol": "UDP"}], []),
    ],
)
def test_protocols_that_have_no_sockets_here(
    prober: Prober, node: Node, ports: list[Object] | None, passing: list[str]
) -> None:
    """Raw packets: this kernel may have no SCTP, and ICMP has no ports, so only a rule without any lets it pass."""
    source, destination = cases.V4["y/a"], cases.V4["x/a"]
    rule: Object = {"from": [{"namespaceSelector": {}}]} | ({} if ports is None else {"ports": ports})
    node.set_policy(policy("x", "p", ingress=[rule]))
    node.flush()
    sent = {
        "icmp": (socket.IPPROTO_ICMP, struct.pack("!BBHHH", 13, 0, 0xF2FF, 0, 0)),
        "sctp 80": (socket.IPPROTO_SCTP, struct.pack("!HHII", 4000, 80, 0, 0)),
        "sctp 81": (socket.IPPROTO_SCTP, struct.pack("!HHII", 4000, 81, 0, 0)),
    }
    try:
        seen = [name for name, packet in sent.items() if prober.arrives(source, destination, *packet)]
        assert seen == passing
    finally:
        node.desired.set_policy("x/p", None)
        node.flush()


def test_a_connection_that_is_there_stays_when_a_policy_comes(prober: Prober, node: Node) -> None:
    source, destination = cases.V4["y/a"], cases.V4["x/a"]
    with prober.connected(source, destination, 80) as (client, server):
        node.set_policy(policy("x", "p", policyTypes=["Ingress", "Egress"]))
        node.flush()
        try:
            client.sendall(b"there")
            assert server.recv(5) == b"there"
            server.sendall(b"back")
            assert client.recv(4) == b"back"
            probe = Probe(source, destination, "TCP", 80)
            assert prober.run([probe], set()) == set(), "a new one does not come about"
        finally:
            node.desired.set_policy("x/p", None)
            node.flush()
