"""ComponentStatuses: never stored, made anew for who reads them, and deprecated since v1.19.

Upstream: `pkg/registry/core/componentstatus`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sampan.api import errors
from sampan.api.errors import Object
from sampan.api.objects import parse_time
from sampan.api.resources import COMPONENTSTATUSES, LEASES
from sampan.apiserver import bodies
from sampan.apiserver.events import Selection
from sampan.apiserver.negotiation import negotiate
from sampan.apiserver.records import Record
from sampan.apiserver.registry import unstored
from sampan.apiserver.types import ReadCache, RequestInfo
from sampan.transport.types import Request, Response

Check = Callable[[], str]
"""Answers "" when all is well, else what is wrong."""

PARTS = ("scheduler", "controller-manager", "etcd-0")
_DEPRECATED = "v1 ComponentStatus is deprecated in v1.19+"


class ComponentStatuses:
    """`checks` may get its parts later. One that is not there does not run in this process: whether it runs elsewhere
    is told by the Lease that it was elected by."""

    def __init__(self, checks: Mapping[str, Check], cache: ReadCache) -> None:
        self._checks = checks
        self._cache = cache

    def answer(self, request: Request, info: RequestInfo) -> Response:
        """get and list. Raises StatusError 404."""
        headers = bodies.warning_headers([_DEPRECATED])
        if info.verb == "get":
            if info.name not in PARTS:
                raise errors.not_found(COMPONENTSTATUSES.plural, info.name)
            rendering = negotiate(COMPONENTSTATUSES, request)
            body = rendering.one(self._record(info.name))
            return Response(200, body, rendering.content_type, headers)
        rendering = negotiate(COMPONENTSTATUSES, request, "list")
        selection = Selection(COMPONENTSTATUSES, "", info.label_selector, info.field_selector)
        found = [record for record in map(self._record, PARTS) if selection.matches(record)]
        return Response(200, rendering.list(found, 0), rendering.content_type, headers)

    def _record(self, name: str) -> Record:
        check = self._checks.get(name)
        why = check() if check is not None else self._unelected(f"kube-{name}")
        condition: Object = {"type": "Healthy", "status": "False" if why else "True"}
        condition |= {"error": why} if why else {"message": "ok"}
        obj = {"metadata": {"name": name, "creationTimestamp": None}, "conditions": [condition]}
        return unstored(COMPONENTSTATUSES, obj)

    def _unelected(self, name: str) -> str:
        """Why no part of this name counts as running, or ""."""
        lease = self._cache.get(LEASES, "kube-system", name)
        spec = (lease or {}).get("spec") or {}
        if not spec.get("holderIdentity") or not spec.get("renewTime"):
            return f"nobody holds the Lease {name}"
        late = time.time() - parse_time(spec["renewTime"]) - (spec.get("leaseDurationSeconds") or 0)
        return f"the Lease {name} ran out {int(late)} s ago" if late > 0 else ""
