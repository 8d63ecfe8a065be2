"""Tables of the core group but Pods and Services, of Leases and of access control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sampan.api.errors import Object
from sampan.api.tables.cells import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    Column,
    age,
    name,
    section,
    since,
    wide,
)

NODE_COLUMNS = (
    NAME,
    Column("Status", description="Whether the node is ready, and whether it takes new pods."),
    Column("Roles", description="The roles that its labels give it."),
    AGE,
    Column("Version", description="The version of its node agent."),
    wide("Internal-IP", "Its address inside the cluster."),
    wide("External-IP", "Its address outside."),
    wide("OS-Image", "Its operating system."),
    wide("Kernel-Version", "Its kernel."),
    wide("Container-Runtime", "What runs its containers."),
)
_ROLE_PREFIX = "node-role.kubernetes.io/"


def node_row(node: Object, now: float) -> list[Any]:
    status = section(node, "status")
    words = [
        "Ready" if c.get("status") == "True" else "NotReady"
        for c in status.get("conditions") or ()
        if c.get("type") == "Ready"
    ] or ["Unknown"]
    if section(node, "spec").get("unschedulable"):
        words.append("SchedulingDisabled")
    roles = set()
    for key, value in (node["metadata"].get("labels") or {}).items():
        if key.startswith(_ROLE_PREFIX) and len(key) > len(_ROLE_PREFIX):
            roles.add(key[len(_ROLE_PREFIX) :])
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    info = status.get("nodeInfo") or {}

    def address(kind: str) -> str:
        found = (a.get("address") for a in status.get("addresses") or () if a.get("type") == kind)
        return next(found, None) or NONE

    return [
        name(node),
        ",".join(words),
        ",".join(sorted(roles)) or NONE,
        age(node, now),
        info.get("kubeletVersion") or "",
        address("InternalIP"),
        address("ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


NAMESPACE_COLUMNS = (NAME, Column("Status", description="Whether it is active or going away."), AGE)


def namespace_row(namespace: Object, now: float) -> list[Any]:
    return [name(namespace), section(namespace, "status").get("phase") or "", age(namespace, now)]


CONFIGMAP_COLUMNS = (NAME, Column("Data", description="How many entries it has."), AGE)


def configmap_row(configmap: Object, now: float) -> list[Any]:
    entries = len(configmap.get("data") or ()) + len(configmap.get("binaryData") or ())
    return [name(configmap), entries, age(configmap, now)]


SECRET_COLUMNS = (
    NAME,
    Column("Type", description="What kind of secret it is."),
    Column("Data", description="How many entries it has."),
    AGE,
)


def secret_row(secret: Object, now: float) -> list[Any]:
    return [name(secret), secret.get("type") or "", len(secret.get("data") or ()), age(secret, now)]


SERVICEACCOUNT_COLUMNS = (NAME, Column("Secrets", description="How many secrets it lists."), AGE)


def serviceaccount_row(account: Object, now: float) -> list[Any]:
    return [name(account), len(account.get("secrets") or ()), age(account, now)]


EVENT_COLUMNS = (
    Column("Last Seen", description="When it happened last."),
    Column("Type", description="Normal or Warning."),
    Column("Reason", description="What happened, as one word for programs."),
    Column("Object", description="What it happened to."),
    wide("Subobject", "The part of the object."),
    wide("Source", "Who reported it."),
    Column("Message", description="What happened, for people."),
    wide("First Seen", "When it happened first."),
    wide("Count", "How often it happened."),
    wide("Name", "The name of the event.", format="name"),
)


def event_row(event: Object, now: float) -> list[Any]:
    """Reads both shapes of an Event: core's and that of events.k8s.io."""
    about = event.get("involvedObject") or event.get("regarding") or {}
    source = event.get("source") or event.get("deprecatedSource") or {}
    first = event.get("firstTimestamp") or event.get("deprecatedFirstTimestamp") or event.get("eventTime")
    last = event.get("lastTimestamp") or event.get("deprecatedLastTimestamp") or first
    count = event.get("count") or event.get("deprecatedCount") or 1
    series = event.get("series")
    if series:
        last, count = series.get("lastObservedTime"), series.get("count") or 0
    reporter = (
        source.get("component") or event.get("reportingComponent") or event.get("reportingController") or ""
    )
    host = source.get("host") or event.get("reportingInstance") or ""
    kind = (about.get("kind") or "").lower()
    return [
        since(last, now),
        event.get("type") or "",
        event.get("reason") or "",
        f"{kind}/{about.get('name') or ''}" if kind else about.get("name") or "",
        about.get("fieldPath") or "",
        f"{reporter}, {host}" if host else reporter,
        (event.get("message") or event.get("note") or "").strip(),
        since(first, now),
        count,
        name(event),
    ]


LEASE_COLUMNS = (NAME, Column("Holder", description="Who holds it."), AGE)


def lease_row(lease: Object, now: float) -> list[Any]:
    return [name(lease), section(lease, "spec").get("holderIdentity") or "", age(lease, now)]


CREATED_COLUMNS = (NAME, Column("Created At", description="When it was created."))
"""The table of a kind that has none of its own (Roles among them)."""


def created_row(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj["metadata"].get("creationTimestamp") or UNKNOWN]


BINDING_COLUMNS = (
    NAME,
    Column("Role", description="The role that it gives."),
    AGE,
    wide("Users", "The users that it is given to."),
    wide("Groups", "The groups that it is given to."),
    wide("ServiceAccounts", "The service accounts that it is given to."),
)


def binding_row(binding: Object, now: float) -> list[Any]:
    ref = binding.get("roleRef") or {}
    subjects: Iterable[Mapping[str, Any]] = binding.get("subjects") or ()

    def named(kind: str) -> str:
        return ", ".join(
            f"{s.get('namespace') or ''}/{s['name']}" if kind == "ServiceAccount" else s["name"]
            for s in subjects
            if s.get("kind") == kind
        )

    return [
        name(binding),
        f"{ref.get('kind', '')}/{ref.get('name', '')}",
        age(binding, now),
        named("User"),
        named("Group"),
        named("ServiceAccount"),
    ]


COMPONENTSTATUS_COLUMNS = (
    NAME,
    Column("Status", description="Whether it is well."),
    Column("Message", description="What it says of itself."),
    Column("Error", description="What is wrong."),
)


def componentstatus_row(part: Object, now: float) -> list[Any]:
    healthy = next((c for c in part.get("conditions") or () if c.get("type") == "Healthy"), None)
    if healthy is None:
        return [name(part), "Unknown", "", ""]
    state = "Healthy" if healthy.get("status") == "True" else "Unhealthy"
    return [name(part), state, healthy.get("message") or "", healthy.get("error") or ""]
