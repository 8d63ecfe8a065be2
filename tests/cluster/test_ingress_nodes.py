"""Which nodes have a front door, as the flags of `sampan up` say."""

from __future__ import annotations

import dataclasses

import pytest

from sampan.api.front_doors import terms_of
from sampan.api.resources import NODES as NODE_OBJECTS
from sampan.client.types import Client
from sampan.cluster import ingress_nodes
from sampan.cluster.config import ClusterConfig
from sampan.cluster.wishes import Wishes
from tests.controllers.conftest import api

__all__ = ["api"]
NODES = ("node-1", "node-2")
CONFIG = ClusterConfig(
    name="x",
    number=0,
    api_port=1,
    service_cidr="10.96.0.0/16",
    pod_cidr="10.244.0.0/16",
    node_subnet="172.29.0.0/24",
    nodes=NODES,
)


@pytest.mark.parametrize(
    ("wishes", "having"),
    [
        (Wishes(), NODES),
        (Wishes(ingress_nodes="all"), NODES),
        (Wishes(ingress_nodes="node-2"), ("node-2",)),
        (Wishes(ingress_nodes="node-2, node-1"), NODES),
        (Wishes(ingress=False), ()),
    ],
)
def test_the_nodes_that_were_wished_for(wishes: Wishes, having: tuple[str, ...]) -> None:
    assert ingress_nodes.problems(wishes, NODES) == []
    config = dataclasses.replace(CONFIG, **ingress_nodes.wished(wishes))  # type: ignore[arg-type]
    assert tuple(n for n in NODES if ingress_nodes.on(config, n)) == having
    assert ingress_nodes.chosen(config) == bool(having)


def test_what_was_chosen_stays_until_something_else_is() -> None:
    without = dataclasses.replace(CONFIG, ingress_nodes=("none",))
    kept = dataclasses.replace(without, **ingress_nodes.wished(Wishes()))  # type: ignore[arg-type]
    assert not ingress_nodes.chosen(kept)
    back = dataclasses.replace(without, **ingress_nodes.wished(Wishes(ingress_nodes="all")))  # type: ignore[arg-type]
    assert ingress_nodes.chosen(back)


def test_what_cannot_be() -> None:
    assert ingress_nodes.problems(Wishes(ingress_nodes="node-1,node-7"), NODES) == [
        "--ingress-nodes: there is no node 'node-7'; allowed are all, or some of node-1, node-2"
    ]
    assert ingress_nodes.problems(Wishes(ingress_nodes="edge"), NODES) == [
        "--ingress-nodes: there is no node 'edge'; allowed are all, or some of node-1, node-2"
    ], "nobody has joined a cluster that is new"
    assert ingress_nodes.problems(Wishes(ingress=False, ingress_nodes="node-1"), NODES) == [
        "--ingress-nodes and --no-ingress: only one of them can be given"
    ]


def test_machines_that_joined_are_chosen_by_name_too() -> None:
    wishes = Wishes(ingress_nodes="node-2,edge.example")
    assert ingress_nodes.problems(wishes, NODES, new=False) == []
    config = dataclasses.replace(CONFIG, **ingress_nodes.wished(wishes))  # type: ignore[arg-type]
    terms = ingress_nodes.terms(config)
    assert [n for n in (*NODES, "edge.example", "other") if terms.choose(n)] == ["node-2", "edge.example"]
    assert ingress_nodes.on_other_machines(config) == ["edge.example"]
    assert ingress_nodes.problems(Wishes(ingress_nodes="node-7,No Name"), NODES, new=False) == [
        f"--ingress-nodes: there is no node {name!r}; allowed are all, or some of node-1, node-2 and machines that joined"
        for name in ("node-7", "No Name")
    ]


@pytest.mark.parametrize("nodes", [("none",), ("none", "node-1")])
def test_no_front_door_is_nobody_s_whatever_its_name(nodes: tuple[str, ...]) -> None:
    terms = ingress_nodes.terms(dataclasses.replace(CONFIG, ingress_nodes=nodes))
    assert not any(terms.choose(n) for n in (*NODES, "none", "all", ""))
    assert terms_of({"metadata": {"annotations": terms.annotations()}}) == terms


async def test_chosen_ones_that_are_not_there_are_told(api: Client) -> None:
    config = dataclasses.replace(CONFIG, ingress_nodes=("node-1", "edge", "egde"))
    await api.create(NODE_OBJECTS, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge"}})
    assert await ingress_nodes.not_there(api, config) == ["egde"]


def test_whoever_makes_a_token_for_a_front_door_is_told_that_it_stays_shut() -> None:
    assert ingress_nodes.warning_for_machines(CONFIG) == ""
    without = dataclasses.replace(CONFIG, ingress_nodes=("none",))
    assert "has no front door (--no-ingress)" in ingress_nodes.warning_for_machines(without)
    some = dataclasses.replace(CONFIG, ingress_nodes=("node-1",))
    assert "sampan up --ingress-nodes node-1,NAME" in ingress_nodes.warning_for_machines(some)
