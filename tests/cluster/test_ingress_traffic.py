"""What comes to a pod through the front door, what is written down about it, and which pods of which Services are asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.cluster.front_door import NEEDED, FrontDoor, app, ask, eventually, outside, until
from tests.real_cluster import curl

pytestmark = NEEDED


@pytest.fixture(scope="module")
def door(front_door: FrontDoor) -> FrontDoor:
    front_door.run_apps("web", replicas=2)
    front_door.apply(front_door.ingress("web", [("web.org", "/", "Prefix", "web")]))
    for node in front_door.cluster.config.nodes:
        until(front_door.node_address(node), "web.org", "/", "200 web ")
    return front_door


def test_node_ports_lead_here(door: FrontDoor) -> None:
    system = door.cluster.kubectl("kube-system")
    ports = {
        name: system.value("service/sampan-ingress", f'.spec.ports[?(@.name=="{name}")].nodePort')
        for name in ("http", "https")
    }
    for node in door.cluster.config.nodes:
        place = door.node_address(node)
        answered = curl(f"http://{place}:{ports['http']}/", "-H", "Host: web.org")
        assert answered.out.startswith("web "), answered
        secure = curl(f"https://{place}:{ports['https']}/", "-k", "-H", "Host: web.org")
        assert secure.out.startswith("web "), secure


def test_the_address_moves_with_its_service(door: FrontDoor) -> None:
    system = door.cluster.kubectl("kube-system")
    subnet = door.cluster.config.node_subnet.rpartition(".")[0]

    def have(address: str) -> None:
        system("patch", "service", "sampan-ingress", "-p", json.dumps({"spec": {"loadBalancerIP": address}}))
        door.kubectl.wait("ingress/web", f"jsonpath={{.status.loadBalancer.ingress[0].ip}}={address}")
        until(address, "web.org", "/", "200 web ")

    before, other = door.address, f"{subnet}.249"
    have(other)
    have(before)
    until(other, "web.org", "/", "000", "-m", "1")


def test_clients_are_known_by_their_address(door: FrontDoor) -> None:
    """By the front door's address as well as by a node's; and what a client says of itself is not believed."""
    here = door.cluster.config.bridge_address
    for place in (door.address, *(door.node_address(n) for n in door.cluster.config.nodes)):
        for header in ("X-Forwarded-For", "X-Real-IP"):
            said = ask(place, "web.org", "/", "-H", f"X-Show: {header}", "-H", f"{header}: 203.0.113.9")
            assert said.body.endswith(f" {header}={here}"), said
    pod = door.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
    address = door.kubectl.value(f"pod/{pod}", ".status.podIP")
    fetch = (
        "import socket; s = socket.create_connection(('%s', 80)); "
        "s.sendall(b'GET / HTTP/1.0\\r\\nHost: web.org\\r\\nX-Show: X-Forwarded-For\\r\\n\\r\\n'); "
        "print(s.makefile().read())"
    )
    said_to_pod = door.kubectl("exec", pod, "--", "python3", "-c", fetch % door.address)
    assert said_to_pod.strip().endswith(f" X-Forwarded-For={address}"), said_to_pod


def test_a_request_is_written_down_and_counted(door: FrontDoor) -> None:
    node, here = door.cluster.config.nodes[0], door.namespace
    place = door.node_address(node)

    def counted() -> int:
        shown = curl(f"http://{place}:9145/metrics").out
        labels = f'namespace="{here}",kind="Ingress",name="web",service="web:80"'
        found = re.search(
            rf"^sampan_ingress_requests_total\{{{re.escape(labels)}\}} (\d+)$", shown, re.MULTILINE
        )
        return int(found[1]) if found else 0

    before = counted()
    pod = ask(place, "web.org", "/written?down=1").pod
    eventually(counted, (before + 1).__eq__)
    log = door.cluster.config.directory / "logs" / f"ingress-{node}.log"

    def lines() -> list[dict[str, object]]:
        return [
            json.loads(line) for line in log.read_text().splitlines() if "/written" in line.replace("\\", "")
        ]

    line = eventually(lines, bool)[0]
    assert line["rule"] == f"Ingress/{here}/web"
    assert line["service"] == f"{here}/web:80"
    assert line["pod"] == f"{here}/{pod}"
    assert line["client"] == door.cluster.config.bridge_address
    assert (line["method"], line["host"], line["status"]) == ("GET", "web.org", 200)
    assert log.stat().st_mode & 0o077 == 0


def test_a_cookie_keeps_a_client_at_its_pod_on_either_node(door: FrontDoor) -> None:
    sticky = {"sampan.io/sticky-cookie": "keep"}
    door.apply(door.ingress("sticky", [("sticky.org", "/", "Prefix", "web")], annotations=sticky))
    places = [door.node_address(n) for n in door.cluster.config.nodes]
    for place in places:
        until(place, "sticky.org", "/", "200 web ")
    for first in places:
        shown = curl(f"http://{first}/", "-H", "Host: sticky.org", "-D", "-").out
        found = re.search(r"^set-cookie: (keep=[^;\r]+)", shown, re.MULTILINE | re.IGNORECASE)
        assert found is not None, shown
        pod = shown.rpartition("\n")[2].split()[1]
        for place in places:
            asked = {ask(place, "sticky.org", "/", "-b", found[1]).pod for _ in range(6)}
            assert asked == {pod}, (first, place)


def test_services_of_every_kind(door: FrontDoor) -> None:
    """Headless, without a selector, and one that stands for a name outside of the cluster; one that stands for a name inside is refused."""
    headless = app("web")[1]
    headless["metadata"]["name"] = "headless"
    headless["spec"] |= {"clusterIP": "None", "ports": [{"name": "http", "port": 8080}]}
    names: dict[str, dict[str, object]] = {
        name: {"type": "ExternalName", "externalName": target, "ports": [{"port": 9145}]}
        for name, target in (("named", "localhost"), ("inside", f"web.{door.namespace}.svc.cluster.local"))
    }
    made = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": n}, "spec": s} for n, s in names.items()
    ]
    pod = door.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}")
    door.apply(headless, *outside("plain", pod, 8080), *made)
    for name, port in (("headless", 8080), ("plain", 80), ("inside", 9145)):
        ingress = door.ingress(name, [(f"{name}.org", "/", "Prefix", name)])
        path = ingress["spec"]["rules"][0]["http"]["paths"][0]
        path["backend"] = {"service": {"name": name, "port": {"number": port}}}
        door.apply(ingress)
    door.until("headless.org", "/", "200 web ")
    door.until("plain.org", "/", "200 web ")
    door.until("inside.org", "/", "503")
    assert "is inside of the cluster" in door.wait_event("inside", "NotSupported")


@pytest.fixture
def neighbour(door: FrontDoor) -> Iterator[FrontDoor]:
    made = FrontDoor(door.cluster, f"{door.namespace}-next")
    door.cluster.make_namespace(made.namespace)
    yield made
    door.cluster.delete_namespace(made.namespace)
    door.cluster.wait_gone(made.namespace)


def test_namespaces_are_kept_apart(door: FrontDoor, neighbour: FrontDoor) -> None:
    """An Ingress reaches no Service and no Secret of another namespace, and takes no host from an older one."""
    neighbour.apply(
        neighbour.ingress(
            "theirs",
            [("theirs.org", "/", "Prefix", "web")],
            annotations={"sampan.io/basic-auth-secret": "people"},
        ),
        neighbour.ingress(
            "taken", [("web.org", "/", "Prefix", "other"), ("web.org", "/more", "Prefix", "other")]
        ),
        *app("other"),
    )
    assert f"there is no Service {neighbour.namespace}/web" in neighbour.wait_event(
        "theirs", "ServiceNotFound"
    )
    assert f"Ingress {door.namespace}/web has it" in neighbour.wait_event("taken", "Conflict")
    door.until("theirs.org", "/", "503")
    # A path of a shared host that nobody had is its own.
    door.until("web.org", "/more", "200 other ")
    assert door.ask("web.org").app == "web"


def test_pods_that_end_are_asked_no_more(door: FrontDoor) -> None:
    """Not as long as there are others; without others they are asked until they are gone, as Services do it."""
    door.apply(
        *app("ending", replicas=2, pre_stop=2),
        door.ingress("ending", [("ending.org", "/", "Prefix", "ending")]),
    )
    door.kubectl.wait("deployment/ending", "condition=Available")

    def asked() -> set[str]:
        return {door.ask("ending.org").pod for _ in range(8)}

    def pods() -> dict[str, bool]:
        """Whether each was told to end."""
        items = json.loads(door.kubectl("get", "pods", "-l", "app=ending", "-o", "json"))["items"]
        return {i["metadata"]["name"]: "deletionTimestamp" in i["metadata"] for i in items}

    door.until("ending.org", "/", "200 ending ")
    both = eventually(asked, lambda found: len(found) == 2)
    door.kubectl("scale", "deployment/ending", "--replicas=1")
    ending = eventually(pods, lambda found: True in found.values())
    kept = {name for name, told in ending.items() if not told}
    eventually(asked, kept.__eq__)
    assert set(pods()) == both, "the other one is still there"
    door.kubectl("scale", "deployment/ending", "--replicas=0")
    # With none that goes on both are asked, in whichever order.
    eventually(asked, both.__eq__)
    door.until("ending.org", "/", "503")
