"""Reading `application/vnd.kubernetes.protobuf`, which `kubectl create` and Go clients send. It is never written.

Types come from the schema, so that only field numbers are listed here (`protobuf_fields.txt`). The encoder of Go clients
always sends plain scalars and sends pointers only if they are set. Zero values of plain scalars are therefore left out,
as they would be in JSON, unless the schema requires the field.

Upstream: `k8s.io/apimachinery/pkg/runtime/serializer/protobuf` and the `generated.proto` files of the API groups.
"""

from __future__ import annotations

import base64
import datetime
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from sampan.api import resources, schema
from sampan.api.errors import Object, StatusError, bad_request
from sampan.api.schema import Node

MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MICRO_TIME = "micro-time"
_ANYWHERE = {
    "DeleteOptions": "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "Scale": "io.k8s.api.autoscaling.v1.Scale",
    "Eviction": "io.k8s.api.policy.v1.Eviction",
    "TokenRequest": "io.k8s.api.authentication.v1.TokenRequest",
}
"""Kinds that are sent but are no resource of their own. Every group version has its own DeleteOptions, all alike."""


class _Malformed(Exception):
    """Bytes that are no message of the type."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a message. `inline` names the message whose fields stand beside the others, else ''."""

    name: str
    pointer: bool
    inline: str


def _full(short: str) -> str:
    prefix = "io.k8s.apimachinery.pkg.apis." if short.startswith("meta.") else "io.k8s.api."
    return prefix + short


@functools.cache
def _lines() -> dict[str, str]:
    """The table, one text a message: only what is asked for is parsed further."""
    text = Path(__file__).with_name("protobuf_fields.txt").read_text()
    pairs = (line.partition(" ")[::2] for line in text.splitlines() if not line.startswith("#"))
    return {_full(name): rest for name, rest in pairs}


@functools.cache
def _message(definition: str) -> dict[int, _Field]:
    """The fields of a message by number."""
    line = _lines().get(definition)
    if line is None:
        raise StatusError(
            415, "UnsupportedMediaType", f"{definition} cannot be read as protobuf; send it as JSON"
        )
    fields = {}
    for word in line.split():
        name, _, number = word.partition("=")
        number, _, inline = number.partition("^")
        fields[int(number.rstrip("?"))] = _Field(name, number.endswith("?"), inline and _full(inline))
    return fields


def decode(body: bytes) -> Object:
    """The object of a request body, in its JSON shape. Raises StatusError: 400 for malformed bytes and for a kind that
    is not served, 415 for a type that cannot be read this way."""
    if not body.startswith(MAGIC):
        raise bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        )
    try:
        return _envelope(body[len(MAGIC) :])
    except (_Malformed, IndexError, UnicodeDecodeError, msgspec.DecodeError) as e:
        raise bad_request(f"the object provided cannot be read as protobuf: {e}") from None


def _envelope(data: bytes) -> Object:
    api_version = kind = ""
    raw = b""
    for number, _, value in _wire(data):
        if number == 1:
            for n, _, v in _wire(_bytes(value)):
                if n == 1:
                    api_version = _bytes(v).decode()
                elif n == 2:
                    kind = _bytes(v).decode()
        elif number == 2:
            raw = _bytes(value)
        elif number == 3 and value:
            raise StatusError(415, "UnsupportedMediaType", f"content encoding {value!r} is not supported")
        elif number == 4 and value not in (b"", b"application/vnd.kubernetes.protobuf"):
            raise StatusError(415, "UnsupportedMediaType", f"content type {value!r} is not supported here")
    definition = _definition(api_version, kind)
    out = _fields(definition, raw, schema.node(definition))
    return {"kind": kind, "apiVersion": api_version, **out}


def _definition(api_version: str, kind: str) -> str:
    resource = resources.by_kind(api_version, kind)
    if resource is not None:
        return resource.definition
    if kind in _ANYWHERE:
        return _ANYWHERE[kind]
    raise bad_request(f'no kind "{kind}" is registered for version "{api_version}"')


# --- The wire -----------------------------------------------------------------------------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise _Malformed("a number is too long")


