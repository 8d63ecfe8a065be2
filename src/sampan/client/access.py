"""How to reach an API server and as whom: what a kubeconfig context says, as a value."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sampan.transport.tls import client_context

Pem = bytes | Path
"""Certificates or a key: PEM text, or the file that holds it."""

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Access:
    """A server and an identity. What is given as a file is read again when the file changes."""

    server: str
    """`https://host:port`, perhaps with a path before `/api`."""
    namespace: str = "default"
    """The context's default namespace; for programs that talk to people."""
    ca: Pem | None = None
    """Whom to trust; None means the system's authorities."""
    certificate: Pem | None = None
    key: Pem | None = None
    token: str | Path | Callable[[], str] = ""
    """A bearer token, the file that holds it, or what returns the present one."""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""


class Identity:
    """The TLS context and the bearer token of an `Access`, kept fresh."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._context: ssl.SSLContext | None = None
        self._chain_stamp: Stamp | None = None
        self._token = ""
        self._token_stamp: Stamp | None = None

    def context(self) -> ssl.SSLContext | None:
        """The context for connections, None for a plain `http://` server. Always the same one: a renewed certificate
        is loaded into it and used by new connections. Raises OSError, ssl.SSLError for unusable files."""
        access = self._access
        if not access.server.startswith("https:"):
            return None
        if self._context is None:
            self._context = client_context(access.ca, verify=not access.insecure_skip_tls_verify)
            if access.certificate is not None:
                self._chain_stamp = self._stamp()
                _load_chain(self._context, access.certificate, access.key)
        elif (stamp := self._stamp()) is not None and stamp != self._chain_stamp and access.certificate:
            _load_chain(self._context, access.certificate, access.key)
            self._chain_stamp = stamp
        return self._context

    def token(self) -> str:
        """The bearer token of this moment, "" for none. Raises OSError where its file cannot be read."""
        token = self._access.token
        if isinstance(token, str):
            return token
        if not isinstance(token, Path):
            return token()
        if (stamp := _stamp(token)) != self._token_stamp:
            self._token = token.read_text().strip()
            self._token_stamp = stamp
        return self._token

    def _stamp(self) -> Stamp | None:
        certificate = self._access.certificate
        return _stamp(certificate) if isinstance(certificate, Path) else None


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _load_chain(context: ssl.SSLContext, certificate: Pem, key: Pem | None) -> None:
    if isinstance(certificate, Path) and not isinstance(key, bytes):
        context.load_cert_chain(certificate, key)
        return
    # ssl reads files only. A file in memory keeps the key off the disk.
    parts = [p.read_bytes() if isinstance(p, Path) else p for p in (certificate, key) if p is not None]
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, b"\n".join(parts))
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
