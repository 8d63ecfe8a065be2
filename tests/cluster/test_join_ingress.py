"""A machine that joined is a front door of the cluster where its owner lets it: HAProxy on the machine's own address."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sampan.api.front_doors import FRONT_DOORS
from tests.cluster import machines
from tests.cluster.front_door import NEEDED, FrontDoor, ask, eventually, outside, started, until
from tests.cluster.machines import Machine
from tests.real_cluster import curl, sampan

pytestmark = NEEDED
SERVES = '.status.conditions[?(@.type=="IngressServing")]'


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hello(address: str) -> Iterator[int]:
    """A server that is no pod, so that no image is needed; its port."""
    with ThreadingHTTPServer((address, 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class Owner:
    """Of a cluster, and of the machine `edge`."""

    def __init__(self, door: FrontDoor, home: Path, edge: Machine) -> None:
        self.door, self.edge = door, edge
        self._kubeconfig = home / "kubeconfig"
        self.kubectl = door.cluster.kubectl("kube-system")

    def sampan(self, *arguments: str) -> str:
        return sampan(*arguments, "--name", self.door.cluster.name, kubeconfig=self._kubeconfig)

    def token(self, *options: str) -> list[str]:
        """What is to be pasted on the machine, without `sampan node`."""
        return shlex.split(self.sampan("token", "create", *options))[2:]

    def led_to(self) -> list[str]:
        selector = "kubernetes.io/service-name=sampan-ingress"
        return sorted(
            self.kubectl("get", "endpointslice", "-l", selector, "-o", "jsonpath={..nodeName}").split()
        )

    def refused(self, *arguments: str) -> str:
        """Why the machine is not what it is told to be, one line."""
        done = self.edge.sampan("node", *arguments)
        assert (done.code, done.err.count("\n")) == (1, 1), done.out + done.err
        return done.err

    @property
    def pki(self) -> Path:
        return self.door.cluster.config.directory / "pki"

    def choose(self, nodes: str) -> None:
        """Think again, which counts from the next start on."""
        self.sampan("stop")
        self.sampan("up", "--ingress-nodes", nodes)

    def listening(self) -> str:
        """At the front door's ports, a line each."""
        return self.edge.run("ss", "-Htln", "sport = :80 or sport = :443 or sport = :9145").out


def test_a_machine_is_a_front_door_where_its_owner_lets_it(tmp_path: Path) -> None:
    name = f"pytest-edge-{os.getpid()}"
    with (
        machines.network(f"edge{os.getpid()}", tmp_path, delay=0.0, loss=0.0) as network,
        hello(network.host) as port,
        started(tmp_path, name, "--listen", network.host, image="") as cluster,
    ):
        door = FrontDoor(cluster, "default")
        owner = Owner(door, tmp_path, network.machine("edge"))
        door.apply(
            *outside("web", network.host, port),
            door.ingress("web", [("foo.org", "/", "Prefix", "web")], annotations={"sampan.io/tls": "local"}),
        )
        plain, allowing = owner.token(), owner.token("--ingress")
        assert plain[-1] != "--ingress"
        assert allowing[-1] == "--ingress", "it is pasted with the rest"
        taken = 'a Node with name "node-1" and status "Ready" already exists'
        assert taken in owner.refused(*allowing, "--name", "node-1")
        joins_plainly(owner, plain)
        becomes_one(owner, allowing)
        loses_the_right(owner, allowing)
        leaves(owner)


def joins_plainly(owner: Owner, plain: list[str]) -> None:
    edge = owner.edge
    how = "sampan token create --ingress"
    said = owner.refused(*plain, "--ingress")
    assert "--ingress: this token does not allow a front door" in said
    assert how in said
    assert not list(edge.state().iterdir()), "nothing is left"
    with edge.node(*plain):
        owner.kubectl.wait("node/edge", "create")
        owner.kubectl.wait("node/edge", "condition=Ready")
        assert owner.listening() == "", "nothing that was not asked for"
    assert how in owner.refused("--ingress"), "the token was another one"
    assert how in owner.refused(*plain, "--ingress")


