"""What --lb-pool may say, and what a cluster has without it."""

from __future__ import annotations

import dataclasses

import pytest

from sampan.cluster import lb_pools
from sampan.cluster.config import ClusterConfig
from sampan.cluster.errors import ClusterError
from sampan.cluster.wishes import Wishes

CLUSTER = ClusterConfig(
    name="t-lb", number=-1, api_port=6443, service_cidr="10.96.0.0/16", pod_cidr="10.244.0.0/16",
    node_subnet="172.29.0.0/24", nodes=("node-1",),
)  # fmt: skip


def test_by_itself_a_cluster_has_some_of_its_bridge() -> None:
    assert lb_pools.ranges(CLUSTER) == ("172.29.0.200-172.29.0.250",)
    dual = dataclasses.replace(
        CLUSTER, service_cidr6="fd00:1::/108", pod_cidr6="fd00:2::/56", node_subnet6="fd00:3::/64"
    )
    assert lb_pools.ranges(dual) == ("172.29.0.200-172.29.0.250", "fd00:3::c8-fd00:3::fa")
    lb_pools.check(dual, [])


def test_what_was_said_is_kept() -> None:
    assert lb_pools.wished(Wishes()) == {}
    given = ["192.0.2.0/24,198.51.100.1-198.51.100.9", "2001:db8::/64"]
    wishes = Wishes(lb_pool=given)
    assert lb_pools.problems(wishes) == []
    kept = lb_pools.wished(wishes)
    assert kept == {"lb_pool": ("192.0.2.0/24", "198.51.100.1-198.51.100.9", "2001:db8::/64")}
    assert lb_pools.ranges(dataclasses.replace(CLUSTER, lb_pool=kept["lb_pool"])) == kept["lb_pool"]
    assert lb_pools.problems(Wishes(lb_pool=["none"])) == []
    assert lb_pools.ranges(dataclasses.replace(CLUSTER, lb_pool=("none",))) == ()


def test_all_problems_at_once() -> None:
    found = lb_pools.problems(
        Wishes(lb_pool=["192.0.2.1", "192.0.2.0/24", "192.0.2.9-192.0.2.3", "192.0.2.7-192.0.2.9"])
    )
    assert [p.split(" ")[1] for p in found] == [
        "'192.0.2.1':",
        "'192.0.2.9-192.0.2.3':",
        "192.0.2.7-192.0.2.9",
    ]
    assert "--lb-pool none" in found[0]
    assert found[2] == "--lb-pool 192.0.2.7-192.0.2.9 overlaps --lb-pool 192.0.2.0-192.0.2.255"
    assert lb_pools.problems(Wishes(lb_pool=["none", "192.0.2.0/24"])) == [
        "--lb-pool none goes with no other --lb-pool"
    ]


def test_addresses_of_others_are_refused() -> None:
    other = dataclasses.replace(
        CLUSTER, name="other", service_cidr="10.97.0.0/16", pod_cidr="10.160.0.0/16", node_subnet="172.29.1.0/24",
        lb_pool=("192.0.2.0/28",),
    )  # fmt: skip
    wanted = (
        "172.29.0.0/24",
        "10.96.0.0/24",
        "10.244.1.0-10.244.1.9",
        "172.29.1.7-172.29.1.9",
        "192.0.2.1-192.0.2.2",
    )
    with pytest.raises(ClusterError) as refused:
        lb_pools.check(dataclasses.replace(CLUSTER, lb_pool=wanted), [other])
    assert str(refused.value).split("; ") == [
        "--lb-pool 172.29.0.0/24 overlaps the nodes' addresses 172.29.0.0-172.29.0.30",
        "--lb-pool 10.96.0.0/24 overlaps the Service range 10.96.0.0/16",
        "--lb-pool 10.244.1.0-10.244.1.9 overlaps the pod range 10.244.0.0/16",
        "--lb-pool 172.29.1.7-172.29.1.9 overlaps 172.29.1.0-172.29.1.255 of cluster 'other'",
        "--lb-pool 192.0.2.1-192.0.2.2 overlaps 192.0.2.0-192.0.2.15 of cluster 'other'",
    ]
    lb_pools.check(dataclasses.replace(CLUSTER, lb_pool=("172.29.0.100-172.29.0.120",)), [other])
