"""The parts of a control plane one by one, as commands: on one etcd, two of a kind, and one of them goes."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from sampan.api.errors import Object
from sampan.api.resources import DEPLOYMENTS, LEASES, NODES, PODS
from sampan.client.https import HttpsClient
from sampan.client.informer import Informer
from tests.apiserver.conftest import KEY
from tests.cluster.test_etcd_apiservers import deployment
from tests.cluster.test_lifecycle import SAMPAN
from tests.store.real_etcd import Etcd, free_port
from tests.transport.authority import Authority

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed"),
]


class Commands:
    """Parts that run; what each says comes line by line."""

    def __init__(self) -> None:
        self.running: list[Process] = []

    async def start(self, said: bytes, *arguments: str | Path) -> Process:
        """Run a part; returns once it has `said` something (b"": at once)."""
        process = await asyncio.create_subprocess_exec(SAMPAN, *map(str, arguments), stderr=PIPE)
        self.running.append(process)
        if said:
            await self.until(process, said)
        return process

    async def until(self, process: Process, said: bytes) -> None:
        assert process.stderr is not None
        seen = []
        async with asyncio.timeout(30):
            while said not in (line := await process.stderr.readline()):
                seen.append(line)
                assert line, b"".join(seen).decode()

    async def end(self) -> None:
        for process in self.running:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def until(informer: Informer, holds: Callable[[list[Object]], bool]) -> None:
    changed = asyncio.Event()
    informer.add_handler(lambda old, new: changed.set())
    async with asyncio.timeout(40):
        while not holds(informer.list()):
            changed.clear()
            await changed.wait()


def kubeconfig(directory: Path, ca: Path, port: int, user: tuple[Path, Path]) -> Path:
    file = directory / "kubeconfig"
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(ca)}
    content: dict[str, Any] = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"client-certificate": str(user[0]), "client-key": str(user[1])}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **content}))
    return file


async def test_each_part_by_itself(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ca = authority.certificate
    server, server_key = authority.issue("kube-apiserver")
    (tmp_path / "sa.key").write_bytes(KEY)
    (tmp_path / "ca.key").write_bytes(
        authority.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    port = free_port()
    file = kubeconfig(tmp_path, ca, port, authority.issue("admin", ["system:masters"]))
    etcd = Etcd(tmp_path / "etcd")
    await etcd.start()
    parts = Commands()
    serving = (
        b"serving the API",
        *("apiserver", "--store", etcd.endpoint.replace("http://", "etcd://")),
        *("--tls-cert-file", server, "--tls-private-key-file", server_key, "--client-ca-file", ca),
        *("--service-account-signing-key-file", tmp_path / "sa.key"),
        *("--advertise-address", "192.0.2.1", "--bind-address", "127.0.0.1", "--secure-port", str(port)),
        "--permit-port-sharing",
    )
    control = (
        *("controllers", "--kubeconfig", file, "--root-ca-file", ca),
        *("--service-account-private-key-file", tmp_path / "sa.key"),
        *("--cluster-signing-cert-file", ca, "--cluster-signing-key-file", tmp_path / "ca.key"),
    )
    client = HttpsClient.from_kubeconfig(file)
    pods = Informer(client, PODS, "default")
    following = asyncio.create_task(pods.run())
    try:
        first = await parts.start(*serving)
        await parts.start(*serving)
        leading = await parts.start(b"leads as kube-controller-manager", *control)
        waiting = await parts.start(b"", *control)
        await parts.start(b"leads as kube-scheduler", "scheduler", "--kubeconfig", file)

        await client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
        capacity = {"cpu": "4", "memory": "8Gi", "pods": "110"}
        ready = [{"type": "Ready", "status": "True", "reason": "r", "message": "m"}]
        status = {"status": {"capacity": capacity, "allocatable": capacity, "conditions": ready}}
        await client.patch(NODES, "", "n1", status, subresource="status")
        load = deployment("load", 3)
        load["spec"]["template"]["spec"].pop("nodeSelector")
        load["spec"]["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]
        await client.create(DEPLOYMENTS, load)

        def placed(count: int) -> Callable[[list[Object]], bool]:
            return lambda all_: sum(p["spec"].get("nodeName") == "n1" for p in all_) == count

        await until(pods, placed(3))
        leading.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(leading.wait(), 10) == 0
        await parts.until(waiting, b"leads as kube-controller-manager")  # at once: the Lease was given up
        first.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(first.wait(), 10) == 0
        await client.patch(DEPLOYMENTS, "default", "load", {"spec": {"replicas": 6}})
        await until(pods, placed(6))
        lease = await client.get(LEASES, "kube-system", "kube-controller-manager")
        assert lease["spec"]["leaseTransitions"] >= 1
    finally:
        following.cancel()
        await client.close()
        await parts.end()
        await etcd.kill()


def test_what_cannot_be_had_is_said_in_a_line(tmp_path: Path) -> None:
    for name in ("a.crt", "a.key"):
        (tmp_path / name).write_text("")
    files = ("--tls-cert-file", tmp_path / "a.crt", "--tls-private-key-file", tmp_path / "a.key")
    for store, ca, said in (
        ("sqlite", "a.crt", "--store 'sqlite': here it must be etcd://HOST:PORT[,HOST:PORT...]"),
        (f"etcd://127.0.0.1:{free_port()}", "a.crt", "no etcd answers (http://127.0.0.1:"),
        ("etcd://127.0.0.1:1", "b.crt", f"--client-ca-file {tmp_path}/b.crt: No such file or directory"),
    ):
        done = subprocess.run(
            [SAMPAN, "apiserver", "--store", store, *files, "--client-ca-file", tmp_path / ca,
             "--service-account-signing-key-file", tmp_path / "a.key", "--advertise-address", "192.0.2.1"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith(f"sampan: {said}"), done.stderr
        assert done.stderr.count("\n") == 1
