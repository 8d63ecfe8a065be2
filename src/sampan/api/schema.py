"""The types of the API, compiled from the OpenAPI definitions of the release.

`node()` gives the compiled form of a definition: a tree (with shared and recursive parts) of `Node`s that decoding,
validation, patches, server-side apply, `kubectl explain` and the OpenAPI documents all read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Type = Literal["object", "map", "array", "string", "integer", "number", "boolean", "int-or-string", "any"]


@dataclass(slots=True, eq=False)
class Node:
    """One place in a type.

    `object` has named `fields`; `map` and `array` have `items`; `any` is free-form JSON (RawExtension, FieldsV1).
    `definition` is the OpenAPI definition's name where the place refers to one, else "". The `list_*`, `map_type` and
    `patch_*` values are the `x-kubernetes-*` extensions: how server-side apply and strategic merge treat the place.
    """

    type: Type
    definition: str = ""
    fields: dict[str, Node] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    items: Node | None = None
    format: str = ""
    enum: tuple[str, ...] = ()
    list_type: Literal["", "atomic", "set", "map"] = ""
    list_map_keys: tuple[str, ...] = ()
    map_type: Literal["", "atomic", "granular"] = ""
    patch_strategy: tuple[str, ...] = ()
    patch_merge_key: str = ""


def node(definition: str) -> Node:
    """The compiled form of an OpenAPI definition (`io.k8s.api.core.v1.Pod`). Raises KeyError for an unknown name."""
    raise NotImplementedError