def becomes_one(owner: Owner, allowing: list[str]) -> None:
    edge = owner.edge
    with edge.node(*allowing):
        until(edge.address, "foo.org", "/", "200 hello")
        certified = "--cacert", owner.sampan("ca").strip()
        until(edge.address, "foo.org", "/", "200 hello", *certified, scheme="https")
        eventually(owner.led_to, lambda nodes: nodes == ["edge", "node-1"])
        number = owner.kubectl.value("service/sampan-ingress", ".spec.ports[0].nodePort")
        by_number = f"http://{edge.address}:{number}/", "-H", "Host: foo.org", "-m", "2"
        eventually(lambda: curl(*by_number).out, lambda body: body == "hello")
        routes = edge.sampan("ingress", "routes")
        assert "default/web" in routes.out, routes.err
        # The owner thinks again.
        owner.choose("node-1")
        eventually(owner.listening, lambda found: not found)
        eventually(owner.led_to, lambda nodes: nodes == ["node-1"])
        owner.kubectl.wait("node/edge", "condition=IngressServing=False")
        assert "--ingress-nodes" in owner.kubectl.value("node/edge", f"{SERVES}.message")
        owner.choose("all")
        until(edge.address, "foo.org", "/", "200 hello")
        eventually(owner.led_to, lambda nodes: nodes == ["edge", "node-1"])
        at = sorted(line.split()[3] for line in owner.listening().splitlines())
        assert at == sorted([f"{edge.address}:80", f"{edge.address}:443", "127.0.0.1:9145"])


def loses_the_right(owner: Owner, allowing: list[str]) -> None:
    """Its certificate is renewed while it runs, and the owner took the right back."""
    edge = owner.edge
    owner.kubectl("delete", "clusterrolebinding", f"{FRONT_DOORS}:autoapprove-certificate-rotation")
    renewed_soon(edge.state("_node", "pki", "kubelet-client.pem"), owner.pki)
    with edge.node():
        eventually(owner.led_to, lambda nodes: nodes == ["node-1"])
        eventually(owner.listening, lambda found: not found)
        assert owner.kubectl.value("node/edge", SERVES) == ""
        assert "its certificate does not say any more" in edge.log()
        owner.kubectl.wait("node/edge", "condition=Ready")
    with edge.node(*allowing):
        until(edge.address, "foo.org", "/", "200 hello")
        eventually(owner.led_to, lambda nodes: nodes == ["edge", "node-1"])


def renewed_soon(file: Path, authority: Path) -> None:
    """Sign a node's certificate anew, so that it is near its end: whoever has it asks for another one at once."""
    had = file.read_bytes()
    certificate = x509.load_pem_x509_certificate(had)
    signer = x509.load_pem_x509_certificate((authority / "ca.crt").read_bytes())
    key = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        signer.subject, certificate.subject, certificate.public_key(), x509.random_serial_number(),
        now - datetime.timedelta(minutes=90), now + datetime.timedelta(minutes=10), list(certificate.extensions),
    )  # fmt: skip
    signed = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    file.write_bytes(signed + had[had.index(b"-----BEGIN PRIVATE KEY") :])


@contextmanager
def occupied(edge: Machine) -> Iterator[None]:
    """Somebody else has port 80 of the machine."""
    code = "import socket, time; s = socket.create_server(('', 80)); print(flush=True); time.sleep(1000)"
    with subprocess.Popen(edge.command(sys.executable, "-c", code), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def leaves(owner: Owner) -> None:
    edge = owner.edge
    assert ask(edge.address, "foo.org").status == "200", "as its containers, it goes on"
    with edge.node("--no-ingress"):
        eventually(lambda: owner.kubectl.value("node/edge", SERVES), lambda told: not told)
        assert owner.listening() == ""
        eventually(owner.led_to, lambda nodes: nodes == ["node-1"])
    with ExitStack() as until_then:
        until_then.enter_context(occupied(edge))
        with edge.node("--ingress"):  # its certificate still says that it may
            owner.kubectl.wait("node/edge", "condition=IngressServing=False")
            assert "Address already in use" in owner.kubectl.value("node/edge", f"{SERVES}.message")
            until_then.close()
            until(edge.address, "foo.org", "/", "200 hello")
    owner.sampan("node", "remove", "edge")
    eventually(owner.led_to, lambda nodes: nodes == ["node-1"])
    assert edge.sampan("node", "reset").code == 0
    assert owner.listening() == ""
    assert not list(edge.state().iterdir())
    links = json.loads(edge.run("ip", "-j", "link").out)
    assert {link["ifname"] for link in links} == {"lo", "eth0"}
