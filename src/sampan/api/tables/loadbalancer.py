"""Tables of address pools; the columns are MetalLB's."""

from __future__ import annotations

import json
from typing import Any

from sampan.api.errors import Object
from sampan.api.tables.cells import AGE, NAME, Column, age, name, section, wide

IPADDRESSPOOL_COLUMNS = (
    NAME,
    Column("Auto Assign", "boolean", description="Whether Services that name no pool get its addresses."),
    Column("Avoid Buggy IPs", "boolean", description="Whether addresses ending with .0 or .255 are passed over."),
    Column("Addresses", description="Its ranges."),
    wide("Assigned IPv4", "How many IPv4 addresses Services have.", "integer"),
    wide("Available IPv4", "How many IPv4 addresses are left.", "integer"),
    wide("Assigned IPv6", "How many IPv6 addresses Services have.", "integer"),
    wide("Available IPv6", "How many IPv6 addresses are left.", "integer"),
    AGE,
)  # fmt: skip


def ipaddresspool_row(pool: Object, now: float) -> list[Any]:
    spec, status = section(pool, "spec"), section(pool, "status")
    return [
        name(pool),
        spec.get("autoAssign"),
        spec.get("avoidBuggyIPs"),
        json.dumps(spec.get("addresses") or [], separators=(",", ":")),
        *(
            status.get(f"{what}{family}", 0)
            for family in ("IPv4", "IPv6")
            for what in ("assigned", "available")
        ),
        age(pool, now),
    ]
