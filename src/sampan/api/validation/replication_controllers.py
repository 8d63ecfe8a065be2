"""ReplicationControllers and PodTemplates. Upstream: `pkg/apis/core/validation/validation.go`."""

from __future__ import annotations

from sampan.api import selectors
from sampan.api.errors import Object, invalid_value, required
from sampan.api.validation import pods
from sampan.api.validation.apps import always_restarted, replica_status
from sampan.api.validation.values import Problems, non_negative


def replication_controller(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out = non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    selector, item = spec.get("selector") or {}, spec.get("template")
    if not selector:
        out.append(required("spec.selector"))
    out += non_negative("spec.replicas", spec.get("replicas"))
    if item is None:
        return [*out, required("spec.template")]
    labels = (item.get("metadata") or {}).get("labels") or {}
    if selector and not selectors.from_map(selector).matches(labels):
        detail = "`selector` does not match template `labels`"
        out.append(invalid_value("spec.template.metadata.labels", labels, detail))
    return out + pods.template(item, "spec.template") + always_restarted(item, "ReplicationController")


def replication_controller_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return replica_status(new.get("status") or {})
    return replication_controller(new)


def pod_template(obj: Object) -> Problems:
    return pods.template(obj.get("template") or {}, "template")
