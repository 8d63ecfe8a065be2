"""Every field of a Service as packets see it, on two nodes: who answers, and whom it sees asking.

One cluster for all tests: pod `one` on node-1, pod `two` on node-2, each telling its name and who asks. The host is a client
outside of the cluster; pods and nodes are clients inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from bench import rolling_update

from sampan.cluster import config as configuration
from tests import real_cluster
from tests.real_cluster import ROOT, Cluster, Result, curl, run, sampan

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
]
REFUSED, TIMED_OUT = 7, 28

SERVER = """
import os, signal, socket, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
port, name = int(os.environ.get("PORT", "8080")), socket.gethostname()

def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 9090))
    while True:
        _, peer = s.recvfrom(100)
        s.sendto(f"{name} {peer[0]}".encode(), peer)

def serve(c, peer):
    with c:
        while c.recv(1000):
            body = f"{name} {peer[0].removeprefix('::ffff:')}".encode()
            c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)

threading.Thread(target=udp, daemon=True).start()
both = socket.has_dualstack_ipv6()
family = socket.AF_INET6 if both else socket.AF_INET
listener = socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=128)
while True:
    threading.Thread(target=serve, args=listener.accept(), daemon=True).start()
"""
"""Answers, and goes on to do so when it is told to end."""


def pod(name: str, node: str, app: str = "web", port: int = 8080, grace: int = 0) -> str:
    server = {
        "name": "server",
        "image": "training/webapp",
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", SERVER],
        "env": [{"name": "PORT", "value": str(port)}],
        "ports": [{"name": "http", "containerPort": port}],
    }
    shell = {"name": "shell", "image": "busybox", "imagePullPolicy": "Never", "command": ["sleep", "100000"]}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": app, "pod": name}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": grace,
                "containers": [server, shell],
            },
        }
    )


class Network:
    """The cluster, and how its parts ask for an address."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.kubectl = cluster.kubectl()
        config = cluster.config
        self.nodes = {n: config.node_address(n) for n in config.nodes}
        self.host = config.bridge_address

    def service(self, name: str, selector: str = "app: web", **spec: object) -> str:
        """Make a Service of port 80; returns its address."""
        key, _, value = selector.partition(": ")
        spec = {"selector": {key: value}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}))  # fmt: skip
        return self.kubectl.value(f"service/{name}", ".spec.clusterIP")

    def node_port(self, name: str) -> str:
        return self.kubectl.value(f"service/{name}", ".spec.ports[0].nodePort")

    def from_host(self, target: str) -> Result:
        return curl(f"http://{target}/", "--max-time", "1")

    def from_node(self, node: str, target: str) -> Result:
        inside = f"--net={self.cluster.config.node_netns(node)}"
        return run(["nsenter", inside, "curl", "-sS", "--fail", "--noproxy", "*", "--max-time", "1", f"http://{target}"])  # fmt: skip

    def from_pod(self, pod: str, target: str) -> Result:
        done = self.kubectl.run(
            "exec", pod, "-c", "shell", "--", "timeout", "1", "wget", "-q", "-O", "-", f"http://{target}/"
        )
        if done.code == 0:
            return done
        return Result(REFUSED if "refused" in done.err else TIMED_OUT, done.out, done.err)


def until(ask: Callable[[], Result], answer: str | int) -> str:
    """Ask until the answer begins with a text, or the exit code is a number: kubectl tells of an endpoint some
    milliseconds before the kernel has its rule. Returns the answer."""
    end = time.monotonic() + 15
    while True:
        seen = ask()
        if seen.code == answer or (
            seen.code == 0 and isinstance(answer, str) and seen.out.startswith(answer)
        ):
            return seen.out
        assert time.monotonic() < end, f"wanted {answer!r}, got {seen}"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    home = tmp_path_factory.mktemp("fields") / "kubeconfig"
    name = f"t{os.getpid()}fields"
    try:
        sampan("up", "--name", name, "--nodes", "2", "--nodeport-addresses=172.16.0.0/12", kubeconfig=home)
        sampan("image", "build", *(str(ROOT / "images" / r) for r in ("busybox", "webapp")), "--name", name, kubeconfig=home)  # fmt: skip
        made = Network(Cluster(configuration.existing(name)))
        manifests = [pod("one", "node-1"), pod("two", "node-2")]
        made.kubectl("apply", "-f", "-", stdin="\n".join(manifests))
        made.kubectl.wait_ready("one", "two")
        yield made
    finally:
        if configuration.load(name) is not None:
            sampan("delete", "--name", name, kubeconfig=home)


