"""Pairs that are taken without asking OpenSSL are such that it takes them, too, whatever has happened to their bytes."""

from __future__ import annotations

import base64
import datetime
import functools
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from sampan.ingress import key_pairs

_START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
_KINDS: dict[str, Callable[[], Any]] = {
    "rsa-1024": lambda: rsa.generate_private_key(65537, 1024),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "p-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "p-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
_USUAL = {"rsa-2048", "p-256", "p-384", "p-521"}


@functools.cache
def made(kind: str) -> Any:
    return _KINDS[kind]()


@functools.cache
def certificate(kind: str, signer: str = "", digest: str = "SHA256") -> x509.Certificate:
    key, by = made(kind), made(signer or kind)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, kind)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, signer or kind)]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(_START)
        .not_valid_after(_START + datetime.timedelta(days=10))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.test")]), critical=False)
        .sign(by, None if (signer or kind) == "ed25519" else getattr(hashes, digest)())
    )


def pem(one: x509.Certificate) -> str:
    return one.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(kind: str, form: str = "PKCS8") -> str:
    format_ = getattr(serialization.PrivateFormat, form)
    private: bytes = made(kind).private_bytes(
        serialization.Encoding.PEM, format_, serialization.NoEncryption()
    )
    return private.decode()


def armoured(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


@pytest.mark.parametrize("kind", _KINDS)
def test_what_is_usual_is_loaded(kind: str) -> None:
    chain, key = pem(certificate(kind)), key_pem(kind)
    assert key_pairs.usual(chain, key) == (kind in _USUAL)
    assert key_pairs.problem(chain, key) == key_pairs.refusal(chain, key)
    if kind in _USUAL:
        assert key_pairs.refusal(chain, key) is None


@pytest.mark.parametrize("kind", ["rsa-2048", "p-256"])
def test_forms_and_chains_that_people_have(kind: str) -> None:
    chain = (
        pem(certificate(kind, "p-384"))
        + "\n# the one above it\n"
        + pem(certificate("p-384", "rsa-2048", "SHA384"))
    )
    key = key_pem(kind, "TraditionalOpenSSL")
    assert key_pairs.usual(chain, key)
    assert key_pairs.refusal(chain, key) is None
    # Not the usual, and good all the same.
    assert not key_pairs.usual(chain, pem(certificate("p-384")) + key)
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert not key_pairs.usual(chain, parameters + key)
    assert key_pairs.problem(chain, parameters + key) is None


@pytest.mark.parametrize(
    ("chain", "key", "told"),
    [
        (("p-256",), "p-384", "tls.key does not belong to tls.crt"),
        (("p-256",), "rsa-2048", "tls.key does not belong to tls.crt"),
        (("p-384", "p-256"), "p-256", "tls.key does not belong to tls.crt"),
        (("rsa-1024",), "rsa-1024", "EE_KEY_TOO_SMALL"),
        (("p-256", "rsa-1024"), "p-256", "CA_KEY_TOO_SMALL"),
    ],
)
def test_what_is_wrong_is_told_in_openssl_s_words(chain: tuple[str, ...], key: str, told: str) -> None:
    found = "".join(pem(certificate(one)) for one in chain)
    assert not key_pairs.usual(found, key_pem(key))
    assert told in str(key_pairs.problem(found, key_pem(key)))


@given(data=st.data())
def test_no_damaged_pair_is_usual_that_openssl_refuses(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(_USUAL)))
    parts = {
        "CERTIFICATE": certificate(kind).public_bytes(serialization.Encoding.DER),
        "PRIVATE KEY": made(kind).private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    label = data.draw(st.sampled_from(sorted(parts)))
    der = bytearray(parts[label])
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(der) - 1))
        what = data.draw(st.sampled_from(["set", "cut", "put"]))
        if what == "set":
            der[where] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del der[where]
        else:
            der.insert(where, data.draw(st.integers(0, 255)))
    parts[label] = bytes(der)
    chain, key = (armoured(one, parts[one]) for one in ("CERTIFICATE", "PRIVATE KEY"))
    if key_pairs.usual(chain, key):
        assert key_pairs.refusal(chain, key) is None
