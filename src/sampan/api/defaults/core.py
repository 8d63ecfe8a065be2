"""Defaults of the small core kinds: Secret, Namespace, Node, Binding."""

from __future__ import annotations

import base64

from sampan.api.errors import Object


def secret(obj: Object) -> None:
    if not obj.get("type"):
        obj["type"] = "Opaque"
    # `stringData` is for writing only: it is laid over `data` and never shown.
    plain = obj.pop("stringData", None)
    if plain:
        data = obj.get("data")
        if data is None:
            data = obj["data"] = {}
        for key, value in plain.items():
            data[key] = base64.b64encode(value.encode()).decode()


def namespace(obj: Object) -> None:
    """Every namespace can be selected by its name."""
    meta = obj.setdefault("metadata", {})
    if meta.get("name"):
        labels = meta.get("labels")
        if labels is None:
            labels = meta["labels"] = {}
        labels["kubernetes.io/metadata.name"] = meta["name"]
    obj.setdefault("spec", {})


def node(obj: Object) -> None:
    obj.setdefault("spec", {})
    status = obj.get("status")
    if status and status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def binding(obj: Object) -> None:
    target = obj.get("target")
    if target is not None and not target.get("kind"):
        target["kind"] = "Node"
