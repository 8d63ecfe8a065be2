"""Requests for certificates: who is approved without a word, what is signed, what is refused, when they go."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sampan.api import certificate_requests
from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, deep_copy, format_time
from sampan.api.resources import CERTIFICATESIGNINGREQUESTS as CSRS
from sampan.api.resources import CLUSTERROLEBINDINGS, NODES
from sampan.apiserver.app import App
from sampan.apiserver.types import AUTHENTICATED, User
from sampan.client.types import Client
from sampan.controllers.certificates import authority, cleaner
from sampan.controllers.manager import Manager
from sampan.store.memory import MemoryStore
from tests.api.test_certificates import CLIENT, NODE, SERVING, csr, request
from tests.apiserver.conftest import config
from tests.transport.authority import Authority

from .conftest import Cluster, running

KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"


@pytest.fixture
def ca(tmp_path: Path) -> authority.Authority:
    made = Authority(tmp_path)
    key = tmp_path / "ca.key"
    key.write_bytes(
        made.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    signer = authority.Authority(made.certificate, key)
    shown = csr(request=request("kube-apiserver", (), ("api.example",), ("10.96.0.1", "192.0.2.1")))
    server = tmp_path / "apiserver.crt"
    server.write_bytes(signer.sign(certificate_requests.of(shown), ["server auth"]))
    return dataclasses.replace(signer, server=server)


@pytest.fixture
async def app(ca: authority.Authority) -> AsyncIterator[App]:
    made = App(MemoryStore(), config())
    await made.start()
    async with running(Manager(made.client(), "THE CA", authority=ca).run()):
        yield made
    await made.close()


@pytest.fixture
def cluster(app: App) -> Cluster:
    return Cluster(app.client())


def as_user(app: App, name: str, *groups: str) -> Client:
    return app.client(User(name, "", (*groups, AUTHENTICATED)))


async def decide(cluster: Cluster, name: str, kind: str) -> None:
    """What `kubectl certificate` does."""
    asked = deep_copy(await cluster.client.get(CSRS, "", name))
    decision = {"type": kind, "status": "True", "reason": "KubectlApprove", "message": "by hand"}
    asked.setdefault("status", {}).setdefault("conditions", []).append(decision)
    await cluster.client.update(CSRS, asked, subresource="approval")


def of(name: str, all_: list[Object]) -> Object:
    return next((o for o in all_ if o["metadata"]["name"] == name), {"status": {}})


async def issued(cluster: Cluster, name: str) -> x509.Certificate:
    found = await cluster.until(CSRS, lambda all_: of(name, all_)["status"].get("certificate"), "")
    return x509.load_pem_x509_certificate(base64.b64decode(of(name, found)["status"]["certificate"]))


def named(name: str, obj: Object) -> Object:
    return {**obj, "metadata": {"name": name}}


async def test_what_a_person_approves_is_signed(cluster: Cluster, ca: authority.Authority) -> None:
    made = await cluster.client.create(CSRS, csr(expirationSeconds=3600))
    assert made["status"] == {}
    assert made["spec"]["username"] == "system:apiserver"
    assert "system:masters" in made["spec"]["groups"]
    await decide(cluster, "jane", "Approved")
    certificate = await issued(cluster, "jane")
    subject = {a.oid: a.value for a in certificate.subject}
    assert subject == {NameOID.ORGANIZATION_NAME: "devs", NameOID.COMMON_NAME: "jane"}
    signer = x509.load_pem_x509_certificate(ca.certificate.read_bytes())
    certificate.verify_directly_issued_by(signer)
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    span = (certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds()
    assert span == 3600 + 300


async def test_a_denied_request_is_not_signed(cluster: Cluster) -> None:
    await cluster.client.create(CSRS, csr())
    await decide(cluster, "jane", "Denied")
    with pytest.raises(StatusError, match="mutually exclusive"):
        await decide(cluster, "jane", "Approved")
    await cluster.client.create(CSRS, named("next", csr()))
    await decide(cluster, "next", "Approved")
    await issued(cluster, "next")
    denied = await cluster.client.get(CSRS, "", "jane")
    assert "certificate" not in denied["status"]


async def test_what_a_signer_does_not_sign_fails(cluster: Cluster) -> None:
    await cluster.client.create(CSRS, csr(usages=["server auth"]))
    await decide(cluster, "jane", "Approved")
    await cluster.until(CSRS, lambda all_: condition(of("jane", all_), "Failed"), "")
    failed = condition(await cluster.client.get(CSRS, "", "jane"), "Failed")
    assert failed is not None
    assert (failed["reason"], failed["message"]) == (
        "SignerValidationFailure",
        "invalid usage for client certificate: server auth",
    )


async def test_signers_of_others_are_left_to_them(cluster: Cluster) -> None:
    await cluster.client.create(CSRS, named("theirs", csr("example.com/mine")))
    await decide(cluster, "theirs", "Approved")
    await cluster.client.create(CSRS, csr())
    await decide(cluster, "jane", "Approved")
    await issued(cluster, "jane")
    assert "certificate" not in (await cluster.client.get(CSRS, "", "theirs"))["status"]


def binding(role: str, group: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": role.rpartition(":")[2]},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    }


_ROLE = "system:certificates.k8s.io:certificatesigningrequests:"


@pytest.mark.parametrize(
    ("user", "group", "role", "message"),
    [
        (
            "system:node:n1",
            "system:nodes",
            "selfnodeclient",
            "Auto approving self kubelet client certificate",
        ),
        ("system:bootstrap:abcdef", "system:bootstrappers", "nodeclient", "Auto approving kubelet client"),
    ],
)
async def test_nodes_are_approved_by_their_rights(
    app: App, cluster: Cluster, user: str, group: str, role: str, message: str
) -> None:
    asked = csr(KUBELET_CLIENT, request=request(*NODE), usages=CLIENT)
    asker = as_user(app, user, group)
    creator = {**binding("system:node-bootstrapper", group), "metadata": {"name": "bootstrappers"}}
    await cluster.client.create(CLUSTERROLEBINDINGS, creator)
    made = await asker.create(CSRS, asked)
    assert (made["spec"]["username"], made["spec"]["groups"]) == (user, [group, AUTHENTICATED])
    # The right may come after the request.
    await cluster.client.create(CLUSTERROLEBINDINGS, binding(_ROLE + role, group))
    certificate = await issued(cluster, "jane")
    approved = condition(await cluster.client.get(CSRS, "", "jane"), "Approved")
    assert approved is not None
    assert approved["reason"] == "AutoApproved"
    assert approved["message"].startswith(message)
    span = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert span.total_seconds() <= authority.LONGEST


async def test_a_node_is_not_approved_for_another(app: App, cluster: Cluster) -> None:
    await cluster.client.create(CLUSTERROLEBINDINGS, binding(_ROLE + "selfnodeclient", "system:nodes"))
    own = csr(KUBELET_CLIENT, request=request(*NODE), usages=CLIENT)
    other = csr(KUBELET_CLIENT, request=request("system:node:n2", ("system:nodes",)), usages=CLIENT)
    node = as_user(app, "system:node:n1", "system:nodes")
    await node.create(CSRS, named("other", other))
    await node.create(CSRS, named("own", own))
    await issued(cluster, "own")
    assert (await cluster.client.get(CSRS, "", "other"))["status"] == {}


async def test_serving_certificates_wait_for_a_person_and_have_their_names(cluster: Cluster) -> None:
    asked = csr(KUBELET_SERVING, request=request(*NODE, ("n1",), ("10.0.0.1",)), usages=SERVING)
    await cluster.client.create(CSRS, asked)
    await decide(cluster, "jane", "Approved")
    certificate = await issued(cluster, "jane")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1"]
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, True, False)


async def test_a_node_gets_certificates_of_its_own_names_alone(app: App, cluster: Cluster) -> None:
    """Whatever it writes into its Node, or calls itself: not those of the API server, of Services, of loopback, of others."""
    names = {
        "n1": ("10.0.0.1", "10.96.0.1", "192.0.2.1", "127.0.0.1", "::1", "10.0.0.2"),
        "n2": ("10.0.0.2",),
    }
    names |= dict.fromkeys(
        ("api.example", "kubernetes.default.svc", "web.shop.svc.cluster.local", "kubernetes"), ()
    )
    for name, addresses in names.items():
        made = await cluster.client.create(
            NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        )
        told = [{"type": "InternalIP", "address": a} for a in addresses]
        told += [{"type": kind, "address": "kubernetes.default.svc"} for kind in ("Hostname", "InternalDNS")]
        made.setdefault("status", {})["addresses"] = told
        await cluster.client.update(NODES, made, subresource="status")

    async def ask(number: int, node: str, dns: tuple[str, ...], addresses: tuple[str, ...]) -> None:
        user = f"system:node:{node}"
        asked = csr(KUBELET_SERVING, request=request(user, ("system:nodes",), dns, addresses), usages=SERVING)
        await as_user(app, user, "system:nodes").create(CSRS, named(f"c{number}", asked))

    refused: list[tuple[str, tuple[str, ...], tuple[str, ...]]]
    refused = [("n1", (), (a,)) for a in names["n1"][1:]]
    refused += [("n1", (dns,), ()) for dns in ("kubernetes.default.svc", "n2", "localhost")]
    refused += [(name, (name,), ()) for name in names if name not in ("n1", "n2")]
    for number, asked in enumerate(refused):
        await ask(number, *asked)
    await ask(len(refused), "n1", ("n1",), ("10.0.0.1",))
    await issued(cluster, f"c{len(refused)}")
    decided = [o["metadata"]["name"] for o in (await cluster.client.list(CSRS)).items if o["status"]]
    assert decided == [f"c{len(refused)}"]


async def test_what_was_decided_long_ago_goes(cluster: Cluster) -> None:
    await cluster.client.create(CSRS, csr())
    asked = deep_copy(await cluster.client.get(CSRS, "", "jane"))
    long_ago = format_time(time.time() - 2 * cleaner.DECIDED_SECONDS)
    asked["status"]["conditions"] = [{"type": "Denied", "status": "True", "lastUpdateTime": long_ago}]
    await cluster.client.update(CSRS, asked, subresource="approval")
    await cluster.until(CSRS, lambda all_: not all_, "")


def made_at(age: float, **status: Any) -> Object:
    return {"metadata": {"creationTimestamp": format_time(1e9 - age)}, "status": status}


@pytest.mark.parametrize(
    ("obj", "left"),
    [
        (made_at(0), 86400),
        (made_at(100), 86300),
        (made_at(0, conditions=[{"type": "Approved", "lastUpdateTime": format_time(1e9)}]), 3600),
        (made_at(0, conditions=[{"type": "Failed", "lastUpdateTime": format_time(1e9 - 60)}]), 3540),
        (made_at(0, conditions=[{"type": "Mine"}]), float("inf")),
    ],
)
def test_when_they_go(obj: Object, left: float) -> None:
    assert cleaner.ends(obj) - 1e9 == left
