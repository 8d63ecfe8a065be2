"""Which nodes have a front door, as the flags of `sampan up` say."""

from __future__ import annotations

import dataclasses

import pytest

from sampan.cluster import ingress_nodes
from sampan.cluster.config import ClusterConfig
from sampan.cluster.wishes import Wishes

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
    assert ingress_nodes.problems(Wishes(ingress=False, ingress_nodes="node-1"), NODES) == [
        "--ingress-nodes and --no-ingress: only one of them can be given"
    ]
