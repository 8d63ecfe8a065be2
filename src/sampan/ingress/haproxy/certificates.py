"""Certificates as HAProxy has them: a file and a line of a list (crt-list) each, and commands that change them while it runs.

Each scope with a TLS listener has a list. Its first line is the default, shown where no other line fits the name that a client asks
for (SNI): a certificate of the scope's own, or the node's (`default_certificate`). A key is in files of mode 0600 and in commands
to HAProxy's socket, and in no text that anybody reads.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sampan.ingress.haproxy.files import Files
from sampan.ingress.types import Certificate, Host, Listener

log = logging.getLogger(__name__)
MOST = 15000
"""Bytes of a chain and key that a command can take; longer ones take a reload."""
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s[^-]*-----END \1-----")
_NAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_BLAMED = re.compile(r"/([cd][0-9a-f]+)\.pem\b")
_DEFAULT = "!*"
"""The filter that fits no name; the first line is for what nothing fits."""

# Mozilla's intermediate configuration, version 5.7. HAProxy never lets a client renegotiate.
_CIPHERS = ":".join(
    f"ECDHE-{who}-{how}"
    for how in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for who in ("ECDSA", "RSA")
)
_SUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_CURVES = "X25519:prime256v1:secp384r1"


@dataclass(frozen=True, slots=True)
class SetCertificate:
    """Have a certificate shown for what `filter` (of a list's line) fits. An empty `pem` is the node's own."""

    name: str
    list: str
    filter: str
    pem: str = field(repr=False)
    new: bool


@dataclass(frozen=True, slots=True)
class RemoveCertificate:
    name: str
    list: str


CertificateOperation = SetCertificate | RemoveCertificate


@dataclass(frozen=True, slots=True)
class Shown:
    """A line of a list with what is in its file."""

    list: str
    filter: str
    pem: str = field(repr=False)

    @property
    def is_default(self) -> bool:
        """Whether it is shown where no other fits. There always is one: it is changed, never added."""
        return self.filter == _DEFAULT


def list_of(scope: str) -> str:
    """The name of a scope's list; with a `d` before it, that of its default."""
    return hashlib.sha256(scope.encode(errors="replace")).hexdigest()[:16]


class Certificates:
    """Which certificate has which name. `shown` is what the proxy shall have, by name."""

    def __init__(self, shown: dict[str, Shown]) -> None:
        self._shown = shown
        self._names: dict[tuple[str, str], str] = {}
        self._number = 0

    def set(self, scope: str, host: Host, certificate: Certificate | None) -> CertificateOperation | None:
        """What it takes to have this certificate (or none) for a host; None for nothing."""
        key = scope, host.name
        name, where = self._names.get(key), list_of(scope)
        if certificate is None:
            if name is None:
                return None
            del self._names[key]
            return (
                RemoveCertificate(name, where)
                if host.name
                else SetCertificate(name, where, _DEFAULT, "", False)
            )
        pem = pem_of(certificate)
        if not host.name:
            self._names[key] = f"d{where}"
            # There is always a default: it is changed, never added.
            return SetCertificate(f"d{where}", where, _DEFAULT, pem, False)
        if not _NAME.fullmatch(host.name):
            log.warning(
                "%s: %r is no host that a certificate can be shown for", certificate.source, host.name
            )
            return None
        if name is None:
            self._number += 1
            name = self._names[key] = f"c{self._number}"
            return SetCertificate(name, where, host.name, pem, True)
        return SetCertificate(name, where, host.name, pem, False)

    def drop(self, text: str) -> frozenset[tuple[str, str]]:
        """Leave out the certificates whose files HAProxy complains of in `text`. Returns scope and host of each ("" for the default)."""
        names = set(_BLAMED.findall(text)) & {n for n, s in self._shown.items() if s.pem}
        for name in names:
            shown = self._shown.pop(name)
            log.error("HAProxy refuses the certificate for %s; it is left out", shown.filter)
        dropped = frozenset(key for key, name in self._names.items() if name in names)
        for key in dropped:
            del self._names[key]
        return dropped


def apply(op: CertificateOperation, shown: dict[str, Shown]) -> None:
    """Have the operation's effect on what is shown. Raises KeyError for what cannot be."""
    match op:
        case SetCertificate(name, where, what, pem, new):
            if what != _DEFAULT and new == (name in shown):
                raise KeyError(name)
            shown[name] = Shown(where, what, pem)
        case RemoveCertificate(name, _):
            del shown[name]


def pem_of(certificate: Certificate) -> str:
    """Key and chain as one file, and nothing else that may stand in either: HAProxy takes the first of each, and an empty line
    would end a command."""
    key = next((b for b in _blocks(certificate.key) if "PRIVATE KEY" in b.partition("\n")[0]), "")
    chain = (b for b in _blocks(certificate.chain) if "CERTIFICATE" in b.partition("\n")[0])
    return "".join(f"{block}\n" for block in (key, *chain))


def _blocks(pem: str) -> Iterator[str]:
    for found in _BLOCK.finditer(pem):
        yield "\n".join(line.strip() for line in found[0].splitlines() if line.strip())


def bind_words(scope: str, files: Files) -> str:
    """What a TLS listener's line says."""
    return (
        f"ssl crt-list {files.certificate_list(list_of(scope))} alpn h2,http/1.1 ssl-min-ver TLSv1.2 "
        f"ciphers {_CIPHERS} ciphersuites {_SUITES} curves {_CURVES} prefer-client-ciphers no-tls-tickets"
    )


def lists(listeners: Iterable[Listener]) -> set[str]:
    """The names of the lists that are in use."""
    return {list_of(one.scope) for one in listeners if one.tls}


def render(
    shown: Mapping[str, Shown], wanted: Iterable[str], own: str, files: Files
) -> Iterator[tuple[Path, str]]:
    """(path, text) of the lists named `wanted`, and of all that is in them."""
    lines: dict[str, list[str]] = {}
    for where in sorted(wanted):
        default = shown.get(f"d{where}")
        yield files.certificate(f"d{where}"), (default.pem if default else "") or own
        lines[where] = [f"{files.certificate(f'd{where}')} {_DEFAULT}\n"]
    for name, one in shown.items():
        if one.list in lines and one.filter != _DEFAULT:
            yield files.certificate(name), one.pem
            lines[one.list].append(f"{files.certificate(name)} {one.filter}\n")
    for where, text in lines.items():
        yield files.certificate_list(where), "".join(text)


def commands(op: CertificateOperation, files: Files) -> Iterator[str]:
    """The commands for an operation (management guide, section 9.3: `set ssl cert`)."""
    file, where = files.certificate(op.name), files.certificate_list(op.list)
    match op:
        case SetCertificate():
            if op.new:
                yield f"new ssl cert {file}"
            yield f"set ssl cert {file} <<\n{op.pem or files.default_certificate.read_text()}"
            yield f"commit ssl cert {file}"
            if op.new:
                yield f"add ssl crt-list {where} <<\n{file} {op.filter}\n"
        case RemoveCertificate():
            yield f"del ssl crt-list {where} {file}"
            yield f"del ssl cert {file}"


def misdirected(known: Path) -> Iterator[str]:
    """Rules that answer 421 (RFC 9110, 15.5.20) to a request for a host that its connection was not made for, if another certificate
    is shown for that host: a browser may use one connection for several hosts that it takes one certificate to cover. Who sends
    no name, as for an address, is not asked. `known` is the map of which chain is shown for which host."""
    yield from _foreign()
    foreign = "{ var(txn.foreign) -m found }"
    for result, name in (("shown", "sni"), ("due", "host")):
        missing = f"!{{ var(txn.{result}) -m found }}"
        for pattern in (f"%[var(txn.{name})]", f"%[var(txn.{name}),regsub(^[^.]+,*)]", "*"):
            yield (
                f"http-request set-var-fmt(txn.certificate_key) %[var(txn.scope)]|{pattern} if {foreign} {missing}"
            )
            yield (
                f'http-request set-var(txn.{result}) "var(txn.certificate_key),map_str({known})" '
                f"if {foreign} {missing}"
            )
        yield f"http-request set-var(txn.{result}) str(-) if {foreign} {missing}"
    yield f"{_MISDIRECTED} if {foreign} !{{ var(txn.shown),strcmp(txn.due) eq 0 }}"


def misdirected_among_listeners() -> Iterator[str]:
    """The same where a port has several listeners (GEP-3567): whoever's connection was for one may not ask another one."""
    yield from _foreign()
    yield "http-request lua.misdirected if { var(txn.foreign) -m found }"
    yield f"{_MISDIRECTED} if {{ var(txn.misdirected) -m found }}"


_MISDIRECTED = 'http-request return status 421 content-type text/plain string "421: this connection is for another host\\n"'


def _foreign() -> Iterator[str]:
    """A variable for what is asked of another host than the connection was made for."""
    yield "http-request set-var(txn.sni) ssl_fc_sni,lower if { ssl_fc_has_sni }"
    yield (
        "http-request set-var(txn.foreign) bool(1) if { var(txn.sni) -m found } "
        "!{ var(txn.sni),strcmp(txn.host) eq 0 }"
    )


def chain_of(certificate: Certificate) -> str:
    """A name for what is shown, the same for equal chains."""
    return hashlib.sha256(certificate.chain.encode(errors="replace")).hexdigest()[:32]
