"""The certificates that Ingresses name: from Secrets of the type kubernetes.io/tls to what the proxy shows.

`of_ingress` takes what a TLS server can load (`key_pairs`), so that nothing broken comes near the proxy. `doubts` looks closer, at dates and
names, for whoever tells people.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from sampan.api import ingress_tls
from sampan.api.errors import Object
from sampan.ingress import key_pairs
from sampan.ingress.types import INGRESS_SCOPE, Certificate, Host, Problem, Source

if TYPE_CHECKING:
    from cryptography import x509

SecretLookup = Callable[[str, str], Object | None]
"""The Secret of that namespace and name, if there is one."""

TYPE = "kubernetes.io/tls"
SECRET_NOT_FOUND = "SecretNotFound"
BAD_CERTIFICATE = "BadCertificate"
EXPIRED = "CertificateExpired"
OTHER_HOST = "CertificateOfAnotherHost"


def of_ingress(ingress: Object, secret: SecretLookup) -> tuple[tuple[Certificate, ...], tuple[Problem, ...]]:
    """The certificates of an Ingress, one a host, and what is wrong with the others."""
    meta = ingress["metadata"]
    namespace = meta.get("namespace", "")
    found: list[Certificate] = []
    problems: list[Problem] = []
    for i, (hosts, name) in enumerate(ingress_tls.entries(ingress)):
        source = Source("Ingress", namespace, meta["name"], f"spec.tls[{i}]")
        obj = secret(namespace, name)
        if obj is None:
            if not ingress_tls.is_local(ingress):  # there in a moment
                where = f"{source.field}: there is no Secret {namespace}/{name} of the type {TYPE}"
                why = f"{where}; the default certificate is shown"
                problems.append(Problem(source, SECRET_NOT_FOUND, why))
            continue
        try:
            chain, key = pair(obj)
        except ValueError as e:
            why = f"{source.field}: Secret {namespace}/{name}: {e}; the default certificate is shown"
            problems.append(Problem(source, BAD_CERTIFICATE, why))
            continue
        created, local = meta.get("creationTimestamp") or "", ingress_tls.is_local(ingress)
        found += (
            Certificate(INGRESS_SCOPE, Host.of_ingress(host), chain, key, source, created, local)
            for host in hosts
        )
    return tuple(found), tuple(problems)


def trimmed(secret: Object) -> Object:
    """What is kept of a Secret: what kubectl notes in an annotation has the key once more."""
    meta, data = secret["metadata"], secret.get("data") or {}
    return {
        "metadata": {k: meta[k] for k in ("name", "namespace", "resourceVersion") if k in meta},
        "type": secret.get("type"),
        "data": {k: data[k] for k in ("tls.crt", "tls.key") if k in data},
    }


def secrets_of(ingress: Object) -> Iterator[str]:
    """`namespace/name` of the Secret of each certificate that an Ingress names; for an index."""
    namespace = ingress["metadata"].get("namespace", "")
    return (f"{namespace}/{name}" for _, name in ingress_tls.entries(ingress))


def pair(secret: Object) -> tuple[str, str]:
    """Chain and key of a Secret as PEM. Raises ValueError with what is wrong."""
    if secret.get("type") != TYPE:
        raise ValueError(f"its type is {secret.get('type') or 'Opaque'}, not {TYPE}")
    data = secret.get("data") or {}
    parts = []
    for name in ("tls.crt", "tls.key"):
        try:
            text = base64.b64decode(data.get(name) or "", validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"{name} is no PEM") from None
        if not text.strip():
            raise ValueError(f"{name} is empty")
        parts.append(text if text.endswith("\n") else text + "\n")
    chain, key = parts
    if (problem := key_pairs.problem(chain, key)) is not None:
        raise ValueError(problem)
    return chain, key


def doubts(ingress: Object, secret: SecretLookup, now: datetime.datetime) -> Iterator[Problem]:
    """What is wrong with certificates that are shown all the same: that they have ended, begin later, or are for other hosts."""
    for source, where, hosts, chain in _shown(ingress, secret):
        yield from chain_doubts(chain, hosts, source, where, now)


def next_date(ingress: Object, secret: SecretLookup, now: datetime.datetime) -> datetime.datetime | None:
    """When `doubts` will next say something else by itself: the first of the dates on the certificates that is yet to come."""
    return next_date_of((chain for _, _, _, chain in _shown(ingress, secret)), now)


def _shown(ingress: Object, secret: SecretLookup) -> Iterator[tuple[Source, str, Sequence[str], str]]:
    """Of each certificate that can be shown: what asked for it, what it is called, its hosts and its chain."""
    meta = ingress["metadata"]
    namespace = meta.get("namespace", "")
    for i, (hosts, name) in enumerate(ingress_tls.entries(ingress)):
        obj = secret(namespace, name)
        if obj is None:
            continue
        with contextlib.suppress(ValueError):  # `of_ingress` has said so
            source = Source("Ingress", namespace, meta["name"], f"spec.tls[{i}]")
            yield source, f"the certificate in Secret {namespace}/{name}", hosts, pair(obj)[0]


def chain_doubts(
    chain: str, hosts: Sequence[str], source: Source, what: str, now: datetime.datetime
) -> Iterator[Problem]:
    """What is wrong with a chain (PEM) that is shown for these hosts."""
    certificate = _first_of(chain)
    if certificate is None:
        return
    where = f"{source.field}: {what}"
    if certificate.not_valid_after_utc <= now:
        ended = certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        yield Problem(source, EXPIRED, f"{where} expired at {ended}")
    elif certificate.not_valid_before_utc > now:
        begins = certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        yield Problem(source, EXPIRED, f"{where} is not valid before {begins}")
    names = _names(certificate)
    if missing := [h for h in hosts if not any(_covers(n, h) for n in names)]:
        has = ", ".join(names) or "none"
        yield Problem(source, OTHER_HOST, f"{where} is not for {', '.join(missing)}; its names are: {has}")


def next_date_of(chains: Iterable[str], now: datetime.datetime) -> datetime.datetime | None:
    """The first of the dates on certificates that is yet to come."""
    read = (_first_of(chain) for chain in chains)
    dates = (d for one in read if one for d in (one.not_valid_before_utc, one.not_valid_after_utc))
    return min((d for d in dates if d > now), default=None)


def names_of(chain: str) -> list[str]:
    """The DNS names that the first certificate of a chain (PEM) is for, in lower case."""
    certificate = _first_of(chain)
    return [] if certificate is None else _names(certificate)


def is_for(chain: str, host: str) -> bool:
    """Whether the first certificate of a chain (PEM) is for a host."""
    return any(_covers(name, host) for name in names_of(chain))


def _first_of(chain: str) -> x509.Certificate | None:
    """The first certificate of a chain; None where OpenSSL can load it and this parser cannot."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(chain.encode())
    except (ValueError, x509.InvalidVersion):
        return None


def _names(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return []
    return [n.lower() for n in found.get_values_for_type(x509.DNSName)]


def _covers(name: str, host: str) -> bool:
    """Whether a name of a certificate is good for a host: the same, or `*` for its first label (RFC 6125, 6.4.3)."""
    host = host.lower()
    if name == host:
        return True
    return name.startswith("*.") and not host.startswith("*") and host.partition(".")[2] == name[2:]