def test_external_policy_local_and_its_health_check(network: Network) -> None:
    """Only node-1 has an endpoint. Outside it sees who asks, node-2 drops; inside, every node leads there."""
    ip = network.service(
        "local",
        "pod: one",
        type="LoadBalancer",
        externalTrafficPolicy="Local",
        loadBalancerClass="example.com/none",
    )
    port = network.node_port("local")
    health = network.kubectl.value("service/local", ".spec.healthCheckNodePort")
    first, second = network.nodes["node-1"], network.nodes["node-2"]
    assert until(lambda: network.from_host(f"{first}:{port}"), "one") == f"one {network.host}"
    until(lambda: network.from_host(f"{second}:{port}"), TIMED_OUT)
    # The short circuit: pods and nodes are led to all endpoints, whatever node they ask.
    two = network.kubectl.value("pod/two", ".status.podIP")
    assert until(lambda: network.from_pod("two", f"{second}:{port}"), "one") == f"one {two}"
    until(lambda: network.from_node("node-2", f"{second}:{port}"), "one")
    until(lambda: network.from_pod("two", f"{ip}:80"), "one")
    for address, code, count in ((first, 200, 1), (second, 503, 0)):
        answer = run(["curl", "-sS", "-i", "--noproxy", "*", f"http://{address}:{health}/healthz"])
        head, _, body = answer.out.replace("\r", "").partition("\n\n")
        assert f" {code} " in head.splitlines()[0]
        assert f"x-load-balancing-endpoint-weight: {count}" in head.lower()
        assert json.loads(body) == {
            "service": {"namespace": "default", "name": "local"},
            "localEndpoints": count,
            "serviceProxyHealthy": True,
        }
    # The endpoint moves: so does the answer.
    network.kubectl("patch", "service", "local", "-p", '{"spec":{"selector":{"pod":"two"}}}')
    until(lambda: network.from_host(f"{second}:{port}"), f"two {network.host}")
    until(lambda: network.from_host(f"{first}:{port}"), TIMED_OUT)
    until(lambda: curl(f"http://{second}:{health}/"), "{")
    network.kubectl("delete", "service", "local")
    until(lambda: network.from_host(f"{second}:{health}"), REFUSED)


def test_external_policy_cluster_answers_on_every_node_as_the_node(network: Network) -> None:
    network.service("everywhere", "pod: one", type="NodePort")
    port = network.node_port("everywhere")
    first, second = network.nodes["node-1"], network.nodes["node-2"]
    assert until(lambda: network.from_host(f"{second}:{port}"), "one") == f"one {second}"
    assert until(lambda: network.from_host(f"{first}:{port}"), "one") == f"one {first}"
    # Pods are seen by their own addresses at the cluster address, wherever they are.
    ip = network.kubectl.value("service/everywhere", ".spec.clusterIP")
    two = network.kubectl.value("pod/two", ".status.podIP")
    assert until(lambda: network.from_pod("two", f"{ip}:80"), "one") == f"one {two}"
    # Never on loopback, nor at other addresses of the node than --nodeport-addresses says.
    assert network.from_node("node-1", f"127.0.0.1:{port}").code == REFUSED
    dns = network.cluster.config.dns_addresses[0]
    assert network.from_node("node-1", f"{dns}:{port}").code == REFUSED
    network.kubectl("delete", "service", "everywhere")


