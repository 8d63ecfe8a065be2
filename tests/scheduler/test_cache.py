"""Sums of nodes, and pods whose place is only assumed."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from tests.scheduler.objects import affinity, cache, info, node, pod, term


def bound(obj: Object, name: str) -> Object:
    made = deep_copy(obj)
    made["spec"]["nodeName"] = name
    return made


def test_an_assumed_pod_takes_its_place_once() -> None:
    state = cache(node())
    incoming = info(requests={"cpu": "1"}, host_ports=(80,))
    state.assume(incoming, "n1")
    assert state.nodes["n1"].requested == {"cpu": 1000}
    assert state.is_assumed(incoming.key)
    state.set_pod(bound(incoming.obj, "n1"))
    assert not state.is_assumed(incoming.key)
    assert state.nodes["n1"].requested == {"cpu": 1000}
    assert not state.forget(incoming)
    state.remove_pod(incoming.key)
    assert state.nodes["n1"].requested == state.nodes["n1"].compared == {}
    assert not state.nodes["n1"].ports


def test_a_forgotten_pod_gives_its_place_back() -> None:
    state = cache(node())
    incoming = info(requests={"cpu": "1"})
    state.assume(incoming, "n1")
    assert state.forget(incoming)
    assert state.nodes["n1"].requested == {}
    assert incoming.node == ""
    assert not state.forget(incoming)


def test_bound_elsewhere_than_assumed() -> None:
    state = cache(node("n1"), node("n2"))
    incoming = info(requests={"cpu": "1"})
    state.assume(incoming, "n1")
    state.set_pod(bound(incoming.obj, "n2"))
    assert state.nodes["n1"].requested == {}
    assert state.nodes["n2"].requested == {"cpu": 1000}


def test_a_status_change_leaves_the_sums() -> None:
    state = cache(node(), pods={"n1": [pod("a", requests={"cpu": "1"})]})
    before = state.placed("default/a")
    assert before is not None
    changed = {**before.obj, "status": {"phase": "Running"}}
    state.set_pod(changed)
    assert state.placed("default/a") is before
    assert before.obj is changed


def test_pods_of_a_node_that_comes_later_or_goes() -> None:
    state = cache(pods={"n1": [pod("a", requests={"cpu": "1"})]})
    assert not state.nodes
    state.set_node(node())
    assert state.nodes["n1"].requested == {"cpu": 1000}
    state.remove_node("n1")
    assert not state.nodes
    state.set_node(node())
    assert state.nodes["n1"].requested == {"cpu": 1000}


def test_pods_that_speak_of_others_are_known() -> None:
    shy = pod("a", affinity=affinity("podAntiAffinity", term("kubernetes.io/hostname")))
    state = cache(node(), pods={"n1": [shy, pod("b")]})
    assert list(state.with_terms) == list(state.nodes["n1"].with_terms) == ["default/a"]
    state.remove_pod("default/a")
    assert not state.with_terms
    assert not state.nodes["n1"].with_terms
