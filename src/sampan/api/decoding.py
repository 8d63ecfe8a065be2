"""Request bodies to objects: JSON and YAML, and the check of an object against its type.

`check` has two passes. The first only answers yes or no and costs some microseconds an object; nearly every request
ends there. The second runs when something is wrong or not in its normal form: it knows the path, drops what the type
does not have, writes nulls, quantities and times as upstream's types do, and collects every problem.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import functools
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sampan.api import intent, quantity
from sampan.api.errors import Object, StatusError, bad_request, show, unsupported_media_type
from sampan.api.schema import MICRO_TIME, QUANTITY, TIME, Node

MAX_BODY = 3 * 1024 * 1024
"""Bytes of a request body, as upstream's default."""
MAX_DEPTH = 200
"""Levels of nesting. Upstream allows 10,000 while it reads; no type that is served nests so deep."""
_MAX_EXPANDED = 2_000_000
"""Values of a YAML document with its aliases written out."""

_decode = msgspec.json.Decoder().decode
_SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')


def parse(body: bytes, content_type: str, duplicates: bool = True) -> tuple[Object, list[str]]:
    """The object in a body, and (if asked for) its duplicate fields as `duplicate field "spec.x"`.

    `content_type` may carry parameters; "" is JSON. Raises StatusError: 400 for what cannot be read, 413 for what is
    too large, 415 for another media type.
    """
    if len(body) > MAX_BODY:
        raise StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")
    media = content_type.partition(";")[0].strip().lower()
    if media in ("", "application/json") or media.endswith("+json"):
        return _json(body, duplicates)
    if media in ("application/yaml", "application/x-yaml", "text/yaml") or media.endswith("+yaml"):
        return _yaml(body, duplicates)
    raise unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )


def strict_error(obj: Object, problems: Iterable[str]) -> StatusError:
    """The refusal of an object with unknown or duplicate fields (fieldValidation Strict)."""
    return bad_request(_cannot(obj) + "strict decoding error: " + ", ".join(problems))


def _cannot(obj: Object) -> str:
    kind = str(obj.get("kind") or "")
    version = str(obj.get("apiVersion") or "").rpartition("/")[2]
    return f'{kind} in version "{version}" cannot be handled as a {kind}: ' if kind else ""


def _object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise bad_request(
            "couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{_json_kind(value)} into Go value of type struct: the body must be one object"
        )
    return value


def _json(body: bytes, duplicates: bool) -> tuple[Object, list[str]]:
    try:
        obj = _object(_decode(body))
    except msgspec.DecodeError as problem:
        raise bad_request(
            f"couldn't get version/kind; json parse error: {_said(body, str(problem))}"
        ) from None
    except RecursionError:
        raise bad_request("json parse error: exceeded max depth") from None
    keys = _count(obj)
    if not duplicates:
        return obj, []
    # With no blank between a key and its colon, each key of the text shows as `":`. As many of them as the object has
    # keys proves that none was lost; more may also come from values, so then the slow way looks closer.
    if (
        body.count(b'":') - body.count(b'\\":') == keys
        and not body.count(b'\\\\":')
        and not _SPACED_KEY.search(body)
    ):
        return obj, []
    return obj, _json_duplicates(body)


def _said(body: bytes, problem: str) -> str:
    if not body.strip() or "truncated" in problem:
        return "unexpected end of JSON input"
    return problem.removeprefix("JSON is malformed: ")


def _count(obj: Object) -> int:
    """How many keys an object has on all levels. Raises StatusError when it nests too deep."""
    total = 0
    level: list[Any] = [obj]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise bad_request(f"json parse error: exceeded max depth ({MAX_DEPTH})")
        below: list[Any] = []
        for value in level:
            if type(value) is dict:
                total += len(value)
                below += [v for v in value.values() if type(v) is dict or type(v) is list]
            else:
                below += [v for v in value if type(v) is dict or type(v) is list]
        level = below
    return total


def _json_duplicates(body: bytes) -> list[str]:
    doubled: dict[int, list[str]] = {}

    def pairs(items: list[tuple[str, Any]]) -> Object:
        made = dict(items)
        if len(made) != len(items):
            seen: set[str] = set()
            doubled[id(made)] = [k for k, _ in items if k in seen or seen.add(k)]  # type: ignore[func-returns-value]
        return made

    whole = json.loads(body, object_pairs_hook=pairs)
    return _locate(whole, doubled) if doubled else []


def _locate(whole: Any, doubled: dict[int, list[str]]) -> list[str]:
    out: list[str] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name in dict.fromkeys(doubled.get(id(value), ())):
                out.append(f'duplicate field "{_join(path, name)}"')
            for name, part in value.items():
                walk(part, _join(path, name))
        elif isinstance(value, list):
            for i, part in enumerate(value):
                walk(part, f"{path}[{i}]")

    walk(whole, "")
    return out


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# YAML


def _yaml(body: bytes, duplicates: bool) -> tuple[Object, list[str]]:
    from sampan.api import yaml_reader

    try:
        whole, doubled = yaml_reader.read(body)
    except yaml_reader.YamlError as problem:
        raise bad_request(f"couldn't get version/kind; yaml parse error: {problem}") from None
    if _expanded(whole, {}, 0) > _MAX_EXPANDED:
        raise bad_request("yaml: document contains excessive aliasing")
    # Aliases share their values: written out, so that a change of one place does not change another.
    obj = _object(_decode(msgspec.json.encode(whole)))
    _count(obj)
    return obj, _locate(whole, doubled) if duplicates and doubled else []


def _expanded(value: Any, known: dict[int, int], depth: int) -> int:
    if depth > MAX_DEPTH:
        raise bad_request(f"yaml: exceeded max depth ({MAX_DEPTH})")
    if not isinstance(value, dict | list):
        return 1
    found = known.get(id(value))
    if found is None:
        parts = value.values() if isinstance(value, dict) else value
        found = known[id(value)] = 1 + sum(_expanded(p, known, depth + 1) for p in parts)
    return found


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


def check(node: Node, obj: Object) -> list[str]:
    """Hold an object against its type, in place: unknown fields are dropped and returned as upstream's problems
    (`unknown field "spec.containers[0].foo"`, with the likely intent after it), nulls become absent, quantities and
    times get their normal form.

    Raises StatusError 400 that lists every value of a wrong type: path, given value, expected type, likely intent.
    """
    if _checker(node)(obj):
        return []
    thorough = _Thorough(node)
    thorough.object(node, obj, "", "", "")
    if thorough.wrong:
        raise bad_request(_cannot(obj) + "; ".join(thorough.wrong))
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
            at = _join(path, name)
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
            obj[name] = self.place(inner, part, at, _join(go_path, name), owner)

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
            f"json: cannot unmarshal {_json_kind(value, node)} into Go struct field {owner}.{go_path} of type "
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


def _json_kind(value: Any, node: Node | None = None) -> str:
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