def test_internal_policy_local(network: Network) -> None:
    ip = network.service("inner", "pod: one", internalTrafficPolicy="Local")
    until(lambda: network.from_pod("one", f"{ip}:80"), "one")
    until(lambda: network.from_pod("two", f"{ip}:80"), TIMED_OUT)
    network.kubectl("patch", "service", "inner", "-p", '{"spec":{"selector":{"pod":"nobody"}}}')
    until(lambda: network.from_pod("two", f"{ip}:80"), REFUSED)
    network.kubectl("delete", "service", "inner")


def test_external_addresses_lead_in_from_wherever(network: Network) -> None:
    network.service("external", "pod: one", externalIPs=["192.0.2.77"])
    until(lambda: network.from_pod("two", "192.0.2.77:80"), "one")
    until(lambda: network.from_node("node-2", "192.0.2.77:80"), "one")
    with routed("192.0.2.77", network.nodes["node-2"]):
        assert until(lambda: network.from_host("192.0.2.77:80"), "one") == f"one {network.nodes['node-2']}"
    network.kubectl("delete", "service", "external")


@contextlib.contextmanager
def routed(address: str, via: str) -> Iterator[None]:
    """The host's way to an address, as long as the block lasts."""
    assert run(["ip", "route", "add", f"{address}/32", "via", via]).code == 0
    try:
        yield
    finally:
        run(["ip", "route", "del", f"{address}/32"])


def test_load_balancer_sources(network: Network) -> None:
    """The ranges hold for the load balancer's address, and for everybody who asks for it."""
    two = network.kubectl.value("pod/two", ".status.podIP")
    network.service(
        "ranges", "pod: one", type="LoadBalancer", loadBalancerClass="example.com/none",
        loadBalancerSourceRanges=[f"{two}/32"],
    )  # fmt: skip
    ingress = {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}}}
    network.kubectl(
        "patch", "service", "ranges", "--subresource=status", "--type=merge", "-p", json.dumps(ingress)
    )
    until(lambda: network.from_pod("two", "198.51.100.9:80"), "one")
    until(lambda: network.from_pod("one", "198.51.100.9:80"), TIMED_OUT)
    port = network.node_port("ranges")
    until(lambda: network.from_host(f"{network.nodes['node-2']}:{port}"), "one")
    with routed("198.51.100.9", network.nodes["node-2"]):
        until(lambda: network.from_host("198.51.100.9:80"), TIMED_OUT)
        allow = {"spec": {"loadBalancerSourceRanges": [f"{network.host}/32"]}}
        network.kubectl("patch", "service", "ranges", "-p", json.dumps(allow))
        until(lambda: network.from_host("198.51.100.9:80"), "one")
    until(lambda: network.from_pod("two", "198.51.100.9:80"), TIMED_OUT)
    # A load balancer that is a proxy sees to its address itself.
    ingress["status"]["loadBalancer"]["ingress"][0]["ipMode"] = "Proxy"
    network.kubectl(
        "patch", "service", "ranges", "--subresource=status", "--type=merge", "-p", json.dumps(ingress)
    )
    rules = network.cluster.in_node("nft", "list", "map", "ip", "sampan", "services").out
    assert "198.51.100.9" not in rules
    network.kubectl("delete", "service", "ranges")


def test_types_change_both_ways_in_the_kernel_too(network: Network) -> None:
    ip = network.service("changing", "pod: one")
    until(lambda: network.from_host(f"{ip}:80"), "one")
    network.kubectl("patch", "service", "changing", "-p", '{"spec":{"type":"NodePort"}}')
    node_port = f"{network.nodes['node-2']}:{network.node_port('changing')}"
    until(lambda: network.from_host(node_port), "one")
    network.kubectl(
        "patch", "service", "changing", "-p", '{"spec":{"type":"LoadBalancer","loadBalancerClass":"a/b"}}'
    )
    until(lambda: network.from_host(node_port), "one")
    network.kubectl("patch", "service", "changing", "-p", '{"spec":{"type":"ClusterIP"}}')
    until(lambda: network.from_host(node_port), REFUSED)
    until(lambda: network.from_host(f"{ip}:80"), "one")
    network.kubectl(
        "patch", "service", "changing", "-p", '{"spec":{"type":"ExternalName","externalName":"a.example"}}'
    )
    until(lambda: network.from_host(f"{ip}:80"), REFUSED)
    network.kubectl("patch", "service", "changing", "-p", '{"spec":{"type":"ClusterIP","externalName":null}}')
    ip = network.kubectl.value("service/changing", ".spec.clusterIP")
    until(lambda: network.from_host(f"{ip}:80"), "one")
    network.kubectl("delete", "service", "changing")


