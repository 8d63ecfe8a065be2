"""What newcomers meet: `cluster-info` signed with every token, and certificates for what is a node's own."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import bootstrap_tokens as tokens
from sampan.api.errors import Object
from sampan.api.objects import condition, format_time
from sampan.api.resources import CERTIFICATESIGNINGREQUESTS as CSRS
from sampan.api.resources import CONFIGMAPS, NODES, SECRETS, SUBJECTACCESSREVIEWS
from sampan.apiserver.app import App
from sampan.apiserver.types import AUTHENTICATED, User
from sampan.client.types import STRATEGIC_MERGE_PATCH, Client
from sampan.cluster import join_objects, join_tokens, pki
from sampan.cluster.config import ClusterConfig
from sampan.controllers.certificates import authority
from sampan.controllers.manager import Manager
from sampan.node.certificate import NodeCertificate, Refused, Wanted, held, obtain
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config

from .conftest import Cluster, running
from .test_certificates import KUBELET_SERVING, ca, of  # noqa: F401

SERVER = "https://192.0.2.1:6443"


@pytest.fixture
async def app(ca: authority.Authority) -> AsyncIterator[App]:  # noqa: F811
    made = App(MemoryStore(), config())
    await made.start()
    async with running(Manager(made.client(), "THE CA", authority=ca).run()):
        yield made
    await made.close()


@pytest.fixture
def cluster(app: App) -> Cluster:
    return Cluster(app.client())


@pytest.fixture
async def joinable(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster that holds what machines need to join."""
    monkeypatch.setattr("sampan.cluster.config.STATE", tmp_path)
    made = ClusterConfig(
        name="c", number=0, api_port=6443, service_cidr="10.96.0.0/16", pod_cidr="10.244.0.0/16",
        node_subnet="172.29.0.0/24", nodes=("node-1",),
    )  # fmt: skip
    pki.ensure(made)
    await join_objects.ensure(cluster.client, made, SERVER)
    await join_objects.ensure(cluster.client, made, SERVER)
    return cluster


def as_node(app: App, name: str) -> Client:
    return app.client(User(f"system:node:{name}", "", ("system:nodes", AUTHENTICATED)))


def as_newcomer(app: App, token: str) -> Client:
    groups = ("system:bootstrappers", tokens.DEFAULT_GROUP, AUTHENTICATED)
    return app.client(User(f"system:bootstrap:{token.partition('.')[0]}", "", groups))


async def info(cluster: Cluster, key: str, there: bool = True) -> dict[str, str]:
    """The data of `cluster-info` once it has this key, or has it no more."""

    def data(maps: list[Object]) -> dict[str, str]:
        found = next((m for m in maps if m["metadata"]["name"] == tokens.CLUSTER_INFO), {})
        return found.get("data") or {}

    namespace = tokens.CLUSTER_INFO_NAMESPACE
    return data(await cluster.until(CONFIGMAPS, lambda m: (key in data(m)) is there, namespace))


async def test_every_token_signs_the_cluster_s_information_while_it_lasts(joinable: Cluster) -> None:
    first = await join_tokens.create(joinable.client, 3600, "")
    second = await join_tokens.create(joinable.client, None, "for the lab")
    for token in (first, second):
        token_id, _, secret = token.partition(".")
        data = await info(joinable, f"jws-kubeconfig-{token_id}")
        assert tokens.signature_fits(data[f"jws-kubeconfig-{token_id}"], data["kubeconfig"], token_id, secret)
        assert SERVER in data["kubeconfig"]
    shown = await join_tokens.listed(joinable.client)
    assert [(t.token, t.description) for t in shown] == [(first, ""), (second, "for the lab")]
    assert shown[0].seconds is not None
    assert 3590 < shown[0].seconds <= 3600
    assert (shown[1].usages, shown[1].groups) == (("authentication", "signing"), (tokens.DEFAULT_GROUP,))
    await join_tokens.delete(joinable.client, first)
    data = await info(joinable, f"jws-kubeconfig-{first[:6]}", there=False)
    assert f"jws-kubeconfig-{second[:6]}" in data


