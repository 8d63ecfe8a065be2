"""Worlds made by hypothesis, changed step by step: what two nodes' tables let pass is what the specification allows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.networkpolicy.fake import FakeTable
from sampan.networkpolicy.nftables import NfTables
from tests.networkpolicy.inside import Inside
from tests.networkpolicy.model import Object, World, allowed
from tests.networkpolicy.worlds import (
    NAMESPACES,
    NODES,
    OUTSIDE,
    PROTOCOLS,
    Node,
    every_pod,
    labels,
    pods,
    policies,
)

_steps = st.one_of(
    st.tuples(st.just("pod"), pods()),
    st.tuples(st.just("no pod"), pods()),
    st.tuples(st.just("policy"), policies()),
    st.tuples(st.just("policy"), policies()),
    st.tuples(st.just("policy"), policies()),
    st.tuples(st.just("no policy"), policies()),
    st.tuples(st.just("namespace"), st.tuples(st.sampled_from(NAMESPACES), st.none() | labels)),
)
_PORTS = (53, 80, 81, 88, 8080)


class Changing:
    """A world that steps change, and the nodes that are told."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.pods: dict[str, Object] = {}
        self.policies: dict[str, Object] = {}
        self.namespaces: dict[str, dict[str, str]] = {}
        for name in NAMESPACES:
            self.step("namespace", (name, {"app": "a"} if name == "x" else {"tier": "b"}))
        for one in every_pod():
            self.step("pod", one)

    @property
    def world(self) -> World:
        return World(tuple(self.policies.values()), tuple(self.pods.values()), self.namespaces)

    def step(self, kind: str, what: Any) -> None:
        if kind == "namespace":
            name, found = what
            self.namespaces.pop(name, None)
            if found is not None:
                self.namespaces[name] = found
            for node in self.nodes:
                node.desired.set_namespace(name, found)
            return
        key = f"{what['metadata']['namespace']}/{what['metadata']['name']}"
        if kind in ("pod", "no pod"):
            uid = what["metadata"]["uid"]
            self.pods.pop(uid, None)
            if kind == "pod":
                self.pods[uid] = what
            for node in self.nodes:
                node.set_pod(uid, self.pods.get(uid))
        elif kind == "policy":
            self.policies[key] = what
            for node in self.nodes:
                node.set_policy(what)
        else:
            self.policies.pop(key, None)
            for node in self.nodes:
                node.desired.set_policy(key, None)

    def addresses(self) -> list[str]:
        live = (p for p in self.pods.values() if not p["spec"].get("hostNetwork"))
        return [ip["ip"] for p in live for ip in p["status"]["podIPs"]] + list(OUTSIDE)


@settings(max_examples=150, deadline=None)
@given(st.lists(_steps, min_size=3, max_size=15), st.sampled_from(PROTOCOLS))
def test_the_tables_let_pass_what_the_specification_allows(
    steps: list[tuple[str, Any]], protocol: str
) -> None:
    nodes = [Node(name) for name in NODES]
    changing = Changing(nodes)
    for kind, what in steps:
        changing.step(kind, what)
        for node in nodes:
            node.flush()
    tables = [node.table for node in nodes]
    world, addresses = changing.world, changing.addresses()
    for source in addresses:
        for destination in addresses:
            if (":" in source) != (":" in destination):
                continue
            for port in _PORTS:
                seen = all(
                    t.passes(source, destination, protocol, port) for t in tables if isinstance(t, FakeTable)
                )
                expected = allowed(world, source, destination, protocol, port)
                assert seen == expected, f"{source} -> {destination} {protocol} {port}"


@settings(max_examples=150, deadline=None)
@given(st.lists(_steps, min_size=5, max_size=25))
def test_step_by_step_ends_where_a_fresh_start_does(steps: list[tuple[str, Any]]) -> None:
    node = Node("node-1")
    changing = Changing([node])
    for number, (kind, what) in enumerate(steps):
        changing.step(kind, what)
        if number % 3 == 0:
            node.flush()
    node.flush()
    assert node.settled()
    fresh = Node("node-1")
    fresh.load(changing.world)
    assert fresh.desired.content == node.desired.content
    for uid in list(changing.pods):
        node.set_pod(uid, None)
    node.flush()
    assert node.desired.content == {}, "without pods nothing is left"
    assert node.settled()


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"policy-model-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield f"/run/netns/{name}"
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_kernel_takes_every_difference_and_holds_what_the_fake_holds(netns: str) -> None:
    table = Inside(netns, NfTables)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(_steps, min_size=5, max_size=20))
    def steps_to_the_kernel(steps: list[tuple[str, Any]]) -> None:
        node = Node("node-1", table)
        table.rebuild({})
        changing = Changing([node])
        for number, (kind, what) in enumerate(steps):
            changing.step(kind, what)
            if number % 2 == 0:
                node.flush()
        node.flush()
        assert node.settled()

    try:
        steps_to_the_kernel()
    finally:
        table.close()
