"""Tables of Deployments and ReplicaSets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sampan.api import selectors
from sampan.api.errors import Object
from sampan.api.tables.cells import AGE, NAME, NONE, Column, age, integer, joined, name, section, wide

_TEMPLATE = (
    wide("Containers", "The containers of the pods that it makes."),
    wide("Images", "Their images."),
    wide("Selector", "The labels of the pods that belong to it."),
)


def _template_cells(spec: Mapping[str, Any]) -> list[str]:
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or ()
    return [
        joined(c.get("name") or "" for c in containers),
        joined(c.get("image") or "" for c in containers),
        str(selectors.from_object(spec.get("selector") or {})) or NONE,
    ]


DEPLOYMENT_COLUMNS = (
    NAME,
    Column("Ready", description="How many of the pods wanted are ready."),
    integer("Up-to-date", "How many pods are of the newest template."),
    integer("Available", "How many pods have been ready long enough."),
    AGE,
    *_TEMPLATE,
)


def deployment_row(deployment: Object, now: float) -> list[Any]:
    spec, status = section(deployment, "spec"), section(deployment, "status")
    return [
        name(deployment),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}",
        status.get("updatedReplicas") or 0,
        status.get("availableReplicas") or 0,
        age(deployment, now),
        *_template_cells(spec),
    ]


REPLICASET_COLUMNS = (
    NAME,
    integer("Desired", "How many pods are wanted."),
    integer("Current", "How many pods there are."),
    integer("Ready", "How many pods are ready."),
    AGE,
    *_TEMPLATE,
)


def replicaset_row(replicaset: Object, now: float) -> list[Any]:
    spec, status = section(replicaset, "spec"), section(replicaset, "status")
    return [
        name(replicaset),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        age(replicaset, now),
        *_template_cells(spec),
    ]