async def test_a_signature_follows_the_content_and_the_token(joinable: Cluster) -> None:
    token = await join_tokens.create(joinable.client, 3600, "")
    key = f"jws-kubeconfig-{token[:6]}"
    before = (await info(joinable, key))[key]
    patch = {"data": {"kubeconfig": "another: content\n"}}
    await joinable.client.patch(CONFIGMAPS, tokens.CLUSTER_INFO_NAMESPACE, tokens.CLUSTER_INFO, patch)
    namespace = tokens.CLUSTER_INFO_NAMESPACE
    await joinable.until(
        CONFIGMAPS, lambda maps: any(m["data"].get(key) not in (None, before) for m in maps), namespace
    )
    past = base64.b64encode(format_time(time.time() - 60).encode()).decode()
    name = f"{tokens.SECRET_PREFIX}{token[:6]}"
    await joinable.client.patch(SECRETS, tokens.NAMESPACE, name, {"data": {"expiration": past}})
    await info(joinable, key, there=False)


@given(st.text(), st.text(min_size=1))
def test_no_other_content_or_secret_fits(content: str, other: str) -> None:
    signature = tokens.sign(content, "abcdef", "0123456789abcdef")
    assert tokens.signature_fits(signature, content, "abcdef", "0123456789abcdef")
    assert not tokens.signature_fits(signature, content + other, "abcdef", "0123456789abcdef")
    assert not tokens.signature_fits(signature, content, "abcdeg", "0123456789abcdef")
    assert not tokens.signature_fits(signature, content, "abcdef", "0123456789abcdeg")
    assert not tokens.signature_fits(other, content, "abcdef", "0123456789abcdef")


def test_the_signature_is_upstream_s() -> None:
    """As in upstream's own test, `k8s.io/cluster-bootstrap/token/jws`."""
    content = "Hello from the other side. I must have called a thousand times."
    expected = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
    assert tokens.sign(content, "joshua", "my voice is my passcode") == expected


async def test_a_newcomer_may_ask_for_a_node_s_certificate_and_little_else(
    app: App, joinable: Cluster, tmp_path: Path
) -> None:
    newcomer = as_newcomer(app, "abcdef.0123456789abcdef")
    file = tmp_path / "client.pem"
    await obtain(newcomer, Wanted("far"), file, 10)
    assert file.stat().st_mode & 0o777 == 0o600
    have = held(file)
    assert have is not None
    assert have.valid()
    user, groups = "system:bootstrap:abcdef", ["system:bootstrappers", tokens.DEFAULT_GROUP]
    for verb, resource, namespace, name in (
        ("get", "nodes", "", "far"),
        ("get", "configmaps", "kube-system", "kubeadm-config"),
        ("create", "certificatesigningrequests", "", ""),
    ):
        assert await may(joinable, user, groups, verb, resource, namespace, name)
    for verb, resource, namespace, name in (
        ("list", "secrets", "kube-system", ""),
        ("get", "configmaps", "kube-system", "other"),
        ("list", "nodes", "", ""),
        ("create", "nodes", "", ""),
    ):
        assert not await may(joinable, user, groups, verb, resource, namespace, name)
    stranger = ("system:anonymous", ["system:unauthenticated"])
    assert await may(joinable, *stranger, "get", "configmaps", "kube-public", "cluster-info")
    assert not await may(joinable, *stranger, "get", "configmaps", "kube-system", "kubeadm-config")


async def may(
    cluster: Cluster, user: str, groups: list[str], verb: str, resource: str, namespace: str, name: str
) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "groups": groups,
            "resourceAttributes": {
                "verb": verb,
                "group": "certificates.k8s.io" if resource.startswith("certificate") else "",
                "resource": resource,
                "namespace": namespace,
                "name": name,
            },
        },
    }
    return bool((await cluster.client.create(SUBJECTACCESSREVIEWS, review))["status"]["allowed"])


