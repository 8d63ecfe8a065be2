"""Which node is preferred, one reason at a time."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Object
from sampan.scheduler import scores
from sampan.scheduler.cache import Cache, PodInfo
from tests.scheduler.objects import affinity, cache, info, node, pod, term

WEB = {"app": "web"}
HOST = "kubernetes.io/hostname"


def best(state: Cache, incoming: PodInfo, alike: scores.Alike = lambda _: False) -> str:
    nodes = list(state.nodes.values())
    return scores.best(incoming, nodes, state.nodes, state.with_terms, lambda _: {}, alike).name


def two(*, pods: dict[str, list[Object]] | None = None, **second: Any) -> Cache:
    return cache(node("n1"), node("n2", **second), pods=pods)


def test_the_emptier_node() -> None:
    state = two(pods={"n1": [pod("a", requests={"cpu": "1", "memory": "1Gi"})]})
    assert best(state, info()) == "n2"
    assert scores.least_allocated(
        info(requests={"cpu": "1", "memory": "1Gi"}), list(state.nodes.values())
    ) == [50, 75]


def test_pods_that_ask_for_nothing_count_all_the_same() -> None:
    assert best(two(pods={"n1": [pod("a"), pod("b")], "n2": [pod("c")]}), info()) == "n2"


def test_the_node_where_resources_stay_balanced() -> None:
    state = two(
        pods={"n1": [pod("a", requests={"cpu": "2", "memory": "0"})],
              "n2": [pod("b", requests={"cpu": "1", "memory": "1Gi"})]}
    )  # fmt: skip
    assert scores.balanced_allocation(
        info(requests={"cpu": "1", "memory": "1Gi"}), list(state.nodes.values())
    ) == [
        75,
        100,
    ]


def test_taints_that_only_ask() -> None:
    taint = {"key": "a", "effect": "PreferNoSchedule"}
    state = two(taints=[taint])
    assert best(state, info()) == "n1"
    busy = two(taints=[taint], pods={"n1": [pod("a", requests={"cpu": "3"})]})
    assert best(busy, info(tolerations=[{"key": "a", "operator": "Exists"}])) == "n2"


def test_preferred_node_affinity() -> None:
    preference = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": preference}]}
    assert best(two(labels={"disk": "ssd"}), info(affinity={"nodeAffinity": preferred})) == "n2"


def test_preferred_company() -> None:
    web = {"n1": [pod("a", labels=WEB, requests={"cpu": "0", "memory": "0"})]}
    assert best(two(pods=web), info(affinity=affinity("podAffinity", term(HOST), weight=1))) == "n1"
    assert best(two(pods=web), info(affinity=affinity("podAntiAffinity", term(HOST), weight=1))) == "n2"


def test_placed_pods_have_preferences_too() -> None:
    shy = pod(
        "a", requests={"cpu": "0", "memory": "0"}, affinity=affinity("podAntiAffinity", term(HOST), weight=1)
    )
    assert best(two(pods={"n1": [shy]}), info(labels=WEB)) == "n2"
    company = pod("a", affinity=affinity("podAffinity", term(HOST)))
    assert best(two(pods={"n1": [company]}), info(labels=WEB)) == "n1"


def test_alike_pods_apart() -> None:
    state = two(pods={"n1": [pod("a", owner="rs", requests={"cpu": "0", "memory": "0"})],
                      "n2": [pod("b", requests={"cpu": "1"})]})  # fmt: skip
    assert best(state, info(owner="rs"), lambda other: other.owner == "rs") == "n2"


def test_spread_that_only_asks() -> None:
    wanted = [
        {
            "topologyKey": HOST,
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": WEB},
        }
    ]
    state = two(pods={"n1": [pod("a", labels=WEB, requests={"cpu": "0", "memory": "0"})]})
    assert best(state, info(labels=WEB, topologySpreadConstraints=wanted)) == "n2"
