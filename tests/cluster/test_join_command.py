"""What a user may write to join and to make tokens, and what he is told when it is wrong; how a node is emptied."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sampan.api.errors import Object
from sampan.api.resources import NODES, PODDISRUPTIONBUDGETS, PODS, SERVICEACCOUNTS
from sampan.apiserver.app import App
from sampan.client.types import Client
from sampan.cluster import alone, join, join_command, join_objects, join_tokens, joined, preflight
from sampan.cluster.config import ClusterConfig
from sampan.cluster.drain import drain
from sampan.cluster.errors import ClusterError
from sampan.cluster.join_command import Arguments
from sampan.cluster.joined import JoinedNode
from sampan.node import certificate
from sampan.node.certificate import Held
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config
from tests.transport.authority import Authority

GOOD = Arguments(
    join="https://192.0.2.1:6443",
    token="abcdef.0123456789abcdef",
    ca_hash="sha256:" + "0" * 64,
    name="far",
    addresses=(),
    labels=(),
    taints=(),
)
CLUSTER = ClusterConfig(
    name="c", number=0, api_port=6443, service_cidr="10.96.0.0/16", pod_cidr="10.244.0.0/16",
    node_subnet="172.29.0.0/24", nodes=("node-1",),
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"join": "192.0.2.1:6443"}, "--join '192.0.2.1:6443': expected https://HOST:PORT"),
        ({"join": "https://h:1/path"}, "expected https://HOST:PORT"),
        ({"token": ""}, "--token: missing; make one where the cluster runs: sampan token create"),
        ({"token": "ABCDEF.0123456789abcdef"}, "--token: not of the form abcdef.0123456789abcdef"),
        ({"ca_hash": ""}, "--ca-hash: missing; `sampan token create` prints it"),
        ({"ca_hash": "sha256:zz"}, "--ca-hash: 'sha256:zz' is not sha256:"),
        ({"name": "Big"}, "--name 'Big': "),
        ({"addresses": ("192.0.2.300",)}, "--address '192.0.2.300' is not an address"),
        ({"addresses": ("192.0.2.1", "192.0.2.2")}, "--address: allowed is one of each family"),
        ({"labels": ("zone",)}, "--label 'zone': expected KEY=VALUE"),
        ({"labels": ("a b=c",)}, "--label 'a b=c': "),
        ({"labels": ("node-role.kubernetes.io/x=",)}, "`kubectl label node` may"),
        ({"labels": ("k8s.io/x=y",)}, "`kubectl label node` may"),
        ({"taints": ("key",)}, "--taint 'key': expected KEY[=VALUE]:EFFECT"),
        ({"taints": ("key=v:Never",)}, "EFFECT one of NoSchedule, PreferNoSchedule, NoExecute"),
    ],
)
def test_bad_arguments_are_told(change: dict[str, object], said: str) -> None:
    wishes, wrong = join_command._wishes(dataclasses.replace(GOOD, **change))  # type: ignore[arg-type]
    assert said in "; ".join([*join.problems(wishes), *wrong])


def test_an_authority_beside_the_one_of_the_hash_is_not_believed(tmp_path: Path) -> None:
    """Whoever has the token can sign any text; what he cannot make is the authority that the hash is of."""
    right, other = (Authority(tmp_path, name).certificate.read_bytes() for name in ("right", "other"))
    for shown in (right, right + other, other + right):
        assert join.pinned(shown, join_tokens.ca_hash(right), "https://h:1") == right
    for shown, said in (
        (other, "not the cluster that"),
        (b"", "names no authority"),
        (b"text", "names no authority"),
    ):
        with pytest.raises(ClusterError, match=said):
            join.pinned(shown, join_tokens.ca_hash(right), "https://h:1")


def test_good_arguments_are_taken() -> None:
    arguments = dataclasses.replace(
        GOOD,
        addresses=("192.0.2.9", "2001:db8::9"),
        labels=("example.com/a=b", "topology.kubernetes.io/zone=z", "node.kubernetes.io/x="),
        taints=("gpu=yes:NoSchedule", "lab:NoExecute"),
    )
    wishes, wrong = join_command._wishes(arguments)
    assert wrong == []
    assert join.problems(wishes) == []
    assert wishes.labels == {
        "example.com/a": "b",
        "topology.kubernetes.io/zone": "z",
        "node.kubernetes.io/x": "",
    }
    assert wishes.taints == (
        {"key": "gpu", "effect": "NoSchedule", "value": "yes"},
        {"key": "lab", "effect": "NoExecute"},
    )


def test_what_a_machine_is_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "DIRECTORY", tmp_path / "_node")
    monkeypatch.setattr(joined, "RUN_DIRECTORY", tmp_path / "run")
    assert joined.load() is None
    node = JoinedNode(
        name="far", server="https://192.0.2.1:6443", addresses=("192.0.2.9",), labels={"a": "b"},
        taints=({"key": "x", "effect": "NoExecute"},), pod_cidrs=("10.244.20.0/24",),
    )  # fmt: skip
    node.save()
    assert joined.load() == node
    (tmp_path / "_node" / "node.json").write_text('{"name": ')
    with pytest.raises(ClusterError, match=r"is damaged .*sampan node reset"):
        joined.load()
    with joined.held(), pytest.raises(ClusterError, match="runs already"), joined.held():
        pass


FAR = JoinedNode(name="far", server="https://192.0.2.1:6443", addresses=("192.0.2.9",), labels={"a": "b"})
AGAIN = dataclasses.replace(GOOD, join="", token="", ca_hash="", name="")
"""`sampan node` and no more."""


@pytest.mark.parametrize(
    ("may", "had", "asked", "token", "becomes"),
    [
        (True, True, None, False, True),
        (True, True, False, False, False),
        (True, False, True, False, True),
        (True, False, True, True, True),
        (False, False, None, False, False),
        (False, False, None, True, False),
    ],
)
def test_a_machine_that_has_joined_becomes_a_front_door_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may: bool, had: bool, asked: bool | None, token: bool, becomes: bool
) -> None:  # fmt: skip
    monkeypatch.setattr(joined, "DIRECTORY", tmp_path / "_node")
    monkeypatch.setattr(certificate, "held", lambda file: Held(0, time.time() + 60, frozenset(), may))
    monkeypatch.setattr(preflight, "program", lambda name: "/usr/sbin/haproxy")
    present = dataclasses.replace(FAR, ingress=had)
    arguments = dataclasses.replace(GOOD if token else AGAIN, ingress=asked)
    wishes, wrong = join_command._wishes(arguments)
    node, _ = join_command._resumed(present, wishes, arguments, wrong, lambda text: None)
    assert node == dataclasses.replace(present, ingress=becomes)


def test_a_certificate_that_does_not_allow_it_needs_another_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "held", lambda file: Held(0, time.time() + 60, frozenset()))
    monkeypatch.setattr(preflight, "program", lambda name: "/usr/sbin/haproxy")
    arguments = dataclasses.replace(AGAIN, ingress=True)
    wishes, wrong = join_command._wishes(arguments)
    with pytest.raises(ClusterError, match="sampan token create --ingress, and give it here"):
        join_command._resumed(FAR, wishes, arguments, wrong, lambda text: None)
    # With one it joins anew, as what it is, whatever the machine's own name and addresses.
    arguments = dataclasses.replace(GOOD, name="", ingress=True)
    wishes, wrong = join_command._wishes(arguments)
    node, anew = join_command._resumed(FAR, wishes, arguments, wrong, lambda text: None)
    assert node is None
    assert (anew.name, anew.addresses, anew.labels, anew.ingress) == ("far", FAR.addresses, FAR.labels, True)


def test_a_front_door_needs_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "program", lambda name: None)
    said = "--ingress: haproxy is missing: apt-get install haproxy"
    for ingress, wrong in ((True, [said]), (None, []), (False, [])):
        assert join_command._wishes(dataclasses.replace(GOOD, ingress=ingress))[1] == wrong


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86400), ("1h30m", 5400), ("1.5h", 5400), ("0", None)])
def test_times_of_tokens(text: str, seconds: float | None) -> None:
    assert join_tokens.parse_ttl(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "24", "-1h", "1d"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(ClusterError, match="is no duration"):
        join_tokens.parse_ttl(text)


def test_where_other_machines_reach_the_cluster() -> None:
    server, warning = join_objects.server_for_machines(CLUSTER)
    assert server == "https://172.29.0.1:6443"
    assert "a machine that does not reach 172.29.0.1 cannot join" in warning
    assert "sampan up --name c --listen ADDRESS" in warning
    listening = dataclasses.replace(CLUSTER, listen="192.0.2.1")
    assert join_objects.server_for_machines(listening) == ("https://192.0.2.1:6443", "")
    assert listening.advertise_address == "192.0.2.1", "pods of other machines do not reach the bridge"
    everywhere = dataclasses.replace(CLUSTER, listen="0.0.0.0")
    with pytest.raises(ClusterError, match="--tls-san ADDRESS"):
        join_objects.server_for_machines(everywhere)
    named = dataclasses.replace(everywhere, tls_sans=("c.example.org",))
    assert join_objects.server_for_machines(named)[0] == "https://c.example.org:6443"


def test_what_pods_of_the_first_machine_need() -> None:
    """They are behind its bridge, which others reach through it only."""
    listening = dataclasses.replace(CLUSTER, listen="192.0.2.1")
    assert join_objects.way_to_local_pods(CLUSTER, False) == "", "nobody joins from elsewhere"
    route = f"a route to {CLUSTER.node_subnet} by way of this machine there"
    said = join_objects.way_to_local_pods(listening, False)
    assert f"only with net.ipv4.ip_forward = 1 here (it is 0) and {route}" in said
    assert f"only with {route}" in join_objects.way_to_local_pods(listening, True)


def test_ranges_for_controllers_by_themselves() -> None:
    assert alone.node_ranges(False, "10.244.0.0/16") == ()
    assert alone.node_ranges(True, "10.244.0.0/16,fd00::/48") == ("10.244.0.0/16", "fd00::/48")
    for text in ("", "10.244.0.0/33", "10.244.0.0/16,10.245.0.0/16"):
        with pytest.raises(ClusterError, match="--cluster-cidr"):
            alone.node_ranges(True, text)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = App(MemoryStore(), config())
    await app.start()
    made = app.client()
    await made.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    await made.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
    yield made
    await app.close()


def pod(name: str, owner: str = "", **annotations: str) -> Object:
    meta: Object = {"name": name, "namespace": "default", "labels": {"app": name}, "annotations": annotations}
    if owner:
        meta["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "u", "controller": True}
        ]
    spec = {"nodeName": "n", "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


async def names(client: Client) -> set[str]:
    return {p["metadata"]["name"] for p in (await client.list(PODS, "default")).items}


async def test_draining_takes_what_goes_and_leaves_what_is_the_node_s(client: Client) -> None:
    mirror = {"kubernetes.io/config.mirror": "x"}
    for made in (pod("web", "ReplicaSet"), pod("daemon", "DaemonSet"), pod("static", **mirror), pod("alone")):
        await client.create(PODS, made)
    said: list[str] = []
    with pytest.raises(ClusterError, match="make anew elsewhere: default/alone; delete them, or use --force"):
        await drain(client, "n", force=False, timeout=10, say=said.append)
    assert (await client.get(NODES, "", "n"))["spec"]["unschedulable"] is True
    assert said == []
    await drain(client, "n", force=True, timeout=10, say=said.append)
    assert sorted(said) == ["evicting pod default/alone", "evicting pod default/web"]
    assert await names(client) == {"daemon", "static"}
    await drain(client, "n", force=False, timeout=10, say=said.append)


async def test_a_budget_holds_a_pod_until_the_time_is_over(client: Client) -> None:
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    await client.create(PODDISRUPTIONBUDGETS, budget)
    await client.create(PODS, pod("web", "ReplicaSet"))
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    await client.patch(PODS, "default", "web", ready, subresource="status")
    with pytest.raises(ClusterError, match=r"still pods on node n: default/web; it stays cordoned"):
        await drain(client, "n", force=False, timeout=0.3, say=lambda text: None)
    assert await names(client) == {"web"}


@pytest.mark.skipif(os.geteuid() != 0, reason="a socket of the kernel's routes")
def test_the_machine_s_own_address() -> None:
    from sampan.network import own_address

    assert own_address.towards("127.0.0.1") == "127.0.0.1"
    assert own_address.link_of("127.0.0.1") == "lo"
    assert own_address.link_of("192.0.2.77") == ""
