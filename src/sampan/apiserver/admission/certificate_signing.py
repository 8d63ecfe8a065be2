"""CertificateSigning: who gives out a certificate may `sign` for the request's signer.

Upstream: `plugin/pkg/admission/certificates/signing`.
"""

from __future__ import annotations

from sampan.api.resources import CERTIFICATESIGNINGREQUESTS
from sampan.apiserver.admission.plugin import UPDATE, Plugin, refuse
from sampan.apiserver.admission.rights import may_act_for_signer
from sampan.apiserver.types import Attributes, Authorizer


class CertificateSigning(Plugin):
    resources = frozenset((CERTIFICATESIGNINGREQUESTS.key_stem,))
    operations = UPDATE

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, attributes: Attributes) -> None:
        if attributes.subresource != "status":
            return
        new, old = ((o or {}).get("status") or {} for o in (attributes.obj, attributes.old))
        if all((new.get(f) or None) == (old.get(f) or None) for f in ("certificate", "conditions")):
            return
        signer = ((attributes.old or {}).get("spec") or {}).get("signerName") or ""
        if not may_act_for_signer(self._authorizer, attributes.user, "sign", signer):
            raise refuse(attributes, f'user not permitted to sign requests with signerName "{signer}"')
