"""What a plugin of the admission chain is."""

from __future__ import annotations

from typing import ClassVar, Literal

from sampan.api import errors
from sampan.api.errors import StatusError
from sampan.apiserver.types import Attributes

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
OPERATIONS: tuple[Operation, ...] = ("CREATE", "UPDATE", "DELETE", "CONNECT")
WRITES: frozenset[Operation] = frozenset(("CREATE", "UPDATE"))
CREATE: frozenset[Operation] = frozenset(("CREATE",))
UPDATE: frozenset[Operation] = frozenset(("UPDATE",))


class Plugin:
    """One concern. A plugin overrides what it needs; both raise StatusError to refuse."""

    resources: ClassVar[frozenset[str] | None] = None
    """Key stems (`pods`, `leases.coordination.k8s.io`) of the resources it cares about; None for all."""
    operations: ClassVar[frozenset[Operation]] = frozenset(OPERATIONS)
    """The operations it cares about."""

    @classmethod
    def cares(cls, operation: Operation, stem: str) -> bool:
        """Whether it cares about an operation on a resource. It is asked about nothing else, so that it costs nothing
        elsewhere."""
        return operation in cls.operations and (cls.resources is None or stem in cls.resources)

    async def mutate(self, attributes: Attributes) -> None:
        """Complete `attributes.obj` in place."""

    async def validate(self, attributes: Attributes) -> None:
        """Refuse what must not be; change nothing."""


def refuse(attributes: Attributes, why: str) -> StatusError:
    """403 with the object's name as far as it is known: a name to be generated shows as its stem."""
    name = attributes.name
    if not name:
        meta = (attributes.obj or {}).get("metadata") or {}
        name = meta.get("name") or meta.get("generateName") or "Unknown"
    return errors.forbidden(attributes.resource.plural, name, why, attributes.resource.group)