def test_named_ports_that_differ_and_udp(network: Network) -> None:
    network.kubectl("apply", "-f", "-", stdin=pod("other", "node-2", app="named", port=7070))
    network.kubectl.wait_ready("other")
    network.kubectl("label", "pod", "one", "named=yes")
    network.kubectl("label", "pod", "other", "named=yes")
    ports = [
        {"name": "web", "port": 80, "targetPort": "http"},
        {"name": "echo", "port": 53, "targetPort": 9090, "protocol": "UDP"},
    ]
    ip = network.service("named", "named: yes", ports=ports, type="NodePort")
    for name in ("one", "other"):
        until(partial(network.from_host, f"{ip}:80"), name)
    port = int(network.kubectl.value("service/named", ".spec.ports[1].nodePort"))
    asked = [ask_udp((ip, 53)) for _ in range(20)] + [
        ask_udp((network.nodes["node-2"], port)) for _ in range(20)
    ]
    assert {a.split()[0] for a in asked} == {"one", "other"}
    network.kubectl("delete", "service", "named")
    network.kubectl("delete", "pod", "other", "--grace-period=0", "--force")


def ask_udp(address: tuple[str, int]) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        s.sendto(b"who", address)
        return s.recv(100).decode()


def test_who_ends_serves_until_it_is_gone_when_nobody_else_is_ready(network: Network) -> None:
    network.kubectl("apply", "-f", "-", stdin=pod("ending", "node-1", app="ending", grace=60))
    network.kubectl.wait_ready("ending")
    ip = network.service("ending", "app: ending")
    until(lambda: network.from_host(f"{ip}:80"), "ending")
    with socket.create_connection((ip, 80), 5) as kept:

        def asks() -> bytes:
            kept.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return kept.recv(1000)

        assert b"ending" in asks()
        network.kubectl("delete", "pod", "ending", "--wait=false")
        network.kubectl.watch(
            "endpointslices -l kubernetes.io/service-name=ending",
            "{{range .object.endpoints}}{{.conditions.ready}} {{.conditions.serving}} {{.conditions.terminating}}{{end}}",
            lambda text: text == "false true true",
        )
        # New connections as well as the one that is open.
        until(lambda: network.from_host(f"{ip}:80"), "ending")
        assert b"ending" in asks()
        network.kubectl("apply", "-f", "-", stdin=pod("next", "node-2", app="ending"))
        network.kubectl.wait_ready("next")
        until(lambda: network.from_host(f"{ip}:80"), "next")
        assert {network.from_host(f"{ip}:80").out.split()[0] for _ in range(8)} == {"next"}
        assert b"ending" in asks(), "what is open stays open"
    network.kubectl("delete", "pod", "ending", "next", "--grace-period=0", "--force")
    until(lambda: network.from_host(f"{ip}:80"), REFUSED)
    network.kubectl("delete", "service", "ending")


def test_affinity_ends_after_its_time(network: Network) -> None:
    config = {"clientIP": {"timeoutSeconds": 1}}
    ip = network.service("sticky", sessionAffinity="ClientIP", sessionAffinityConfig=config)
    network.kubectl.wait_endpoints("sticky", 2)
    until(lambda: network.from_host(f"{ip}:80"), "")
    first = network.from_host(f"{ip}:80").out.split()[0]
    assert {network.from_host(f"{ip}:80").out.split()[0] for _ in range(8)} == {first}
    end = time.monotonic() + 30
    while network.from_host(f"{ip}:80").out.split()[0] == first:
        assert time.monotonic() < end
        time.sleep(1.1)  # the time that it is about
    network.kubectl("delete", "service", "sticky")


