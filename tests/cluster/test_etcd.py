"""Clusters whose objects are in an etcd: one of their own, and one that stands."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
from functools import partial
from pathlib import Path

import pytest

from sampan.cluster import link
from sampan.store.members import Tls
from tests import real_cluster
from tests.cluster.machine import picture
from tests.cluster.test_lifecycle import Owner, owner  # noqa: F401
from tests.store.real_etcd import leader_of, three_members
from tests.transport.authority import Authority

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
    pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed"),
]


def pids(name: str) -> dict[str, int]:
    """The processes of a cluster's parts, by name."""
    status = link.ask(Path("/run/sampan", name), "status")
    return {part["name"]: part["pid"] for part in status["parts"]}


def test_a_cluster_with_an_etcd_of_its_own(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    before = picture(name)
    owner.run("up", "--name", name, "--store", "etcd")
    owner.start_keeper(name)
    for i in range(8):
        owner.kubectl(name, "create", "configmap", f"c{i}", f"--from-literal=n={i}")

    # killed, one after the other, and there again: with another etcd the API waits, with another API the client does
    for part in ("etcd", "control-plane", "etcd"):
        killed = pids(name)[part]
        os.kill(killed, signal.SIGKILL)
        if part == "control-plane":
            owner.run("up", "--name", name)
        else:
            owner.kubectl(name, "annotate", "node", "node-1", "--overwrite", f"killed={killed}")
        assert pids(name)[part] != killed
    names = owner.kubectl(name, "get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}").split()
    assert {f"c{i}" for i in range(8)} <= set(names)
    uid = owner.kubectl(name, "get", "pod", "keeper", "-o", "jsonpath={.metadata.uid}")

    # nobody reads it who has only a certificate of the cluster's
    root = Path("/var/lib/sampan", name)
    port = json.loads((root / "cluster.json").read_text())["etcd_port"]
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    ours = [line.split()[3] for line in listening.splitlines() if f"pid={pids(name)['etcd']}," in line]
    assert ours == [f"127.0.0.1:{port}"]
    for certificate in ("admin", "nodes/node-1/client"):
        context = ssl.create_default_context(cafile=str(root / "pki/etcd/ca.crt"))
        context.load_cert_chain(root / f"pki/{certificate}.crt", root / f"pki/{certificate}.key")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _say_hello(port, context)
    assert stat.S_IMODE((root / "etcd").stat().st_mode) == 0o700

    owner.run("stop", "--name", name)
    refused = owner.run("up", "--name", name, "--store", "sqlite", check=False)
    assert refused.returncode == 1
    assert "--store is etcd and cannot become sqlite" in refused.stderr
    owner.run("up", "--name", name, "--store", "etcd")
    owner.wait_keeper_restarted(name)
    assert owner.kubectl(name, "get", "pod", "keeper", "-o", "jsonpath={.metadata.uid}") == uid
    assert owner.kubectl(name, "get", "configmap", "c7", "-o", "jsonpath={.data.n}") == "7"
    owner.run("delete", "--name", name)
    assert picture(name) == before


async def test_a_cluster_on_an_etcd_that_stands(owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    name = owner.name()
    authority = Authority(tmp_path)
    ca = str(authority.certificate)
    server, server_key = map(str, authority.issue("member"))
    client, client_key = map(str, authority.issue("apiserver"))
    run, kubectl = partial(asyncio.to_thread, owner.run), partial(asyncio.to_thread, owner.kubectl, name)
    async with three_members(
        tmp_path, "--cert-file", server, "--key-file", server_key, "--trusted-ca-file", ca, "--client-cert-auth",
        "--enable-grpc-gateway=false", scheme="https",
    ) as members:  # fmt: skip
        store = "etcd://" + ",".join(m.endpoint.removeprefix("https://") for m in members)
        files = ("--etcd-cafile", ca, "--etcd-certfile", client, "--etcd-keyfile", client_key)
        refused = await run("up", "--name", name, "--store", store, "--etcd-cafile", ca, check=False)
        assert refused.returncode == 1
        assert "do not accept each other's certificates" in refused.stderr
        assert not Path("/var/lib/sampan", name).exists()

        await run("up", "--name", name, "--store", store, *files)
        for n in range(3):
            leader = await leader_of(members, Tls(ca, client, client_key))
            await leader.kill()
            # What was under way when the leader died may be told as unsure: whoever asked looks, and asks again.
            await kubectl("create", "configmap", f"c{n}", f"--from-literal=n={n}", check=False)
            while not await kubectl("get", "configmap", f"c{n}", "--ignore-not-found", check=False):
                await kubectl("create", "configmap", f"c{n}", f"--from-literal=n={n}", check=False)
            await leader.start()
        await run("stop", "--name", name)
        await run("up", "--name", name)
        found = await kubectl("get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}")
        assert {"c0", "c1", "c2"} <= set(found.split())
        assert await run("store", "check", "--name", name)
        await run("delete", "--name", name)


def _say_hello(port: int, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection(("127.0.0.1", port), 10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not tls.recv(100):
            raise ConnectionResetError


def test_without_the_program_it_says_so(owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    name = owner.name()
    for program in ("conmon", "crun", "catatonit", "nft", "skopeo"):
        (tmp_path / program).symlink_to(shutil.which(program) or "/bin/true")
    owner.environment["SAMPAN_PROGRAMS"] = str(tmp_path)
    done = owner.run("up", "--name", name, "--store", "etcd", check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "sampan: --store etcd needs the program etcd: apt-get install etcd-server\n",
    )
    assert not Path("/var/lib/sampan", name).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--store", "etc"), "--store 'etc' is not supported: allowed are sqlite, etcd, etcd://HOST:PORT[,HOST:PORT...]"),
        (("--store", "etcd://a"), "--store 'etcd://a': 'a' is not HOST:PORT, such as 10.0.0.5:2379"),
        (("--store", "etcd", "--etcd-cafile", "/c"), "--etcd-cafile is for an etcd that stands: --store etcd://HOST:PORT"),
        (
            ("--store", "etcd://a:1", "--etcd-certfile", "/c"),
            "--etcd-certfile /c: there is no such file; --etcd-certfile and --etcd-keyfile belong together",
        ),
    ],
)  # fmt: skip
def test_wishes_that_cannot_be_had(owner: Owner, arguments: tuple[str, ...], said: str) -> None:  # noqa: F811
    done = owner.run("up", "--name", owner.name(), *arguments, check=False)
    assert (done.returncode, done.stderr) == (1, f"sampan: {said}\n")
