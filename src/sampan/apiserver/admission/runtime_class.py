"""RuntimeClass: a pod that names one gets its overhead and goes where it says.

Nodes here run containers by one handler; a class that wants another is refused by its name, instead of running pods
with less isolation than they ask for. Upstream: `plugin/pkg/admission/runtimeclass`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sampan.api import quantity
from sampan.api.errors import Object
from sampan.api.resources import RUNTIMECLASSES
from sampan.apiserver.admission.plugin import CREATE, Plugin, refuse
from sampan.apiserver.types import Attributes, ReadCache

HANDLERS = ("crun",)
"""What nodes here can run containers with."""
_DIFFERS = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"


class RuntimeClass(Plugin):
    resources = frozenset(("pods",))
    operations = CREATE

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def mutate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.subresource or pod is None or pod["spec"].get("runtimeClassName") is None:
            return
        klass = self._named(attributes, pod)
        spec = pod["spec"]
        overhead = _overhead(klass)
        if overhead is not None:
            if spec.get("overhead") and not _same(spec["overhead"], overhead):
                raise refuse(attributes, _DIFFERS)
            spec["overhead"] = dict(overhead)
        self._send(attributes, spec, klass.get("scheduling") or {})

    async def validate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.subresource or pod is None:
            return
        spec = pod["spec"]
        klass = self._named(attributes, pod) if spec.get("runtimeClassName") is not None else {}
        overhead = _overhead(klass)
        if overhead is None:
            if spec.get("overhead"):
                why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                raise refuse(attributes, why)
        elif not _same(spec.get("overhead") or {}, overhead):
            raise refuse(attributes, _DIFFERS)
        if klass and klass.get("handler") not in HANDLERS:
            known = ", ".join(HANDLERS)
            why = (
                f'pod rejected: RuntimeClass "{spec["runtimeClassName"]}" needs the handler "{klass.get("handler")}", '
                f"which no node of this cluster has; there is: {known}"
            )
            raise refuse(attributes, why)

    def _named(self, attributes: Attributes, pod: Object) -> Object:
        name = pod["spec"]["runtimeClassName"]
        klass = self._cache.get(RUNTIMECLASSES, "", name)
        if klass is None:
            raise refuse(attributes, f'pod rejected: RuntimeClass "{name}" not found')
        return klass

    def _send(self, attributes: Attributes, spec: Object, scheduling: Object) -> None:
        """Add the class's node selector and tolerations to the pod's."""
        wanted: Mapping[str, str] = scheduling.get("nodeSelector") or {}
        given = spec.get("nodeSelector") or {}
        for key, value in wanted.items():
            if given.get(key, value) != value:
                why = (
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                    f"pod.spec.nodeSelector[{key}] = {given[key]}"
                )
                raise refuse(attributes, why)
        if wanted:
            spec["nodeSelector"] = {**given, **wanted}
        present = list(spec.get("tolerations") or ())
        more = [t for t in scheduling.get("tolerations") or () if t not in present]
        if more:
            spec["tolerations"] = [*present, *(dict(t) for t in more)]


def _overhead(klass: Object) -> Mapping[str, str] | None:
    overhead = klass.get("overhead")
    return None if overhead is None else overhead.get("podFixed") or {}


def _same(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    return a.keys() == b.keys() and all(quantity.compare(a[n], b[n]) == 0 for n in a)
