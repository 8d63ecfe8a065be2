"""What every evaluator is: by itself, the counter of a resource's objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sampan.api.errors import Object
from sampan.api.pod_resources import Amounts
from sampan.api.quota import scopes
from sampan.api.resources import CONFIGMAPS, REPLICATIONCONTROLLERS, RESOURCEQUOTAS, SECRETS, Resource

_ALIASES = frozenset(r.key_stem for r in (CONFIGMAPS, REPLICATIONCONTROLLERS, RESOURCEQUOTAS, SECRETS))
"""Resources that a quota may also count under their plain name."""


class Evaluator:
    """Measures the objects of one resource."""

    counts_only = True
    """Whether every object uses the same, so that their number is all there is to know."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.count = f"count/{resource.key_stem}"
        names = (resource.plural, self.count) if resource.key_stem in _ALIASES else (self.count,)
        self.names: frozenset[str] = frozenset(names)
        self._one: Amounts = dict.fromkeys(names, "1")

    def handles(self, operation: str, subresource: str, new: Object, old: Object | None) -> bool:
        """Whether such a write can use more."""
        return operation == "CREATE" and not subresource

    def named(self, names: Iterable[str]) -> list[str]:
        """Those of a quota's resources that are measured here."""
        return [n for n in names if n in self.names]

    def in_scope(self, rule: Mapping[str, object], obj: Object) -> bool:
        """Whether an object is in one of a quota's scopes."""
        return False

    def missing(self, required: Sequence[str], obj: Object) -> str:
        """What an object must say and does not if these resources are limited; "" if all is well."""
        return ""

    def usage(self, obj: Object) -> Amounts:
        """What an object uses. Shared: not to be changed."""
        return self._one

    def released(self, old: Object, new: Object) -> bool:
        """Whether a change that was no write of a user's may have made an object use less."""
        return False

    def matches(self, quota: Object, hard: Iterable[str], obj: Object) -> bool:
        """Whether a quota with these resources is about an object."""
        return bool(self.named(hard)) and all(self.in_scope(r, obj) for r in scopes.of(quota))
