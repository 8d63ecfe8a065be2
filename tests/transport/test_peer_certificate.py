"""Who a verified client is, read from a real handshake in memory."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

from sampan.transport.tls import client_context, peer_certificate, server_context

from .authority import Authority


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """The server's side of a connection between two contexts."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for side in (theirs, ours, theirs, ours):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return ours


def test_name_groups_uid_and_fingerprint(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "devs"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ops"),
            x509.NameAttribute(NameOID.COMMON_NAME, "alice"),
            x509.NameAttribute(ObjectIdentifier("1.3.6.1.4.1.57683.2"), "u-1"),
        ]
    )
    certificate = authority._builder(subject, key).sign(authority.key, hashes.SHA256())
    (tmp_path / "alice.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "alice.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    server = server_context(*authority.issue("api"), authority.certificate)
    client = client_context(authority.certificate, tmp_path / "alice.crt", tmp_path / "alice.key")
    found = peer_certificate(handshake(server, client))
    assert found is not None
    assert (found.common_name, found.organizations, found.uid) == ("alice", ("devs", "ops"), "u-1")
    assert found.not_after == certificate.not_valid_after_utc.timestamp()
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert found.fingerprint == hashlib.sha256(der).hexdigest()
    assert peer_certificate(handshake(server, client_context(authority.certificate))) is None
