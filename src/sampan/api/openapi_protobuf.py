"""The OpenAPI document of version 2 in protobuf, the only form in which `kubectl` reads it.

The messages are those of gnostic (`openapiv2/OpenAPIv2.proto`), of which only the fields that our document has are
listed. A value of free form travels as YAML in a string; JSON is YAML.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

_VARINT, _FIXED64, _BYTES = 0, 1, 2

_MESSAGES = {
    "Document": "swagger=1 info=2:Info paths=8:Paths definitions=9:SchemaMap",
    "Info": "title=1 version=2",
    "PathItem": "get=2:Operation put=3:Operation post=4:Operation delete=5:Operation options=6:Operation"
    " head=7:Operation patch=8:Operation parameters=9*:ParametersItem",
    "Operation": "tags=1* summary=2 description=3 operationId=5 produces=6* consumes=7* parameters=8*:ParametersItem"
    " responses=9:Responses schemes=10* deprecated=11:bool x-=13",
    "BodyParameter": "description=1 name=2 in=3 required=4:bool schema=5:Schema",
    "QueryParameter": "required=1:bool in=2 description=3 name=4 type=6 format=7 uniqueItems=20:bool",
    "PathParameter": "required=1:bool in=2 description=3 name=4 type=5 format=6 uniqueItems=19:bool",
    "Response": "description=1 schema=2:SchemaItem",
    "Schema": "$ref=1 format=2 title=3 description=4 default=5:any maximum=7:double minimum=9:double maxLength=11:int"
    " minLength=12:int pattern=13 maxItems=14:int minItems=15:int uniqueItems=16:bool maxProperties=17:int required=19*"
    " enum=20*:any"
    " additionalProperties=21:AdditionalPropertiesItem type=22:TypeItem items=23:ItemsItem allOf=24*:Schema"
    " properties=25:SchemaMap example=30:any x-=31",
}
"""Per message its fields: JSON name, number, `*` if repeated, and the type if it is not a string. `x-` is where
extensions go."""


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    repeated: bool
    type: str


@functools.cache
def _fields(message: str) -> dict[str, _Field]:
    fields = {}
    for text in _MESSAGES[message].split():
        name, _, rest = text.partition("=")
        number, _, type_ = rest.partition(":")
        fields[name] = _Field(int(number.rstrip("*")), number.endswith("*"), type_ or "string")
    return fields


def encode(document: dict[str, Any]) -> bytes:
    """The document as a gnostic `openapi.v2.Document`. Raises ValueError for a key that is not in the table."""
    return _message("Document", document)


def _message(name: str, value: dict[str, Any]) -> bytes:
    fields = _fields(name)
    out = bytearray()
    for key, item in value.items():
        if key.startswith("x-") and "x-" in fields:
            out += _delimited(fields["x-"].number, _named(key, _any(item)))
            continue
        field = fields.get(key)
        if field is None:
            raise ValueError(f"{name} has no field for {key!r}")
        for part in item if field.repeated else (item,):
            out += _value(field, part)
    return bytes(out)


def _value(field: _Field, value: Any) -> bytes:
    if field.type == "string":
        return _delimited(field.number, value.encode())
    if field.type in ("bool", "int"):
        return _varint(field.number << 3 | _VARINT) + _varint(int(value))
    if field.type == "double":
        return _varint(field.number << 3 | _FIXED64) + struct.pack("<d", value)
    encoder = _WRAPPED.get(field.type)
    return _delimited(field.number, encoder(value) if encoder else _message(field.type, value))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _delimited(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(body)) + body


# ---- messages that are more than their fields: choices, and maps as lists of names with values


def _named(name: str, body: bytes) -> bytes:
    return _delimited(1, name.encode()) + _delimited(2, body)


def _any(value: Any) -> bytes:
    return _delimited(2, msgspec.json.encode(value))


def _map(number: int, value: dict[str, Any], encoder: Callable[[Any], bytes]) -> bytes:
    entries: Iterator[bytes] = (_delimited(number, _named(key, encoder(item))) for key, item in value.items())
    return b"".join(entries)


def _schema(value: dict[str, Any]) -> bytes:
    return _message("Schema", value)


def _parameter(value: dict[str, Any]) -> bytes:
    if value["in"] == "body":
        parameter = _delimited(1, _message("BodyParameter", value))
    elif value["in"] == "query":
        parameter = _delimited(2, _delimited(3, _message("QueryParameter", value)))
    else:
        parameter = _delimited(2, _delimited(4, _message("PathParameter", value)))
    return _delimited(1, parameter)


def _additional(value: dict[str, Any] | bool) -> bytes:
    if isinstance(value, bool):
        return _value(_Field(2, False, "bool"), value)
    return _delimited(1, _schema(value))


_WRAPPED: dict[str, Callable[[Any], bytes]] = {
    "any": _any,
    "Paths": lambda value: _map(2, value, lambda item: _message("PathItem", item)),
    "SchemaMap": lambda value: _map(1, value, _schema),
    "Responses": lambda value: _map(1, value, lambda item: _delimited(1, _message("Response", item))),
    "ParametersItem": _parameter,
    "SchemaItem": lambda value: _delimited(1, _schema(value)),
    "AdditionalPropertiesItem": _additional,
    "TypeItem": lambda value: _delimited(1, value.encode()),
    "ItemsItem": lambda value: _delimited(1, _schema(value)),
}
