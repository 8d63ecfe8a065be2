"""CSR cleaning: requests go an hour after they were decided, or a day after they were made.

Upstream: `pkg/controller/certificates/cleaner`.
"""

from __future__ import annotations

import base64
import time

from sampan.api.errors import Object
from sampan.api.objects import parse_time
from sampan.api.resources import CERTIFICATESIGNINGREQUESTS
from sampan.controllers.controller import Context, Controller, delete_as_seen, deleting

DECIDED_SECONDS = 3600.0
PENDING_SECONDS = 24 * 3600.0
_NEVER = float("inf")


class CSRCleanerController(Controller):
    name = "csrcleaner"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._requests = context.informers.of(CERTIFICATESIGNINGREQUESTS)
        self._requests.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and not deleting(new):
            self.enqueue(new)

    async def sync(self, key: str) -> None:
        csr = self._requests.get("", key)
        if csr is None or deleting(csr):
            return
        left = ends(csr) - time.time()
        if left > 0:
            if left != _NEVER:
                self.queue.add_after(key, left)
            return
        await delete_as_seen(self._client, CERTIFICATESIGNINGREQUESTS, csr)


def ends(csr: Object) -> float:
    """When a request is to go (seconds since the epoch); infinity where it stays."""
    status = csr.get("status") or {}
    conditions = status.get("conditions") or ()
    made = parse_time(csr["metadata"]["creationTimestamp"])
    if not conditions:
        return made + PENDING_SECONDS
    decided = [
        parse_time(c["lastUpdateTime"]) if c.get("lastUpdateTime") else made
        for c in conditions
        if c.get("type") in ("Approved", "Denied", "Failed")
    ]
    if not decided:
        return _NEVER
    return min(min(decided) + DECIDED_SECONDS, _valid_until(status.get("certificate") or ""))


def _valid_until(certificate: str) -> float:
    if not certificate:
        return _NEVER
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(base64.b64decode(certificate)).not_valid_after_utc.timestamp()
    except ValueError:
        return _NEVER
