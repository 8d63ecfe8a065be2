"""CSR signing: what is approved for one of the signers of Kubernetes gets its certificate.

Upstream: `pkg/controller/certificates/signer`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable

from sampan.api import certificate_requests
from sampan.api.certificate_requests import (
    KUBE_APISERVER_CLIENT,
    KUBE_APISERVER_CLIENT_KUBELET,
    KUBELET_SERVING,
    LEGACY_UNKNOWN,
    Request,
)
from sampan.api.errors import Object
from sampan.api.objects import deep_copy, now
from sampan.api.resources import CERTIFICATESIGNINGREQUESTS
from sampan.controllers.controller import Context, Controller, deleting

SIGNERS = (KUBE_APISERVER_CLIENT, KUBE_APISERVER_CLIENT_KUBELET, KUBELET_SERVING, LEGACY_UNKNOWN)


class CSRSigningController(Controller):
    name = "csrsigning"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._authority = context.authority
        self._requests = context.informers.of(CERTIFICATESIGNINGREQUESTS)
        if self._authority is not None:
            self._requests.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and _waits(new):
            self.enqueue(new)

    async def sync(self, key: str) -> None:
        csr = self._requests.get("", key)
        if csr is None or not _waits(csr):
            return
        assert self._authority is not None
        spec = csr["spec"]
        request = certificate_requests.of(csr)
        usages = spec.get("usages") or ()
        changed = deep_copy(csr)
        why = _problem(spec["signerName"], request, usages)
        if why:
            failed = {
                "type": "Failed",
                "status": "True",
                "reason": "SignerValidationFailure",
                "message": why,
                "lastUpdateTime": now(),
            }
            changed["status"].setdefault("conditions", []).append(failed)
        else:
            made = await asyncio.to_thread(
                self._authority.sign, request, usages, spec.get("expirationSeconds")
            )
            changed["status"]["certificate"] = base64.b64encode(made).decode()
        await self._client.update(CERTIFICATESIGNINGREQUESTS, changed, subresource="status")


def _waits(csr: Object) -> bool:
    """Whether a request is approved, ours to sign, and has neither a certificate nor failed."""
    return (
        (csr.get("spec") or {}).get("signerName") in SIGNERS
        and certificate_requests.approved(csr)
        and not certificate_requests.has_condition(csr, "Failed")
        and not (csr.get("status") or {}).get("certificate")
        and not deleting(csr)
    )


def _problem(signer: str, request: Request, usages: Iterable[str]) -> str:
    """Why a signer does not sign a request, or ""."""
    if signer == KUBELET_SERVING:
        return certificate_requests.kubelet_serving_problem(request, usages)
    if signer == KUBE_APISERVER_CLIENT_KUBELET:
        return certificate_requests.kubelet_client_problem(request, usages)
    if signer == KUBE_APISERVER_CLIENT:
        return certificate_requests.apiserver_client_problem(usages)
    return ""
