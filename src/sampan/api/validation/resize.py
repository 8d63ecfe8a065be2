"""`pods/resize`: what a running pod may ask for anew. Upstream: `ValidatePodResize` in `pkg/apis/core/validation`."""

from __future__ import annotations

from sampan.api import qos
from sampan.api.errors import FieldError, Object, forbidden_field, invalid_value
from sampan.api.objects import deep_copy
from sampan.api.strategy import same
from sampan.api.validation.values import Problems

_MIRROR = "kubernetes.io/config.mirror"
_RESIZABLE = ("cpu", "memory")
_KINDS = ("containers", "initContainers")


def update(new: Object, old: Object) -> Problems:
    """The rules of the change; that the new pod is a good one is checked by the caller."""
    if _MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden_field("", "static pods cannot be resized")]
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if (before.get("os") or {}).get("name") == "windows":
        return [forbidden_field("", "windows pods cannot be resized")]
    out: list[FieldError] = []
    if qos.of(new) != qos.of(old):
        detail = "Pod QOS Class may not change as a result of resizing"
        out.append(invalid_value("spec", (old.get("status") or {}).get("qosClass"), detail))
    others = [p for kind in _KINDS for p in _other_containers(after, before, kind)]
    if others:
        return out + others
    munged = deep_copy(after)
    for kind in _KINDS:
        pairs = zip(munged.get(kind) or (), before.get(kind) or (), strict=True)
        for i, (container, earlier) in enumerate(pairs):
            at = f"spec.{kind}[{i}]"
            out += _removed(container, earlier, f"{at}.resources")
            if kind == "initContainers" and earlier.get("restartPolicy") != "Always":
                if not same(container.get("resources"), earlier.get("resources")):
                    detail = "resources for non-sidecar init containers are immutable"
                    out.append(forbidden_field(f"{at}.resources", detail))
                container["resources"] = earlier.get("resources")
            else:
                _put_back(container, earlier)
    if not same(munged, before):
        out.append(forbidden_field("spec", "only cpu and memory resources are mutable"))
    return out


def _other_containers(after: Object, before: Object, kind: str) -> Problems:
    new, old = after.get(kind) or [], before.get(kind) or []
    if len(new) != len(old):
        return [forbidden_field(f"spec.{kind}", f"{kind} may not be added or removed on resize")]
    detail = f"{kind} may not be renamed or reordered on resize"
    return [
        forbidden_field(f"spec.{kind}[{i}].name", detail)
        for i, (container, earlier) in enumerate(zip(new, old, strict=True))
        if container.get("name") != earlier.get("name")
    ]


def _removed(new: Object, old: Object, path: str) -> Problems:
    after, before = new.get("resources") or {}, old.get("resources") or {}
    return [
        forbidden_field(f"{path}.{kind}", f"resource {kind} cannot be removed")
        for kind in ("requests", "limits")
        if (before.get(kind) or {}).keys() - (after.get(kind) or {}).keys()
    ]


def _put_back(container: Object, earlier: Object) -> None:
    """Take the amounts that may change as they were before."""
    after, before = container.get("resources") or {}, earlier.get("resources") or {}
    for kind in ("limits", "requests"):
        amounts = {k: v for k, v in (after.get(kind) or {}).items() if k not in _RESIZABLE}
        amounts |= {k: v for k, v in (before.get(kind) or {}).items() if k in _RESIZABLE}
        if amounts or kind in before:
            after[kind] = amounts
        else:
            after.pop(kind, None)
    if after or "resources" in earlier:
        container["resources"] = after
