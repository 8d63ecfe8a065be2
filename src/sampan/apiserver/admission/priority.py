"""A pod's priority is its class's; one class at most is the default. Two classes every cluster has."""

from __future__ import annotations

from sampan.api.errors import Object
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
        self._defaults: dict[str, Object] = {}
        """The classes that are for pods that name none, by name: one at most, but for a race."""
        for klass in cache.list(PRIORITYCLASSES):
            self._changed(None, klass)
        cache.on_change(PRIORITYCLASSES, self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None:
            self._defaults.pop(old["metadata"]["name"], None)
        if new is not None and new.get("globalDefault"):
            self._defaults[new["metadata"]["name"]] = new

    async def validate(self, attributes: Attributes) -> None:
        klass = attributes.obj
        if attributes.resource is not PRIORITYCLASSES or klass is None or not klass.get("globalDefault"):
            return
        present = self._default()
        if present is not None and present["metadata"]["name"] != klass["metadata"].get("name"):
            name = present["metadata"]["name"]
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
        self._fill(attributes, spec)

    def _fill(self, attributes: Attributes, spec: Object) -> None:
        name = spec.get("priorityClassName") or ""
        if name in SYSTEM:
            _set(attributes, spec, SYSTEM[name], _PREEMPTION)
            return
        klass = self._cache.get(PRIORITYCLASSES, "", name) if name else self._default()
        if klass is None:
            if name:
                raise refuse(attributes, f"no PriorityClass with name {name} was found")
            _set(attributes, spec, 0, _PREEMPTION)
            return
        spec["priorityClassName"] = klass["metadata"]["name"]
        _set(attributes, spec, _value(klass), klass.get("preemptionPolicy") or _PREEMPTION)

    def _default(self) -> Object | None:
        """Of several the lowest."""
        return min(self._defaults.values(), key=_value, default=None) if self._defaults else None


def _value(klass: Object) -> int:
    return klass.get("value") or 0


def _set(attributes: Attributes, spec: Object, priority: int, preemption: str) -> None:
    """Fill in the values; who gave others themselves is refused."""
    computed: tuple[tuple[str, object, str], ...] = (
        ("priority", priority, "integer value of priority"),
        ("preemptionPolicy", preemption, "string value of PreemptionPolicy"),
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
