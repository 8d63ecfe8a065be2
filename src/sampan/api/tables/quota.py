"""The table of ResourceQuotas. LimitRanges have none of their own."""

from __future__ import annotations

from typing import Any

from sampan.api import quantity
from sampan.api.errors import Object
from sampan.api.tables.cells import AGE, NAME, Column, age, name, section

RESOURCEQUOTA_COLUMNS = (
    NAME,
    Column("Request", description="What is used of what may be requested or counted."),
    Column("Limit", description="What is used of what limits may add up to."),
    AGE,
)


def resourcequota_row(quota: Object, now: float) -> list[Any]:
    status = section(quota, "status")
    hard, used = status.get("hard") or {}, status.get("used") or {}

    def listed(limits: bool) -> str:
        return ", ".join(
            f"{n}: {quantity.format(used.get(n, '0'))}/{quantity.format(hard[n])}"
            for n in sorted(hard)
            if n.startswith("limits.") is limits
        )

    return [name(quota), listed(False), listed(True), age(quota, now)]
