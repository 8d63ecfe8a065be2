"""What a pod asks of its node's labels: `nodeSelector` and node affinity."""

from __future__ import annotations

import re

from sampan.api.errors import Object
from sampan.scheduler.cache import NodeInfo, PodInfo

_INTEGER = re.compile(r"[+-]?[0-9]+")


def _holds(expression: Object, value: str | None) -> bool:
    values: list[str] = expression.get("values") or []
    match expression.get("operator"):
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            if value is None or not _INTEGER.fullmatch(value) or not _INTEGER.fullmatch(values[0]):
                return False
            return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
    return False


def term_matches(term: Object, node: NodeInfo) -> bool:
    """Whether all expressions of a term hold. A term without any matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_holds(e, node.labels.get(e["key"])) for e in expressions) and all(
        _holds(f, node.name if f["key"] == "metadata.name" else None) for f in fields
    )


def required_matches(pod: PodInfo, node: NodeInfo) -> bool:
    """Whether the node is one of those that the pod may run on."""
    spec = pod.spec
    for key, value in (spec.get("nodeSelector") or {}).items():
        if node.labels.get(key) != value:
            return False
    required = _node_affinity(spec).get("requiredDuringSchedulingIgnoredDuringExecution")
    return not required or any(term_matches(t, node) for t in required["nodeSelectorTerms"])


def preferred_weight(pod: PodInfo, node: NodeInfo) -> int:
    """The sum of the weights of the preferences that the node fulfils. An empty preference is fulfilled by none."""
    preferred = _node_affinity(pod.spec).get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return sum(p["weight"] for p in preferred if term_matches(p["preference"], node))


def _node_affinity(spec: Object) -> Object:
    return (spec.get("affinity") or {}).get("nodeAffinity") or {}
