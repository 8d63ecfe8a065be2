"""NetworkPolicies on two nodes, as packets of real containers see them."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sampan.cluster import config as configuration
from tests.cluster.test_lifecycle import ROOT, pids
from tests.cluster.test_lifecycle import pytestmark as pytestmark
from tests.real_cluster import Cluster, Kubectl, curl, fetch, sampan

SERVER = """
import socket, threading
name = (socket.gethostname() + "\\n").encode()

def serve(c):
    with c:
        if c.recv(1000):
            c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + name)

def serve_udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 9090))
    while True:
        s.sendto(name, s.recvfrom(100)[1])

threading.Thread(target=serve_udp, daemon=True).start()
listener = socket.create_server(("", 8080))
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
"""
"""What the pods run: their name over HTTP and UDP, to many at a time."""

ASK = """
import socket, sys, threading

def ask(target):
    host, port, protocol = target.split("/")
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    try:
        with socket.socket(socket.AF_INET, kind) as s:
            s.settimeout(0.5)
            s.connect((host, int(port)))
            s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            said = b""
            while more := s.recv(1000):
                said += more
                if kind == socket.SOCK_DGRAM:
                    break
            return said.split()[-1].decode()
    except OSError:
        return "-"

def tell(target):
    answers[target] = ask(target)

answers = {}
threads = [threading.Thread(target=tell, args=[t]) for t in sys.argv[1:]]
for t in threads: t.start()
for t in threads: t.join()
print(*(answers[t] for t in sys.argv[1:]))
"""
LATE = """
import socket, sys
got = 0
for _ in range(10):
    try:
        socket.create_connection((sys.argv[1], 8080), timeout=0.1).close()
        got += 1
    except OSError:
        pass
