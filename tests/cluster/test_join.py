"""Machines that share neither bridge nor file system with the control plane join it through a router that delays and loses.

One cluster and two machines for the whole module: `far` joins in the fixture, `other` is who fails to.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s
from cryptography.x509.oid import NameOID

from sampan.cluster import config as configuration
from sampan.cluster.config import ClusterConfig
from sampan.cluster.supervision import await_change
from tests import real_cluster
from tests.cluster import machines
from tests.cluster.front_door import eventually
from tests.cluster.machines import Machine
from tests.real_cluster import ROOT, SAMPAN, Kubectl, Result, run

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
]

POD = json.dumps(
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "keeper"},
        "spec": {
            "nodeName": "far",
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "c",
                    "image": "localhost/busybox:1",
                    "command": ["sh", "-c", "echo begun; exec sleep 100000"],
                }
            ],
        },
    }
)

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: "localhost/busybox:1", command: [sleep, "100000"]}]
"""


@dataclass
class Join:
    """A cluster that can be joined, and who joins it."""

    config: ClusterConfig
    kubectl: Kubectl
    home: Path
    far: Machine
    other: Machine

    def sampan(self, *arguments: str) -> Result:
        return run(
            [SAMPAN, *arguments, "--name", self.config.name],
            env={"KUBECONFIG": str(self.home / "kubeconfig")},
        )

    def token(self, *options: str) -> dict[str, str]:
        """What `sampan token create` printed, by flag."""
        done = self.sampan("token", "create", *options)
        assert done.code == 0, done.err
        assert done.err.startswith(
            "warning: pods of this machine's nodes and pods of others reach each other only"
        ), "and no other"
        assert done.err.count("\n") == 1
        words = done.out.split()
        assert words[:2] == ["sampan", "node"]
        assert done.out.count("\n") == 1, "one line to paste"
        return dict(zip(words[2::2], words[3::2], strict=True))

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """The machine `far` as a node that has joined already."""
        with self.far.node() as process:
            self.wait_ready()
            yield process

    def wait_ready(self) -> None:
        """Until its server answers: the Node may be Ready still from the process before this one."""
        _until(lambda: self.kubectl.run("exec", "keeper", "--", "true"))

    def value(self, path: str) -> str:
        return self.kubectl.value("pod/keeper", path)


def flags(given: dict[str, str]) -> list[str]:
    return [word for pair in given.items() for word in pair]


@pytest.fixture(scope="module")
def join(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Join]:
    home = tmp_path_factory.mktemp("join")
    name = f"join-{os.getpid()}"
    environment = {"KUBECONFIG": str(home / "kubeconfig")}
    with machines.network(f"join{os.getpid()}", home) as network:
        try:
            done = run([SAMPAN, "up", "--name", name, "--listen", network.host], env=environment)
            assert done.code == 0, done.err
            config = configuration.existing(name)
            made = Join(
                config,
                Kubectl(config.directory / "kubeconfig", "default"),
                home,
                network.machine("far"),
                network.machine("other"),
            )
            with made.far.node(
                *flags(made.token()), "--label", "example.com/place=far", "--taint", "far=:NoExecute"
            ):
                made.kubectl.watch(
                    "nodes", "{{.object.metadata.name}} {{range .object.status.conditions}}{{.type}}={{.status}} {{end}}",
                    lambda text: text.startswith("far ") and "Ready=True" in text,
                )  # fmt: skip
                built = made.far.sampan("image", "build", str(ROOT / "images/busybox"))
                assert built.code == 0, built.err
                made.kubectl("taint", "node", "far", "far-")
                made.kubectl("apply", "-f", "-", stdin=POD)
                made.kubectl.wait_ready("keeper")
            yield made
        finally:
            run([SAMPAN, "delete", "--name", name], env=environment)


