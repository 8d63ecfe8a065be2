"""Pods of machines that have joined talk to each other by VXLAN: two machines in networks of their own, behind a router that
knows nothing of pods, delays and loses."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from sampan.cluster import config as configuration
from sampan.cluster.config import ClusterConfig
from sampan.network import host, vxlan
from tests import real_cluster
from tests.cluster import machines
from tests.cluster.machines import Machine, Network
from tests.real_cluster import ROOT, SAMPAN, Kubectl, run

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
]
SIZE = 400_000
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: localhost/busybox:1
    command: [sh, -c, "mkdir -p /w/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > /w/cgi-bin/who;
      chmod 755 /w/cgi-bin/who; head -c {size} /dev/urandom > /w/blob; hostname > /w/index.html;
      trap exit TERM; httpd -f -p 8080 -h /w & wait"]
    readinessProbe: {{httpGet: {{port: 8080}}, periodSeconds: 1}}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: west}
spec:
  selector: {app: west}
  ports: [{port: 80, targetPort: 8080}]
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: west}
spec:
  podSelector: {matchLabels: {app: west}}
  ingress: [{from: [{podSelector: {matchLabels: {app: east}}}]}]
"""


@dataclass
class Overlay:
    """A cluster with the machines `east` and `west`, whose names their pods have, too."""

    config: ClusterConfig
    kubectl: Kubectl
    network: Network
    east: Machine
    west: Machine

    def address(self, pod: str) -> str:
        return self.kubectl.value(f"pod/{pod}", ".status.podIP")

    def get(self, pod: str, url: str) -> str:
        """What a pod gets there, tried for some seconds: routes and rules come a moment after what they are for."""
        script = f"for i in 1 2 3 4 5 6 7 8; do timeout 2 wget -q -O - {url} && exit; done; exit 1"
        return self.kubectl("exec", pod, "--", "sh", "-c", script)

    def source(self, client: str, server: str) -> str:
        """The address that a pod is seen under by another."""
        seen = self.get(client, f"http://{self.address(server)}:8080/cgi-bin/who").strip()
        return seen.removeprefix("[").removeprefix("::ffff:").rstrip("]")

    def tunnel(self, machine: Machine, other: str) -> tuple[str, str, str]:
        """What the tunnel of a machine knows of another node: forwarding entries, neighbours and routes."""
        mac, pods = vxlan.mac_of(other), self.pods[other]
        shown = (
            machine.run("bridge", "fdb", "show", "dev", vxlan.DEVICE).out,
            machine.run("ip", "neigh", "show", "dev", vxlan.DEVICE, "nud", "permanent").out,
            machine.run("ip", "route", "show", "proto", "83").out,
        )
        fdb, neighbours, routes = (s.splitlines() for s in shown)
        return (
            "\n".join(line for line in fdb if mac in line),
            "\n".join(line for line in neighbours if mac in line),
            "\n".join(line for line in routes if line.startswith(pods)),
        )

    @property
    def pods(self) -> dict[str, str]:
        """The pod range of each node."""
        ranges = "{range .items[*]}{.metadata.name} {.spec.podCIDR}{'\\n'}{end}"
        listed = self.kubectl("get", "nodes", "-o", f"jsonpath={ranges}")
        return dict(line.split() for line in listed.splitlines())


@contextmanager
def changes(machine: Machine) -> Iterator[IO[str]]:
    """What `ip monitor` says of a machine's routes and neighbours, from the block's beginning on."""
    process = subprocess.Popen(
        machine.command("timeout", "30", "stdbuf", "-oL", "ip", "monitor", "route", "neigh"),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Overlay]:
    home = tmp_path_factory.mktemp("overlay")
    name = f"overlay-{os.getpid()}"
    environment = {"KUBECONFIG": str(home / "kubeconfig")}
    with machines.network(f"ov{os.getpid()}", home) as network, contextlib.ExitStack() as stack:
        stack.callback(run, [SAMPAN, "delete", "--name", name], env=environment)
        done = run([SAMPAN, "up", "--name", name, "--listen", network.host], env=environment)
        assert done.code == 0, done.err
        config = configuration.existing(name)
        kubectl = Kubectl(config.directory / "kubeconfig", "default")
        token = run([SAMPAN, "token", "create", "--name", name], env=environment)
        assert token.code == 0, token.err
        pair = [network.machine("east"), network.machine("west")]
        for machine in pair:
            stack.enter_context(machine.node(*token.out.split()[2:]))
        for machine in pair:
            wanted = machine.name
            kubectl.watch(
                "nodes", "{{.object.metadata.name}} {{range .object.status.conditions}}{{.type}}={{.status}} {{end}}",
                lambda text, wanted=wanted: text.startswith(f"{wanted} ") and "Ready=True" in text,  # type: ignore[misc]
            )  # fmt: skip
            built = machine.sampan("image", "build", str(ROOT / "images/busybox"))
            assert built.code == 0, built.err
            kubectl("apply", "-f", "-", stdin=POD.format(name=wanted, node=wanted, size=SIZE))
        kubectl("apply", "-f", "-", stdin=SERVICE)
        kubectl.wait_ready("east", "west")
        yield Overlay(config, kubectl, network, *pair)


