"""Whether a chain and a key are a pair that a TLS server can show.

OpenSSL has the last word, for HAProxy will ask the same one; but to load a pair takes OpenSSL 3.0 the better part of a millisecond, a hundred
times what it takes to see that one is as nearly all are. So only the others are asked about.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_verdicts: dict[bytes, str | None] = {}
"""By what pairs are made of: each is asked for several times."""
_MOST_VERDICTS = 20_000
_MISMATCH = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""The last one: there is none of the key's algorithm."""
_KEYS = ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")


def problem(chain: str, key: str) -> str | None:
    """What is wrong with a pair (PEM); None for nothing."""
    made_of = hashlib.sha256(f"{chain}\0{key}".encode()).digest()
    if made_of not in _verdicts:
        if len(_verdicts) >= _MOST_VERDICTS:
            _verdicts.clear()
        _verdicts[made_of] = None if usual(chain, key) else refusal(chain, key)
    return _verdicts[made_of]


def usual(chain: str, key: str) -> bool:
    """Whether a pair is one of those that any OpenSSL loads: RSA of 2,048 bits and more or one of the curves of TLS 1.2, signed
    with SHA-2, in PEM with nothing else, the key that of the first certificate. False says nothing yet."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if key.count("-----BEGIN ") != 1 or not any(f"-----BEGIN {kind}-----" in key for kind in _KEYS):
        return False
    try:
        certificates = x509.load_pem_x509_certificates(chain.encode())
        if len(certificates) != chain.count("-----BEGIN ") or not all(map(_usual, certificates)):
            return False
        # Only what is public of it is looked at: whether the rest of an RSA key is right would take 35 ms.
        private = load_pem_private_key(key.encode(), None, unsafe_skip_rsa_key_validation=True)
        return private.public_key() == certificates[0].public_key()
    except Exception:  # of whatever kind (InvalidVersion is none of ValueError): it is not the usual then
        return False


def _usual(certificate: x509.Certificate) -> bool:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    public, digest = certificate.public_key(), certificate.signature_hash_algorithm
    if isinstance(public, rsa.RSAPublicKey):
        good = 2048 <= public.key_size <= 8192
    else:
        curves = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
        good = isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, curves)
    # These are read only when they are asked for, and raise what they find then.
    _ = certificate.subject, certificate.issuer, certificate.extensions
    return good and digest is not None and digest.name in ("sha256", "sha384", "sha512")


def refusal(chain: str, key: str) -> str | None:
    """What OpenSSL has against a pair; None for nothing."""
    if "ENCRYPTED" in key:
        return "tls.key is encrypted"
    fd = os.memfd_create("pair", os.MFD_CLOEXEC)
    try:
        os.write(fd, (chain + key).encode())
        # A password that is asked for would be asked of the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(f"/proc/self/fd/{fd}", password=lambda: "")
    except ssl.SSLError as e:
        if e.reason in _MISMATCH:
            return "tls.key does not belong to tls.crt"
        return f"tls.crt and tls.key cannot be loaded: {e.reason or e}"
    finally:
        os.close(fd)
    return None
