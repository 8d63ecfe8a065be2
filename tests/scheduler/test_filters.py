"""Each filter, as a table of pods and nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sampan.api.errors import Object
from sampan.scheduler.cache import Cache, PodInfo, pod_info
from sampan.scheduler.diagnosis import Rejection
from sampan.scheduler.filters import Filters
from tests.scheduler.objects import affinity, cache, info, node, node_affinity, pod, term

TAINTED = "node(s) had untolerated taint(s)"
NO_MATCH = "node(s) didn't match Pod's node affinity/selector"
ZONE = "topology.kubernetes.io/zone"
NAMESPACES: Mapping[str, Mapping[str, str]] = {"default": {}, "other": {"team": "a"}}


def check(state: Cache, incoming: PodInfo, name: str = "n1") -> Rejection | None:
    filters = Filters(incoming, state.nodes, state.with_terms, lambda n: NAMESPACES.get(n, {}))
    return filters.check(state.nodes[name])


def refusals(state: Cache, incoming: PodInfo) -> dict[str, str]:
    found = {name: check(state, incoming, name) for name in state.nodes}
    return {name: ", ".join(r.reasons) for name, r in found.items() if r is not None}


def expression(key: str, operator: str, *values: str) -> Object:
    return {"key": key, "operator": operator, "values": list(values)}


def toleration(**fields: Any) -> list[Object]:
    return [fields]


TAINT = [{"key": "a", "value": "b", "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("where", "incoming", "reason", "final"),
    [
        ({}, {}, "", False),
        ({"unschedulable": True}, {}, "node(s) were unschedulable", True),
        ({"unschedulable": True},
         {"tolerations": toleration(key="node.kubernetes.io/unschedulable", operator="Exists")}, "", False),
        ({}, {"nodeName": "n2"}, "node(s) didn't match the requested node name", True),
        ({"taints": TAINT}, {}, TAINTED, True),
        ({"taints": [{"key": "a", "effect": "NoExecute"}]}, {}, TAINTED, True),
        ({"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}, {}, "", False),
        ({"taints": TAINT}, {"tolerations": toleration(key="a", operator="Equal", value="b")}, "", False),
        ({"taints": TAINT}, {"tolerations": toleration(key="a", operator="Equal", value="c")}, TAINTED, True),
        ({"taints": TAINT}, {"tolerations": toleration(key="a", operator="Exists")}, "", False),
        ({"taints": TAINT}, {"tolerations": toleration(operator="Exists")}, "", False),
        ({"taints": TAINT}, {"tolerations": toleration(operator="Exists", effect="NoExecute")}, TAINTED, True),
        ({}, {"nodeSelector": {"disk": "ssd"}}, NO_MATCH, True),
        ({"labels": {"disk": "ssd"}}, {"nodeSelector": {"disk": "ssd"}}, "", False),
        ({}, {"requests": {"cpu": "4", "memory": "4Gi"}}, "", False),
        ({}, {"requests": {"cpu": "4001m", "memory": "5Gi"}}, "Insufficient cpu, Insufficient memory", True),
        ({}, {"requests": {"ephemeral-storage": "1"}}, "Insufficient ephemeral-storage", True),
        ({"allocatable": {"ephemeral-storage": "1Gi"}}, {"requests": {"ephemeral-storage": "1Gi"}}, "", False),
        ({}, {"requests": {"example.com/gpu": "1"}}, "Insufficient example.com/gpu", True),
        ({"allocatable": {"pods": "0"}}, {}, "Too many pods", False),
    ],
)  # fmt: skip
def test_one_node(where: Object, incoming: Object, reason: str, final: bool) -> None:
    rejection = check(cache(node(**where)), info(**incoming))
    assert (", ".join(rejection.reasons) if rejection else "", bool(rejection and rejection.final)) == (
        reason,
        final,
    )


@pytest.mark.parametrize(
    ("expressions", "fields", "fits"),
    [
        ([expression("disk", "In", "ssd", "nvme")], [], True),
        ([expression("disk", "In", "hdd")], [], False),
        ([expression("disk", "NotIn", "hdd")], [], True),
        ([expression("none", "NotIn", "hdd")], [], True),
        ([expression("disk", "NotIn", "ssd")], [], False),
        ([expression("disk", "Exists")], [], True),
        ([expression("none", "Exists")], [], False),
        ([expression("none", "DoesNotExist")], [], True),
        ([expression("cores", "Gt", "7")], [], True),
        ([expression("cores", "Gt", "8")], [], False),
        ([expression("cores", "Lt", "9")], [], True),
        ([expression("disk", "Lt", "9")], [], False),
        ([expression("disk", "Exists"), expression("cores", "Gt", "8")], [], False),
        ([], [expression("metadata.name", "In", "n1")], True),
        ([], [expression("metadata.name", "NotIn", "n1")], False),
        ([], [], False),
    ],
)  # fmt: skip
def test_node_affinity(expressions: list[Object], fields: list[Object], fits: bool) -> None:
    state = cache(node(labels={"disk": "ssd", "cores": "8"}))
    rejection = check(state, info(affinity=node_affinity(*expressions, fields=fields)))
    assert (rejection is None) is fits


def test_one_of_several_node_selector_terms_is_enough() -> None:
    wanted = node_affinity(expression("disk", "In", "hdd"))
    required = wanted["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    required["nodeSelectorTerms"].append({"matchExpressions": [expression("disk", "In", "ssd")]})
    state = cache(node(labels={"disk": "ssd"}))
    assert check(state, info(affinity=wanted)) is None
    assert check(state, info(affinity=wanted, nodeSelector={"disk": "hdd"})) is not None


def test_what_is_taken_counts() -> None:
    state = cache(node(), pods={"n1": [pod("a", requests={"cpu": "3"}), pod("b", requests={"cpu": "500m"})]})
    assert check(state, info(requests={"cpu": "500m"})) is None
    rejection = check(state, info(requests={"cpu": "501m"}))
    assert rejection == Rejection("NodeResourcesFit", ("Insufficient cpu",))
    state.remove_pod("default/b")
    assert check(state, info(requests={"cpu": "1"})) is None


@pytest.mark.parametrize(
    ("taken", "wanted", "fits"),
    [
        ({"hostPort": 80}, {"hostPort": 80}, False),
        ({"hostPort": 80}, {"hostPort": 81}, True),
        ({"hostPort": 80}, {"hostPort": 80, "protocol": "UDP"}, True),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "hostIP": "10.0.0.2"}, True),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80}, False),
    ],
)
def test_ports(taken: Object, wanted: Object, fits: bool) -> None:
    def with_port(name: str, port: Object) -> Object:
        made = pod(name)
        made["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "protocol": "TCP", **port}]
        return made

    rejection = check(cache(node(), pods={"n1": [with_port("a", taken)]}), pod_info(with_port("b", wanted)))
    words = rejection.reasons if rejection else ()
    assert words == (() if fits else ("node(s) didn't have free ports for the requested pod ports",))


def zones() -> list[Object]:
    return [node("n1", labels={ZONE: "a"}), node("n2", labels={ZONE: "a"}), node("n3", labels={ZONE: "b"})]


WEB = {"app": "web"}
NOT_ANTI = "node(s) didn't match pod anti-affinity rules"
NOT_AFF = "node(s) didn't match pod affinity rules"
HOST = "kubernetes.io/hostname"


@pytest.mark.parametrize(
    ("incoming", "expected"),
    [
        (info(affinity=affinity("podAffinity", term(ZONE))), {"n3": NOT_AFF}),
        (info(affinity=affinity("podAffinity", term(HOST))), {"n2": NOT_AFF, "n3": NOT_AFF}),
        (info(affinity=affinity("podAffinity", term("none"))), dict.fromkeys(("n1", "n2", "n3"), NOT_AFF)),
        (info(affinity=affinity("podAntiAffinity", term(ZONE))), {"n1": NOT_ANTI, "n2": NOT_ANTI}),
        (info(affinity=affinity("podAntiAffinity", term(HOST))), {"n1": NOT_ANTI}),
        (info(affinity=affinity("podAntiAffinity", term("none"))), {}),
        (info(namespace="other", affinity=affinity("podAntiAffinity", term(HOST))), {}),
        (info(namespace="other", affinity=affinity("podAntiAffinity", term(HOST, namespaces=["default"]))),
         {"n1": NOT_ANTI}),
        (info(affinity=affinity("podAntiAffinity", term(HOST, namespaceSelector={}))), {"n1": NOT_ANTI}),
        (info(affinity=affinity("podAntiAffinity", term(HOST, namespaceSelector={"matchLabels": {"team": "a"}}))), {}),
        # Nobody of the kind is there: only the kind's own first may come.
        (info(labels={"app": "db"}, affinity=affinity("podAffinity", term(ZONE, {"matchLabels": {"app": "db"}}))), {}),
        (info(affinity=affinity("podAffinity", term(ZONE, {"matchLabels": {"app": "db"}}))),
         dict.fromkeys(("n1", "n2", "n3"), NOT_AFF)),
        (info(labels={"v": "2"}, affinity=affinity("podAntiAffinity", term(HOST, matchLabelKeys=["v"]))), {}),
        (info(labels={"v": "2"}, affinity=affinity("podAntiAffinity", term(HOST, mismatchLabelKeys=["v"]))),
         {"n1": NOT_ANTI}),
    ],
)  # fmt: skip
def test_affinity_between_pods(incoming: PodInfo, expected: dict[str, str]) -> None:
    assert refusals(cache(*zones(), pods={"n1": [pod("a", labels=WEB)]}), incoming) == expected


def test_placed_pods_keep_others_away() -> None:
    alone = pod("a", affinity=affinity("podAntiAffinity", term(ZONE)))
    state = cache(*zones(), pods={"n1": [alone]})
    words = "node(s) didn't satisfy existing pods anti-affinity rules"
    assert refusals(state, info(labels=WEB)) == {"n1": words, "n2": words}
    assert refusals(state, info(labels={"app": "db"})) == {}
    assert refusals(state, info(labels=WEB, namespace="other")) == {}
    state.remove_pod("default/a")
    assert refusals(state, info(labels=WEB)) == {}


def constraint(key: str = ZONE, skew: int = 1, **more: Any) -> list[Object]:
    return [
        {
            "topologyKey": key,
            "maxSkew": skew,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": WEB},
            **more,
        }
    ]


SKEW = "node(s) didn't match pod topology spread constraints"


@pytest.mark.parametrize(
    ("incoming", "expected"),
    [
        (info(labels=WEB, topologySpreadConstraints=constraint()), {"n1": SKEW, "n2": SKEW}),
        (info(labels=WEB, topologySpreadConstraints=constraint(HOST)), {"n1": SKEW}),
        (info(labels=WEB, topologySpreadConstraints=constraint(skew=2)), {}),
        (info(topologySpreadConstraints=constraint()), {}),
        (info(labels=WEB, topologySpreadConstraints=constraint("none")),
         dict.fromkeys(("n1", "n2", "n3"), f"{SKEW} (missing required label)")),
        (info(labels=WEB, topologySpreadConstraints=constraint(minDomains=3)), {"n1": SKEW, "n2": SKEW}),
        (info(labels=WEB, topologySpreadConstraints=constraint(skew=2, minDomains=3)), {}),
        (info(labels=WEB, nodeSelector={ZONE: "a"}, topologySpreadConstraints=constraint()), {"n3": NO_MATCH}),
        (info(labels=WEB, nodeSelector={ZONE: "a"}, topologySpreadConstraints=constraint(nodeAffinityPolicy="Ignore")),
         {"n1": SKEW, "n2": SKEW, "n3": NO_MATCH}),
        (info(labels={**WEB, "v": "2"}, topologySpreadConstraints=constraint(matchLabelKeys=["v"])), {}),
        (info(labels=WEB, topologySpreadConstraints=constraint(whenUnsatisfiable="ScheduleAnyway")), {}),
    ],
)  # fmt: skip
def test_topology_spread(incoming: PodInfo, expected: dict[str, str]) -> None:
    state = cache(*zones(), pods={"n1": [pod("a", labels=WEB), pod("b", labels=WEB, namespace="other")]})
    assert refusals(state, incoming) == expected
