"""Certificates of the cluster's own authority for Ingresses that ask for one."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import INGRESSES, SECRETS
from sampan.apiserver.app import App
from sampan.client.types import MERGE_PATCH
from sampan.controllers import local_tls
from sampan.controllers.certificates import authority
from sampan.controllers.manager import Manager
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config
from tests.transport.authority import Authority

from .conftest import Cluster, running


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Authority(tmp_path)
    key = tmp_path / "ca.key"
    key.write_bytes(
        made.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    signer = authority.Authority(made.certificate, key)
    app = App(MemoryStore(), config())
    await app.start()
    client = app.client()
    async with running(Manager(client, cluster_ca="THE CA", local_authority=signer).run()):
        yield Cluster(client)
    await app.close()


def ingress(name: str, *hosts: str, tls: list[Any] | None = None, annotation: str = "local") -> Object:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"sampan.io/tls": annotation} if annotation else {},
        },
        "spec": {
            "defaultBackend": backend,
            "rules": [{"host": h} for h in hosts],
            **({"tls": tls} if tls is not None else {}),
        },
    }


def names(secret: Object) -> list[str]:
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.DNSName)


async def secret(cluster: Cluster, name: str, *hosts: str) -> Object:
    """Wait for a Secret whose certificate is for these hosts."""

    def there(secrets: list[Object]) -> list[Object]:
        return [s for s in secrets if s["metadata"]["name"] == name and names(s) == list(hosts)]

    return there(await cluster.until(SECRETS, there))[0]


async def test_an_ingress_gets_a_certificate_for_its_hosts(cluster: Cluster) -> None:
    made = await cluster.client.create(INGRESSES, ingress("web", "a.test", "*.b.test"))
    found = await secret(cluster, "web-local-tls", "a.test", "*.b.test")
    assert found["type"] == "kubernetes.io/tls"
    assert found["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    assert "web-local-tls" in (await cluster.event("CertificateIssued"))["message"]
    # Other hosts, another certificate.
    changed = deep_copy(made)
    changed["spec"]["rules"] = [{"host": "c.test"}]
    await cluster.client.update(INGRESSES, changed)
    await secret(cluster, "web-local-tls", "c.test")
    # One that was deleted comes again.
    await cluster.client.delete(SECRETS, "default", "web-local-tls")
    again = await secret(cluster, "web-local-tls", "c.test")
    assert again["metadata"]["uid"] != found["metadata"]["uid"]


async def test_entries_say_which_secret_is_for_which_hosts(cluster: Cluster) -> None:
    tls = [{"hosts": ["a.test"], "secretName": "for-a"}, {"secretName": "for-all"}]
    await cluster.client.create(INGRESSES, ingress("web", "a.test", "b.test", tls=tls))
    await secret(cluster, "for-a", "a.test")
    await secret(cluster, "for-all", "a.test", "b.test")


async def test_entries_with_one_secret_have_one_certificate(cluster: Cluster) -> None:
    """One for each of them in turn would be made for ever."""
    tls = [{"hosts": ["a.test"]}, {"hosts": ["b.test", "a.test"]}]
    await cluster.client.create(INGRESSES, ingress("web", "a.test", "b.test", tls=tls))
    made = await secret(cluster, "web-local-tls", "a.test", "b.test")
    # What comes later has been looked at when this has.
    await cluster.client.create(INGRESSES, ingress("other", "c.test"))
    await secret(cluster, "other-local-tls", "c.test")
    assert (await cluster.client.get(SECRETS, "default", "web-local-tls"))["data"] == made["data"]


async def test_a_secret_of_somebody_else_stays(cluster: Cluster) -> None:
    theirs = {
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "theirs", "namespace": "default"}, "data": {"tls.crt": "", "tls.key": ""},
    }  # fmt: skip
    before = await cluster.client.create(SECRETS, theirs)
    await cluster.client.create(INGRESSES, ingress("web", "a.test", tls=[{"secretName": "theirs"}]))
    assert "theirs" in (await cluster.event("SecretExists"))["message"]
    # That is told once, whatever else changes; what comes later has been looked at when this has.
    for n in range(3):
        change = {"metadata": {"labels": {"n": str(n)}}}
        await cluster.client.patch(INGRESSES, "default", "web", change, content_type=MERGE_PATCH)
    await cluster.client.create(INGRESSES, ingress("other", "b.test"))
    await secret(cluster, "other-local-tls", "b.test")
    assert "for b.test" in (await cluster.event("CertificateIssued"))["message"]
    assert (await cluster.event("SecretExists"))["count"] == 1
    assert (await cluster.client.get(SECRETS, "default", "theirs"))["data"] == before["data"]
    # Once it is out of the way there is one for the Ingress.
    await cluster.client.delete(SECRETS, "default", "theirs")
    await cluster.until(SECRETS, lambda all_: any(names(s) == ["a.test"] for s in all_))


async def test_one_that_ends_soon_is_made_anew(cluster: Cluster) -> None:
    await cluster.client.create(INGRESSES, ingress("web", "a.test"))
    first = await secret(cluster, "web-local-tls", "a.test")
    old = deep_copy(first)
    old["metadata"]["annotations"][local_tls.NOT_AFTER] = "2020-01-01T00:00:00+00:00"
    await cluster.client.update(SECRETS, old)
    await cluster.until(SECRETS, lambda all_: any(s["data"] != first["data"] for s in all_))


async def test_one_that_lasts_as_long_as_the_authority_stays(cluster: Cluster) -> None:
    """This authority ends in a day: each new certificate would have less than a third of a year left again."""
    await cluster.client.create(INGRESSES, ingress("web", "a.test"))
    made = await secret(cluster, "web-local-tls", "a.test")
    # What comes later has been looked at when this has.
    await cluster.client.create(INGRESSES, ingress("other", "b.test"))
    await secret(cluster, "other-local-tls", "b.test")
    assert (await cluster.client.get(SECRETS, "default", "web-local-tls"))["data"] == made["data"]


async def test_nobody_else_gets_one(cluster: Cluster) -> None:
    await cluster.client.create(INGRESSES, ingress("plain", "a.test", annotation=""))
    await cluster.client.create(INGRESSES, ingress("without-hosts"))
    await cluster.client.create(INGRESSES, ingress("web", "b.test"))
    await secret(cluster, "web-local-tls", "b.test")
    assert [s["metadata"]["name"] for s in await cluster.all(SECRETS)] == ["web-local-tls"]
