"""The table of PodDisruptionBudgets."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Object
from sampan.api.tables.cells import AGE, NAME, Column, age, integer, name, section

COLUMNS = (
    NAME,
    Column("Min Available", description="How many of its pods must stay."),
    Column("Max Unavailable", description="How many of its pods may be gone."),
    integer("Allowed Disruptions", "How many pods may be evicted now."),
    AGE,
)


def row(budget: Object, now: float) -> list[Any]:
    spec, status = section(budget, "spec"), section(budget, "status")
    return [
        name(budget),
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        status.get("disruptionsAllowed") or 0,
        age(budget, now),
    ]
