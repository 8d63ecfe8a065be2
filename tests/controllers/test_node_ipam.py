"""Ranges of Nodes: one of each family, never one in use, free again when the Node goes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.errors import Object
from sampan.api.resources import NODES
from sampan.apiserver.app import App
from sampan.controllers.manager import Manager
from sampan.controllers.node_ipam import NodeRanges, RangeExhausted, RangeSet
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config

from .conftest import Cluster, running

SMALL = NodeRanges(("10.7.0.0/22", "fd00:7::/62"), first=2)
"""Four ranges of each family, of which two are given last."""


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    app = App(MemoryStore(), config())
    await app.start()
    async with running(Manager(app.client(), "THE CA", node_ranges=SMALL).run()):
        yield Cluster(app.client())
    await app.close()


def node(name: str, *ranges: str) -> Object:
    spec = {"podCIDR": ranges[0], "podCIDRs": list(ranges)} if ranges else {}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}


async def ranges(cluster: Cluster, *names: str) -> dict[str, list[str]]:
    """The ranges of these Nodes, once all have some."""

    def of(nodes: list[Object]) -> dict[str, list[str]]:
        return {n["metadata"]["name"]: (n.get("spec") or {}).get("podCIDRs") or [] for n in nodes}

    found = of(await cluster.until(NODES, lambda nodes: all(of(nodes).get(n) for n in names), ""))
    return {n: found[n] for n in names}


async def test_every_node_has_a_range_of_its_own_in_each_family(cluster: Cluster) -> None:
    await cluster.client.create(NODES, node("a"))
    await cluster.client.create(NODES, node("b"))
    found = await ranges(cluster, "a", "b")
    assert sorted(found.values()) == [["10.7.2.0/24", "fd00:7:0:2::/64"], ["10.7.3.0/24", "fd00:7:0:3::/64"]]
    stored = await cluster.client.get(NODES, "", "a")
    assert stored["spec"]["podCIDR"] == found["a"][0]


async def test_a_range_that_a_node_brought_is_not_given_again(cluster: Cluster) -> None:
    await cluster.client.create(NODES, node("own", "10.7.3.0/24", "fd00:7:0:2::/64"))
    await cluster.client.create(NODES, node("a"))
    assert (await ranges(cluster, "a"))["a"] == ["10.7.2.0/24", "fd00:7:0:3::/64"]


async def test_the_first_ones_are_given_last_and_who_gets_none_gets_one_when_it_is_free(
    cluster: Cluster,
) -> None:
    for name in "abcd":
        await cluster.client.create(NODES, node(name))
        await ranges(cluster, name)
    found = await ranges(cluster, *"abcd")
    assert len({r for pair in found.values() for r in pair}) == 8
    assert {found[n][0] for n in "ab"} == {"10.7.2.0/24", "10.7.3.0/24"}
    await cluster.client.create(NODES, node("e"))
    told = await cluster.event("CIDRNotAvailable")
    assert told["message"] == "Node e status is now: CIDRNotAvailable"
    assert told["source"]["component"] == "cidrAllocator"
    await cluster.client.delete(NODES, "", "b")
    assert (await ranges(cluster, "e"))["e"] == found["b"]


@given(st.lists(st.tuples(st.sampled_from("tor"), st.integers(0, 7)), max_size=40))
def test_what_is_given_was_free(steps: list[tuple[str, int]]) -> None:
    """Against a plain list of what is in use."""
    part, used = RangeSet("10.9.0.0/21", first=3), list[str]()
    for step, which in steps:
        if step == "t":
            try:
                taken = part.take()
            except RangeExhausted:
                assert len(set(used)) == 8
                continue
            assert taken not in used
            used.append(taken)
        elif step == "o":
            used.append(f"10.9.{which}.0/24")
            part.occupy(used[-1])
        elif used:
            part.release(used.pop(which % len(used)))


def test_a_range_of_another_size_takes_all_that_it_overlaps() -> None:
    part = RangeSet("10.9.0.0/22")
    part.occupy("10.9.0.0/23")
    part.occupy("10.9.3.64/26")
    assert part.take() == "10.9.2.0/24"
    with pytest.raises(RangeExhausted):
        part.take()
    part.occupy("10.10.0.0/16")
    part.release("10.8.0.0/13")
    assert part.take() == "10.9.3.0/24", "it goes round"