def test_pods_see_each_others_addresses(overlay: Overlay) -> None:
    assert overlay.source("east", "west") == overlay.address("east")
    assert overlay.source("west", "east") == overlay.address("west")
    for machine, other in ((overlay.east, overlay.west), (overlay.west, overlay.east)):
        fdb, neighbour, route = overlay.tunnel(machine, other.name)
        assert f"dst {other.address}" in fdb
        assert neighbour
        assert f"dev {vxlan.DEVICE}" in route


def test_a_service_whose_endpoint_is_on_the_other_machine(overlay: Overlay) -> None:
    overlay.kubectl.wait_endpoints("west", 1)
    cluster_ip = overlay.kubectl.value("service/west", ".spec.clusterIP")
    assert overlay.get("east", f"http://{cluster_ip}/") == "west\n"
    assert overlay.get("east", "http://west.default.svc.cluster.local/") == "west\n"
    seen = overlay.get("east", f"http://{cluster_ip}/cgi-bin/who")
    assert overlay.address("east") in seen, "the way to a backend hides nobody"


def test_more_than_a_packet_gets_through(overlay: Overlay) -> None:
    """Pods' links are longer than the tunnel's: the sender is told what fits."""
    for client, server in (("east", "west"), ("west", "east")):
        url = f"http://{overlay.address(server)}:8080/blob"
        script = f"timeout 20 wget -q -O - {url} | sha256sum"
        got = overlay.kubectl("exec", client, "--", "sh", "-c", script).split()[0]
        there = overlay.kubectl("exec", server, "--", "sha256sum", "/w/blob").split()[0]
        assert got == there


def test_a_policy_goes_by_pods_of_the_other_machine(overlay: Overlay) -> None:
    url = f"http://{overlay.address('west')}:8080/"
    overlay.kubectl("apply", "-f", "-", stdin=POLICY)
    try:
        assert overlay.get("east", url) == "west\n"
        overlay.kubectl("label", "pod", "east", "app=stranger", "--overwrite")
        script = f"for i in 1 2 3 4 5 6 7 8; do timeout 1 wget -q -O - {url} || exit 0; done; exit 1"
        overlay.kubectl("exec", "east", "--", "sh", "-c", script)
        overlay.kubectl("label", "pod", "east", "app=east", "--overwrite")
        assert overlay.get("east", url) == "west\n"
    finally:
        overlay.kubectl("delete", "networkpolicy", "west")


def test_local_nodes_where_the_host_forwards(overlay: Overlay, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/nodes.md says is needed: the host forwards, and who carries packets from there knows the way to the bridge."""
    config, network = overlay.config, overlay.network
    built = run([SAMPAN, "image", "build", str(ROOT / "images/busybox"), "--name", config.name])
    assert built.code == 0, built.err
    overlay.kubectl("apply", "-f", "-", stdin=POD.format(name="local", node="node-1", size=SIZE))
    overlay.kubectl.wait_ready("local")
    url = f"http://{overlay.address('local')}:8080/"
    assert overlay.kubectl.run("exec", "east", "--", "timeout", "1", "wget", "-q", "-O", "-", url).code != 0
    # As net.ipv4.ip_forward does, for these links only.
    uplink = f"ov{os.getpid()}0"[:15]
    for link in (config.bridge, uplink):
        Path(f"/proc/sys/net/ipv4/conf/{link}/forwarding").write_text("1")
    monkeypatch.setattr(host, "_FORWARDING", {4: f"net.ipv4.conf.{uplink}.forwarding"})
    masked = (*config.node_subnets, *config.pod_cidrs)
    assert host.ensure_masquerade(config.masquerade_table, config.bridge, masked) == ""
    machines.ip("-n", network.router, "route", "add", config.node_subnet, "via", network.host)
    assert overlay.source("east", "local") == overlay.address("east")
    assert overlay.source("local", "east") == overlay.address("local")


def test_a_machine_with_another_address_is_followed(overlay: Overlay) -> None:
    west = overlay.west
    new = west.address[:-1] + "9"
    script = (
        f"ip addr del {west.address}/24 dev eth0; ip addr add {new}/24 dev eth0;"
        f" ip route replace default via {west.gateway}"
    )
    west.run("sh", "-c", script)
    overlay.kubectl.wait(
        "node/west", f'jsonpath={{.status.addresses[?(@.type=="InternalIP")].address}}={new}', timeout=30
    )
    assert overlay.get("east", f"http://{overlay.address('west')}:8080/") == "west\n"
    assert overlay.source("east", "west") == overlay.address("east")
    assert f"dst {new}" in overlay.tunnel(overlay.east, "west")[0]
    assert west.address + " " not in overlay.tunnel(overlay.east, "west")[0]


def test_a_machine_that_is_removed_is_forgotten(overlay: Overlay) -> None:
    """The last one."""
    overlay.kubectl("delete", "pod", "--all")
    pods, mac = overlay.pods["west"], vxlan.mac_of("west")
    with changes(overlay.east) as lines:
        overlay.kubectl("delete", "node", "west")
        for line in lines:
            if line.startswith(f"Deleted {pods}"):
                break
    shown = overlay.east.run("bridge", "fdb", "show", "dev", vxlan.DEVICE).out
    shown += overlay.east.run("ip", "neigh", "show", "nud", "permanent").out
    shown += overlay.east.run("ip", "route").out
    assert mac not in shown
    assert pods not in shown