def _wire(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Field number, wire type and raw value of every field of a message."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(data, at)
        else:
            if wire == _BYTES:
                length, at = _varint(data, at)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                raise _Malformed(f"unknown wire type {wire}")
            if length > end - at:
                raise _Malformed("unexpected end of data")
            value, at = data[at : at + length], at + length
        yield number, wire, value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _Malformed("a number where bytes are expected")
    return value


def _signed(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise _Malformed("bytes where a number is expected")
    return value - (1 << 64) if value >> 63 else value


# --- Messages -----------------------------------------------------------------------------------------------------


def _fields(definition: str, data: bytes, node: Node) -> Object:
    """The fields of a message. `node` is the type that they belong to in JSON: the message's own, or that of the
    message around it for one whose fields stand beside the others."""
    message = _message(definition)
    out: Object = {}
    for number, wire, value in _wire(data):
        field = message.get(number)
        if field is None:
            if value:
                raise _Malformed(f"field {number} of {definition} is not known")
            continue  # a plain scalar of a newer release that is not set
        if field.inline:
            out |= _fields(field.inline, _bytes(value), node)
            continue
        place = node.fields.get(field.name)
        if place is None:
            raise _Malformed(f"field {field.name} of {definition} is not served")
        if place.type == "array":
            out.setdefault(field.name, []).extend(_items(place, wire, value))
        elif place.type == "map":
            key, item = _entry(place, _bytes(value))
            out.setdefault(field.name, {})[key] = item
        else:
            made = _value(place, value)
            if made is None or (
                not made and made != {} and not field.pointer and field.name not in node.required
            ):
                continue
            out[field.name] = made
    return out


def _items(node: Node, wire: int, value: int | bytes) -> Iterator[Any]:
    """One item of a list, or several numbers packed together."""
    assert node.items is not None
    if node.items.type == "integer" and wire == _BYTES:
        data, at = _bytes(value), 0
        while at < len(data):
            number, at = _varint(data, at)
            yield _signed(number)
    else:
        yield _value(node.items, value)


def _entry(node: Node, data: bytes) -> tuple[str, Any]:
    """One entry of a map. A list as a value is a message of its own, with the items in field 1."""
    assert node.items is not None
    key, value = "", b""
    for number, _, part in _wire(data):
        if number == 1:
            key = _bytes(part).decode()
        elif number == 2:
            value = _bytes(part)
    if node.items.type == "array":
        return key, [i for n, w, v in _wire(value) if n == 1 for i in _items(node.items, w, v)]
    return key, _value(node.items, value)


def _value(node: Node, value: int | bytes) -> Any:
    """One value, or None for one that is not set (a zero time)."""
    match node.type:
        case "string":
            return _string(node, _bytes(value))
        case "integer":
            return _signed(value)
        case "boolean":
            return bool(_signed(value))
        case "object":
            return _fields(node.definition, _bytes(value), node)
        case "int-or-string":
            return _int_or_string(_bytes(value))
        case "any":
            raw = next((_bytes(v) for n, _, v in _wire(_bytes(value)) if n == 1), b"")
            return msgspec.json.decode(raw) if raw else None
    raise _Malformed(f"a {node.type} is not expected here")


def _string(node: Node, value: bytes) -> str | None:
    match node.format:
        case "byte":
            return base64.b64encode(value).decode()
        case "quantity":
            return next((_bytes(v).decode() for n, _, v in _wire(value) if n == 1), "") or "0"
        case "time" | "micro-time":
            return _time(value, micro=node.format == _MICRO_TIME)
    return value.decode()


def _time(data: bytes, *, micro: bool) -> str | None:
    seconds = nanos = 0
    for number, _, value in _wire(data):
        if number == 1:
            seconds = _signed(value)
        elif number == 2:
            nanos = _signed(value)
    if not data:
        return None
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        raise _Malformed(f"{seconds} seconds are no time") from None
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{nanos // 1000:06}Z" if micro else f"{text}Z"


def _int_or_string(data: bytes) -> int | str:
    parts = {number: value for number, _, value in _wire(data)}
    if parts.get(1, 0):
        return _bytes(cast(bytes, parts.get(3, b""))).decode()
    return _signed(parts.get(2, 0))
