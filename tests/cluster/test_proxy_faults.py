"""The proxy killed, and its rules taken away, under load: connections stay, changes are caught up, nothing stale is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests import real_cluster
from tests.cluster.machine import picture
from tests.cluster.test_lifecycle import Owner, owner, pids  # noqa: F401

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
]


class Echo:
    """A server on the cluster's bridge that says its name first, then what it is told."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name.encode()
        self.listener = socket.create_server((address, 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.sendall(self.name)
            while said := connection.recv(100):
                connection.sendall(said)


def ask(address: str, timeout: float = 2.0) -> str:
    with socket.create_connection((address, 80), timeout) as s:
        return s.recv(100).decode()


@contextmanager
def load(address: str, answers: list[str]) -> Iterator[None]:
    """New connections, one after the other; what each was told, "" for one that failed."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            try:
                answers.append(ask(address))
            except OSError:
                answers.append("")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def endpoint_slice(address: str, port: int) -> str:
    return json.dumps({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "echo-1", "labels": {"kubernetes.io/service-name": "echo"}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
    })  # fmt: skip


def test_a_kill_and_a_flush_under_load(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    before = picture(name)
    owner.run("up", "--name", name)
    status = json.loads(owner.kubectl(name, "get", "node", "node-1", "-o", "json"))["status"]
    bridge = next(a["address"] for a in status["addresses"] if a["type"] == "InternalIP").rpartition(".")[0] + ".1"  # fmt: skip
    one, two, three = (Echo(n, bridge) for n in ("one", "two", "three"))
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: echo}\nspec: {ports: [{port: 80}]}\n"
    owner.kubectl(name, "apply", "-f", "-", input=service)
    owner.kubectl(name, "apply", "-f", "-", input=endpoint_slice(bridge, one.port))
    address = owner.kubectl(name, "get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
    until(lambda: ask(address, 0.5) == "one", 20)
    netns = f"/run/netns/sampan-{name}-node-1"

    with socket.create_connection((address, 80), 5) as kept:
        assert kept.recv(10) == b"one"

        def alive() -> None:
            kept.sendall(b"still")
            assert kept.recv(10) == b"still"

        answers: list[str] = []
        with load(address, answers):
            os.kill(pids(name)["sampan-node-1"], signal.SIGKILL)
            # Where it goes is not caught up with until the next proxy is there.
            owner.kubectl(name, "apply", "-f", "-", input=endpoint_slice(bridge, two.port))
            alive()
            until(lambda: "two" in answers, 20)
            alive()
        assert set(answers) == {"one", "two"}, "no connection failed"
        answers.clear()
        shown = owner.run("node", "rules", "echo", "--name", name).stdout
        assert f"{bridge}:{two.port}" in shown
        assert f"{bridge}:{one.port}" not in shown, "nothing stale"

        for wrong, said in (
            (("nobody",), "sampan: node node-1 has no rules for Service default/nobody"),
            (("--node", "node-9"), f"sampan: cluster {name} has no node node-9 here: it has node-1"),
        ):
            refused = owner.run("node", "rules", *wrong, "--name", name, check=False)
            assert refused.returncode == 1
            assert refused.stderr.startswith(said)

        inside = ["nsenter", f"--net={netns}", "nft"]
        subprocess.run([*inside, "flush", "ruleset"], check=True)
        until(lambda: ask(address, 0.5) == "two", 20)  # how fast: tests/proxy
        until(
            lambda: (
                subprocess.run(
                    [*inside, "list", "chain", "ip", "sampan-pods", "postrouting"], capture_output=True
                ).returncode
                == 0
            ),
            20,
        )
        alive()
        owner.kubectl(name, "apply", "-f", "-", input=endpoint_slice(bridge, three.port))
        until(lambda: ask(address, 0.5) == "three", 20)
        alive()
    told = owner.kubectl(name, "get", "events", "-o", "jsonpath={.items[?(@.reason=='ProxyRulesRepaired')].message}")  # fmt: skip
    assert "changed by nft (process " in told
    owner.run("delete", "--name", name)
    assert picture(name) == before
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert name not in tables


def until(holds: object, seconds: float) -> None:
    """Ask again and again: what is waited for is that a connection comes through."""
    assert callable(holds)
    end = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        assert time.monotonic() < end, f"not within {seconds} s"
