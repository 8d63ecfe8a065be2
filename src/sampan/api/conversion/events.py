"""Events as `events.k8s.io/v1` names their fields; core/v1 is stored. Upstream: `pkg/apis/events/v1/conversion.go`."""

from __future__ import annotations

from sampan.api.errors import Object

_RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_BACK = {new: old for old, new in _RENAMED.items()}


def from_core(event: Object) -> Object:
    return {_RENAMED.get(k, k): v for k, v in event.items()}


def to_core(event: Object) -> Object:
    out = {_BACK.get(k, k): v for k, v in event.items()}
    out.setdefault("involvedObject", {})
    return out
