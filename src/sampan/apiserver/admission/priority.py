"""A pod's priority is its class's; one class at most is the default. Pods can name the two that every cluster has."""

from __future__ import annotations

from sampan.api.priority_classes import SYSTEM
from sampan.api.resources import PRIORITYCLASSES
from sampan.apiserver.admission.plugin import WRITES, Plugin, refuse
from sampan.apiserver.types import Attributes, ReadCache

_PREEMPTION = "PreemptLowerPriority"


class Priority(Plugin):
    resources = frozenset(("pods", PRIORITYCLASSES.key_stem))
    operations = WRITES

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def validate(self, attributes: Attributes) -> None:
        klass = attributes.obj
        if attributes.resource is not PRIORITYCLASSES or klass is None or not klass.get("globalDefault"):
            return
        for other in self._cache.list(PRIORITYCLASSES):
            name = other["metadata"]["name"]
            if other.get("globalDefault") and name != klass["metadata"].get("name"):
                why = f"PriorityClass {name} is already marked as default. Only one default can exist"
                raise refuse(attributes, why)

    async def mutate(self, attributes: Attributes) -> None:
        pod, old = attributes.obj, attributes.old
        if attributes.resource is PRIORITYCLASSES or attributes.subresource or pod is None:
            return
        spec = pod.setdefault("spec", {})
        if attributes.operation == "UPDATE" and old is not None:
            # An older client that does not know the fields must not be seen as wanting to unset them.
            for name in ("priority", "preemptionPolicy"):
                if spec.get(name) is None and name in old["spec"]:
                    spec[name] = old["spec"][name]
            return
        if attributes.operation != "CREATE":
            return
        name = spec.get("priorityClassName") or ""
        if name and name not in SYSTEM:
            raise refuse(attributes, f"no PriorityClass with name {name} was found")
        self._compute(attributes, SYSTEM.get(name, 0))

    def _compute(self, attributes: Attributes, priority: int) -> None:
        assert attributes.obj is not None
        spec = attributes.obj["spec"]
        computed: tuple[tuple[str, object, str], ...] = (
            ("priority", priority, "integer value of priority"),
            ("preemptionPolicy", _PREEMPTION, "string value of PreemptionPolicy"),
        )
        for name, value, described in computed:
            given = spec.get(name)
            if given is not None and given != value:
                why = (
                    f"the {described} ({given}) must not be provided in pod spec; priority admission controller "
                    f"computed {value} from the given PriorityClass name"
                )
                raise refuse(attributes, why)
            spec[name] = value
