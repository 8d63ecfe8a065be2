"""An object held against its type.

`check` has two passes. The first only answers yes or no and costs some microseconds an object; nearly every request
ends there. The second runs when something is wrong or not in its normal form: it knows the path, drops what the type
does not have, writes nulls, quantities and times as upstream's types do, and collects every problem.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import functools
import re
from collections.abc import Callable
from typing import Any

from sampan.api import intent, quantity
from sampan.api.errors import Object, StatusError, show
from sampan.api.schema import MICRO_TIME, QUANTITY, TIME, Node

# The quick pass

Checker = Callable[[Any], bool]

_TIME_NORMAL = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\dZ").fullmatch
_MICRO_NORMAL = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d\.\d{6}Z").fullmatch
_checkers: dict[int, tuple[Node, Checker]] = {}


def _string(value: Any) -> bool:
    return type(value) is str


def _bool(value: Any) -> bool:
    return type(value) is bool


def _int32(value: Any) -> bool:
    return type(value) is int and -0x80000000 <= value <= 0x7FFFFFFF


def _int64(value: Any) -> bool:
    return type(value) is int and -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF


def _number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _int_or_string(value: Any) -> bool:
    return type(value) is str or _int32(value)


def _any(value: Any) -> bool:
    return value is not None


def _time(value: Any) -> bool:
    return type(value) is str and _TIME_NORMAL(value) is not None


def _micro_time(value: Any) -> bool:
    return type(value) is str and _MICRO_NORMAL(value) is not None


@functools.lru_cache(4096)
def _canonical(text: str) -> bool:
    try:
        return quantity.format(text) == text
    except ValueError:
        return False


def _quantity(value: Any) -> bool:
    return type(value) is str and _canonical(value)


def _bytes(value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return True


_STRING_FORMATS: dict[str, Checker] = {
    "time": _time, "micro-time": _micro_time, "quantity": _quantity, "byte": _bytes,
}  # fmt: skip


def _checker(node: Node) -> Checker:
    """The compiled quick check of a place."""
    found = _checkers.get(id(node))
    if found is not None:
        return found[1]
    made = _make(node)
    _checkers[id(node)] = (node, made)
    return made


def _make(node: Node) -> Checker:
    if node.type == "string":
        return _STRING_FORMATS.get(node.format, _string)
    if node.type == "integer":
        return _int64 if node.format == "int64" else _int32
    if node.type == "object":
        return _make_object(node)
    if node.type in ("array", "map"):
        return _make_many(node)
    return {"boolean": _bool, "number": _number, "int-or-string": _int_or_string}.get(node.type, _any)


def _make_object(node: Node) -> Checker:
    fields: dict[str, Checker] = {}
    get = fields.get

    def check_object(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for name, part in value.items():
            known = get(name)
            if known is None or not known(part):
                return False
        return True

    _checkers[id(node)] = (node, check_object)
    for name, inner in node.fields.items():
        fields[name] = _checker(inner)
    return check_object


def _make_many(node: Node) -> Checker:
    item = _checker(node.items) if node.items is not None else _any

    if node.type == "map":
        return lambda value: type(value) is dict and all(map(item, value.values()))
    return lambda value: type(value) is list and all(map(item, value))


# The thorough pass


def cannot_handle(obj: Object) -> str:
    """How a refusal of an object that does not have its type begins."""
    kind = str(obj.get("kind") or "")
    version = str(obj.get("apiVersion") or "").rpartition("/")[2]
    return f'{kind} in version "{version}" cannot be handled as a {kind}: ' if kind else ""


def is_normal(node: Node, obj: Object) -> bool:
    """Whether an object has its type and is in its normal form: nothing unknown, no null (`check` would find nothing)."""
    return _checker(node)(obj)


class Undecodable(StatusError):
    """An object that does not have its type: 400. `problem` is what is wrong, without the object's name."""

    def __init__(self, obj: Object, problem: str) -> None:
        super().__init__(400, "BadRequest", cannot_handle(obj) + problem)
        self.problem = problem


def check(node: Node, obj: Object) -> list[str]:
    """Hold an object against its type, in place: unknown fields are dropped and returned as upstream's problems
    (`unknown field "spec.containers[0].foo"`, with the likely intent after it), nulls become absent, quantities and
    times get their normal form.

    Raises Undecodable that lists every value of a wrong type: path, given value, expected type, likely intent.
    """
    if is_normal(node, obj):
        return []
    thorough = _Thorough(node)
    thorough.object(node, obj, "", "", "")
    if thorough.wrong:
        raise Undecodable(obj, "; ".join(thorough.wrong))
    return thorough.unknown


_DROP = object()


