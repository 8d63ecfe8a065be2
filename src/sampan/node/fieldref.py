"""`fieldRef` and `resourceFieldRef`: what a pod may be told about itself, for environment and downward API volumes."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from sampan.api import quantity
from sampan.api.errors import Object
from sampan.node import pods

_SUBSCRIPT = re.compile(r"^(metadata\.(?:labels|annotations))\['(.+)'\]$")


class FieldRefError(Exception):
    """A reference that names nothing."""


def _lines(values: dict[str, str] | None) -> str:
    return "\n".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in sorted((values or {}).items()))


def field_value(
    pod: Object, path: str, *, node_name: str, host_ips: tuple[str, ...], pod_ips: tuple[str, ...]
) -> str:
    """The value at a field path that the downward API knows. Raises FieldRefError."""
    meta, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return str((meta.get(subscript[1].split(".")[1]) or {}).get(subscript[2], ""))
    simple: dict[str, Any] = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta.get("namespace", ""),
        "metadata.uid": meta["uid"],
        "metadata.labels": _lines(meta.get("labels")),
        "metadata.annotations": _lines(meta.get("annotations")),
        "spec.nodeName": node_name,
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": host_ips[0],
        "status.hostIPs": ",".join(host_ips),
        "status.podIP": pod_ips[0] if pod_ips else "",
        "status.podIPs": ",".join(pod_ips),
    }
    if path not in simple:
        raise FieldRefError(f"unsupported fieldPath: {path}")
    return str(simple[path])


def resource_value(
    pod: Object, ref: Object, *, default_container: str, machine_cpus: float, machine_memory: int
) -> str:
    """The value of a `resourceFieldRef`, in units of its divisor, rounded up; a limit that is not set is the
    machine's size. Raises FieldRefError."""
    name = ref.get("containerName") or default_container
    container = pods.container(pod, name)
    if container is None:
        raise FieldRefError(f"container {name} not found")
    kind, _, resource = ref["resource"].partition(".")
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if kind == "limits":
        machine = {"cpu": machine_cpus, "memory": machine_memory}
        amount = limits.get(resource, machine.get(resource, 0))
    elif kind == "requests":
        amount = requests.get(resource, limits.get(resource, 0))
    else:
        raise FieldRefError(f"unsupported container resource : {ref['resource']}")
    divisor = quantity.parse(ref.get("divisor") or "1") or quantity.parse("1")
    return str(math.ceil(quantity.parse(amount) / divisor))
