"""audit.k8s.io/v1 Events: what is told of one stage of one request."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from sampan.api.errors import Object
from sampan.apiserver.audit.policy import Decision, Stage
from sampan.apiserver.types import RequestInfo, User
from sampan.transport.types import Request

_LONGEST_AGENT = 1024


def microseconds() -> str:
    """The present as a MicroTime."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def begun(
    request: Request, audit_id: str, info: RequestInfo, user: User | None, decision: Decision
) -> Object:
    """What all stages of a request say of it."""
    event: Object = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": decision.level.text,
        "auditID": audit_id,
        "stage": Stage.REQUEST_RECEIVED.value,
        "requestURI": request.target,
        "verb": info.verb,
        "user": shown_user(user) if user is not None else {},
    }
    if request.peer_address:
        event["sourceIPs"] = [request.peer_address.rpartition(":")[0].strip("[]") or request.peer_address]
    agent = request.headers.get("user-agent", "")
    if agent:
        event["userAgent"] = (
            agent if len(agent) <= _LONGEST_AGENT else agent[:_LONGEST_AGENT] + "...TRUNCATED"
        )
    if info.is_resource:
        reference = {
            "resource": info.plural,
            "namespace": info.namespace,
            "name": info.name,
            "apiGroup": info.group,
            "apiVersion": info.version,
            "subresource": info.subresource,
        }
        event["objectRef"] = {k: v for k, v in reference.items() if v}
    event["requestReceivedTimestamp"] = microseconds()
    return event


def shown_user(user: User) -> Object:
    shown: dict[str, Any] = {"username": user.name}
    if user.uid:
        shown["uid"] = user.uid
    if user.groups:
        shown["groups"] = list(user.groups)
    if user.extra:
        shown["extra"] = {k: list(v) for k, v in user.extra.items()}
    return shown


def without_managed_fields(obj: Any) -> Any:
    """An object, or a list with its objects, that does not say who set what."""
    if not isinstance(obj, Mapping):
        return obj
    out = dict(obj)
    metadata = out.get("metadata")
    if isinstance(metadata, Mapping) and "managedFields" in metadata:
        out["metadata"] = {k: v for k, v in metadata.items() if k != "managedFields"}
    if isinstance(out.get("items"), list):
        out["items"] = [without_managed_fields(item) for item in out["items"]]
    return out
