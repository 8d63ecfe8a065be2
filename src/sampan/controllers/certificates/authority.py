"""The certificate authority of the cluster as a signer of requests.

Upstream: `pkg/controller/certificates/authority`. The key is read when something is signed, and by nobody but the process
that has the controllers.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.api.certificate_requests import Request

if TYPE_CHECKING:
    from cryptography import x509

LONGEST = 365 * 24 * 3600
"""Seconds that a certificate is valid if its request does not ask for less."""
_SHORTEST = 600
_SHORT_LIVED = 8 * 3600
_BACKDATE = 300

_KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_EXTENDED_USAGES = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}


@dataclass(frozen=True, slots=True)
class Authority:
    """Where the certificate and the key of the authority are (PEM), and, where it is known, the certificate that the API
    server shows."""

    certificate: Path
    key: Path
    server: Path | None = None

    def server_names(self) -> frozenset[str]:
        """The names and addresses that the API server is known by. Raises OSError and ValueError where its certificate cannot
        be read."""
        if self.server is None:
            return frozenset()
        from cryptography import x509

        shown = x509.load_pem_x509_certificate(self.server.read_bytes())
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return frozenset(str(n.value) for n in names)

    def ends(self) -> datetime.datetime:
        """When it ends: nothing that it signs lasts longer. Raises OSError and ValueError where it cannot be read."""
        from cryptography import x509

        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).not_valid_after_utc

    def sign(self, request: Request, usages: Iterable[str], seconds: int | None = None) -> bytes:
        """The certificate that a request asks for, as PEM: its subject and names, no rights of an authority. Blocks
        for some ms. Raises OSError and ValueError where the authority cannot be read."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

        authority = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        key = load_pem_private_key(self.key.read_bytes(), None)
        begin, end = _validity(seconds, authority.not_valid_after_utc)
        given = set(usages)
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.parsed.subject)
            .issuer_name(authority.subject)
            .public_key(request.parsed.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        extended = list(dict.fromkeys(_EXTENDED_USAGES[u] for u in sorted(given) if u in _EXTENDED_USAGES))
        if extended:
            oids = [x509.ObjectIdentifier(oid) for oid in extended]
            builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False)
        if given & _KEY_USAGES.keys():
            builder = builder.add_extension(_key_usage(given), critical=True)
        names = _alternative_names(request)
        if names is not None:
            builder = builder.add_extension(names, critical=not list(request.parsed.subject))
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


def _validity(seconds: int | None, until: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime]:
    """When a certificate begins and ends: a little before now, so that clocks may differ; not after its authority."""
    span = LONGEST if seconds is None else max(_SHORTEST, min(seconds, LONGEST))
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    begin = now - datetime.timedelta(seconds=_BACKDATE)
    # What lives for hours gets all of them.
    end = (now if span < _SHORT_LIVED else begin) + datetime.timedelta(seconds=span)
    return begin, min(end, until)


def _key_usage(usages: set[str]) -> x509.KeyUsage:
    from cryptography import x509

    wanted = {_KEY_USAGES[u] for u in usages if u in _KEY_USAGES}
    if "key_agreement" not in wanted:
        # Without it these two mean nothing.
        wanted -= {"encipher_only", "decipher_only"}
    return x509.KeyUsage(**{name: name in wanted for name in set(_KEY_USAGES.values())})


def _alternative_names(request: Request) -> x509.SubjectAlternativeName | None:
    from cryptography import x509

    try:
        return request.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
