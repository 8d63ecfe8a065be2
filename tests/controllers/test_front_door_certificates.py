"""Machines that joined and are front doors: who gets the right to read all certificates of the cluster, who keeps it, who never does."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.api import bootstrap_tokens as tokens
from sampan.api.front_doors import CONDITION, FRONT_DOORS
from sampan.api.objects import condition
from sampan.api.resources import CERTIFICATESIGNINGREQUESTS as CSRS
from sampan.api.resources import CLUSTERROLEBINDINGS
from sampan.api.resources import NODES as NODE_OBJECTS
from sampan.apiserver.app import App
from sampan.client.types import Client
from sampan.cluster import join, join_objects, join_tokens, pki
from sampan.cluster.config import ClusterConfig
from sampan.cluster.errors import ClusterError
from sampan.node.certificate import Wanted, held, may_ask_for_front_door, obtain
from tests.api.test_certificates import CLIENT, csr, request

from .conftest import Cluster
from .test_certificates import KUBELET_CLIENT, as_user, ca, issued, named  # noqa: F401
from .test_joining import SERVER, app, cluster  # noqa: F401

NODES = "system:nodes"
NEWCOMERS = ("system:bootstrappers", tokens.DEFAULT_GROUP)
ALLOWED = (*NEWCOMERS, tokens.FRONT_DOORS_GROUP)
CONFIG = ClusterConfig(
    name="c", number=0, api_port=6443, service_cidr="10.96.0.0/16", pod_cidr="10.244.0.0/16",
    node_subnet="172.29.0.0/24", nodes=("node-1",),
)  # fmt: skip


@pytest.fixture
async def joinable(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:  # noqa: F811
    """A cluster of whose tokens some allow front doors."""
    monkeypatch.setattr("sampan.cluster.config.STATE", tmp_path)
    pki.ensure(CONFIG)
    await join_objects.ensure(cluster.client, CONFIG, SERVER)
    await join_objects.ensure(cluster.client, CONFIG, SERVER, front_doors=True)
    return cluster


def as_newcomer(app: App, *groups: str) -> Client:  # noqa: F811
    return as_user(app, "system:bootstrap:abcdef", *groups)


def as_node(app: App, *more: str) -> Client:  # noqa: F811
    return as_user(app, "system:node:far", NODES, *more)


async def test_a_token_that_allows_it_makes_a_front_door(app: App, joinable: Cluster, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "client.pem"
    newcomer = as_newcomer(app, *ALLOWED)
    assert await may_ask_for_front_door(newcomer)
    await obtain(newcomer, Wanted("far", front_door=True), file, 10)
    have = held(file)
    assert have is not None
    assert have.front_door
    # It stays one by its own certificate, and only as long as it asks to.
    for wanted in (True, False):
        await obtain(as_node(app, FRONT_DOORS), Wanted("far", front_door=wanted), file, 10)
        have = held(file)
        assert have is not None
        assert have.front_door is wanted
    messages = {c["message"] for csr in await joinable.all(CSRS, "") for c in csr["status"]["conditions"]}
    assert messages == {
        "Auto approving kubelet client certificate of a front door after SubjectAccessReview.",
        "Auto approving self kubelet client certificate of a front door after SubjectAccessReview.",
        "Auto approving self kubelet client certificate after SubjectAccessReview.",
    }


async def test_who_is_not_allowed_gets_a_node_s_certificate_without_the_right(
    app: App, joinable: Cluster, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    """At the first request and at a renewal, also where the right was taken away meanwhile."""
    for client in (as_newcomer(app, *NEWCOMERS), as_node(app)):
        assert not await may_ask_for_front_door(client)
        file = tmp_path / "client.pem"
        await obtain(client, Wanted("far", front_door=True), file, 10)
        have = held(file)
        assert have is not None
        assert not have.front_door
    await joinable.client.delete(
        CLUSTERROLEBINDINGS, "", "sampan:front-doors:autoapprove-certificate-rotation"
    )
    assert not await may_ask_for_front_door(as_node(app, FRONT_DOORS))


async def test_a_token_is_good_for_the_name_of_a_node_that_is_there(
    app: App, joinable: Cluster, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    """As upstream, where the machine that joins refuses it, and nobody else. It gives no more than it gives under other names."""
    ready = {"conditions": [{"type": kind, "status": "True"} for kind in ("Ready", CONDITION)]}
    there = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "far"}}
    await joinable.client.create(NODE_OBJECTS, {**there, "status": ready})
    for groups, may in ((ALLOWED, True), (NEWCOMERS, False)):
        newcomer = as_newcomer(app, *groups)
        with pytest.raises(ClusterError, match='a Node with name "far" and status "Ready" already exists'):
            await join._check_name(newcomer, "far")  # type: ignore[arg-type]
        file = tmp_path / "client.pem"
        await obtain(newcomer, Wanted("far", front_door=True), file, 10)
        have = held(file)
        assert have is not None
        assert have.front_door is may
    await joinable.client.delete(NODE_OBJECTS, "", "far")
    await join._check_name(as_newcomer(app, *NEWCOMERS), "far")  # type: ignore[arg-type]


ATTACKS = {
    "a newcomer without the group": ("system:bootstrap:abcdef", NEWCOMERS, "far", (NODES, FRONT_DOORS)),
    "a newcomer of the group alone": (
        "system:bootstrap:abcdef", (NEWCOMERS[0], tokens.FRONT_DOORS_GROUP), "far", (NODES, FRONT_DOORS),
    ),
    "a node that is none": ("system:node:far", (NODES,), "far", (NODES, FRONT_DOORS)),
    "one that is, for another": ("system:node:far", (NODES, FRONT_DOORS), "other", (NODES, FRONT_DOORS)),
    "one that is, for another's plain one": ("system:node:far", (NODES, FRONT_DOORS), "other", (NODES,)),
    "more than a front door": ("system:bootstrap:abcdef", ALLOWED, "far", (NODES, FRONT_DOORS, "system:masters")),
    "the group twice": ("system:bootstrap:abcdef", ALLOWED, "far", (NODES, FRONT_DOORS, FRONT_DOORS)),
    "a front door that is no node": ("system:bootstrap:abcdef", ALLOWED, "far", (FRONT_DOORS,)),
    "the newcomers' group": (
        "system:bootstrap:abcdef", ALLOWED, "far", (NODES, tokens.FRONT_DOORS_GROUP),
    ),
}  # fmt: skip


async def test_nobody_gains_it_by_asking(app: App, joinable: Cluster) -> None:  # noqa: F811
    for number, (user, groups, node, organizations) in enumerate(ATTACKS.values()):
        asked = csr(KUBELET_CLIENT, request=request(f"system:node:{node}", organizations), usages=CLIENT)
        await as_user(app, user, *groups).create(CSRS, named(f"attack-{number}", asked))
    # What came after them has been decided.
    good = csr(KUBELET_CLIENT, request=request("system:node:far", (NODES, FRONT_DOORS)), usages=CLIENT)
    await as_newcomer(app, *ALLOWED).create(CSRS, named("good", good))
    await issued(joinable, "good")
    decided = [o["metadata"]["name"] for o in await joinable.all(CSRS, "") if condition(o, "Approved")]
    assert decided == ["good"], [list(ATTACKS)[int(n[7:])] for n in decided if n != "good"]


async def test_the_token_says_whom_it_lets_in(joinable: Cluster) -> None:
    made = [
        await join_tokens.create(joinable.client, 60, "", front_door=allowed) for allowed in (False, True)
    ]
    groups = {t.token: t.groups for t in await join_tokens.listed(joinable.client)}
    assert [groups[t] for t in made] == [
        (tokens.DEFAULT_GROUP,),
        (tokens.DEFAULT_GROUP, tokens.FRONT_DOORS_GROUP),
    ]
