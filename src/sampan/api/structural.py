"""Schemas that say more than types: defaults, lengths, patterns and ranges, as custom resources have them.

Kinds that upstream serves from CustomResourceDefinitions carry these in their definition (`definitions/`); those of the release
itself have them in code. Upstream: `apiextensions-apiserver/pkg/apiserver/schema/defaulting` and `.../validation`, whose words these
are. What needs CEL there is Python here, beside the kind's other rules.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sampan.api.errors import (
    FieldError,
    Object,
    duplicate,
    invalid_value,
    not_supported,
    required,
    too_long,
    too_many,
)
from sampan.api.objects import deep_copy

_DIRECTORY = Path(__file__).parent / "definitions"


class _Schema(msgspec.Struct, rename={
    "ref": "$ref", "additional": "additionalProperties", "min_length": "minLength", "max_length": "maxLength",
    "min_items": "minItems", "max_items": "maxItems", "max_properties": "maxProperties",
    "list_type": "x-kubernetes-list-type", "list_map_keys": "x-kubernetes-list-map-keys",
}, frozen=True):  # fmt: skip
    ref: str = ""
    properties: dict[str, _Schema] = {}
    additional: _Schema | None = None
    items: _Schema | None = None
    required: list[str] = []
    default: Any = msgspec.UNSET
    enum: list[str | int] = []
    pattern: str = ""
    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    max_properties: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    list_type: str = ""
    list_map_keys: list[str] = []


class _Document(msgspec.Struct, rename={"definitions": "$defs"}):
    definitions: dict[str, _Schema]


@functools.cache
def _definitions(group: str) -> dict[str, _Schema]:
    return msgspec.json.decode((_DIRECTORY / f"{group}.json").read_bytes(), type=_Document).definitions


def apply_defaults(group: str, definition: str, obj: Object) -> None:
    """Fill in what the definition, of the file `definitions/GROUP.json`, has as defaults, in place."""
    known = _definitions(group)
    _fill(known, known[definition], obj)


def problems(group: str, definition: str, obj: Object) -> list[FieldError]:
    """All that an object of the right types breaks of what its definition says. Metadata is not looked at."""
    known = _definitions(group)
    return list(_object(known, known[definition], obj, ""))


def _target(known: dict[str, _Schema], schema: _Schema) -> _Schema | None:
    """What a place is held against: None for a definition of the release, which has no such rules."""
    return known.get(schema.ref.rpartition("/")[2]) if schema.ref else schema


def _fill(known: dict[str, _Schema], schema: _Schema | None, value: Any) -> None:
    if schema is None:
        return
    if isinstance(value, dict):
        for name, part in schema.properties.items():
            if name not in value and part.default is not msgspec.UNSET:
                value[name] = deep_copy(part.default)
            if name in value:
                _fill(known, _target(known, part), value[name])
    elif isinstance(value, list) and schema.items is not None:
        target = _target(known, schema.items)
        for item in value:
            _fill(known, target, item)


def _check(known: dict[str, _Schema], place: _Schema, value: Any, path: str) -> Iterator[FieldError]:
    schema = _target(known, place)
    if schema is None:
        return
    if isinstance(value, dict):
        yield from _object(known, schema, value, path)
    elif isinstance(value, list):
        yield from _array(known, schema, value, path)
    elif isinstance(value, str):
        yield from _string(schema, value, path)
    elif isinstance(value, int) and not isinstance(value, bool):
        if schema.minimum is not None and value < schema.minimum:
            detail = f"{path} in body should be greater than or equal to {schema.minimum}"
            yield invalid_value(path, value, detail)
        if schema.maximum is not None and value > schema.maximum:
            detail = f"{path} in body should be less than or equal to {schema.maximum}"
            yield invalid_value(path, value, detail)
        if schema.enum and value not in schema.enum:
            yield not_supported(path, value, [str(e) for e in schema.enum])


def _object(known: dict[str, _Schema], schema: _Schema, value: Object, path: str) -> Iterator[FieldError]:
    for name in schema.required:
        if name not in value:
            yield required(f"{path}.{name}" if path else name)
    for name, part in schema.properties.items():
        if name in value:
            yield from _check(known, part, value[name], f"{path}.{name}" if path else name)
    if schema.max_properties is not None and len(value) > schema.max_properties:
        yield too_many(path, len(value), schema.max_properties)
    if schema.additional is not None:
        for name, part in value.items():
            yield from _check(known, schema.additional, part, f"{path}.{name}")


def _array(known: dict[str, _Schema], schema: _Schema, value: list[Any], path: str) -> Iterator[FieldError]:
    if schema.min_items is not None and len(value) < schema.min_items:
        detail = f"{path} in body should have at least {schema.min_items} items"
        yield invalid_value(path, len(value), detail)
    if schema.max_items is not None and len(value) > schema.max_items:
        yield too_many(path, len(value), schema.max_items)
    seen: list[Any] = []
    for i, item in enumerate(value):
        if schema.items is not None:
            yield from _check(known, schema.items, item, f"{path}[{i}]")
        if schema.list_type in ("map", "set"):
            key = item if schema.list_type == "set" else {k: item.get(k) for k in schema.list_map_keys}
            if key in seen:
                yield duplicate(f"{path}[{i}]", key)
            else:
                seen.append(key)


def _string(schema: _Schema, value: str, path: str) -> Iterator[FieldError]:
    if schema.max_length is not None and len(value) > schema.max_length:
        yield too_long(path, schema.max_length)
    if schema.min_length is not None and len(value) < schema.min_length:
        yield invalid_value(path, value, f"{path} in body should be at least {schema.min_length} chars long")
    # `$` would also match before a newline at the end.
    if schema.pattern and (value.endswith("\n") or not re.search(schema.pattern, value)):
        yield invalid_value(path, value, f"{path} in body should match '{schema.pattern}'")
    if schema.enum and value not in schema.enum:
        yield not_supported(path, value, [str(e) for e in schema.enum])
