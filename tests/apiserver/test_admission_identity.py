"""What ServiceAccounts allow their pods, and nodes themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.front_doors import FRONT_DOORS
from sampan.api.objects import deep_copy
from sampan.apiserver.admission.node_restriction import NodeRestriction
from sampan.apiserver.admission.service_account import MIRROR, ServiceAccount
from sampan.apiserver.types import Attributes, User

from .fakes import FakeCache, make, node_user, pod, writes

ALICE = User("alice")
NODE = node_user("n1")
FRONT_DOOR = replace(NODE, groups=(*NODE.groups, FRONT_DOORS))


async def said(plugin: NodeRestriction | ServiceAccount, attributes: Attributes) -> str:
    """Why a write is refused; "" if it is not."""
    try:
        await plugin.mutate(attributes)
        await plugin.validate(attributes)
    except StatusError as e:
        return e.message.partition(" is forbidden: ")[2]
    return ""


# ---- ServiceAccount

NOT_LISTED = "is not allowed because service account strict does not reference that secret"


def strict(**annotations: str) -> FakeCache:
    named = {"kubernetes.io/enforce-mountable-secrets": "true"} | annotations
    account = make(
        "ServiceAccount",
        "strict",
        metadata={"annotations": named},
        secrets=[{"name": "ok"}],
        imagePullSecrets=[{"name": "pull"}],
    )
    return FakeCache(make("Namespace", "default"), account)


def with_container(field: str = "containers", **container: Any) -> Object:
    made = pod(account="strict")
    made["spec"].setdefault(field, [])
    made["spec"][field] = [{"name": "c", "image": "i", **container}]
    return made


def env(name: str) -> Object:
    return {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]}


@pytest.mark.parametrize(
    ("obj", "why"),
    [
        (
            pod(account="strict", volumes=[{"name": "v", "secret": {"secretName": "no"}}]),
            f'volume with secret.secretName="no" {NOT_LISTED}',
        ),
        (with_container(**env("no")), f'container c with envVar A referencing secret.secretName="no" {NOT_LISTED}'),
        (
            with_container("initContainers", **env("no")),
            f'init container c with envVar A referencing secret.secretName="no" {NOT_LISTED}',
        ),
        (
            with_container(envFrom=[{"secretRef": {"name": "no"}}]),
            f'container c with envFrom referencing secret.secretName="no" {NOT_LISTED}',
        ),
        (
            pod(account="strict", imagePullSecrets=[{"name": "no"}]),
            'imagePullSecrets[0].name="no" is not allowed because service account strict does not reference that '
            "imagePullSecret",
        ),
        (with_container(**env("ok")), ""),
        (pod(account="strict", volumes=[{"name": "v", "secret": {"secretName": "ok"}}]), ""),
        (pod(account="strict", imagePullSecrets=[{"name": "pull"}]), ""),
    ],
)  # fmt: skip
async def test_a_strict_account_lists_the_secrets_of_its_pods(obj: Object, why: str) -> None:
    assert await said(ServiceAccount(strict()), writes(ALICE, deep_copy(obj))) == why
    lax = strict(**{"kubernetes.io/enforce-mountable-secrets": "no"})
    assert await said(ServiceAccount(lax), writes(ALICE, deep_copy(obj))) == ""


async def test_containers_that_come_later_are_held_to_it_too() -> None:
    later = with_container("ephemeralContainers", **env("no"))
    attributes = writes(ALICE, later, "UPDATE", pod(account="strict"), "ephemeralcontainers")
    assert await said(ServiceAccount(strict()), attributes) == (
        f'ephemeral container c with envVar A referencing secret.secretName="no" {NOT_LISTED}'
    )
    assert await said(ServiceAccount(strict()), writes(ALICE, later, "UPDATE", later)) == ""


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"serviceAccountName": "default"}, "a mirror pod may not reference service accounts"),
        (
            {"containers": [{"name": "c", **env("a")}]},
            "a mirror pod may not reference secrets",
        ),
        (
            {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
            "a mirror pod may not use ServiceAccountToken volume projections",
        ),
        ({}, ""),
    ],
)
async def test_a_mirror_pod_has_nobodys_rights(spec: Object, why: str) -> None:
    meta = {"annotations": {MIRROR: "x"}}
    obj = make("Pod", "m", metadata=meta, spec={"containers": [{"name": "c"}], **spec})
    assert await said(ServiceAccount(FakeCache()), writes(ALICE, obj)) == why


# ---- NodeRestriction


async def test_a_node_says_how_large_a_volume_is_and_nothing_else() -> None:
    plugin = NodeRestriction(FakeCache())
    old = make(
        "PersistentVolumeClaim", "c", spec={}, status={"phase": "Bound", "capacity": {"storage": "1Gi"}}
    )
    grown = deep_copy(old)
    grown["status"] |= {"capacity": {"storage": "2Gi"}, "conditions": [{"type": "Resizing"}]}
    grown["metadata"]["resourceVersion"] = "7"
    assert await said(plugin, writes(NODE, grown, "UPDATE", old, "status")) == ""
    for change in ({"status": {"phase": "Lost"}}, {"metadata": {**old["metadata"], "labels": {"a": "b"}}}):
        new = {**deep_copy(old), **change}
        assert await said(plugin, writes(NODE, new, "UPDATE", old, "status")) == (
            'node "n1" is not allowed to update fields other than status.capacity, status.conditions, '
            "status.allocatedResources, status.allocatedResourceStatuses"
        )
    assert await said(plugin, writes(NODE, grown, "UPDATE", old)) == "may only update PVC status"
    assert await said(plugin, writes(ALICE, grown, "UPDATE", old)) == ""


async def test_a_node_has_one_csi_node() -> None:
    plugin = NodeRestriction(FakeCache())
    assert await said(plugin, writes(NODE, make("CSINode", "n1", spec={}))) == ""
    for operation in ("CREATE", "UPDATE", "DELETE"):
        other = make("CSINode", "n2", spec={})
        attributes = writes(NODE, None if operation == "DELETE" else other, operation, other)
        assert await said(plugin, attributes) == (
            "can only access CSINode with the same name as the requesting node"
        )


async def test_a_node_has_itself_deleted_by_nobody_else() -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    owned = make("Node", "n1", metadata={"ownerReferences": [owner]})
    attributes = writes(NODE, owned, "UPDATE", make("Node", "n1"))
    assert await said(NodeRestriction(FakeCache()), attributes) == (
        'node "n1" is not allowed to modify ownerReferences'
    )


async def test_only_a_front_door_says_that_it_serves_ingresses() -> None:
    """Or requests of all clients would be led to any node that says so. What others make of it is theirs."""
    plugin = NodeRestriction(FakeCache())
    shut, open_ = (
        make("Node", "n1", status={"conditions": [{"type": "IngressServing", "status": status}]})
        for status in ("False", "True")
    )
    why = 'node "n1" is not allowed to set condition IngressServing: it is no front door'
    for old, new, refused in ((shut, open_, True), (open_, open_, False), (open_, shut, False)):
        for user, expected in ((NODE, why if refused else ""), (FRONT_DOOR, "")):
            assert await said(plugin, writes(user, deep_copy(new), "UPDATE", old, "status")) == expected
    assert await said(plugin, writes(NODE, open_, "CREATE")) == why
    assert await said(plugin, writes(ALICE, open_, "UPDATE", shut, "status")) == ""


async def test_what_a_front_door_said_goes_with_the_first_write_of_a_node_that_is_none() -> None:
    """It was one once, or took the name of one: requests of all clients would be led to wherever it says that it is."""
    ready = {"type": "Ready", "status": "True"}
    for status, user, kept in (
        ("True", NODE, False),
        ("False", NODE, True),
        ("True", FRONT_DOOR, True),
        ("True", ALICE, True),
    ):
        served = {"type": "IngressServing", "status": status}
        old = make("Node", "n1", status={"conditions": [served, ready], "phase": "x"})
        new = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
        before = deep_copy(old)
        assert await said(NodeRestriction(FakeCache()), writes(user, new, "UPDATE", old)) == ""
        assert new["status"] == {"conditions": [served, ready] if kept else [ready], "phase": "x"}
        assert old == before, "it is shared"


async def test_a_node_does_not_say_which_claims_are_a_pods() -> None:
    old = pod(node="n1")
    for status, why in (
        ({"resourceClaimStatuses": [{"name": "a"}]}, 'node "n1" cannot update resource claim statues'),
        (
            {"extendedResourceClaimStatus": {"resourceClaimName": "a"}},
            'node "n1" cannot update extended resource claim status',
        ),
        ({"phase": "Running"}, ""),
    ):
        new = {**deep_copy(old), "status": status}
        attributes = writes(NODE, new, "UPDATE", old, "status")
        assert await said(NodeRestriction(FakeCache()), attributes) == why


async def test_a_mirror_pod_has_its_node_as_owner_and_no_certificates() -> None:
    node = make("Node", "n1")
    plugin = NodeRestriction(FakeCache(node))
    owner = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "n1",
        "uid": node["metadata"]["uid"],
        "controller": True,
    }

    def mirror(owners: list[Object], **spec: Any) -> Attributes:
        meta = {"annotations": {MIRROR: "x"}, "ownerReferences": owners}
        spec = {"nodeName": "n1", "containers": [{"name": "c"}], **spec}
        return writes(NODE, make("Pod", "m", metadata=meta, spec=spec))

    assert await said(plugin, mirror([owner])) == ""
    start = 'node "n1" can only create pods with'
    assert await said(plugin, mirror([])) == f"{start} an owner reference set to itself"
    assert await said(plugin, mirror([owner, owner])) == f"{start} a single owner reference set to itself"
    assert await said(plugin, mirror([{**owner, "controller": False}])) == (
        f"{start} a controller owner reference set to itself"
    )
    volume = {"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}}
    assert await said(plugin, mirror([owner], volumes=[volume])) == (
        'node "n1" can not create pods that reference clustertrustbundles'
    )
