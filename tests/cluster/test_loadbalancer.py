"""Services of type LoadBalancer and host ports on a cluster of two nodes, as this machine and the cluster's pods see them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.cluster import config as configuration
from sampan.cluster import link
from tests import real_cluster
from tests.cluster.test_services import SERVER
from tests.real_cluster import ROOT, Cluster, Kubectl, Result, curl, fetch, run, sampan

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
]
SECONDS = 30.0
ENDS = "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n"
"""The first process of a container is not ended by a signal that it does not care for."""


class Balanced:
    """The cluster, with a Deployment `web` of one pod a node, and what tests ask about it."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster = cluster
        self.home = home
        self.kubectl: Kubectl = cluster.kubectl()
        self.subnet = cluster.config.node_subnet.rpartition(".")[0]

    @property
    def config(self) -> configuration.ClusterConfig:
        return self.cluster.config

    def expose(
        self, name: str, *, annotations: dict[str, str] | None = None, port: int = 80, **spec: object
    ) -> None:
        ports = [
            {"name": "http", "port": port, "targetPort": 8080},
            {"name": "echo", "port": port, "targetPort": 9090, "protocol": "UDP"},
        ]
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports, **spec},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(service))

    def address(self, name: str) -> str:
        """Wait until it has one."""
        self.kubectl(
            "wait", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", f"service/{name}", "--timeout=30s"
        )
        return self.kubectl.value(f"service/{name}", ".status.loadBalancer.ingress[0].ip")

    def holder(self, address: str) -> str:
        """The node that this machine sends to for an address, "" if it knows none."""
        for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
            words = line.split()
            if words[0] == address:
                return self._macs().get(words[3], "")
        return ""

    def _macs(self) -> dict[str, str]:
        found = {}
        for node in self.config.nodes:
            shown = run(["ip", "-n", f"sampan-{self.config.name}-{node}", "-j", "link", "show", "eth0"]).out
            found[json.loads(shown)[0]["address"]] = node
        return found

    def pid(self, part: str) -> int:
        parts = link.ask(self.config.run_directory, "status")["parts"]
        return next(int(p["pid"]) for p in parts if p["name"] == part)

    def event(self, name: str, reason: str) -> str:
        """Wait for an event of a Service; its message."""
        return self.kubectl.watch(
            f"events --field-selector involvedObject.name={name},reason={reason}",
            "{{.object.message}}",
            bool,
        )


