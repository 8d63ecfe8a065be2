"""Defaults of ReplicationControllers and PodTemplates. Upstream: `pkg/apis/core/v1/defaults.go`."""

from __future__ import annotations

from sampan.api.defaults.apps import template
from sampan.api.errors import Object


def replication_controller(obj: Object) -> None:
    spec, metadata = obj.setdefault("spec", {}), obj.setdefault("metadata", {})
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    if spec.get("replicas") is None:
        spec["replicas"] = 1
    template(spec)


def pod_template(obj: Object) -> None:
    obj.setdefault("template", {})
    template(obj)
