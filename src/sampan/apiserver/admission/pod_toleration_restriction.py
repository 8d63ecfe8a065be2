"""PodTolerationRestriction: a namespace's annotations say what its pods tolerate, and what they may tolerate.

Upstream: `plugin/pkg/admission/podtolerationrestriction`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from sampan.api import qos
from sampan.api.errors import Object, StatusError
from sampan.api.resources import NAMESPACES
from sampan.apiserver.admission.plugin import WRITES, Plugin, refuse
from sampan.apiserver.types import Attributes, ReadCache

DEFAULTS = "scheduler.alpha.kubernetes.io/defaultTolerations"
ALLOWED = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
_UNDER_PRESSURE = {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}
"""Tolerated by every pod that asked for some resources: it is not the first to be put out."""


class PodTolerationRestriction(Plugin):
    resources = frozenset(("pods",))
    operations = WRITES

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def mutate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.subresource or pod is None:
            return
        spec = pod["spec"]
        given = list(spec.get("tolerations") or ())
        if attributes.operation == "CREATE":
            defaults = self._listed(attributes, DEFAULTS) or []
            if any(_conflict(d, t) for d in defaults for t in given):
                raise refuse(attributes, "namespace tolerations and pod tolerations conflict")
            given = _merged([*defaults, *given])
        if qos.of(pod) != "BestEffort":
            given = _merged([*given, _UNDER_PRESSURE])
        if given:
            spec["tolerations"] = given

    async def validate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.subresource or pod is None:
            return
        given = pod["spec"].get("tolerations") or ()
        allowed = self._listed(attributes, ALLOWED)
        if allowed and not all(any(_within(t, a) for a in allowed) for t in given):
            why = (
                "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace "
                "whitelist"
            )
            raise refuse(attributes, why)

    def _listed(self, attributes: Attributes, annotation: str) -> list[Object] | None:
        """The tolerations in an annotation of the namespace; None if there is none."""
        namespace = self._cache.get(NAMESPACES, "", attributes.namespace) or {"metadata": {}}
        text = (namespace["metadata"].get("annotations") or {}).get(annotation)
        if not text:
            return None
        try:
            found = json.loads(text)
        except ValueError as e:
            raise StatusError(500, "InternalError", f"{annotation}: {e}") from None
        if not isinstance(found, list) or not all(isinstance(t, dict) for t in found):
            raise StatusError(500, "InternalError", f"{annotation}: not a list of tolerations")
        return found


def _conflict(a: Object, b: Object) -> bool:
    """Whether two tolerations of the same taint differ in what they tolerate of it."""
    if any((a.get(f) or "") != (b.get(f) or "") for f in ("key", "effect")):
        return False
    return any((a.get(f) or None) != (b.get(f) or None) for f in ("operator", "value", "tolerationSeconds"))


def _merged(tolerations: Iterable[Object]) -> list[Object]:
    """The tolerations without those that others include."""
    merged: list[Object] = []
    for toleration in tolerations:
        if any(_within(toleration, m) for m in merged):
            continue
        merged = [*(m for m in merged if not _within(m, toleration)), toleration]
    return merged


def _within(inner: Object, outer: Object) -> bool:
    """Whether `outer` tolerates all that `inner` does."""
    if outer.get("key") and outer["key"] != inner.get("key"):
        return False
    if outer.get("effect") and outer["effect"] != inner.get("effect"):
        return False
    if outer.get("effect") == "NoExecute" or not outer.get("effect"):
        most, wanted = outer.get("tolerationSeconds"), inner.get("tolerationSeconds")
        if most is not None and (wanted is None or wanted > most):
            return False
    if (outer.get("operator") or "Equal") == "Exists":
        return True
    return (inner.get("operator") or "Equal") == "Equal" and (inner.get("value") or "") == (
        outer.get("value") or ""
    )