class _Thorough:
    """One walk with paths. `path` has indices (`spec.containers[0]`), `go_path` has none, `owner` is the Go type."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.unknown: list[str] = []
        self.wrong: list[str] = []

    def object(self, node: Node, obj: Object, path: str, go_path: str, owner: str) -> None:
        owner = node.kind or owner
        for name in list(obj):
            at = join(path, name)
            inner = node.fields.get(name)
            if inner is None:
                hint = intent.of_unknown_field(name, node, self.root if not path else None)
                self.unknown.append(f'unknown field "{at}"' + (f" ({hint})" if hint else ""))
                del obj[name]
                continue
            part = obj[name]
            if part is None:
                del obj[name]
                continue
            obj[name] = self.place(inner, part, at, join(go_path, name), owner)

    def place(self, node: Node, value: Any, path: str, go_path: str, owner: str) -> Any:
        """The value in its normal form."""
        kind = node.type
        if kind == "object" and type(value) is dict:
            self.object(node, value, path, go_path, owner)
        elif kind == "array" and type(value) is list:
            items = node.items
            assert items is not None
            for i, item in enumerate(value):
                at = f"{path}[{i}]"
                value[i] = _zero(items) if item is None else self.place(items, item, at, go_path, owner)
        elif kind == "map" and type(value) is dict:
            items = node.items
            assert items is not None
            for name, item in value.items():
                at = f"{path}[{name}]"
                value[name] = _zero(items) if item is None else self.place(items, item, at, go_path, owner)
        elif kind == "string":
            return self.string(node, value, path, go_path, owner)
        elif not _checker(node)(value):
            self.mistyped(node, value, path, go_path, owner)
        return value

    def string(self, node: Node, value: Any, path: str, go_path: str, owner: str) -> Any:
        if node.format == "quantity" and type(value) in (int, float):
            value = show(value)
        if type(value) is not str:
            self.mistyped(node, value, path, go_path, owner)
            return value
        try:
            if node.format == "quantity":
                return quantity.format(value)
            if node.format in ("time", "micro-time"):
                return _moment(value, node.format == "micro-time")
            if node.format == "byte":
                return _base64(value)
        except ValueError as problem:
            self.wrong.append(f"{problem} ({path}: {show(value)} given)")
        return value

    def mistyped(self, node: Node, value: Any, path: str, go_path: str, owner: str) -> None:
        shown = show(value)
        shown = shown if len(shown) <= 120 else shown[:117] + "..."
        hint = intent.of_wrong_type(value, node)
        self.wrong.append(
            f"json: cannot unmarshal {json_kind(value, node)} into Go struct field {owner}.{go_path} of type "
            f"{_go_type(node)} ({path}: {shown} given, {_expected(node)} expected{': ' + hint if hint else ''})"
        )


def _zero(node: Node) -> Any:
    """What a null in a list or map becomes: the zero value of its Go type."""
    if node.type == "array":
        return []
    if node.type in ("object", "map", "any"):
        return {}
    if node.type == "string":
        return "0" if node.format == "quantity" else ""
    return False if node.type == "boolean" else 0


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def json_kind(value: Any, node: Node | None = None) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return (
            f"number {show(value)}" if node is not None and node.type in ("integer", "number") else "number"
        )
    if isinstance(value, str):
        return "string"
    if value is None:
        return "null"
    return "object" if isinstance(value, dict) else "array"


def _go_type(node: Node) -> str:
    if node.type == "array":
        return "[]" + (_go_type(node.items) if node.items is not None else "interface {}")
    if node.type == "map":
        return "map[string]" + (_go_type(node.items) if node.items is not None else "interface {}")
    if node.type == "object":
        package = [p for p in node.definition.split(".") if re.fullmatch(r"v\d\w*", p)]
        return f"{package[-1]}.{node.kind}" if package else node.kind
    simple = {
        "string": "string",
        "boolean": "bool",
        "number": "float64",
        "int-or-string": "intstr.IntOrString",
    }
    special = {QUANTITY: "resource.Quantity", TIME: "v1.Time", MICRO_TIME: "v1.MicroTime"}
    if node.format == "byte":
        return "[]uint8"
    return special.get(node.definition) or simple.get(node.type) or node.format or "int64"


def _expected(node: Node) -> str:
    if node.type == "array":
        items = node.items
        return "a list of objects" if items is not None and items.type == "object" else "a list"
    words = {
        "object": "an object", "map": "a map", "boolean": "true or false", "number": "a number",
        "int-or-string": "an integer or a string", "integer": f"an integer ({node.format or 'int64'})",
    }  # fmt: skip
    return words.get(node.type, "a string")


def _moment(text: str, micro: bool) -> str:
    try:
        if not re.match(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d", text):
            raise ValueError
        when = datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        if when.tzinfo is None:
            raise ValueError
    except ValueError:
        layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
        raise ValueError(f'parsing time {show(text)} as "{layout}": cannot parse it as RFC 3339') from None
    when = when.astimezone(datetime.UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _base64(text: str) -> str:
    bare = text.replace("\n", "").replace("\r", "")
    try:
        raw = binascii.a2b_base64(bare, strict_mode=True)
    except (binascii.Error, ValueError):
        at = next((i for i, c in enumerate(bare) if not re.match(r"[A-Za-z0-9+/=]", c)), len(bare))
        raise ValueError(f"illegal base64 data at input byte {at}") from None
    return base64.b64encode(raw).decode()
