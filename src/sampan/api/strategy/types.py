"""The contract of a kind's strategy, and the small steps that the strategies of several kinds share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sampan.api.errors import Object
from sampan.api.objects import deep_copy


@dataclass(frozen=True, slots=True)
class Strategy:
    """What is a kind's own about its writes. Functions change the new object in place and leave the old one.

    Where the resource has a `status` subresource, a new object loses the status that it came with and a change of the
    object keeps the old one; nothing needs to be said for that.
    """

    generation: Callable[[Object, Object], bool] | None = None
    """Given (new, old): whether a change of the object counts as a new generation. None: the kind has no generation."""
    first_status: Callable[[Object], Object] | None = None
    """The status of a new object. None: it has none."""
    status_kept: bool = False
    """A creator may set the status (nodes register with theirs); updates keep it all the same."""
    create: Callable[[Object], None] | None = None
    renamed: Callable[[Object, str], None] | None = None
    """Given (new, former name): the generated name of a new object was taken, and another was given to it."""
    update: Callable[[Object, Object, str], None] | None = None
    """Given (new, old, subresource); subresource is never `status`."""
    status_update: Callable[[Object, Object], None] | None = None
    """Given (new, old): what a write of the status may not touch beside the spec, which is put back before."""
    faces: Mapping[str, Callable[[Object, Object], None]] = field(default_factory=dict)
    """Given (new, old): all that a write of another subresource may not touch, by its name (`approval`)."""


def spec_changed(new: Object, old: Object) -> bool:
    return not same(new.get("spec"), old.get("spec"))


def keep(new: Object, old: Object, name: str) -> None:
    """Give `new` the old value of one field."""
    if name in old:
        new[name] = deep_copy(old[name])
    else:
        new.pop(name, None)


def same(a: Any, b: Any) -> bool:
    """Whether two values mean the same to upstream: absent and an empty list or text are equal."""
    if a == b:
        return True
    if isinstance(a, dict) and isinstance(b, dict):
        return all(same(a.get(k), b.get(k)) for k in a.keys() | b.keys())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return (a is None and b in ([], "")) or (b is None and a in ([], ""))


def empty_status(_: Object) -> Object:
    return {}