def test_a_rolling_update_loses_no_request(network: Network) -> None:
    """Few pods here; `bench/rolling_update.py` is the measurement."""
    node = network.nodes["node-2"]
    kubeconfig = network.cluster.kubeconfig
    address, port = asyncio.run(rolling_update.make(kubeconfig, pods=3, pre_stop=0.5))
    targets = (node, port), (address, 80)
    _, outcomes = asyncio.run(rolling_update.measure(kubeconfig, targets, clients=1))
    for outcome in outcomes:
        assert not outcome.lost, outcome
        assert len(outcome.answered_by) == 6, "old ones as well as new ones"
    network.kubectl("delete", "deployment,service", "rolling")


def test_traffic_stays_in_its_zone_and_on_its_node(network: Network) -> None:
    for node, zone in (("node-1", "z1"), ("node-2", "z2")):
        network.kubectl("label", "node", node, f"topology.kubernetes.io/zone={zone}", "--overwrite")
    for wish in ("PreferSameZone", "PreferSameNode"):
        ip = network.service("near", trafficDistribution=wish)
        network.kubectl.wait_endpoints("near", 2)
        for name in ("one", "two"):
            until(partial(network.from_pod, name, f"{ip}:80"), name)
            assert {network.from_pod(name, f"{ip}:80").out.split()[0] for _ in range(4)} == {name}
    # A node that moves to another zone follows its label.
    network.service("near", trafficDistribution="PreferSameZone")
    network.kubectl("label", "node", "node-2", "topology.kubernetes.io/zone=z1", "--overwrite")
    until(lambda: network.from_pod("two", f"{ip}:80"), "one")
    network.kubectl("delete", "service", "near")
    for node in network.nodes:
        network.kubectl("label", "node", node, "topology.kubernetes.io/zone-")


def test_kubectls_own_words(network: Network) -> None:
    ip = network.service("shown", "pod: one", type="NodePort", externalTrafficPolicy="Local", internalTrafficPolicy="Cluster")  # fmt: skip
    network.kubectl.wait_endpoints("shown", 1)
    pod_ip = network.kubectl.value("pod/one", ".status.podIP")
    said = network.kubectl("describe", "service", "shown")
    for line in (
        "Type: NodePort", "IP Family Policy: SingleStack", "IP Families: IPv4", f"IP: {ip}", f"IPs: {ip}",
        f"NodePort: <unset> {network.node_port('shown')}/TCP", f"Endpoints: {pod_ip}:8080", "Session Affinity: None",
        "External Traffic Policy: Local", "Internal Traffic Policy: Cluster", "Events: <none>",
    ):  # fmt: skip
        assert line in [re.sub(r"\s+", " ", row).strip() for row in said.splitlines()], said
    header, row = network.kubectl(
        "get", "endpointslices", "-l", "kubernetes.io/service-name=shown"
    ).splitlines()
    assert header.split() == ["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"]
    assert row.split()[1:4] == ["IPv4", "8080", pod_ip]
    with network.kubectl.start("port-forward", "service/shown", ":80") as lines:
        local = re.search(r"127\.0\.0\.1:(\d+) -> 8080", lines.readline())
        assert local is not None
        assert curl(f"http://127.0.0.1:{local[1]}/").out.startswith("one 127.0.0.1")
    network.kubectl("delete", "service", "shown")


def test_the_proxys_own_health(network: Network) -> None:
    for address in network.nodes.values():
        answer = curl(f"http://{address}:10256/healthz")
        assert json.loads(answer.out)["nodeEligible"] is True, answer
        assert "currentTime" in curl(f"http://{address}:10256/livez").out
        # Metrics are for the node itself.
        assert curl(f"http://{address}:10249/metrics").code == REFUSED
    assert "nftables" in network.from_node("node-1", "127.0.0.1:10249/proxyMode").out
