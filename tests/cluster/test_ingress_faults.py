"""What may happen to the front door: its ports are taken, its processes are killed, its node is lost, what it leads to is not there yet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from sampan.cluster import link
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import master_of
from tests.cluster.front_door import NEEDED, FrontDoor, app, eventually, until
from tests.cluster.load import asked
from tests.real_cluster import SAMPAN, run

pytestmark = NEEDED
CONDITION = '.status.conditions[?(@.type=="IngressServing")]'
HOLD = """
import socket, sys
held = [socket.create_server(("", int(port))) for port in sys.argv[1:]]
print("held", flush=True)
sys.stdin.read()
"""


def another(before: int, pid: int) -> bool:
    return pid not in (0, before)


class Faulty:
    """The front door, `web` with a pod on either node behind it for all hosts, and what can be done to it."""

    def __init__(self, door: FrontDoor) -> None:
        self.door, self.kubectl, self.config = door, door.kubectl, door.cluster.config

    def agent(self, part: str) -> int:
        """The process id of a part of the cluster."""
        parts = link.ask(self.config.run_directory, "status")["parts"]
        return next(int(p["pid"]) for p in parts if p["name"] == part)

    def haproxy(self, node: str) -> int:
        directory = self.config.run_directory / "nodes" / node / "ingress"
        return master_of(Files(directory, ())) or 0

    def workers(self, node: str) -> list[int]:
        master = self.haproxy(node)
        found = run(["cat", f"/proc/{master}/task/{master}/children"]).out
        return [int(pid) for pid in found.split()]

    def kill_haproxy(self, node: str) -> None:
        for pid in (self.haproxy(node), *self.workers(node)):
            os.kill(pid, signal.SIGKILL)

    def serving(self) -> list[str]:
        """The nodes that the front door's address leads to."""
        system = self.door.cluster.kubectl("kube-system")
        return system.value("endpointslice/sampan-ingress", ".endpoints[*].nodeName").split()

    def holder(self) -> str:
        """The node that has the front door's address."""
        self.door.ask("any.org", "/", "-m", "1")  # this machine asks for it
        shown = json.loads(run(["ip", "-j", "neigh", "show", self.door.address]).out)
        for node in self.config.nodes:
            links = json.loads(
                run(["ip", "-n", self.config.node_netns(node).name, "-j", "link", "show", "eth0"]).out
            )
            if shown and shown[0].get("lladdr") == links[0]["address"]:
                return node
        return ""

    @contextmanager
    def ports_held(self, node: str, *ports: int) -> Iterator[None]:
        """Somebody else has these ports of a node when its HAProxy comes."""
        agent = self.agent(node)
        os.kill(agent, signal.SIGSTOP)
        try:
            self.kill_haproxy(node)
            holder = subprocess.Popen(
                ["nsenter", f"--net={self.config.node_netns(node)}", "python3", "-c", HOLD, *map(str, ports)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
        finally:
            os.kill(agent, signal.SIGCONT)
        try:
            yield
        finally:
            holder.communicate()


@pytest.fixture(scope="module")
def faulty(front_door: FrontDoor) -> Faulty:
    front_door.run_apps("web", replicas=2)
    front_door.apply(front_door.ingress("web", [("", "/", "Prefix", "web")]))
    front_door.until("any.org", "/", "200 web ")
    return Faulty(front_door)


@pytest.mark.parametrize("ports", [(80, 443), (443,)])
def test_ports_that_are_taken_are_told_and_taken_when_they_are_free(
    faulty: Faulty, ports: tuple[int, ...]
) -> None:
    kubectl, door = faulty.kubectl, faulty.door
    first, second = faulty.config.nodes
    assert faulty.serving() == [first, second]
    with faulty.ports_held(second, *ports):
        kubectl.wait(f"node/{second}", "condition=IngressServing=False")
        message = eventually(
            lambda: kubectl.value(f"node/{second}", f"{CONDITION}.message"),
            lambda found: all(f":{port}]" in found for port in ports),
        )
        assert "\n" not in message
        eventually(faulty.serving, [first].__eq__)
        eventually(faulty.holder, first.__eq__)
        door.until("any.org", "/", "200 web ")
        until(door.node_address(first), "any.org", "/", "200 web ")
        assert kubectl.value(f"node/{first}", f"{CONDITION}.status") == "True"
        door.apply(door.ingress("meanwhile", [("meanwhile.org", f"/{len(ports)}", "Prefix", "web")]))
    kubectl.wait(f"node/{second}", "condition=IngressServing=True")
    eventually(faulty.serving, [first, second].__eq__)
    for place in (door.node_address(second), door.address):
        until(place, "meanwhile.org", f"/{len(ports)}", "200 web ")


@pytest.mark.parametrize("with_agent", [False, True], ids=["alone", "with the agent"])
def test_haproxy_is_back_with_the_same_rules(faulty: Faulty, with_agent: bool) -> None:
    """Connections that it had are lost with it, and no others: the other node's front door does not notice."""
    first, second = (faulty.door.node_address(n) for n in faulty.config.nodes)
    before = faulty.haproxy("node-1")
    with asked(first, second, host="any.org") as outcome:
        eventually(lambda: len(outcome[first].took), lambda n: n > 20)
        if with_agent:
            os.kill(faulty.agent("node-1"), signal.SIGKILL)
        faulty.kill_haproxy("node-1")
        eventually(partial(faulty.haproxy, "node-1"), partial(another, before))
        answered = len(outcome[first].took)
        eventually(lambda: len(outcome[first].took), lambda n: n > answered + 20)
    assert not outcome[second].lost
    with asked(first, host="any.org") as outcome:
        eventually(lambda: len(outcome[first].took), lambda n: n > 50)
    assert not outcome[first].lost


def test_no_request_is_lost_with_those_who_look_after_it(faulty: Faulty) -> None:
    """The node's agent and the control plane are killed; what changed meanwhile is caught up with."""
    kubectl, door = faulty.kubectl, faulty.door
    proxy, addresses = faulty.haproxy("node-1"), [door.node_address(n) for n in faulty.config.nodes]
    with asked(*addresses, host="any.org") as outcome:
        for part in ("node-1", "control-plane"):
            killed = faulty.agent(part)
            os.kill(killed, signal.SIGKILL)
            eventually(partial(faulty.agent, part), partial(another, killed))
            eventually(lambda: kubectl.run("get", "--raw=/readyz").code, lambda code: code == 0)
            host = f"after-{part}.org"
            door.apply(*app(part), door.ingress(part, [(host, "/", "Prefix", part)]))
            for address in addresses:
                until(address, host, "/", f"200 {part} ")
    for address in addresses:
        assert not outcome[address].lost, outcome[address]
        assert len(outcome[address].took) > 50
    assert faulty.haproxy("node-1") == proxy


def test_a_rolling_update_loses_no_request(faulty: Faulty) -> None:
    """Few pods here; `bench/ingress.py` is the measurement."""
    door, kubectl = faulty.door, faulty.kubectl
    rolling = app("rolling", replicas=3, pre_stop=0.5)
    rolling[0]["spec"]["strategy"] = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    door.apply(*rolling, door.ingress("rolling", [("rolling.org", "/", "Prefix", "rolling")]))
    kubectl("rollout", "status", "deployment/rolling", "--timeout=60s")
    addresses = [door.node_address(n) for n in faulty.config.nodes]
    for address in addresses:
        until(address, "rolling.org", "/", "200 rolling ")
    old = kubectl("get", "pods", "-l", "app=rolling", "-o", "name").split()
    with asked(*addresses, host="rolling.org") as outcome:
        kubectl("set", "env", "deployment/rolling", "VERSION=2")
        kubectl("rollout", "status", "deployment/rolling", "--timeout=60s")
        kubectl("wait", "--for=delete", *old, "--timeout=60s")
    for address in addresses:
        assert not outcome[address].lost, outcome[address]
        assert len(outcome[address].answered_by) == 6, "old pods as well as new ones"


def test_what_it_leads_to_may_come_later(faulty: Faulty) -> None:
    door, kubectl = faulty.door, faulty.kubectl
    deployment, service = app("late")
    door.apply(door.ingress("late", [("late.org", "/", "Prefix", "late")]))
    assert f"there is no Service {door.namespace}/late" in door.wait_event("late", "ServiceNotFound")
    door.until("late.org", "/", "503")
    other = json.loads(json.dumps(service))
    other["spec"]["ports"][0]["port"] = 81
    door.apply(other)
    assert "has no port 80; it has http (81)" in door.wait_event("late", "ServicePortNotFound")
    assert door.ask("late.org").status == "503"
    door.apply(service)
    door.apply(deployment)
    door.until("late.org", "/", "200 late ")
    kubectl("scale", "deployment/late", "--replicas=0")
    door.until("late.org", "/", "503")
    kubectl("scale", "deployment/late", "--replicas=1")
    door.until("late.org", "/", "200 late ")
    kubectl("delete", "service", "late")
    door.until("late.org", "/", "503")


def test_a_node_that_is_lost(faulty: Faulty) -> None:
    """The other node has the address then, and a request that goes to a pod of the lost one is sent on to another pod."""
    door = faulty.door
    nodes = door.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={..nodeName}").split()
    assert set(nodes) == set(faulty.config.nodes)
    lost = eventually(faulty.holder, bool)
    kept = next(n for n in faulty.config.nodes if n != lost)
    cable = faulty.config.node_host_link(lost)
    subprocess.run(["ip", "link", "set", cable, "down"], check=True)
    try:
        eventually(faulty.holder, kept.__eq__)
        for _ in range(3):
            door.until("any.org", "/", "200 web ")
    finally:
        subprocess.run(["ip", "link", "set", cable, "up"], check=True)
    eventually(faulty.holder, lost.__eq__)
    door.until("any.org", "/", "200 web ")


def test_ten_thousand_rules_in_one_ingress(faulty: Faulty) -> None:
    door, kubectl = faulty.door, faulty.kubectl

    def path(n: int, service: str) -> dict[str, object]:
        backend = {"service": {"name": service, "port": {"number": 80}}}
        return {"path": f"/{n}", "pathType": "Prefix", "backend": backend}

    large = door.ingress("large")
    large["spec"]["rules"] = [
        {"host": f"h{host}.large.org", "http": {"paths": [path(n, "web") for n in range(100)]}}
        for host in range(100)
    ]
    # What kubectl remembers of it does not fit: this is for `create` and `apply --server-side`.
    refused = kubectl.run("apply", "-f", "-", stdin=json.dumps(large))
    assert "metadata.annotations: Too long: may not be more than 262144 bytes" in refused.err
    kubectl("create", "-f", "-", stdin=json.dumps(large))
    for host, n in ((0, 0), (57, 31), (99, 99)):
        door.until(f"h{host}.large.org", f"/{n}", "200 web ")
        assert door.ask(f"h{host}.large.org", "/none").app == "web"
    door.apply(*app("one-change"))
    kubectl.wait("deployment/one-change", "condition=Available")
    change = [{"op": "replace", "path": "/spec/rules/99/http/paths/99", "value": path(99, "one-change")}]
    kubectl("patch", "ingress", "large", "--type=json", "-p", json.dumps(change))
    door.until("h99.large.org", "/99", "200 one-change ")
    assert door.ask("h99.large.org", "/98").app == "web"
    kubectl("delete", "ingress", "large")
    large["spec"]["rules"] *= 4
    refused = kubectl.run("create", "-f", "-", stdin=json.dumps(large))
    assert "Request entity too large: limit is 3145728" in refused.err

    def routes() -> str:
        return run([SAMPAN, "ingress", "routes", "--name", door.cluster.name]).out

    assert "large.org" not in eventually(routes, lambda shown: "large.org" not in shown)