def until(what: str, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {SECONDS:.0f} s"


def quick(url: str) -> Result:
    return curl(url, "--max-time", "1")


def echo(address: str, port: int) -> str:
    """The name of the pod that answers by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.connect((address, port))
        for _ in range(10):
            try:
                s.send(b"who\n")
                return s.recv(100).decode()
            except OSError:
                continue
    return ""


WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": {"matchLabels": {"app": "web"}},
                    }
                ],
                "containers": [
                    {
                        "name": "server",
                        "image": "training/webapp",
                        "command": ["python3", "-c", ENDS + SERVER],
                        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                    },
                    {"name": "shell", "image": "busybox", "command": ["sleep", "100000"]},
                ],
            },
        },
    },
}


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    home = tmp_path_factory.mktemp("lb") / "kubeconfig"
    name = f"t{os.getpid()}lb"
    try:
        sampan("up", "--name", name, "--nodes", "2", kubeconfig=home)
        recipes = [str(ROOT / "images" / r) for r in ("busybox", "webapp")]
        sampan("image", "build", *recipes, "--name", name, kubeconfig=home)
        made = Balanced(Cluster(configuration.existing(name)), home)
        made.kubectl("apply", "-f", "-", stdin=json.dumps(WEB))
        made.kubectl.wait("deployment/web", "condition=Available")
        made.expose("web")
        yield made
    finally:
        if configuration.load(name) is not None:
            sampan("delete", "--name", name, kubeconfig=home)


def test_a_service_is_reached_at_an_address_of_its_own(balanced: Balanced) -> None:
    kubectl = balanced.kubectl
    address = balanced.address("web")
    subnet, _, number = address.rpartition(".")
    assert subnet == balanced.subnet
    assert 200 <= int(number) <= 250
    row = kubectl("get", "service", "web", "--no-headers").split()
    assert (row[1], row[3]) == ("LoadBalancer", address)
    kubectl.wait_endpoints("web", 2)
    pods = set(kubectl("get", "pods", "-l", "app=web", "-o", "name").replace("pod/", "").split())
    assert {fetch(f"http://{address}/").strip() for _ in range(30)} == pods, "this machine"
    assert echo(address, 80).strip() in pods
    pod = next(iter(pods))
    asked = kubectl("exec", pod, "-c", "shell", "--", "wget", "-q", "-O", "-", f"http://{address}/")
    assert asked.strip() in pods, "a pod"
    inside = balanced.cluster.in_node("curl", "-sS", "--noproxy", "*", f"http://{address}/")
    assert inside.out.strip() in pods, "a node"
    node = balanced.holder(address)
    assert balanced.event("web", "IPAllocated") == f'Assigned IP ["{address}"]'
    assert balanced.event("web", "nodeAssigned") == f'announcing from node "{node}" with protocol "layer2"'
    described = kubectl("describe", "service", "web")
    assert f"LoadBalancer Ingress:     {address} (VIP)" in described
    assert "IPAllocated" in described
    # What listens on the node is not there: the API of its agent, say.
    assert curl(f"https://{address}:10250/", "--insecure", "--max-time", "1").code != 0
    row = kubectl("get", "ipaddresspools", "default", "-o", "wide", "--no-headers").split()
    assert row[:4] == ["default", "true", "false", f'["{balanced.subnet}.200-{balanced.subnet}.250"]']


def test_it_moves_when_the_node_is_killed_stopped_or_cut_off(balanced: Balanced) -> None:
    address = balanced.address("web")
    fetch(f"http://{address}/")
    first = balanced.holder(address)
    # Killed: what is in the kernel goes on, and the process comes again.
    killed = balanced.pid(first)
    os.kill(killed, signal.SIGKILL)
    until("an answer after SIGKILL", lambda: quick(f"http://{address}/").code == 0)
    until("another process", lambda: balanced.pid(first) not in (0, killed))
    until("the address where it was", lambda: balanced.holder(address) == first)
    # Stopped.
    pid = balanced.pid(first)
    os.kill(pid, signal.SIGSTOP)
    try:
        until("the other node, for one stopped", lambda: balanced.holder(address) not in ("", first))
        until("an answer of the other", lambda: quick(f"http://{address}/").code == 0)
    finally:
        os.kill(pid, signal.SIGCONT)
    until("the address back", lambda: balanced.holder(address) == first)
    # Cut off.
    cut = balanced.config.node_host_link(first)
    subprocess.run(["ip", "link", "set", cut, "down"], check=True)
    try:
        until("the other node, for one cut off", lambda: balanced.holder(address) not in ("", first))
        until("an answer of the other", lambda: quick(f"http://{address}/").code == 0)
    finally:
        subprocess.run(["ip", "link", "set", cut, "up"], check=True)
    until("the address back", lambda: balanced.holder(address) == first)


def test_two_services_share_an_address(balanced: Balanced) -> None:
    key = {"metallb.io/allow-shared-ip": "both"}
    balanced.expose("one", annotations=key)
    address = balanced.address("one")
    balanced.expose("other", annotations=key, port=81)
    assert balanced.address("other") == address != balanced.address("web")
    for url in (f"http://{address}/", f"http://{address}:81/"):
        assert fetch(url).startswith("web-")
    balanced.kubectl("delete", "service", "one", "other")
    until("nobody at the address", lambda: quick(f"http://{address}/").code != 0)


def test_an_empty_pool_is_told_and_a_freed_address_is_given(balanced: Balanced) -> None:
    pool = {
        "apiVersion": "loadbalancer.sampan.io/v1",
        "kind": "IPAddressPool",
        "metadata": {"name": "one"},
        "spec": {"addresses": [f"{balanced.subnet}.251-{balanced.subnet}.251"], "autoAssign": False},
    }
    balanced.kubectl("apply", "-f", "-", stdin=json.dumps(pool))
    named = {"metallb.io/address-pool": "one"}
    balanced.expose("has", annotations=named)
    assert balanced.address("has") == f"{balanced.subnet}.251"
    balanced.expose("wants", annotations=named)
    why = balanced.event("wants", "AllocationFailed")
    assert why.startswith('Failed to allocate IP for "default/wants": no available IPs')
    assert balanced.kubectl("get", "service", "wants", "--no-headers").split()[3] == "<pending>"
    balanced.kubectl("delete", "service", "has")
    assert balanced.address("wants") == f"{balanced.subnet}.251"
    assert fetch(f"http://{balanced.subnet}.251/").startswith("web-")
    # Another type gives it back.
    balanced.kubectl("patch", "service", "wants", "-p", '{"spec":{"type":"ClusterIP"}}')
    balanced.kubectl.wait("ipaddresspool/one", "jsonpath={.status.assignedIPv4}=0")
    assert balanced.kubectl.value("service/wants", ".metadata.finalizers") == ""
    balanced.kubectl("delete", "service", "wants")


HOST_PORTS = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "ports"},
    "spec": {
        "nodeName": "node-1",
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "server",
                "image": "training/webapp",
                "command": ["python3", "-c", ENDS + SERVER],
                "ports": [
                    {"containerPort": 8080, "hostPort": 8088},
                    {"containerPort": 9090, "hostPort": 9099, "protocol": "UDP"},
                    {"containerPort": 8080, "hostPort": 8089, "hostIP": "192.0.2.1"},
                ],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            }
        ],
    },
}


def test_a_host_port_leads_to_the_pod(balanced: Balanced) -> None:
    kubectl, config = balanced.kubectl, balanced.config
    made = kubectl.run("apply", "-f", "-", stdin=json.dumps(HOST_PORTS))
    assert (made.code, made.err) == (0, "")
    kubectl.wait_ready("ports")
    here, there = (config.node_address(n) for n in config.nodes)
    assert fetch(f"http://{here}:8088/") == "ports\n"
    assert echo(here, 9099) == "ports\n"
    pod = kubectl("get", "pods", "-l", "app=web", "-o", "name").split()[0]
    assert (
        kubectl("exec", pod, "-c", "shell", "--", "wget", "-q", "-O", "-", f"http://{here}:8088/")
        == "ports\n"
    )
    inside = balanced.cluster.in_node("curl", "-sS", "--noproxy", "*", f"http://{here}:8088/")
    assert inside.out == "ports\n"
    for refused in (f"{there}:8088", f"{here}:8089"):
        assert quick(f"http://{refused}/").code == 7, refused
    loopback = balanced.cluster.in_node("curl", "-sS", "--noproxy", "*", "http://127.0.0.1:8088/")
    assert loopback.code == 7
    # A second one finds no place on that node, and is told why.
    second = json.loads(json.dumps(HOST_PORTS))
    second["metadata"]["name"] = "clash"
    kubectl("apply", "-f", "-", stdin=json.dumps(second))
    why = kubectl.watch(
        "events --field-selector involvedObject.name=clash", "{{.object.message}}", lambda m: "8088" in m
    )
    taken = ("8088/TCP", "8089/TCP", "9099/UDP")
    assert all(f"host port {port} is in use: " in why for port in taken)
    kubectl("delete", "pod", "clash", "--wait=true")
    # It outlives the node's process and goes with the pod.
    os.kill(balanced.pid("node-1"), signal.SIGKILL)
    assert fetch(f"http://{here}:8088/") == "ports\n"
    kubectl("delete", "pod", "ports", "--wait=true")
    until("the port closed", lambda: quick(f"http://{here}:8088/").code == 7)


def test_addresses_are_kept_over_a_stop_of_the_cluster(balanced: Balanced) -> None:
    address = balanced.address("web")
    balanced.expose("later", loadBalancerIP=f"{balanced.subnet}.222")
    assert balanced.address("later") == f"{balanced.subnet}.222"
    sampan("stop", "--name", balanced.config.name, kubeconfig=balanced.home)
    sampan("up", "--name", balanced.config.name, kubeconfig=balanced.home)
    assert balanced.address("web") == address
    assert balanced.address("later") == f"{balanced.subnet}.222"
    for one in (address, f"{balanced.subnet}.222"):
        until("an answer", lambda one=one: quick(f"http://{one}/").code == 0)  # type: ignore[misc]
