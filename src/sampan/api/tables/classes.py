"""Tables of the classes that pods name: PriorityClasses and RuntimeClasses."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Object
from sampan.api.tables.cells import AGE, NAME, Column, age, integer, name

PRIORITYCLASS_COLUMNS = (
    NAME,
    integer("Value", "The priority of its pods."),
    Column("Global-Default", "boolean", description="Whether pods get it that name no class."),
    AGE,
    Column("PreemptionPolicy", description="Whether its pods push out others."),
)


def priorityclass_row(klass: Object, now: float) -> list[Any]:
    default = bool(klass.get("globalDefault"))
    return [
        name(klass),
        klass.get("value") or 0,
        default,
        age(klass, now),
        klass.get("preemptionPolicy") or "",
    ]


RUNTIMECLASS_COLUMNS = (
    NAME,
    Column("Handler", description="The configuration of the runtime that it means."),
    AGE,
)


def runtimeclass_row(klass: Object, now: float) -> list[Any]:
    return [name(klass), klass.get("handler") or "", age(klass, now)]
