"""DenyServiceExternalIPs: no Service gets external addresses that it does not have already.

Upstream: `plugin/pkg/admission/network/denyserviceexternalips`.
"""

from __future__ import annotations

from sampan.apiserver.admission.plugin import WRITES, Plugin, refuse
from sampan.apiserver.types import Attributes


class DenyServiceExternalIPs(Plugin):
    resources = frozenset(("services",))
    operations = WRITES

    async def validate(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None:
            return
        new, old = (
            (o or {}).get("spec", {}).get("externalIPs") or () for o in (attributes.obj, attributes.old)
        )
        if not set(new) <= set(old):
            raise refuse(attributes, "Use of external IPs is denied by admission control.")
