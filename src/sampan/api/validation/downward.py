"""References to fields and resources of the pod itself (the downward API), in environments and volumes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sampan.api import quantity
from sampan.api.errors import FieldError, Object, invalid_value, not_supported, required
from sampan.api.validation import formats
from sampan.api.validation.values import Problems, formatted

_SUBSCRIPT = re.compile(r"(.+)\['(.*)'\]")
_KNOWN = {
    "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
    "spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName",
    "status.phase", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs", "spec.host",
}  # fmt: skip
_RESOURCES = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory",
    "requests.cpu", "requests.ephemeral-storage", "requests.memory",
)  # fmt: skip
_SIZES = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")


def field_reference(reference: Object, path: str, allowed: Sequence[str]) -> Problems:
    """A `fieldRef`; `allowed` are the field paths that the place supports."""
    if not reference.get("apiVersion"):
        return [required(f"{path}.apiVersion")]
    field = reference.get("fieldPath")
    if not field:
        return [required(f"{path}.fieldPath")]
    matched = _SUBSCRIPT.fullmatch(field)
    if matched:
        base, key = matched.groups()
        if base == "metadata.annotations":
            return formatted(path, key.lower(), formats.qualified_name)
        if base == "metadata.labels":
            return formatted(path, key, formats.qualified_name)
        if base in _KNOWN:
            return [invalid_value(path, base, "does not support subscript")]
    if matched or field not in _KNOWN or reference["apiVersion"] != "v1":
        if reference["apiVersion"] != "v1":
            detail = f"error converting fieldPath: unsupported pod version: {reference['apiVersion']}"
        else:
            detail = f"error converting fieldPath: field label not supported: {field}"
        return [invalid_value(f"{path}.fieldPath", field, detail)]
    return [] if field in allowed else [not_supported(f"{path}.fieldPath", field, allowed)]


def resource_reference(reference: Object, path: str, in_volume: bool = False) -> Problems:
    """A `resourceFieldRef`; in a volume it must name its container."""
    out: list[FieldError] = []
    name = reference.get("resource") or ""
    huge = name.startswith(("requests.hugepages-", "limits.hugepages-"))
    if in_volume and not reference.get("containerName"):
        out.append(required(f"{path}.containerName"))
    elif not name:
        out.append(required(f"{path}.resource"))
    elif name not in _RESOURCES and not huge:
        out.append(not_supported(f"{path}.resource", name, _RESOURCES))
    divisor = reference.get("divisor")
    if divisor is None or quantity.parse(divisor) == 0:
        return out
    shown = quantity.format(divisor)
    if name.endswith(".cpu"):
        if shown not in ("1m", "1"):
            detail = "only divisor's values 1m and 1 are supported with the cpu resource"
            out.append(invalid_value(f"{path}.divisor", name, detail))
    elif shown not in _SIZES:
        kinds = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}
        kind = "hugepages" if huge else kinds.get(name.partition(".")[2], "memory")
        detail = f"only divisor's values {', '.join(_SIZES)} are supported with the {kind} resource"
        out.append(invalid_value(f"{path}.divisor", name, detail))
    return out
