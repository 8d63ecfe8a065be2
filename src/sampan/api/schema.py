"""The types of the API, compiled from the OpenAPI definitions of the release.

`node()` gives the compiled form of a definition: a tree (with shared and recursive parts) of `Node`s that decoding,
validation, patches, server-side apply, `kubectl explain` and the OpenAPI documents all read.

The definitions come with the package `kubernetes-validate`, which marks what may be left out as nullable and adds
enumerations of `apiVersion` and `kind`; otherwise they are the release's own. Kinds that are served and that the release
does not have are described beside them in `definitions/`, in the same form. Reading them all takes about 5 ms, so
there is no cache on disk; what only people read (descriptions) is left out of the compiled form.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from sampan.api.resources import RESOURCES

RELEASE = "1.36.0"
"""The Kubernetes release whose definitions are served."""

Type = Literal["object", "map", "array", "string", "integer", "number", "boolean", "int-or-string", "any"]

QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.Time"
MICRO_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"


@dataclass(slots=True, eq=False)
class Node:
    """One place in a type.

    `object` has named `fields`; `map` and `array` have `items`; `any` is free-form JSON (RawExtension, FieldsV1).
    `definition` is the OpenAPI definition's name where the place refers to one, else "". The `list_*`, `map_type` and
    `patch_*` values are the `x-kubernetes-*` extensions: how server-side apply and strategic merge treat the place.

    A quantity is a `string` of format `quantity`, a moment one of format `time` or `micro-time`, bytes one of format
    `byte` (base64). Integers have the format `int32` or `int64`.
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

    @property
    def kind(self) -> str:
        """The last part of the definition's name: `Pod`, `ContainerPort`."""
        return self.definition.rpartition(".")[2]


class _Schema(msgspec.Struct, rename={
    "ref": "$ref", "additional": "additionalProperties", "list_type": "x-kubernetes-list-type",
    "list_map_keys": "x-kubernetes-list-map-keys", "map_type": "x-kubernetes-map-type",
    "patch_strategy": "x-kubernetes-patch-strategy", "patch_merge_key": "x-kubernetes-patch-merge-key",
}, omit_defaults=True):  # fmt: skip
    """The part of a JSON schema that matters here."""

    type: str | list[str] | None = None
    ref: str = ""
    properties: dict[str, _Schema] | None = None
    required: list[str] = []
    items: _Schema | None = None
    additional: _Schema | None = None
    format: str = ""
    enum: list[str | int] = []
    list_type: str = ""
    list_map_keys: list[str] = []
    map_type: str = ""
    patch_strategy: str = ""
    patch_merge_key: str = ""


class _Document(msgspec.Struct, rename={"definitions": "$defs"}):
    definitions: dict[str, msgspec.Raw]


_STRINGS = {QUANTITY: "quantity", TIME: "time", MICRO_TIME: "micro-time"}
_FREE = {
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
}

_nodes: dict[str, Node] = {}
_decode_schema = msgspec.json.Decoder(_Schema).decode


_OWN = Path(__file__).parent / "definitions"


def _read() -> bytes:
    """The document of the release's definitions. Found without importing the package, which pulls in a JSON schema validator."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:  # pragma: no cover - it is a dependency of ours
        raise RuntimeError(
            "the package kubernetes-validate is not installed: pip install kubernetes-validate"
        )
    return (
        Path(spec.origin).parent / "kubernetes-json-schema" / f"v{RELEASE}-local" / "_definitions.json"
    ).read_bytes()


def definitions() -> dict[str, Any]:
    """All definitions as they are in the document, descriptions included; references are `#/$defs/NAME`.

    Read anew by every call (5 ms, some megabytes): keep what you make of it, not the whole.
    """
    found = dict(msgspec.json.decode(_read())["$defs"])
    for path in sorted(_OWN.glob("*.json")):
        found |= msgspec.json.decode(path.read_bytes())["$defs"]
    return found


def node(definition: str) -> Node:
    """The compiled form of an OpenAPI definition (`io.k8s.api.core.v1.Pod`). Raises KeyError for an unknown name."""
    found = _nodes.get(definition)
    if found is None:
        # The document is not kept: all that is served is compiled at once, so that it is rarely read again.
        decode = msgspec.json.Decoder(_Document).decode
        document = decode(_read()).definitions
        for path in sorted(_OWN.glob("*.json")):
            document |= decode(path.read_bytes()).definitions
        compiler = _Compiler(document)
        found = compiler.definition(definition)
        for resource in RESOURCES:
            compiler.definition(resource.definition)
    return found


class _Compiler:
    """Makes nodes of the definitions of one document, and of all that they refer to."""

    def __init__(self, document: dict[str, msgspec.Raw]) -> None:
        self._document = document

    def definition(self, name: str) -> Node:
        found = _nodes.get(name)
        if found is not None:
            return found
        schema = _decode_schema(self._document[name])
        if name in _STRINGS:
            made = Node("string", name, format=_STRINGS[name])
        elif name == INT_OR_STRING:
            made = Node("int-or-string", name)
        elif name in _FREE or (schema.type is None and schema.properties is None):
            made = Node("any", name)
        else:
            made = _shape(schema, name)
        # Known before its parts are compiled: a type may contain itself (JSONSchemaProps).
        _nodes[name] = made
        self._fill(made, schema)
        return made

    def _fill(self, made: Node, schema: _Schema) -> None:
        if made.type == "object":
            for name, part in (schema.properties or {}).items():
                made.fields[sys.intern(name)] = self._place(part)
        elif made.type == "array" and schema.items is not None:
            made.items = self._place(schema.items)
        elif made.type == "map" and schema.additional is not None:
            made.items = self._place(schema.additional)

    def _place(self, schema: _Schema) -> Node:
        """A property, an item or a map's value: shared with the definition it refers to if nothing is its own."""
        if not schema.ref:
            made = _shape(schema)
            self._fill(made, schema)
            return made
        target = self.definition(schema.ref.rpartition("/")[2])
        if schema.patch_strategy or schema.map_type:
            own = _shape(schema)
            # `fields` stays the same dict as the target's, which may still be being filled.
            return replace(
                target, patch_strategy=own.patch_strategy, map_type=own.map_type or target.map_type
            )
        return target


def _shape(schema: _Schema, definition: str = "") -> Node:
    kind = (
        schema.type
        if isinstance(schema.type, str)
        else next((t for t in schema.type or ["object"]), "object")
    )
    if kind == "object" and schema.additional is not None:
        kind = "map"
    elif kind == "object" and schema.properties is None and not definition:
        kind = "any"
    return Node(
        kind,  # type: ignore[arg-type]
        definition,
        required=tuple(schema.required),
        format=schema.format,
        enum=tuple(map(str, schema.enum)),
        list_type=schema.list_type,  # type: ignore[arg-type]
        list_map_keys=tuple(schema.list_map_keys),
        map_type=schema.map_type,  # type: ignore[arg-type]
        patch_strategy=tuple(s for s in schema.patch_strategy.split(",") if s),
        patch_merge_key=schema.patch_merge_key,
    )