def test_a_pod_runs_there_and_the_api_reaches_it(join: Join) -> None:
    with join.running():
        node = json.loads(join.kubectl("get", "node", "far", "-o", "json"))
        assert node["metadata"]["labels"]["example.com/place"] == "far"
        assert {"type": "InternalIP", "address": join.far.address} in node["status"]["addresses"]
        ranges = [
            n["spec"]["podCIDR"] for n in json.loads(join.kubectl("get", "nodes", "-o", "json"))["items"]
        ]
        assert len(set(ranges)) == 2
        assert join.value(".status.podIP").rpartition(".")[0] == node["spec"]["podCIDR"].rpartition(".")[0]
        assert join.value(".status.hostIP") == join.far.address
        eventually(lambda: join.kubectl("logs", "keeper"), "begun\n".__eq__)
        assert join.kubectl("exec", "keeper", "--", "hostname") == "keeper\n"
        found = join.kubectl(
            "exec", "keeper", "--", "nslookup", "kubernetes.default.svc.cluster.local"
        ).splitlines()
        assert f"Address: {join.config.api_service_address}" in found
    pki = join.far.state("_node", "pki")
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in pki.glob("*.pem")} == {
        "kubelet-client.pem": 0o600,
        "kubelet-server.pem": 0o600,
    }
    assert stat.S_IMODE(join.far.state("_node").stat().st_mode) == 0o700
    signed = join.kubectl(
        "get", "csr", "-o", "jsonpath={range .items[*]}{.spec.username} {.spec.signerName}{'\\n'}{end}"
    )
    assert "system:node:far kubernetes.io/kubelet-serving" in signed
    # Anonymous, as in kubeadm's clusters.
    shown = real_cluster.curl(
        f"{join.config.server}/api/v1/namespaces/kube-public/configmaps/cluster-info", "--insecure"
    )
    assert "jws-kubeconfig-" in shown.out


def test_who_may_not_join_is_told_why(join: Join) -> None:
    good = join.token("--description", "for the test")

    def refused(**changed: str) -> str:
        given = {**good, **{f"--{k.replace('_', '-')}": v for k, v in changed.items()}}
        done = join.other.sampan("node", *flags(given))
        assert done.code == 1, done.out
        assert done.err.count("\n") == 1, done.err
        assert not list(join.other.state().iterdir()), "nothing is left"
        return done.err

    wrong = "sha256:" + "0" * 64
    said = refused(ca_hash=wrong)
    assert f"has {good['--ca-hash']}, not {wrong}" in said
    assert "this is not the cluster" in said
    assert "was not signed with this token" in refused(token=good["--token"][:-16] + "0" * 16)
    assert "cannot be reached" in refused(join="https://127.255.255.1:1")
    assert 'a Node with name "node-1" and status "Ready" already exists' in refused(name="node-1")
    said = refused(
        token="short", ca_hash="md5:0", join="http://x", name="Not A Name", taint="x", label="y", address="z"
    )
    for part in ("--token: not of the form", "--ca-hash: 'md5:0'", "--join 'http://x'", "--name 'Not A Name'", "--taint 'x'",
                 "--label 'y'", "--address 'z'"):  # fmt: skip
        assert part in said, "all at once"
    assert "kubectl label node" in refused(label="node-role.kubernetes.io/x=y")
    # A token ends: by its time, and by hand.
    listed = join.sampan("token", "list").out.splitlines()
    assert [line.split()[0] for line in listed if "for the test" in line] == [good["--token"]]
    short = join.token("--ttl", "1s")["--token"]
    join.kubectl(
        "wait",
        "--for=delete",
        f"secret/bootstrap-token-{short[:6]}",
        "--namespace=kube-system",
        "--timeout=20s",
    )
    assert f"knows no token {short[:6]}: it has expired or was deleted" in refused(token=short)
    assert (
        join.sampan("token", "delete", good["--token"][:6]).out
        == f'bootstrap token "{good["--token"][:6]}" deleted\n'
    )
    assert "it has expired or was deleted" in refused()
    assert "is no duration" in join.sampan("token", "create", "--ttl", "soon").err
    never = join.other.sampan("node")
    assert "this machine has not joined a cluster" in never.err


