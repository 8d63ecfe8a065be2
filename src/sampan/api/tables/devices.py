"""Tables of resource.k8s.io."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Object
from sampan.api.tables.cells import AGE, NAME, Column, age, name, section

AGED_COLUMNS = (NAME, AGE)


def aged_row(obj: Object, now: float) -> list[Any]:
    return [name(obj), age(obj, now)]


RESOURCECLAIM_COLUMNS = (
    NAME,
    Column("State", description="How far it is: pending, allocated, reserved, deleted."),
    AGE,
)


def resourceclaim_row(claim: Object, now: float) -> list[Any]:
    status = section(claim, "status")
    states = ["deleted"] if claim["metadata"].get("deletionTimestamp") else []
    if status.get("allocation") is None:
        states += [] if states else ["pending"]
    else:
        states.append("allocated")
        if status.get("reservedFor"):
            states.append("reserved")
    return [name(claim), ",".join(states), age(claim, now)]


RESOURCESLICE_COLUMNS = (
    NAME,
    Column("Node", description="The node that has the devices, where it is one."),
    Column("Driver", description="The driver that offers them."),
    Column("Pool", description="The pool that they are part of."),
    AGE,
)


def resourceslice_row(offer: Object, now: float) -> list[Any]:
    spec = section(offer, "spec")
    pool = (spec.get("pool") or {}).get("name") or ""
    return [name(offer), spec.get("nodeName") or "", spec.get("driver") or "", pool, age(offer, now)]
