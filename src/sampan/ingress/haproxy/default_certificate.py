"""The certificate that a node shows where no other fits: self-signed, made when a proxy starts that has none yet, by a process of
its own, which alone needs a library for that.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import subprocess
import sys
from pathlib import Path

log = logging.getLogger(__name__)
_DAYS = 3650
_NAME = "sampan-ingress.invalid"


async def ensure(path: Path) -> None:
    """Have it in `path` (0600). Raises OSError."""
    if path.exists():
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, str(path)), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"the default certificate cannot be made: {said.decode(errors='replace')[-500:]}")
    log.info("made a self-signed certificate, shown for hosts that have none: %s", path)


def make() -> bytes:
    """A new key and its certificate, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    return private + certificate.public_bytes(s.Encoding.PEM)


def main(path: Path) -> None:
    temporary = path.with_suffix(".new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(make())
    temporary.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
