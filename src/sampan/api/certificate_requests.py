"""What a CertificateSigningRequest asks for: its PKCS #10 request taken apart, and the certificates it was given.

Upstream: `pkg/apis/certificates/helpers.go`. The X.509 parser is loaded when it is first needed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.api.errors import Object
from sampan.api.front_doors import FRONT_DOORS

if TYPE_CHECKING:
    from cryptography import x509

KUBE_APISERVER_CLIENT = "kubernetes.io/kube-apiserver-client"
KUBE_APISERVER_CLIENT_KUBELET = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY_UNKNOWN = "kubernetes.io/legacy-unknown"

_PEM = re.compile(
    r"-----BEGIN ([A-Z0-9 ]*)-----[ \t]*\r?\n((?:[^:\n]*:[^\n]*\n)*)([A-Za-z0-9+/=\s]*)-----END \1-----"
)


@dataclass(frozen=True, slots=True)
class Request:
    """Whom and what a request names. `parsed` is the request itself."""

    common_name: str
    organizations: tuple[str, ...]
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]
    emails: tuple[str, ...]
    uris: tuple[str, ...]
    parsed: x509.CertificateSigningRequest


def of(csr: Object) -> Request:
    """The request of an object. Raises ValueError with what is wrong with it."""
    return parse((csr.get("spec") or {}).get("request") or "")


def parse(encoded: str) -> Request:
    """A request as the API carries it: PEM in base64. Raises ValueError with what is wrong; its signature is checked."""
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    found = _PEM.search(text)
    if found is None or found.group(1) != "CERTIFICATE REQUEST":
        raise ValueError("PEM block type must be CERTIFICATE REQUEST")
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        parsed = x509.load_pem_x509_csr(found.group().encode())
        valid = parsed.is_signature_valid
        facts = _facts(parsed)
    except (
        TypeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ) as e:
        raise ValueError(f"x509: {e}") from None
    if not valid:
        raise ValueError("x509: the signature of the request does not fit its key")
    return facts


def _facts(parsed: x509.CertificateSigningRequest) -> Request:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    def names(oid: x509.ObjectIdentifier) -> tuple[str, ...]:
        return tuple(str(a.value) for a in parsed.subject.get_attributes_for_oid(oid))

    try:
        alternatives: Iterable[x509.GeneralName] = parsed.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except x509.ExtensionNotFound:
        alternatives = ()
    given = list(alternatives)

    def values(kind: type[x509.GeneralName]) -> tuple[str, ...]:
        return tuple(str(n.value) for n in given if isinstance(n, kind))

    common = names(NameOID.COMMON_NAME)
    return Request(
        common[-1] if common else "",
        names(NameOID.ORGANIZATION_NAME),
        values(x509.DNSName),
        values(x509.IPAddress),
        values(x509.RFC822Name),
        values(x509.UniformResourceIdentifier),
        parsed,
    )


def certificate_problem(encoded: str) -> str:
    """What is wrong with the certificates of a status (PEM in base64), or "". None at all are fine."""
    if not encoded:
        return ""
    try:
        text = base64.b64decode(encoded, validate=True).decode(errors="replace")
    except binascii.Error as e:
        return str(e)
    blocks = list(_PEM.finditer(text))
    if not blocks:
        return "must contain at least one CERTIFICATE PEM block"
    from cryptography import x509

    for block in blocks:
        if block.group(1) != "CERTIFICATE":
            return f'only CERTIFICATE PEM blocks are allowed, found "{block.group(1)}"'
        if block.group(2):
            return "no PEM block headers are permitted"
        try:
            x509.load_pem_x509_certificate(block.group().encode())
        except ValueError as e:
            return f"x509: malformed certificate: {e}"
    return ""


def has_condition(csr: Object, kind: str) -> bool:
    conditions = (csr.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == kind for c in conditions)


def approved(csr: Object) -> bool:
    """Whether a request was approved and not denied."""
    return has_condition(csr, "Approved") and not has_condition(csr, "Denied")


# ---- what a node may ask for

SELF_NODE_CLIENT, NODE_CLIENT = "selfnodeclient", "nodeclient"
"""Whose request is approved without a person's word is who may create these subresources of requests: for a node of his name, or of any."""
SELF_FRONT_DOOR_CLIENT, FRONT_DOOR_CLIENT = "selffrontdoorclient", "frontdoorclient"
"""And, for one that is a front door as well, these too: names of ours."""

_NODES = "system:nodes"
_NODE_PREFIX = "system:node:"
_CLIENT_USAGES = {"digital signature", "key encipherment", "client auth"}
_SERVING_USAGES = {"digital signature", "key encipherment", "server auth"}


def kubelet_client_problem(request: Request, usages: Iterable[str]) -> str:
    """Why a request is none for the client certificate of a node, one that is a front door or not, or ""."""
    if request.organizations != (_NODES,) and not asks_for_front_door(request):
        return "subject organization is not system:nodes"
    for given, what in (
        (request.dns_names, "DNS"),
        (request.emails, "Email"),
        (request.addresses, "IP"),
        (request.uris, "URI"),
    ):
        if given:
            return f"{what} subjectAltNames are not allowed"
    return _node_problem(request, usages, _CLIENT_USAGES)


def asks_for_front_door(request: Request) -> bool:
    """Whether a node asks for the right to serve Ingresses as well."""
    return request.organizations == (_NODES, FRONT_DOORS)


def kubelet_serving_problem(request: Request, usages: Iterable[str]) -> str:
    """Why a request is none for the certificate that a node serves with, or ""."""
    if request.organizations != (_NODES,):
        return "subject organization is not system:nodes"
    if not request.dns_names and not request.addresses:
        return "DNS or IP subjectAltName is required"
    for given, what in ((request.emails, "Email"), (request.uris, "URI")):
        if given:
            return f"{what} subjectAltNames are not allowed"
    return _node_problem(request, usages, _SERVING_USAGES)


def _node_problem(request: Request, usages: Iterable[str], wanted: set[str]) -> str:
    # Keys that cannot encrypt need not ask to.
    if set(usages) not in (wanted, wanted - {"key encipherment"}):
        return f"usages did not match [{' '.join(sorted(wanted))}]"
    if not request.common_name.startswith(_NODE_PREFIX):
        return f"subject common name does not begin with {_NODE_PREFIX}"
    return ""


def apiserver_client_problem(usages: Iterable[str]) -> str:
    """Why the usages of a request are none of a client of the API server, or ""."""
    given = list(usages)
    for usage in given:
        if usage not in _CLIENT_USAGES:
            return f"invalid usage for client certificate: {usage}"
    return "" if "client auth" in given else "missing required usage for client certificate: client auth"
