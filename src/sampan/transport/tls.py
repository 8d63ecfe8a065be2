"""TLS contexts for servers and clients, and who a verified client is.

A server's context takes up a renewed certificate by itself: at each handshake it looks whether the files have changed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
from pathlib import Path
from typing import Any

from sampan.transport.types import PeerCertificate

log = logging.getLogger("sampan.transport.tls")

_UID = "1.3.6.1.4.1.57683.2"
"""The part of a subject by which Kubernetes names a user's uid."""
_Stamp = tuple[tuple[int, int, int], ...]


def server_context(
    certificate: Path, key: Path, client_ca: Path | None = None, *, require_client: bool = False
) -> ssl.SSLContext:
    """A server's context. With `client_ca` clients may show a certificate (must, with `require_client`), and one that
    this authority did not sign fails the handshake. Raises OSError or ssl.SSLError for unusable files."""
    files = [certificate, key] + ([client_ca] if client_ca else [])
    current = _server_context(certificate, key, client_ca, require_client)
    stamp = _stamp(files)
    first = current

    def choose(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        nonlocal current, stamp
        try:
            if (now := _stamp(files)) != stamp:
                current = _server_context(certificate, key, client_ca, require_client)
                stamp = now
        except (OSError, ssl.SSLError) as failure:
            # Half-written files: the old certificate serves until both are whole.
            log.warning("cannot take up the renewed certificate %s yet: %s", certificate, failure)
        if current is not first:
            connection.context = current

    first.sni_callback = choose
    return first


def client_context(
    ca: Path | bytes | None, certificate: Path | None = None, key: Path | None = None, *, verify: bool = True
) -> ssl.SSLContext:
    """A client's context: trust `ca` (file, or PEM; None means the system's authorities), show `certificate`.
    `verify` False accepts any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is None:
        context.load_default_certs()
    elif isinstance(ca, bytes):
        context.load_verify_locations(cadata=ca.decode())
    else:
        context.load_verify_locations(ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def peer_certificate(tls: Any) -> PeerCertificate | None:
    """Who the other side of a TLS connection is; None where it showed no certificate that was verified."""
    shown = tls.getpeercert()
    if not shown:
        return None
    names: dict[str, list[str]] = {}
    for part in shown.get("subject", ()):
        for field, value in part:
            names.setdefault(field, []).append(value)
    return PeerCertificate(
        common_name=next(iter(names.get("commonName", ())), ""),
        organizations=tuple(names.get("organizationName", ())),
        not_after=float(ssl.cert_time_to_seconds(shown["notAfter"])),
        fingerprint=hashlib.sha256(tls.getpeercert(True)).hexdigest(),
        uid=next(iter(names.get(_UID, ())), ""),
    )


def _server_context(
    certificate: Path, key: Path, client_ca: Path | None, require_client: bool
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0  # Clients here keep connections, not sessions.
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
    return context


def _stamp(files: list[Path]) -> _Stamp:
    found = [os.stat(file) for file in files]
    return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in found)
