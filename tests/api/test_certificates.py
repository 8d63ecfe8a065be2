"""CertificateSigningRequests: each case is a change of a good object and what upstream says about it."""

from __future__ import annotations

import base64
import functools
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sampan.api import certificate_requests, managed_fields, protobuf, selectors, strategy, tables, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import CERTIFICATESIGNINGREQUESTS as CSRS
from tests.transport.authority import Authority

from .test_protobuf import envelope, field
from .test_validation import changed, problems, ready

NODE_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"


@functools.cache
def request(
    common_name: str = "jane",
    organizations: tuple[str, ...] = ("devs",),
    dns: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
    emails: tuple[str, ...] = (),
) -> str:
    """A signed request, as the API carries it."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    names.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    others: list[x509.GeneralName] = [x509.DNSName(d) for d in dns]
    others += [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
    others += [x509.RFC822Name(e) for e in emails]
    if others:
        builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
    return base64.b64encode(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)).decode()


def csr(signer: str = "kubernetes.io/kube-apiserver-client", **spec: Any) -> Object:
    given = {"request": request(), "signerName": signer, "usages": ["client auth"], **spec}
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "jane"},
        "spec": given,
    }


def forged() -> str:
    """A request whose signature is of another."""
    der = bytearray(x509.load_pem_x509_csr(base64.b64decode(request())).public_bytes(Encoding.DER))
    der[-1] ^= 1
    text = base64.b64encode(bytes(der)).decode()
    return base64.b64encode(
        f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n".encode()
    ).decode()


def of_unknown_key() -> str:
    """A request with a key of a type that nobody knows."""
    der = x509.load_pem_x509_csr(base64.b64decode(request())).public_bytes(Encoding.DER)
    ec_key = bytes.fromhex("2a8648ce3d0201")
    text = base64.b64encode(der.replace(ec_key, ec_key[:-1] + b"\x7f", 1)).decode()
    return base64.b64encode(
        f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n".encode()
    ).decode()


def no_request() -> str:
    return base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").decode()


NAME = "spec.signerName: Invalid value: "
CASES: list[tuple[str, object, list[str]]] = [
    ("metadata/name", "Any name: will do", []),
    ("metadata/name", "a/b", ["metadata.name: Invalid value: \"a/b\": may not contain '/'"]),
    ("spec/request", "", ['spec.request: Invalid value: "": PEM block type must be CERTIFICATE REQUEST']),
    ("spec/request", no_request(), [f'spec.request: Invalid value: "{no_request()}": PEM block type must be CERTIFICATE REQUEST']),
    ("spec/request", forged(), ['spec.request: Invalid value: "']),
    ("spec/request", of_unknown_key(), [f'spec.request: Invalid value: "{of_unknown_key()}": x509: Unknown key type']),
    ("spec/usages", [], ["spec.usages: Required value: usages must be provided"]),
    ("spec/usages", ["singing", "client auth", "client auth"],
     ['spec.usages[0]: Unsupported value: "singing": supported values: "any", "cert sign", "client auth"', 'spec.usages[2]: Duplicate value: "client auth"']),
    ("spec/signerName", "", ["spec.signerName: Required value: signerName must be provided"]),
    ("spec/signerName", "kubernetes.io/legacy-unknown", [NAME + '"kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version']),
    ("spec/signerName", "signer", [NAME + "\"signer\": must be a fully qualified domain and path of the form 'example.com/signer-name'"]),
    ("spec/signerName", "example/signer", [NAME + '"example": should be a domain with at least two segments separated by dots']),
    ("spec/signerName", "Example.com/signer", [NAME + '"Example.com": validating label "Example": a lowercase RFC 1123 label must consist of']),
    ("spec/signerName", "example.com/Signer", [NAME + '"Signer": validating label "Signer": a lowercase RFC 1123 subdomain must consist of']),
    ("spec/signerName", "example.com/space.name", []),
    ("spec/expirationSeconds", 599, ["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)"]),
    ("spec/expirationSeconds", 600, []),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "expected"), CASES)
def test_create(path: str, value: object, expected: list[str]) -> None:
    assert problems(CSRS, csr()) == []
    found = problems(CSRS, changed(csr(), path, value))
    assert len(found) == len(expected), found
    for text, begins in zip(found, expected, strict=True):
        assert text.startswith(begins)


def condition(kind: str, state: str = "True", **more: str) -> Object:
    return {"type": kind, "status": state, **more}


def stored(*conditions: Object, certificate: str = "") -> Object:
    obj = ready(CSRS, csr())
    if conditions:
        obj["status"]["conditions"] = [deep_copy(c) for c in conditions]
    if certificate:
        obj["status"]["certificate"] = certificate
    return obj


def pem(text: str = "") -> str:
    return base64.b64encode(text.encode()).decode()


EXCLUSIVE = "Approved and Denied conditions are mutually exclusive"
UPDATES: list[tuple[str, Sequence[Object], Sequence[Object], list[str]]] = [
    ("approval", [], [condition("Approved")], []),
    ("approval", [], [condition("Approved", "False")], ['status.conditions[0].status: Unsupported value: "False": supported values: "True"']),
    ("approval", [], [condition("", "")], ["status.conditions[0].type: Required value", "status.conditions[0].status: Required value"]),
    ("approval", [], [condition("Approved"), condition("Denied")], [f'status.conditions[1].type: Invalid value: "Denied": {EXCLUSIVE}']),
    ("approval", [condition("Denied")], [condition("Denied"), condition("Approved")], [f'status.conditions[1].type: Invalid value: "Approved": {EXCLUSIVE}']),
    ("approval", [condition("Approved")], [], ['status.conditions: Forbidden: updates may not remove a condition of type "Approved"']),
    ("approval", [condition("Approved")], [condition("Approved", reason="again")], []),
    ("status", [], [condition("Approved")], ['status.conditions: Forbidden: updates may not add a condition of type "Approved"']),
    ("status", [condition("Approved")], [condition("Approved"), condition("Failed")], []),
    ("status", [condition("Failed")], [], ['status.conditions: Forbidden: updates may not remove a condition of type "Failed"']),
    ("status", [], [condition("Mine", "Maybe")], ['status.conditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"']),
    ("status", [], [condition("Mine"), condition("Mine")], ['status.conditions[1].type: Duplicate value: "Mine"']),
]  # fmt: skip


@pytest.mark.parametrize(("subresource", "before", "after", "expected"), UPDATES)
def test_conditions(
    subresource: str, before: Sequence[Object], after: Sequence[Object], expected: list[str]
) -> None:
    old, new = stored(*before), stored(*after)
    assert [str(p) for p in validation.update(CSRS, new, old, subresource)] == expected


def test_certificates(tmp_path: Path) -> None:
    path, key = Authority(tmp_path).issue("jane")
    one = base64.b64encode(path.read_bytes()).decode()

    def found(subresource: str, before: str, after: str) -> list[str]:
        old, new = stored(certificate=before), stored(certificate=after)
        return [str(p) for p in validation.update(CSRS, new, old, subresource)]

    assert found("status", "", one) == []
    assert found("approval", "", one) == [
        "status.certificate: Forbidden: updates may not set certificate content"
    ]
    two = base64.b64encode(path.read_bytes() + path.read_bytes()).decode()
    assert found("status", one, two) == [
        "status.certificate: Forbidden: updates may not modify existing certificate content"
    ]
    bad = 'status.certificate: Invalid value: "<certificate data>": '
    assert found("status", "", pem("hello")) == [bad + "must contain at least one CERTIFICATE PEM block"]
    assert found("status", "", base64.b64encode(key.read_bytes()).decode()) == [
        bad + 'only CERTIFICATE PEM blocks are allowed, found "PRIVATE KEY"'
    ]
    headed = path.read_text().replace("CERTIFICATE-----\n", "CERTIFICATE-----\nA: b\n", 1)
    assert found("status", "", pem(headed)) == [bad + "no PEM block headers are permitted"]


def test_who_writes_what() -> None:
    old = stored(condition("Approved", reason="R"))
    new = changed(changed(old, "spec/usages", ["any"]), "status", {"conditions": []})
    strategy.prepare_update(CSRS, new, old)
    assert (new["spec"], new["status"]) == (old["spec"], old["status"])
    new = changed(old, "status", {"conditions": [condition("Approved", reason="X"), condition("Failed")]})
    strategy.prepare_update(CSRS, new, old, "status")
    kept, failed = new["status"]["conditions"]
    assert kept["reason"] == "R"
    assert failed["lastUpdateTime"] == failed["lastTransitionTime"] > "2024"
    new = changed(old, "status", {"conditions": [condition("Approved", reason="X")], "certificate": "abcd"})
    strategy.prepare_update(CSRS, new, old, "approval")
    assert "certificate" not in new["status"]
    assert new["status"]["conditions"][0]["reason"] == "X"
    assert "status" not in managed_fields.skipped(
        "certificates.k8s.io/v1", "CertificateSigningRequest", "approval"
    )


NODE = ("system:node:n1", ("system:nodes",))
DOOR = ("system:nodes", "sampan:front-doors")
CLIENT, SERVING = (
    ["digital signature", "client auth"],
    ["digital signature", "key encipherment", "server auth"],
)


@pytest.mark.parametrize(
    ("encoded", "usages", "problem"),
    [
        (request(*NODE), CLIENT, ""),
        (request(*NODE), [*CLIENT, "key encipherment"], ""),
        (request("system:node:n1", DOOR), CLIENT, ""),
        (request("system:node:n1", DOOR[::-1]), CLIENT, "subject organization is not system:nodes"),
        (request("n1", DOOR), CLIENT, "subject common name does not begin with system:node:"),
        (request(*NODE), SERVING, "usages did not match [client auth digital signature key encipherment]"),
        (request("n1", ("system:nodes",)), CLIENT, "subject common name does not begin with system:node:"),
        (request("system:node:n1", ("devs",)), CLIENT, "subject organization is not system:nodes"),
        (request(*NODE, ("n1",)), CLIENT, "DNS subjectAltNames are not allowed"),
        (request(*NODE, (), ("10.0.0.1",)), CLIENT, "IP subjectAltNames are not allowed"),
        (request(*NODE, (), (), ("a@b.c",)), CLIENT, "Email subjectAltNames are not allowed"),
    ],
)
def test_what_a_node_asks_for_as_a_client(encoded: str, usages: list[str], problem: str) -> None:
    assert certificate_requests.kubelet_client_problem(certificate_requests.parse(encoded), usages) == problem


@pytest.mark.parametrize(
    ("encoded", "usages", "problem"),
    [
        (request(*NODE, ("n1",), ("10.0.0.1",)), SERVING, ""),
        (request(*NODE), SERVING, "DNS or IP subjectAltName is required"),
        (request("system:node:n1", DOOR, ("n1",)), SERVING, "subject organization is not system:nodes"),
        (request(*NODE, ("n1",), (), ("a@b.c",)), SERVING, "Email subjectAltNames are not allowed"),
        (
            request(*NODE, ("n1",)),
            CLIENT,
            "usages did not match [digital signature key encipherment server auth]",
        ),
    ],
)
def test_what_a_node_asks_for_to_serve(encoded: str, usages: list[str], problem: str) -> None:
    assert (
        certificate_requests.kubelet_serving_problem(certificate_requests.parse(encoded), usages) == problem
    )


@pytest.mark.parametrize(
    ("conditions", "certificate", "text"),
    [
        ((), "", "Pending"),
        ((condition("Approved"),), "", "Approved"),
        ((condition("Approved"),), "abcd", "Approved,Issued"),
        ((condition("Denied"),), "", "Denied"),
        ((condition("Approved"), condition("Failed")), "", "Approved,Failed"),
    ],
)
def test_rows(conditions: Sequence[Object], certificate: str, text: str) -> None:
    obj = stored(*conditions, certificate=certificate)
    obj["metadata"]["creationTimestamp"] = "2025-12-31T23:00:00Z"
    obj["spec"] |= {"username": "jane", "expirationSeconds": 86400}
    (row,) = tables.render(CSRS, [obj], now=1767225600.0)["rows"]
    assert row["cells"] == ["jane", "60m", "kubernetes.io/kube-apiserver-client", "jane", "24h", text]


def test_they_are_selected_by_their_signer() -> None:
    selector = selectors.parse_fields(CSRS, f"spec.signerName={NODE_CLIENT}")
    assert selector.matches(selectors.fields_of(CSRS, csr(NODE_CLIENT)))
    assert not selector.matches(selectors.fields_of(CSRS, csr()))


def test_a_request_as_go_clients_send_it() -> None:
    pem = base64.b64decode(request())
    spec = field(1, pem) + field(5, "client auth") + field(7, "example.com/mine") + field(8, 3600)
    decided = field(1, "Approved") + field(6, "True") + field(2, "R")
    raw = field(1, field(1, "jane")) + field(2, spec) + field(3, field(1, decided))
    got = protobuf.decode(envelope("certificates.k8s.io/v1", "CertificateSigningRequest", raw))
    assert got["spec"] == {
        "request": request(),
        "usages": ["client auth"],
        "signerName": "example.com/mine",
        "expirationSeconds": 3600,
    }
    assert got["status"]["conditions"] == [{"type": "Approved", "status": "True", "reason": "R"}]