def test_containers_live_through_the_node_process(join: Join) -> None:
    container = join.value(".status.containerStatuses[0].containerID")
    with join.running() as process:
        again = join.far.sampan("node")
        assert "runs already" in again.err
        process.send_signal(signal.SIGKILL)
        process.wait()
    with join.running():
        # Whoever asks through the API reaches the container that was there before.
        assert join.kubectl("exec", "keeper", "--", "cat", "/proc/1/cmdline").startswith("sleep")
        assert join.value(".status.containerStatuses[0].containerID") == container
        assert join.value(".status.containerStatuses[0].restartCount") == "0"
    other = join.far.sampan("node", "--join", "https://192.0.2.1:6443", "--name", "x")
    assert "--join is https://" in other.err
    assert "--name is far and cannot become x" in other.err


def test_it_comes_back_while_the_cluster_is_away(join: Join) -> None:
    container = join.value(".status.containerStatuses[0].containerID")
    assert join.sampan("stop").code == 0
    with join.far.node():
        up = join.sampan("up")
        assert up.code == 0, up.err
        join.wait_ready()
        assert join.value(".status.containerStatuses[0].containerID") == container
        assert join.value(".status.containerStatuses[0].restartCount") == "0"


def test_certificates_are_renewed_before_they_end(join: Join) -> None:
    """Both are replaced by such as have but a tenth of their life left: they are renewed at once, with no token."""
    pki = join.far.state("_node", "pki")
    files = [pki / "kubelet-client.pem", pki / "kubelet-server.pem"]
    for file in files:
        file.write_bytes(_aged(join.config.directory / "pki", file.read_bytes()))
    old = [file.read_bytes() for file in files]
    with join.running():
        await_change(pki, lambda: all(f.read_bytes() != o for f, o in zip(files, old, strict=True)), 30)
        for file in files:
            left = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc - _now()
            assert left > datetime.timedelta(days=300)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        # What the node serves is served anew, with the new certificate, in a moment.
        assert _until(lambda: join.kubectl.run("exec", "keeper", "--", "hostname")) == "keeper\n"


def test_a_certificate_that_has_ended_needs_a_token(join: Join) -> None:
    file = join.far.state("_node", "pki", "kubelet-client.pem")
    good = file.read_bytes()
    try:
        file.write_bytes(_aged(join.config.directory / "pki", good, left=-60))
        done = join.far.sampan("node")
    finally:
        file.write_bytes(good)
    assert "has ended" in done.err
    assert "sampan token create" in done.err


def test_another_address_is_followed(join: Join) -> None:
    old, new = join.far.address, join.far.address[:-1] + "9"
    with join.running():
        script = (
            f"ip addr add {new}/24 dev eth0; ip addr del {old}/24 dev eth0; ip addr add {new}/24 dev eth0 2>/dev/null;"
            f" ip route replace default via {join.far.gateway}"
        )
        join.far.run("sh", "-c", script)
        join.kubectl.wait(
            "node/far", f'jsonpath={{.status.addresses[?(@.type=="InternalIP")].address}}={new}', timeout=30
        )
        # The server has a certificate for the new address by now, or in a moment.
        join.kubectl.watch(
            "csr", "{{.object.spec.signerName}} {{.object.spec.username}} {{len .object.status}}", lambda text: "serving" in text
        )  # fmt: skip
        assert _until(lambda: join.kubectl.run("exec", "keeper", "--", "hostname")) == "keeper\n"
        join.kubectl.wait("pod/keeper", f"jsonpath={{.status.hostIP}}={new}", timeout=10)
        # The kernel has taken the route to the pod with the address that it named.
        assert f"src {new}" in join.far.run("ip", "route", "get", join.value(".status.podIP")).out
        assert join.value(".status.containerStatuses[0].restartCount") == "0"