print(got, "of 10", flush=True)
"""
TIMED_OUT = 28
PODS = {"near": "node-1", "far": "node-2"}


def _pod(name: str, node: str, command: list[str], **labels: str) -> str:
    server: dict[str, object] = {
        "name": "c", "image": "training/webapp", "command": command,
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "echo", "containerPort": 9090, "protocol": "UDP"}],
    }  # fmt: skip
    if name == "server":
        probe = {"httpGet": {"port": "http"}, "periodSeconds": 1}
        server |= {"readinessProbe": {**probe, "failureThreshold": 1}, "livenessProbe": probe}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 0,
        "restartPolicy": "Never",
        "containers": [server],
    }
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    )


class Scene:
    """A server `back/server` on the first node; pods `near` and `far` (on the second node) in `front` and `back`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.front, self.back = cluster.kubectl("front"), cluster.kubectl("back")
        for kubectl in (self.front, self.back):
            cluster.make_namespace(kubectl.namespace)
            for name, node in PODS.items():
                command = ["python3", "-c", SERVER]
                kubectl("apply", "-f", "-", stdin=_pod(name, node, command, pod=name))
        self.front("label", "namespace", "front", "team=front")
        self.back("apply", "-f", "-", stdin=_pod("server", "node-1", ["python3", "-c", SERVER], app="server"))
        self.back(
            "create", "-f", "-",
            stdin='{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"selector":{"app":"server"},'
            '"ports":[{"port":80,"targetPort":"http"}]}}',
        )  # fmt: skip
        for kubectl in (self.front, self.back):
            kubectl.wait("pod", "condition=Ready", "--all")
        self.server = self.back.value("pod/server", ".status.podIP")
        self.service = self.back.value("service/web", ".spec.clusterIP")
        self.back.wait_endpoints("web", 1)

    def policy(self, kubectl: Kubectl, name: str, spec: str) -> None:
        kubectl("apply", "-f", "-", stdin=f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n")  # fmt: skip

    def rules(self) -> list[str]:
        """Of the first node; sets and maps come in any order."""
        shown = self.cluster.in_node("nft", "-s", "list", "table", "ip", "sampan-policy").out
        return sorted(shown.splitlines())

    def ask(self, kubectl: Kubectl, pod: str, *targets: str) -> list[str]:
        return kubectl("exec", pod, "--", "python3", "-c", ASK, *targets).split()

    def expect(self, kubectl: Kubectl, pod: str, expected: dict[str, str]) -> None:
        """What a pod gets from each target (`HOST/PORT/tcp`), "-" for nothing. A node follows a moment after kubectl returned."""
        for _ in range(10):
            seen = dict(zip(expected, self.ask(kubectl, pod, *expected), strict=True))
            if seen == expected:
                return
        raise AssertionError(f"{kubectl.namespace}/{pod} got {seen}, not {expected}")

    def expect_each(self, callers: list[tuple[Kubectl, str]], expected: dict[str, str]) -> None:
        """The same of several pods."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda caller: self.expect(caller[0], caller[1], expected), callers))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    name, config = f"t{os.getpid()}np", tmp_path_factory.mktemp("policy") / "kubeconfig"
    try:
        sampan("up", "--name", name, "--nodes", "2", kubeconfig=config)
        sampan("image", "build", str(ROOT / "images/webapp"), "--name", name, kubeconfig=config)
        yield Scene(Cluster(configuration.existing(name)))
    finally:
        if configuration.load(name) is not None:
            sampan("delete", "--name", name, kubeconfig=config)


@pytest.fixture(autouse=True)
def without_policies(scene: Scene) -> Iterator[None]:
    yield
    for kubectl in (scene.front, scene.back):
        kubectl("delete", "networkpolicies", "--all", "--wait=false")


def test_default_deny_keeps_others_out_and_not_the_node(scene: Scene) -> None:
    direct, service, echo = f"{scene.server}/8080/tcp", f"{scene.service}/80/tcp", f"{scene.server}/9090/udp"
    everything = {direct: "server", service: "server", echo: "server"}
    callers = [(kubectl, name) for kubectl in (scene.front, scene.back) for name in PODS]
    scene.expect_each(callers, everything)
    with socket.create_connection((scene.server, 8080), timeout=10) as open_before:
        scene.policy(scene.back, "deny", "{podSelector: {}}")
        scene.expect_each(callers, dict.fromkeys(everything, "-"))
        open_before.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with open_before.makefile("rb") as answer:
            assert answer.read().endswith(b"server\n"), "a connection that is there stays"
    assert scene.ask(scene.back, "server", direct, service) == ["server", "server"], "a pod reaches itself"
    # The node's own probes: whoever is asked each second and has not failed once since.
    by_node = scene.cluster.in_node("curl", "-s", "--noproxy", "*", "-m", "5", f"http://{scene.server}:8080/")
    assert by_node.out == "server\n"
    assert scene.back.value("pod/server", ".status.conditions[?(@.type=='Ready')].status") == "True"
    assert scene.back.value("pod/server", ".status.containerStatuses[0].restartCount") == "0"
    # Egress is not what this policy is about.
    near = scene.front.value("pod/near", ".status.podIP")
    assert scene.ask(scene.back, "far", f"{near}/8080/tcp") == ["near"]
    assert scene.back("get", "networkpolicy").split()[3:5] == ["deny", "<none>"]


def test_allowed_by_namespace_and_by_the_name_of_a_port(scene: Scene) -> None:
    direct, service, echo = f"{scene.server}/8080/tcp", f"{scene.service}/80/tcp", f"{scene.server}/9090/udp"
    scene.policy(
        scene.back,
        "team",
        "{podSelector: {matchLabels: {app: server}},"
        " ingress: [{from: [{namespaceSelector: {matchLabels: {team: front}}}], ports: [{port: http}]}]}",
    )
    front, back = ([(kubectl, name) for name in PODS] for kubectl in (scene.front, scene.back))
    scene.expect_each(front, {direct: "server", service: "server", echo: "-"})
    scene.expect_each(back, {direct: "-", service: "-", echo: "-"})
    scene.policy(scene.back, "more", "{podSelector: {}, ingress: [{ports: [{port: 9090, protocol: UDP}]}]}")
    scene.expect(scene.back, "far", {direct: "-", echo: "server"})
    scene.expect(scene.front, "far", {direct: "server", echo: "server"})
    scene.front("label", "namespace", "front", "team=other", "--overwrite")
    scene.expect(scene.front, "near", {direct: "-", echo: "server"})
    scene.front("label", "namespace", "front", "team=front", "--overwrite")
    scene.expect(scene.front, "near", {direct: "server", echo: "server"})
    scene.back("label", "pod", "server", "app=gone", "--overwrite")
    scene.expect(scene.back, "far", {direct: "-", echo: "server"})
    scene.back("label", "pod", "server", "app=server", "--overwrite")


def test_what_leaves_a_pod(scene: Scene) -> None:
    far = f"{scene.back.value('pod/far', '.status.podIP')}/8080/tcp"
    scene.policy(
        scene.front,
        "out",
        "{podSelector: {matchLabels: {pod: near}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector:"
        " {matchLabels: {kubernetes.io/metadata.name: back}}, podSelector: {matchLabels: {app: server}}}],"
        " ports: [{port: 8080}]}]}",
    )
    expected = {
        f"{scene.server}/8080/tcp": "server", f"{scene.service}/80/tcp": "server", "web.back/80/tcp": "server",
        f"{scene.server}/9090/udp": "-", far: "-",
    }  # fmt: skip
    scene.expect(scene.front, "near", expected)
    assert scene.ask(scene.front, "far", far) == ["far"]


def test_a_pod_is_never_open_before_its_policy_holds(scene: Scene) -> None:
    scene.policy(scene.front, "late", "{podSelector: {matchLabels: {app: late}}, policyTypes: [Egress]}")
    command = ["python3", "-c", LATE, scene.server]
    for node in ("node-1", "node-2"):
        scene.front("apply", "-f", "-", stdin=_pod(f"late-{node}", node, command, app="late"))
    for node in ("node-1", "node-2"):
        scene.front.wait(f"pod/late-{node}", "jsonpath={.status.phase}=Succeeded")
        assert scene.front("logs", f"late-{node}") == "0 of 10\n"
    scene.front("apply", "-f", "-", stdin=_pod("free", "node-1", command, app="free"))
    scene.front.wait("pod/free", "jsonpath={.status.phase}=Succeeded")
    assert scene.front("logs", "free") == "10 of 10\n"


def test_rules_outlive_the_nodes_process_and_changes_are_caught_up(scene: Scene) -> None:
    direct = f"{scene.server}/8080/tcp"
    scene.policy(scene.back, "deny", "{podSelector: {}}")
    scene.expect(scene.front, "far", {direct: "-"})
    for _ in range(2):
        os.kill(pids(scene.cluster.name)["sampan-node-1"], signal.SIGKILL)
        for _ in range(2):
            assert scene.ask(scene.front, "far", direct) == ["-"]
    os.kill(pids(scene.cluster.name)["sampan-node-1"], signal.SIGKILL)
    scene.back("delete", "networkpolicy", "deny")
    scene.expect(scene.front, "far", {direct: "server"})


def test_what_somebody_else_flushes_is_whole_again(scene: Scene) -> None:
    direct = f"{scene.server}/8080/tcp"
    scene.policy(scene.back, "deny", "{podSelector: {}}")
    scene.expect(scene.front, "far", {direct: "-"})
    before = scene.rules()
    for command in (
        ("flush", "ruleset"),
        ("flush", "chain", "ip", "sampan-policy", "forward"),
        ("flush", "map", "ip", "sampan-policy", "ingress"),
        ("delete", "table", "ip", "sampan-policy"),
    ):
        assert scene.cluster.in_node("nft", *command).code == 0
        scene.expect(scene.front, "far", {direct: "-"})
        assert scene.rules() == before


def test_from_outside_by_a_node_port(scene: Scene) -> None:
    """The client is this machine, at the bridge's address: a policy sees it where the pod is on the node that was asked."""
    scene.back(
        "expose", "pod", "server", "--name=outer", "--port=80", "--target-port=8080", "--type=NodePort"
    )
    port = int(scene.back.value("service/outer", ".spec.ports[0].nodePort"))
    scene.back.wait_endpoints("outer", 1)
    here = scene.cluster.config.bridge_address
    first = scene.cluster.node_address
    assert fetch(f"http://{first}:{port}/") == "server\n"
    scene.policy(
        scene.back, "others", f"{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [{here}/32]}}}}]}}]}}",
    )  # fmt: skip
    scene.expect(scene.front, "far", {f"{scene.server}/8080/tcp": "server"})
    assert curl(f"http://{first}:{port}/", "--max-time", "1").code == TIMED_OUT
    scene.policy(
        scene.back,
        "others",
        f"{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {here}/32}}}}]}}]}}",
    )
    scene.expect(scene.front, "far", {f"{scene.server}/8080/tcp": "-"})
    assert fetch(f"http://{first}:{port}/") == "server\n"
