"""Tables of what makes pods that run on: Deployments, ReplicaSets, DaemonSets, StatefulSets, ReplicationControllers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sampan.api import selectors
from sampan.api.errors import Object
from sampan.api.objects import controller_of
from sampan.api.tables.cells import (
    AGE,
    NAME,
    NONE,
    Column,
    age,
    integer,
    joined,
    labels_text,
    name,
    section,
    wide,
)

TEMPLATE_COLUMNS = (
    wide("Containers", "The containers of the pods that it makes."),
    wide("Images", "Their images."),
    wide("Selector", "The labels of the pods that belong to it."),
)


def containers_cells(template: Mapping[str, Any] | None) -> list[str]:
    """Names and images of the containers of a pod template."""
    containers = ((template or {}).get("spec") or {}).get("containers") or ()
    return [
        joined(c.get("name") or "" for c in containers),
        joined(c.get("image") or "" for c in containers),
    ]


def template_cells(spec: Mapping[str, Any]) -> list[str]:
    """The wide cells of a kind with a pod template and a selector."""
    selector = str(selectors.from_object(spec.get("selector") or {})) or NONE
    return [*containers_cells(spec.get("template")), selector]


DEPLOYMENT_COLUMNS = (
    NAME,
    Column("Ready", description="How many of the pods wanted are ready."),
    integer("Up-to-date", "How many pods are of the newest template."),
    integer("Available", "How many pods have been ready long enough."),
    AGE,
    *TEMPLATE_COLUMNS,
)


def deployment_row(deployment: Object, now: float) -> list[Any]:
    spec, status = section(deployment, "spec"), section(deployment, "status")
    return [
        name(deployment),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}",
        status.get("updatedReplicas") or 0,
        status.get("availableReplicas") or 0,
        age(deployment, now),
        *template_cells(spec),
    ]


REPLICASET_COLUMNS = (
    NAME,
    integer("Desired", "How many pods are wanted."),
    integer("Current", "How many pods there are."),
    integer("Ready", "How many pods are ready."),
    AGE,
    *TEMPLATE_COLUMNS,
)


def replicaset_row(replicaset: Object, now: float) -> list[Any]:
    spec, status = section(replicaset, "spec"), section(replicaset, "status")
    return [
        name(replicaset),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        age(replicaset, now),
        *template_cells(spec),
    ]


DAEMONSET_COLUMNS = (
    NAME,
    integer("Desired", "How many nodes should run its pod."),
    integer("Current", "How many of them have it."),
    integer("Ready", "How many of these pods are ready."),
    integer("Up-to-date", "How many pods are of the newest template."),
    integer("Available", "How many pods have been ready long enough."),
    Column("Node Selector", description="The labels of the nodes that get a pod."),
    AGE,
    *TEMPLATE_COLUMNS,
)


def daemonset_row(daemonset: Object, now: float) -> list[Any]:
    spec, status = section(daemonset, "spec"), section(daemonset, "status")
    pod = (spec.get("template") or {}).get("spec") or {}
    return [
        name(daemonset),
        status.get("desiredNumberScheduled") or 0,
        status.get("currentNumberScheduled") or 0,
        status.get("numberReady") or 0,
        status.get("updatedNumberScheduled") or 0,
        status.get("numberAvailable") or 0,
        labels_text(pod.get("nodeSelector")),
        age(daemonset, now),
        *template_cells(spec),
    ]


STATEFULSET_COLUMNS = (
    NAME,
    Column("Ready", description="How many of the pods wanted are ready."),
    AGE,
    *TEMPLATE_COLUMNS[:2],
)


def statefulset_row(statefulset: Object, now: float) -> list[Any]:
    spec, status = section(statefulset, "spec"), section(statefulset, "status")
    return [
        name(statefulset),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}",
        age(statefulset, now),
        *containers_cells(spec.get("template")),
    ]


CONTROLLERREVISION_COLUMNS = (
    NAME,
    Column("Controller", description="What this is a revision of."),
    Column("Revision", description="Its number."),
    AGE,
)


def controllerrevision_row(revision: Object, now: float) -> list[Any]:
    owner = controller_of(revision)
    controller = NONE
    if owner is not None:
        group = owner.get("apiVersion", "").rpartition("/")[0]
        kind = owner.get("kind", "").lower()
        controller = f"{kind}.{group}/{owner.get('name', '')}" if group else f"{kind}/{owner.get('name', '')}"
    return [name(revision), controller, revision.get("revision") or 0, age(revision, now)]


REPLICATIONCONTROLLER_COLUMNS = REPLICASET_COLUMNS


def replicationcontroller_row(controller: Object, now: float) -> list[Any]:
    spec, status = section(controller, "spec"), section(controller, "status")
    return [
        name(controller),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        age(controller, now),
        *containers_cells(spec.get("template")),
        labels_text(spec.get("selector")),
    ]


PODTEMPLATE_COLUMNS = (
    NAME,
    Column("Containers", description="The containers of the pods made of it."),
    Column("Images", description="Their images."),
    Column("Pod Labels", description="The labels of the pods made of it."),
)


def podtemplate_row(obj: Object, now: float) -> list[Any]:
    template = section(obj, "template")
    labels = (template.get("metadata") or {}).get("labels")
    return [name(obj), *containers_cells(template), labels_text(labels)]