def test_nodes_of_this_machine_come_and_go(join: Join) -> None:
    added = [join.sampan("node", "add") for _ in range(2)]
    assert [a.out.splitlines()[-1] for a in added] == ["node-2 is Ready", "node-3 is Ready"], added
    join.kubectl("cordon", "far")  # which is not running
    join.kubectl("apply", "-f", "-", stdin=WEB)
    built = join.sampan("image", "build", str(ROOT / "images/busybox"))
    assert built.code == 0, built.err
    join.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    join.kubectl(
        "run", "alone", "--image=localhost/busybox:1", "--restart=Never",
        '--overrides={"spec":{"nodeName":"node-2","terminationGracePeriodSeconds":0}}', "--", "sleep", "100000",
    )  # fmt: skip
    join.kubectl.wait_ready("alone")
    refused = join.sampan("node", "remove", "node-2")
    assert "default/alone" in refused.err
    assert "--force" in refused.err
    done = join.sampan("node", "remove", "node-2", "--force")
    assert done.out.splitlines()[-1] == "node-2 is removed", done.err
    nodes = json.loads(join.kubectl("get", "nodes", "-o", "json"))["items"]
    ranges = {n["metadata"]["name"]: n["spec"]["podCIDR"] for n in nodes}
    config = configuration.existing(join.config.name)
    assert config.nodes == ("node-1", "node-3")
    assert ranges["node-3"] == config.node_pod_cidr("node-3"), "what follows from its number stays"
    assert not config.node_netns("node-2").exists()
    assert not config.node_directory("node-2").exists()
    assert config.node_host_link("node-2") not in run(["ip", "link"]).out
    assert config.node_pod_cidr("node-2") not in run(["ip", "route"]).out
    join.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert "node-1 cannot be removed: this host reaches" in join.sampan("node", "remove", "node-1").err
    assert "has no node 'nobody'" in join.sampan("node", "remove", "nobody").err
    assert join.sampan("status").code == 0
    again = join.sampan("node", "add")
    assert again.out.splitlines()[-1] == "node-2 is Ready", "the number that is free"


def test_reset_leaves_no_trace(join: Join) -> None:
    """The last one: `far` is no node afterwards."""
    with join.running():
        assert "runs already" in join.far.sampan("node", "reset").err
    removed = join.sampan("node", "remove", "far", "--force")
    lines = removed.out.splitlines()
    assert lines[0] == "evicting pod default/keeper"
    assert lines[-1] == "far is removed; run `sampan node reset` on its machine"
    done = join.far.sampan("node", "reset")
    assert done.out.splitlines()[-1].endswith("kubectl delete node far"), done.err
    assert not list(join.far.state().iterdir())
    assert join.far.run("nft", "list", "tables").out == ""
    links = json.loads(join.far.run("ip", "-j", "link").out)
    assert {link["ifname"] for link in links} == {"lo", "eth0"}
    assert join.far.run("ip", "-4", "-o", "addr", "show", "lo").out.count("\n") == 1
    assert len(join.far.run("ip", "route").out.splitlines()) == 2, "its network and the way out"
    assert "_node" not in join.far.run("cat", "/proc/self/mountinfo").out
    assert not Path("/sys/fs/cgroup/unified/sampan/_node/far").exists()
    assert "has not joined" in join.far.sampan("node", "reset").out


def _until(ask: object) -> str:
    """The output of a command once it succeeds, tried a few times: what it needs is there in some moments."""
    assert callable(ask)
    done: Result = ask()
    for _ in range(40):
        if done.code == 0:
            break
        done = ask()
    assert done.code == 0, done.err
    return done.out


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _aged(pki: Path, pem: bytes, left: int = 600) -> bytes:
    """The certificate (with its key) as the cluster's authority would have made it an hour and a half ago."""
    key = s.load_pem_private_key(pem, None)
    old = x509.load_pem_x509_certificate(pem)
    authority = x509.load_pem_x509_certificate((pki / "ca.crt").read_bytes())
    authority_key = s.load_pem_private_key((pki / "ca.key").read_bytes(), None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(authority.subject)
        .public_key(key.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - datetime.timedelta(hours=2))
        .not_valid_after(_now() + datetime.timedelta(seconds=left))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    assert old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:far"
    made = builder.sign(authority_key, hashes.SHA256())  # type: ignore[arg-type]
    return made.public_bytes(s.Encoding.PEM) + key.private_bytes(
        s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()
    )
