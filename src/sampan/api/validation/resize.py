"""`pods/resize`: what a running pod may ask for anew. Upstream: `ValidatePodResize` in `pkg/apis/core/validation`."""

from __future__ import annotations

from sampan.api import qos
from sampan.api.errors import FieldError, Object, forbidden_field, invalid_value
from sampan.api.objects import deep_copy
from sampan.api.strategy import same
from sampan.api.validation.values import Problems

_MIRROR = "kubernetes.io/config.mirror"
_RESIZABLE = ("cpu", "memory")


def update(new: Object, old: Object) -> Problems:
    """The rules of the change; that the new pod is a good one is checked by the caller."""
    if _MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden_field("", "static pods cannot be resized")]
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if (before.get("os") or {}).get("name") == "windows":
        return [forbidden_field("", "windows pods cannot be resized")]
    for kind in ("containers", "initContainers"):
        if _names(after, kind) != _names(before, kind):
            return [forbidden_field(f"spec.{kind}", "pod updates may not add or remove containers")]
    out: list[FieldError] = []
    if qos.of(new) != qos.of(old):
        detail = "Pod QOS Class may not change as a result of resizing"
        out.append(invalid_value("spec", (old.get("status") or {}).get("qosClass"), detail))
    munged = deep_copy(after)
    for kind in ("containers", "initContainers"):
        pairs = zip(munged.get(kind) or (), before.get(kind) or (), strict=True)
        for i, (container, earlier) in enumerate(pairs):
            if kind == "initContainers" and earlier.get("restartPolicy") != "Always":
                if not same(container, earlier):
                    detail = "only cpu and memory resources for sidecar containers are mutable"
                    out.append(forbidden_field(f"spec.{kind}", detail))
                container |= deep_copy(earlier)
                continue
            out += _removed(container, earlier, f"spec.{kind}[{i}].resources")
            _put_back(container, earlier)
    if not same(munged, before):
        out.append(forbidden_field("spec", "only cpu and memory resources are mutable"))
    return out


def _names(spec: Object, kind: str) -> list[str | None]:
    return [c.get("name") for c in spec.get(kind) or ()]


def _removed(new: Object, old: Object, path: str) -> Problems:
    after, before = new.get("resources") or {}, old.get("resources") or {}
    return [
        forbidden_field(f"{path}.{kind}", f"resource {kind} cannot be removed")
        for kind in ("limits", "requests")
        if any(n in (before.get(kind) or {}) and n not in (after.get(kind) or {}) for n in _RESIZABLE)
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
