"""The table of CertificateSigningRequests."""

from __future__ import annotations

from typing import Any

from sampan.api import certificate_requests
from sampan.api.errors import Object
from sampan.api.tables.cells import AGE, NAME, NONE, Column, age, human_duration, name, section

CSR_COLUMNS = (
    NAME,
    AGE,
    Column("SignerName", description="Who is to sign it."),
    Column("Requestor", description="Who made it."),
    Column("RequestedDuration", description="How long the certificate shall be valid."),
    Column("Condition", description="Whether it is approved and issued."),
)


def csr_row(csr: Object, now: float) -> list[Any]:
    spec = section(csr, "spec")
    seconds = spec.get("expirationSeconds")
    if certificate_requests.has_condition(csr, "Denied"):
        state = "Denied"
    else:
        state = "Approved" if certificate_requests.has_condition(csr, "Approved") else "Pending"
    if certificate_requests.has_condition(csr, "Failed"):
        state += ",Failed"
    if section(csr, "status").get("certificate"):
        state += ",Issued"
    return [
        name(csr),
        age(csr, now),
        spec.get("signerName") or NONE,
        spec.get("username") or "",
        NONE if seconds is None else human_duration(seconds),
        state,
    ]
