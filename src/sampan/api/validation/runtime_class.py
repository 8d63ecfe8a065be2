"""RuntimeClasses. Upstream: `pkg/apis/node/validation`."""

from __future__ import annotations

from sampan.api.errors import FieldError, Object
from sampan.api.validation import formats, metadata, resources, scheduling
from sampan.api.validation.values import Problems, formatted


def runtime_class(obj: Object) -> Problems:
    out: list[FieldError] = formatted("handler", obj.get("handler") or "", formats.dns1123_label)
    overhead, steering = obj.get("overhead"), obj.get("scheduling")
    if overhead is not None:
        out += resources.requirements({"limits": overhead.get("podFixed") or {}}, "overhead")
    if steering is not None:
        out += metadata.labels(steering.get("nodeSelector") or {}, "scheduling.nodeSelector")
        out += scheduling.tolerations(steering.get("tolerations") or [], "scheduling.tolerations")
    return out


def runtime_class_update(new: Object, old: Object, subresource: str) -> Problems:
    return metadata.immutable("handler", new.get("handler"), old.get("handler"))
