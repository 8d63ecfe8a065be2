"""Which certificates Ingresses bring, and what is told of those that are no good."""

from __future__ import annotations

import base64
import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sampan.api.errors import Object
from sampan.ingress import certificates
from sampan.ingress.types import ANY_HOST, Host, HostKind, Problem

NOW = datetime.datetime(2030, 6, 1, tzinfo=datetime.UTC)


def make(*hosts: str, days: int = 10, begins: int = -1) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW + datetime.timedelta(days=begins))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(h) for h in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def secret(chain: str, key: str, type_: str = "kubernetes.io/tls") -> Object:
    data = {
        "tls.crt": base64.b64encode(chain.encode()).decode(),
        "tls.key": base64.b64encode(key.encode()).decode(),
    }
    return {"metadata": {"name": "s", "namespace": "default"}, "type": type_, "data": data}


def ingress(*tls: Any, local: bool = False, hosts: tuple[str, ...] = ("a.test",)) -> Object:
    return {
        "metadata": {
            "name": "web",
            "namespace": "default",
            "creationTimestamp": "2030-01-01T00:00:00Z",
            "annotations": {"sampan.io/tls": "local"} if local else {},
        },
        "spec": {"tls": list(tls), "rules": [{"host": h} for h in hosts]},
    }


def told(problems: Any) -> list[tuple[str, str]]:
    return [(p.reason, p.message) for p in problems if isinstance(p, Problem)]


def test_one_a_host() -> None:
    chain, key = make("a.test", "*.b.test")
    secrets = {"s": secret(chain, key)}
    found, problems = certificates.of_ingress(
        ingress({"hosts": ["A.test", "*.b.test"], "secretName": "s"}), lambda _, name: secrets.get(name)
    )
    assert problems == ()
    assert [(c.host, c.chain, c.key) for c in found] == [
        (Host(HostKind.EXACT, "a.test"), chain, key),
        (Host(HostKind.WILDCARD, "*.b.test"), chain, key),
    ]
    assert key not in repr(found)
    assert ANY_HOST not in [c.host for c in found]


def test_without_hosts_it_is_for_those_of_the_rules() -> None:
    secrets = {"s": secret(*make("a.test"))}
    found, _ = certificates.of_ingress(ingress({"secretName": "s"}), lambda _, name: secrets.get(name))
    assert [c.host.name for c in found] == ["a.test"]


@pytest.mark.parametrize(
    ("obj", "reason", "words"),
    [
        (None, "SecretNotFound", "there is no Secret default/s"),
        (secret(*make("a.test"), type_="Opaque"), "BadCertificate", "its type is Opaque, not kubernetes.io/tls"),
        (secret(make("a.test")[0], make("a.test")[1]), "BadCertificate", "tls.key does not belong to tls.crt"),
        (secret("nonsense", make("a.test")[1]), "BadCertificate", "cannot be loaded"),
        (secret(make("a.test")[0], ""), "BadCertificate", "tls.key is empty"),
        ({"type": "kubernetes.io/tls", "data": {"tls.crt": "%%%"}}, "BadCertificate", "tls.crt is no PEM"),
    ],
)  # fmt: skip
def test_what_is_no_certificate(obj: Object | None, reason: str, words: str) -> None:
    found, problems = certificates.of_ingress(ingress({"secretName": "s"}), lambda _, __: obj)
    assert found == ()
    [(given, message)] = told(problems)
    assert given == reason
    assert words in message
    assert message.startswith("spec.tls[0]: ")
    assert message.endswith("the default certificate is shown")


def test_a_local_certificate_is_there_in_a_moment() -> None:
    assert certificates.of_ingress(ingress(local=True), lambda _, __: None) == ((), ())


def test_doubts() -> None:
    entry = {"hosts": ["a.test", "x.b.test"], "secretName": "s"}

    def of(*hosts: str, **more: int) -> list[tuple[str, str]]:
        obj = secret(*make(*hosts, **more))
        return told(certificates.doubts(ingress(entry), lambda _, __: obj, NOW))

    assert of("a.test", "*.b.test") == []
    [(reason, message)] = of("a.test", "x.b.test", days=0)
    assert reason == "CertificateExpired"
    assert message.endswith("expired at 2030-06-01T00:00:00Z")
    [(reason, message)] = of("a.test", "x.b.test", begins=1)
    assert message.endswith("is not valid before 2030-06-02T00:00:00Z")
    [(reason, message)] = of("*.test", "*.x.b.test")
    assert reason == "CertificateOfAnotherHost"
    assert message.endswith("is not for x.b.test; its names are: *.test, *.x.b.test")


def test_what_the_parser_cannot_read_is_in_nobody_s_way() -> None:
    """OpenSSL takes a certificate of version 2, which nobody makes; there is nothing to say of its dates."""
    chain, key = make("a.test")
    der = bytearray(base64.b64decode("".join(chain.splitlines()[1:-1])))
    version = bytes(der).index(b"\xa0\x03\x02\x01\x02") + 4
    der[version] = 1
    chain = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
    asked = ingress({"hosts": ["a.test"], "secretName": "s"})
    found, problems = certificates.of_ingress(asked, lambda *_: secret(chain, key))
    assert len(found) == 1
    assert problems == ()
    assert list(certificates.doubts(asked, lambda *_: secret(chain, key), NOW)) == []
    assert certificates.next_date(asked, lambda *_: secret(chain, key), NOW) is None
