"""Names as pods have them: the cluster's DNS by busybox' own resolver, while Services, endpoints and the server itself come and go."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest

from sampan.cluster import dns_process, link
from sampan.cluster.supervision import await_change
from sampan.dns.listeners import QUEUES
from tests.real_cluster import Cluster, Kubectl, run

pytestmark = pytest.mark.timeout(120)
SERVE = "mkdir /w; hostname > /w/index.html; exec httpd -f -p 8080 -h /w"


def pod(name: str, command: list[str], **spec: object) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name.rpartition("-")[0] or name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "busybox", "command": command}],
            **spec,
        },
    }


def apply(kubectl: Kubectl, *objects: object) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def service(name: str, **spec: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def ask(
    address: str, name: str, kind: str = "A", timeout: float = 2.0, source: str = ""
) -> dns.message.Message:
    """One question by UDP, from the host."""
    query = dns.message.make_query(name, kind, use_edns=0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        if source:
            sock.bind((source, 0))
        sock.connect((address, 53))
        sock.send(query.to_wire())
        return dns.message.from_wire(sock.recv(4096))


@pytest.fixture
def address(cluster: Cluster) -> str:
    return cluster.config.dns_addresses[0]


@pytest.fixture
def pods(kubectl: Kubectl) -> Kubectl:
    """Two servers with hostname and subdomain behind a Service and a headless one; a client; one in the node's network."""
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    servers = [pod(f"web-{n}", ["sh", "-c", SERVE], hostname=f"web-{n}", subdomain="peers") for n in (0, 1)]
    sleeping = ["sleep", "100000"]
    apply(
        kubectl,
        service("web", selector={"app": "web"}, ports=ports),
        service("peers", clusterIP="None", selector={"app": "web"}, ports=[{"name": "http", "port": 8080}]),
        service("elsewhere", type="ExternalName", externalName=f"web.{kubectl.namespace}.svc.cluster.local"),
        *servers,
        pod("client", sleeping),
        pod("host", sleeping, hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
    )
    kubectl.wait_ready("web-0", "web-1", "client", "host")
    kubectl.wait_endpoints("web", 2)
    return kubectl


def test_names_in_pods(cluster: Cluster, pods: Kubectl, address: str) -> None:
    namespace = pods.namespace

    def inside(client: str, *command: str) -> str:
        return pods("exec", client, "--", *command)

    assert inside("client", "cat", "/etc/resolv.conf").splitlines()[:2] == [
        f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local",
        f"nameserver {address}",
    ]
    names = (
        "web",
        f"web.{namespace}",
        f"web.{namespace}.svc",
        f"web.{namespace}.svc.cluster.local",
        "elsewhere",
    )
    for client in ("client", "host"):
        for name in names:
            assert inside(client, "wget", "-qO-", f"http://{name}") in ("web-0\n", "web-1\n"), (client, name)
    for n in (0, 1):
        assert inside("client", "wget", "-qO-", f"http://web-{n}.peers:8080") == f"web-{n}\n"
        assert inside(f"web-{n}", "hostname", "-f") == f"web-{n}.peers.{namespace}.svc.cluster.local\n"
    ips = {pods.value(f"pod/web-{n}", ".status.podIP") for n in (0, 1)}
    found = pods.run("exec", "client", "--", "nslookup", f"peers.{namespace}.svc.cluster.local").out
    assert set(re.findall(r"^Address: (\S+)$", found, re.M)) == ips
    # Another namespace's Service by its longer name, and the API's own.
    found = pods.run("exec", "client", "--", "nslookup", "kubernetes.default.svc.cluster.local").out
    assert re.findall(r"^Address: (\S+)$", found, re.M) == [cluster.config.api_service_address]
    reverse = pods.run("exec", "client", "--", "nslookup", pods.value("pod/web-0", ".status.podIP")).out
    assert f"name = web-0.peers.{namespace}.svc.cluster.local" in reverse


def test_a_change_is_answered_at_once(pods: Kubectl, address: str) -> None:
    name = f"peers.{pods.namespace}.svc.cluster.local."
    assert len(ask(address, name).answer[0]) == 2
    pods("delete", "pod", "web-1", "--grace-period=0", "--force")
    pods.wait_endpoints("peers", 1)
    # kubectl, which told of it, is a process and needs many times the 10 ms that there are.
    assert [str(r) for r in ask(address, name).answer[0]] == [pods.value("pod/web-0", ".status.podIP")]


def test_the_service_is_upstreams_and_left_alone_by_the_proxy(cluster: Cluster, address: str) -> None:
    system = cluster.kubectl("kube-system")
    shown = system("get", "service", "kube-dns", "-o", "wide").splitlines()[1].split()
    assert shown[:5] == ["kube-dns", "ClusterIP", address, "<none>", "53/UDP,53/TCP,9153/TCP"]
    assert "kubernetes cluster.local in-addr.arpa ip6.arpa" in system.value(
        "configmap/coredns", ".data.Corefile"
    )
    listed = run(["curl", "-s", "--noproxy", "*", f"http://{address}:9153/metrics"]).out
    assert "coredns_dns_requests_total{" in listed
    # Nothing listens at the host, nor at the node's address.
    assert address not in run(["ss", "-Hlnu"]).out
    assert f"{cluster.node_address}:53 " not in cluster.in_node("ss", "-Hlnut").out


def parts(cluster: Cluster) -> dict[str, dict[str, object]]:
    return {p["name"]: p for p in link.ask(cluster.config.run_directory, "status")["parts"]}


def test_it_comes_back_when_it_is_killed_and_answers_without_the_agent(
    cluster: Cluster, address: str
) -> None:
    """Questions all the while: whoever asks again after a second, as resolvers do, hears no failure."""
    name = "kubernetes.default.svc.cluster.local."
    node = cluster.config.nodes[0]
    part = dns_process.part(node)
    stop = threading.Event()
    longest, answers = 0.0, 0
    failures: list[str] = []

    def questions() -> None:
        nonlocal longest, answers
        while not stop.is_set():
            began = time.monotonic()
            for _ in range(5):
                asked = time.monotonic()
                try:
                    message = ask(address, name, timeout=1.0)
                    break
                except OSError:
                    # Refused at once, it is still asked again after a second only.
                    time.sleep(max(0.0, asked + 1.0 - time.monotonic()))
            else:
                failures.append("no answer to five questions")
                continue
            longest = max(longest, time.monotonic() - began)
            answers += 1
            if message.rcode() or not message.answer:
                failures.append(str(message))

    asking = threading.Thread(target=questions)
    asking.start()
    try:
        for _ in range(3):
            before = parts(cluster)[part]
            os.kill(int(str(before["pid"])), signal.SIGKILL)
            # Who asks now waits for it and is not refused: one question is enough, by UDP as by TCP.
            assert not ask(address, name, timeout=20.0).rcode()
            query = dns.message.make_query(name, "A")
            assert dns.query.tcp(query, address, timeout=20.0).answer
            for status in _statuses(cluster):
                now = {p["name"]: p for p in status["parts"]}[part]
                if now["ready"] and now["pid"] != before["pid"]:
                    break
        agent = parts(cluster)[node]
        os.kill(int(str(agent["pid"])), signal.SIGSTOP)
        try:
            seen = answers
            assert not ask(address, name).rcode()
            while answers < seen + 100 and not failures:
                time.sleep(0.01)
        finally:
            os.kill(int(str(agent["pid"])), signal.SIGCONT)
    finally:
        stop.set()
        asking.join()
    assert not failures
    assert longest < 5


def test_the_sockets_are_there_once_whoever_is_killed(cluster: Cluster, address: str) -> None:
    """With others of the same address beside them, nobody would read what comes to these."""
    directory = cluster.config.run_directory
    part = dns_process.part(cluster.config.nodes[0])
    for victim in ("supervisor", part, part):
        status = link.ask(directory, "status")
        before = status["pid"] if victim == "supervisor" else parts(cluster)[part]["pid"]
        os.kill(int(str(before)), signal.SIGKILL)
        for now in _statuses(cluster):
            shown = {p["name"]: p for p in now["parts"]}[part]
            if shown["ready"] and before not in (now["pid"], shown["pid"]):
                break
        assert not ask(address, "kubernetes.default.svc.cluster.local.", timeout=20.0).rcode()
        lines = cluster.in_node("ss", "-Hlnut").out.splitlines()
        at = [line.split()[0] for line in lines if f" {address}:53 " in line]
        assert sorted(at) == ["tcp"] + ["udp"] * QUEUES


def _statuses(cluster: Cluster) -> Iterator[dict[str, object]]:
    directory = cluster.config.run_directory
    while True:
        try:
            yield from link.follow(directory, 20.0)
        except link.NotRunning:
            await_change(directory, lambda: link.answers(directory), 20.0)


def test_a_flood_from_one_pod_leaves_room_for_others(pods: Kubectl, address: str) -> None:
    """From the pod's own network, as fast as one process can; whoever else asks meanwhile is answered within the time that
    resolvers wait."""
    victim = "kubernetes.default.svc.cluster.local."
    netns = _netns_of(pods, "client")
    flood = ["nsenter", f"--net={netns}", "python3", "-c", _FLOOD, address]
    with subprocess.Popen(flood) as process:
        try:
            ask(address, victim)
            slowest = 0.0
            for _ in range(200):
                began = time.monotonic()
                assert not ask(address, victim, timeout=5.0).rcode()
                slowest = max(slowest, time.monotonic() - began)
            assert process.poll() is None
        finally:
            process.kill()
    assert slowest < 1


_FLOOD = """
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 53))
n = 0
while True:
    name = b"x%d" % n
    s.send(struct.pack("!6H", n & 0xFFFF, 0x0100, 1, 0, 0, 0) + bytes([len(name)]) + name + b"\\7default\\3svc\\7cluster\\5local\\0\\0\\1\\0\\1")
    n += 1
"""


def _netns_of(kubectl: Kubectl, name: str) -> str:
    """The network of a pod, by the address that it has there."""
    ip = kubectl.value(f"pod/{name}", ".status.podIP")
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            text = Path("/proc", entry.name, "net/fib_trie").read_text()
        except OSError:
            continue
        if re.search(rf"-- {re.escape(ip)}\n\s+/32 host LOCAL", text):
            return f"/proc/{entry.name}/ns/net"
    raise AssertionError(f"no process has the address {ip}")


def test_a_corefile_of_the_users_own(cluster: Cluster, address: str) -> None:
    system = cluster.kubectl("kube-system")
    before = system.value("configmap/coredns", ".data.Corefile")
    hosts = "    hosts {\n        192.0.2.99 printer.lan\n        fallthrough\n    }\n"

    def put(text: str) -> None:
        system(
            "patch", "configmap", "coredns", "--type=merge", "-p", json.dumps({"data": {"Corefile": text}})
        )

    try:
        put(before.replace("    errors\n", "    errors\n" + hosts))
        assert str(ask(address, "printer.lan.").answer[0][0]) == "192.0.2.99"
        put(before.replace("    errors\n", "    erratic\n"))
        system.watch("events", "{{.object.message}}", lambda text: "erratic" in text)
        assert str(ask(address, "printer.lan.").answer[0][0]) == "192.0.2.99"
    finally:
        put(before)


def test_headless_services_and_external_names_are_not_warned_of(kubectl: Kubectl) -> None:
    done = kubectl.run("create", "service", "externalname", "e", "--external-name=example.com")
    assert (done.code, done.err) == (0, "")
    done = kubectl.run("create", "service", "clusterip", "h", "--clusterip=None")
    assert (done.code, done.err) == (0, "")


def test_ids_are_the_asked_ones(address: str) -> None:
    """Answers are kept by packet: each still has the number of its own question."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect((address, 53))
        query = dns.message.make_query("kubernetes.default.svc.cluster.local.", "A").to_wire()
        for number in range(100):
            sock.send(struct.pack("!H", number) + query[2:])
            assert sock.recv(4096)[:2] == struct.pack("!H", number)
