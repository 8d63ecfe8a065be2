"""CertificateSigningRequests. Upstream: `pkg/apis/certificates/validation`."""

from __future__ import annotations

from sampan.api import certificate_requests
from sampan.api.certificate_requests import LEGACY_UNKNOWN
from sampan.api.errors import (
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from sampan.api.strategy import same
from sampan.api.validation import formats
from sampan.api.validation.values import Problems, present

_USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_SHORTEST = 600
_FINAL = ("Approved", "Denied", "Failed")
"""Conditions that are True if they are there, and stay."""
_DECISIONS = ("Approved", "Denied")
_CONDITIONS = "status.conditions"


def certificate_signing_request(obj: Object) -> Problems:
    return _request(obj, None)


def _request(obj: Object, old: Object | None) -> Problems:
    """All rules; what an older server let pass in `old` is let pass again."""
    spec, before = obj.get("spec") or {}, (old or {}).get("spec") or {}
    out: list[FieldError] = []
    if not before or spec.get("request") != before.get("request"):
        try:
            certificate_requests.of(obj)
        except ValueError as e:
            out.append(invalid_value("spec.request", spec.get("request"), str(e)))
    usages = spec.get("usages") or []
    out += present("spec.usages", usages, "usages must be provided")
    for i, usage in enumerate(usages):
        at = f"spec.usages[{i}]"
        if usage not in _USAGES:
            out.append(not_supported(at, usage, _USAGES))
        if usage in usages[:i]:
            out.append(duplicate(at, usage))
    signer = spec.get("signerName") or ""
    if signer == LEGACY_UNKNOWN != before.get("signerName"):
        detail = "the legacy signerName is not allowed via this API version"
        out.append(invalid_value("spec.signerName", signer, detail))
    else:
        out += signer_name("spec.signerName", signer)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST:
        detail = "may not specify a duration less than 600 seconds (10 minutes)"
        out.append(invalid_value("spec.expirationSeconds", seconds, detail))
    out += _conditions(obj, old)
    certificate = (obj.get("status") or {}).get("certificate")
    if certificate != ((old or {}).get("status") or {}).get("certificate"):
        why = certificate_requests.certificate_problem(certificate or "")
        if why:
            out.append(invalid_value("status.certificate", "<certificate data>", why))
    return out


def signer_name(path: str, name: str) -> Problems:
    """`domain.example/signer-name`; the part behind the slash has room for a namespace and a name."""
    if not name:
        return [required(path, "signerName must be provided")]
    segments = name.split("/")
    if len(segments) != 2:
        detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [invalid_value(path, name, detail)]
    domain, rest = segments
    out: list[FieldError] = []
    if len(domain) > 253:
        out.append(too_long(path, 253))
    labels = domain.split(".")
    for segment, parts, format_ in (
        (domain, labels, formats.dns1123_label),
        (rest, rest.split("."), formats.dns1123_subdomain),
    ):
        wrong = next(((part, found) for part in parts if (found := format_(part))), None)
        if wrong is not None:
            out += [invalid_value(path, segment, f'validating label "{wrong[0]}": {m}') for m in wrong[1]]
        if segment is domain and len(labels) < 2:
            detail = "should be a domain with at least two segments separated by dots"
            out.append(invalid_value(path, domain, detail))
    if len(name) > 571:
        out.append(too_long(path, 571))
    return out


def _conditions(obj: Object, old: Object | None) -> Problems:
    out: list[FieldError] = []
    seen: set[str] = set()
    tolerated = old is not None and all(certificate_requests.has_condition(old, d) for d in _DECISIONS)
    for i, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        at = f"{_CONDITIONS}[{i}]"
        kind, state = condition.get("type") or "", condition.get("status") or ""
        out += present(f"{at}.type", kind)
        allowed = ("True",) if kind in _FINAL else ("False", "True", "Unknown")
        if not state:
            out.append(required(f"{at}.status"))
        elif state not in allowed:
            out.append(not_supported(f"{at}.status", state, allowed))
        other = {"Approved": "Denied", "Denied": "Approved"}.get(kind)
        if other in seen and not tolerated:
            detail = "Approved and Denied conditions are mutually exclusive"
            out.append(invalid_value(f"{at}.type", kind, detail))
        if kind in seen:
            out.append(duplicate(f"{at}.type", kind))
        seen.add(kind)
    return out


def certificate_signing_request_update(new: Object, old: Object, subresource: str) -> Problems:
    out = _request(new, old)
    for kind in _FINAL:
        before, after = _of_type(old, kind), _of_type(new, kind)
        if len(after) < len(before):
            detail = f'updates may not remove a condition of type "{kind}"'
            out.append(forbidden_field(_CONDITIONS, detail))
        elif kind in _DECISIONS and subresource != "approval":
            if len(after) > len(before):
                out.append(forbidden_field(_CONDITIONS, f'updates may not add a condition of type "{kind}"'))
            elif not same(after, before):
                detail = f'updates may not modify a condition of type "{kind}"'
                out.append(forbidden_field(_CONDITIONS, detail))
    certificate, before_it = ((o.get("status") or {}).get("certificate") for o in (new, old))
    if certificate != before_it:
        if subresource != "status":
            out.append(forbidden_field("status.certificate", "updates may not set certificate content"))
        elif before_it:
            detail = "updates may not modify existing certificate content"
            out.append(forbidden_field("status.certificate", detail))
    return out


def _of_type(csr: Object, kind: str) -> list[Object]:
    return [c for c in (csr.get("status") or {}).get("conditions") or () if c.get("type") == kind]
