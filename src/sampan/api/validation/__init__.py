"""Whether an object says what Kubernetes can act on. Each function returns all problems at once, as upstream words them.

An object comes in the form in which it is stored; `resource` is the row under which it was sent, which may have rules of
its own (Events).

Objects come here decoded, type-checked, with defaults, prepared by `strategy` and changed by admission. One module a
group of kinds; a problem whose value swallowed the fields after it also says what the author probably meant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sampan.api import conversion, intent, schema
from sampan.api.errors import FieldError, Object
from sampan.api.resources import Resource, hub
from sampan.api.validation import formats, metadata

Create = Callable[[Object], list[FieldError]]
Update = Callable[[Object, Object, str], list[FieldError]]


@dataclass(frozen=True, slots=True)
class Rules:
    """How a kind is validated. `update` gets (new, old, subresource); its own metadata rules are added by the caller.
    Without `update`, what holds at creation holds after a change too."""

    name: metadata.Format = formats.dns1123_subdomain
    create: Create | None = None
    update: Update | None = None


_PLAIN = Rules()


def create(resource: Resource, obj: Object) -> list[FieldError]:
    """All problems of a new object; [] if it may be stored."""
    rules = _rules(resource)
    problems = metadata.create(obj.get("metadata") or {}, resource.namespaced, rules.name)
    if rules.create is not None:
        problems += rules.create(obj)
    return _explained(resource, obj, problems)


def update(resource: Resource, new: Object, old: Object, subresource: str = "") -> list[FieldError]:
    """All problems of a changed object, given what was stored before."""
    rules = _rules(resource)
    problems = metadata.update(new.get("metadata") or {}, old["metadata"])
    if rules.update is not None:
        problems += rules.update(new, old, subresource)
    elif rules.create is not None and not subresource:
        problems += rules.create(new)
    return _explained(resource, new, problems)


def _explained(resource: Resource, obj: Object, problems: list[FieldError]) -> list[FieldError]:
    if not problems:
        return problems
    explained = intent.explain(schema.node(hub(resource).definition), obj, problems)
    return (
        [replace(p, path=conversion.field(resource, p.path)) for p in explained]
        if resource.storage
        else explained
    )


def _rules(resource: Resource) -> Rules:
    from sampan.api.validation.kinds import RULES

    own = RULES.get((resource.group, resource.kind))
    row = hub(resource)
    return own or RULES.get((row.group, row.kind), _PLAIN)
