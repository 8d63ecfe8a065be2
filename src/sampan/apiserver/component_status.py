"""ComponentStatuses: never stored, made anew for who reads them, and deprecated since v1.19.

Upstream: `pkg/registry/core/componentstatus`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sampan.api import errors
from sampan.api.errors import Object
from sampan.api.resources import COMPONENTSTATUSES
from sampan.apiserver import bodies
from sampan.apiserver.events import Selection
from sampan.apiserver.negotiation import negotiate
from sampan.apiserver.records import Record
from sampan.apiserver.registry import unstored
from sampan.apiserver.types import RequestInfo
from sampan.transport.types import Request, Response

Check = Callable[[], str]
"""Answers "" when all is well, else what is wrong."""

PARTS = ("scheduler", "controller-manager", "etcd-0")
_DEPRECATED = "v1 ComponentStatus is deprecated in v1.19+"


class ComponentStatuses:
    """`checks` may get its parts later; one that is not there is one that does not run."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks

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
        why = check() if check is not None else f"{name} does not run here"
        condition: Object = {"type": "Healthy", "status": "False" if why else "True"}
        condition |= {"error": why} if why else {"message": "ok"}
        obj = {"metadata": {"name": name, "creationTimestamp": None}, "conditions": [condition]}
        return unstored(COMPONENTSTATUSES, obj)
