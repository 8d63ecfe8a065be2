"""CertificateSubjectRestriction: nobody asks for a client certificate of the group that may do everything.

Upstream: `plugin/pkg/admission/certificates/subjectrestriction`.
"""

from __future__ import annotations

from sampan.api import certificate_requests
from sampan.api.certificate_requests import KUBE_APISERVER_CLIENT
from sampan.api.resources import CERTIFICATESIGNINGREQUESTS
from sampan.apiserver.admission.plugin import CREATE, Plugin, refuse
from sampan.apiserver.types import SYSTEM_MASTERS, Attributes


class CertificateSubjectRestriction(Plugin):
    resources = frozenset((CERTIFICATESIGNINGREQUESTS.key_stem,))
    operations = CREATE

    async def validate(self, attributes: Attributes) -> None:
        csr = attributes.obj
        if attributes.subresource or csr is None or csr["spec"].get("signerName") != KUBE_APISERVER_CLIENT:
            return
        try:
            asked = certificate_requests.of(csr)
        except ValueError as e:
            raise refuse(attributes, f"failed to parse CSR: {e}") from None
        if SYSTEM_MASTERS in asked.organizations:
            why = f"use of {KUBE_APISERVER_CLIENT} signer with {SYSTEM_MASTERS} group is not allowed"
            raise refuse(attributes, why)
