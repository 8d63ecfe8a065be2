"""Tables of FlowSchemas and PriorityLevelConfigurations."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Object
from sampan.api.objects import condition
from sampan.api.tables.cells import AGE, NAME, NONE, Column, age, name, section

FLOWSCHEMA_COLUMNS = (
    NAME,
    Column("PriorityLevel", description="The level that its requests belong to."),
    Column("MatchingPrecedence", description="The lower, the sooner it is asked."),
    Column("DistinguisherMethod", description="What parts its requests into flows."),
    AGE,
    Column("MissingPL", description="Whether its level is missing."),
)


def flowschema_row(schema: Object, now: float) -> list[Any]:
    spec = section(schema, "spec")
    dangling = condition(schema, "Dangling")
    return [
        name(schema),
        (spec.get("priorityLevelConfiguration") or {}).get("name") or NONE,
        spec.get("matchingPrecedence") or 0,
        (spec.get("distinguisherMethod") or {}).get("type") or NONE,
        age(schema, now),
        dangling.get("status") or "" if dangling is not None else "?",
    ]


def flowschema_order(schema: Object) -> tuple[int, str]:
    """As requests meet them."""
    return section(schema, "spec").get("matchingPrecedence") or 0, name(schema)


PRIORITYLEVEL_COLUMNS = (
    NAME,
    Column("Type", description="Whether its requests are limited."),
    Column("NominalConcurrencyShares", description="Its share of the requests that are worked on at a time."),
    Column("Queues", description="How many queues it has."),
    Column("HandSize", description="How many of these queues each flow may use."),
    Column("QueueLengthLimit", description="How many requests may wait in a queue."),
    AGE,
)


def prioritylevel_row(level: Object, now: float) -> list[Any]:
    spec = section(level, "spec")
    limited = spec.get("limited") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    return [
        name(level),
        spec.get("type") or "",
        limited.get("nominalConcurrencyShares", NONE),
        *(queuing.get(n, NONE) for n in ("queues", "handSize", "queueLengthLimit")),
        age(level, now),
    ]