def node(name: str, *addresses: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]},
    }


async def test_a_node_serves_under_its_own_names_alone(app: App, cluster: Cluster, tmp_path: Path) -> None:
    client = as_node(app, "far")
    await cluster.client.create(NODES, node("far", "192.0.2.9", "2001:db8::9"))
    await cluster.client.create(NODES, node("other", "192.0.2.10"))
    own = Wanted("far", ("far", "192.0.2.9", "2001:db8:0::9"))
    await obtain(client, own, tmp_path / "own.pem", 10)
    have = held(tmp_path / "own.pem")
    assert have is not None
    assert have.names == {"far", "192.0.2.9", "2001:db8::9"}
    for names in (("far", "192.0.2.10"), ("other",), ("192.0.2.77",)):
        with pytest.raises(Refused, match="not approved and signed within"):
            await obtain(client, Wanted("far", names), tmp_path / "no.pem", 0.3)
    with pytest.raises(Refused):
        await obtain(as_node(app, "other"), own, tmp_path / "no.pem", 0.3)
    pending = [c for c in await cluster.all(CSRS, "") if not condition(c, "Approved")]
    assert len(pending) == 4
    assert all(c["spec"]["signerName"] == KUBELET_SERVING for c in pending)


async def test_an_address_that_the_node_gets_later_is_approved_then(
    app: App, cluster: Cluster, tmp_path: Path
) -> None:
    await cluster.client.create(NODES, node("far", "192.0.2.9"))
    keeper = NodeCertificate(as_node(app, "far"), Wanted("far", ("192.0.2.77",)), tmp_path / "own.pem")
    async with running(keeper.run()):
        await cluster.until(CSRS, bool, "")
        assert not keeper.ready.is_set()
        status = {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.77"}]}}
        await cluster.client.patch(
            NODES, "", "far", status, content_type=STRATEGIC_MERGE_PATCH, subresource="status"
        )
        await keeper.ready.wait()


async def test_an_address_that_two_nodes_claim_is_nobody_s(
    app: App, cluster: Cluster, tmp_path: Path
) -> None:
    await cluster.client.create(NODES, node("far", "192.0.2.9"))
    await cluster.client.create(NODES, node("thief", "192.0.2.9"))
    with pytest.raises(Refused):
        await obtain(as_node(app, "thief"), Wanted("thief", ("192.0.2.9",)), tmp_path / "no.pem", 0.3)
    await cluster.client.delete(NODES, "", "far")
    await obtain(as_node(app, "thief"), Wanted("thief", ("192.0.2.9",)), tmp_path / "yes.pem", 10)


async def test_a_certificate_is_renewed_late_in_its_life_and_not_before(
    app: App, joinable: Cluster, tmp_path: Path
) -> None:
    """On a clock of our own: at 69 % of its life nothing is asked for, at the moment drawn from 70 to 90 % a new one is."""
    file = tmp_path / "client.pem"
    client = as_node(app, "far")
    await obtain(client, Wanted("far", seconds=600), file, 10)
    first = held(file)
    assert first is not None
    life = first.ends - first.begins
    assert life == 600 + 300, "a little before now, and all of what was asked for"
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return 0.8

    moment = first.begins + 0.8 * life - 0.05
    clock = iter([moment, moment])
    renewed = asyncio.Event()

    async def tell() -> None:
        renewed.set()

    before = file.read_bytes()
    keeper = NodeCertificate(
        client, Wanted("far"), file, renewed=tell, draw=draw,
        clock=lambda: next(clock, first.begins + 0.8 * life + 0.01),
    )  # fmt: skip
    async with running(keeper.run()):
        await keeper.ready.wait()
        assert file.read_bytes() == before
        await asyncio.wait_for(renewed.wait(), 10)
    assert drawn[0] == (0.7, 0.9)
    second = held(file)
    assert second is not None
    assert second.ends > first.ends, "a new one, of the signer's length"
