"""CertificateApproval: who decides about a request for a certificate may `approve` for its signer.

Upstream: `plugin/pkg/admission/certificates/approval`.
"""

from __future__ import annotations

from sampan.api.resources import CERTIFICATESIGNINGREQUESTS
from sampan.apiserver.admission.plugin import UPDATE, Plugin, refuse
from sampan.apiserver.admission.rights import may_act_for_signer
from sampan.apiserver.types import Attributes, Authorizer


class CertificateApproval(Plugin):
    resources = frozenset((CERTIFICATESIGNINGREQUESTS.key_stem,))
    operations = UPDATE

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, attributes: Attributes) -> None:
        if attributes.subresource != "approval":
            return
        # Of the request as it was: its signer cannot be changed, by whoever tries on the way.
        signer = ((attributes.old or {}).get("spec") or {}).get("signerName") or ""
        if not may_act_for_signer(self._authorizer, attributes.user, "approve", signer):
            raise refuse(attributes, f'user not permitted to approve requests with signerName "{signer}"')
