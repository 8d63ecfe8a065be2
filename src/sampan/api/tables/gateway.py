"""Tables of the Gateway API; the columns are those of upstream's CustomResourceDefinitions."""

from __future__ import annotations

import json
from typing import Any

from sampan.api.errors import Object
from sampan.api.tables.cells import AGE, NAME, Column, age, name, section, wide

GATEWAYCLASS_COLUMNS = (
    NAME,
    Column("Controller", description="Who looks after its Gateways."),
    Column("Accepted", description="Whether its controller accepts it."),
    AGE,
    wide("Description", "What it is."),
)
GATEWAY_COLUMNS = (
    NAME,
    Column("Class", description="Its GatewayClass."),
    Column("Address", description="Where it can be reached."),
    Column("Programmed", description="Whether it is in force."),
    AGE,
)
ROUTE_COLUMNS = (NAME, Column("Hostnames", description="The hosts that it is for."), AGE)


def gatewayclass_row(obj: Object, now: float) -> list[Any]:
    spec = section(obj, "spec")
    return [name(obj), spec.get("controllerName"), _status(obj, "Accepted"), age(obj, now), spec.get("description")]  # fmt: skip


def gateway_row(obj: Object, now: float) -> list[Any]:
    addresses = " ".join(a["value"] for a in section(obj, "status").get("addresses") or ())
    return [
        name(obj),
        section(obj, "spec").get("gatewayClassName"),
        addresses or None,
        _status(obj, "Programmed"),
        age(obj, now),
    ]


def route_row(obj: Object, now: float) -> list[Any]:
    hosts = section(obj, "spec").get("hostnames")
    return [name(obj), json.dumps(hosts, separators=(",", ":")) if hosts else None, age(obj, now)]


def _status(obj: Object, kind: str) -> str | None:
    conditions = section(obj, "status").get("conditions") or ()
    return next((c["status"] for c in conditions if c["type"] == kind), None)
