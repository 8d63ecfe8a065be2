"""Request bodies to objects: JSON and YAML, with their duplicate fields. `check` holds an object against its type."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from sampan.api.errors import Object, StatusError, bad_request, unsupported_media_type
from sampan.api.type_check import Undecodable, check, join, json_kind

__all__ = [
    "MAX_BODY",
    "MAX_DEPTH",
    "Undecodable",
    "check",
    "listed",
    "parse",
    "parse_patch",
    "strict_error",
    "strict_problems",
]

MAX_BODY = 3 * 1024 * 1024
"""Bytes of a request body, as upstream's default."""
MAX_DEPTH = 200
"""Levels of nesting. Upstream allows 10,000 while it reads; no type that is served nests so deep."""
_MAX_EXPANDED = 2_000_000
"""Values of a YAML document with its aliases written out."""

T = TypeVar("T")
_UNKNOWN = 'unknown field "'
_DUPLICATE = 'duplicate field "'
_decode = msgspec.json.Decoder().decode
_SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')


def parse(body: bytes, content_type: str, duplicates: bool = True) -> tuple[Object, list[str]]:
    """The object in a body, and (if asked for) its duplicate fields: of JSON as `duplicate field "spec.x"`, of YAML as
    `line 7: key "x" already set in map (spec.x)`.

    `content_type` may carry parameters; "" is JSON. Raises StatusError: 400 for what cannot be read, 413 for what is
    too large, 415 for another media type.
    """
    _refuse_size(body)
    media = content_type.partition(";")[0].strip().lower()
    if media in ("", "application/json"):
        return _json(body, duplicates)
    if media in ("application/yaml", "application/x-yaml", "text/yaml"):
        return _yaml(body, duplicates)
    raise unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )


def parse_patch(body: bytes) -> tuple[Any, list[str]]:
    """The JSON of a patch, an object or an array, and its duplicate fields. Raises StatusError as `parse` does."""
    _refuse_size(body)
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise bad_request(f"error decoding patch: {_said(body, str(problem))}") from None
    except RecursionError:
        raise bad_request("error decoding patch: exceeded max depth") from None
    if not isinstance(value, dict | list):
        return value, []
    return value, _duplicates(body, value)


def strict_error(obj: Object, problems: Iterable[str]) -> Undecodable:
    """The refusal of an object with unknown or duplicate fields (fieldValidation Strict)."""
    return Undecodable(obj, "strict decoding error: " + listed(problems))


def strict_problems(duplicates: Iterable[str], unknown: Iterable[str]) -> list[str]:
    """Duplicate and unknown fields together. Of a field that nobody knows it does not matter that it is there twice."""
    unknown = list(unknown)
    if not unknown:
        return list(duplicates)
    places = [u[len(_UNKNOWN) : u.index('"', len(_UNKNOWN))] for u in unknown if u.startswith(_UNKNOWN)]

    def known(problem: str) -> bool:
        path = problem[len(_DUPLICATE) : -1] if problem.startswith(_DUPLICATE) else ""
        return not path or not any(path == p or path.startswith((p + ".", p + "[")) for p in places)

    return [*filter(known, duplicates), *unknown]


def listed(problems: Iterable[str]) -> str:
    """Unknown and duplicate fields as one text; what YAML has twice comes first, as upstream's YAML library says it."""
    lines: list[str] = []
    others: list[str] = []
    for problem in problems:
        (lines if problem.startswith("line ") else others).append(problem)
    if lines:
        others.insert(0, "yaml: unmarshal errors:\n" + "\n".join(f"  {line}" for line in lines))
    return ", ".join(others)


def _refuse_size(body: bytes) -> None:
    if len(body) > MAX_BODY:
        raise StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")


def _object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise bad_request(
            "couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{json_kind(value)} into Go value of type struct: the body must be one object"
        )
    return value


def _json(body: bytes, duplicates: bool) -> tuple[Object, list[str]]:
    try:
        obj = _object(_decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise bad_request(
            f"couldn't get version/kind; json parse error: {_said(body, str(problem))}"
        ) from None
    except RecursionError:
        raise bad_request("json parse error: exceeded max depth") from None
    if not duplicates:
        _count(obj)
        return obj, []
    return obj, _duplicates(body, obj)


def _duplicates(body: bytes, value: Object | list[Any]) -> list[str]:
    keys = _count(value)
    # With no blank between a key and its colon, each key of the text shows as `":`. As many of them as the object has
    # keys proves that none was lost; more may also come from values, so then the slow way looks closer.
    if (
        body.count(b'":') - body.count(b'\\":') == keys
        and not body.count(b'\\\\":')
        and not _SPACED_KEY.search(body)
    ):
        return []
    return _json_duplicates(body)


def _said(body: bytes, problem: str) -> str:
    """What is wrong with a body that is no JSON, given what the decoder says of it."""
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return "invalid character (byte 0): a byte order mark, which JSON must not begin with"
    try:
        text = body.decode()
    except UnicodeDecodeError as e:
        return f"invalid character (byte {e.start}): the body is not UTF-8"
    with contextlib.suppress(ValueError, RecursionError):
        if "out of range" in problem:
            return _out_of_range(text)
        if "truncated" in problem or "surrogate" in problem:
            json.loads(text)  # It takes halves of surrogate pairs.
            return "invalid Unicode escape: half of a surrogate pair"
    if not body.strip() or "truncated" in problem:
        return "unexpected end of JSON input"
    return problem.removeprefix("JSON is malformed: ")


def _out_of_range(text: str) -> str:
    """Which field holds a number that nothing can hold."""
    numbers: list[_Number] = []

    def number(written: str) -> _Number:
        numbers.append(_Number(written))
        return numbers[-1]

    whole = json.loads(text, parse_int=number, parse_float=number)
    for path, found in _places(whole, {id(n): n.written for n in numbers if n.too_large}):
        shown = found if len(found) <= 40 else found[:40] + "..."
        return f"json: cannot unmarshal number {shown} into {path}: it is out of range"
    return "a number is out of range"


class _Number:
    """A number as it was written."""

    def __init__(self, written: str) -> None:
        self.written = written
        digits = written.lstrip("-")
        self.too_large = len(digits) > 19 if digits.isdigit() else math.isinf(float(written))


def _count(obj: Object | list[Any]) -> int:
    """How many keys a value has on all levels. Raises StatusError when it nests too deep."""
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
    alive: list[Object] = []

    def pairs(items: list[tuple[str, Any]]) -> Object:
        made = dict(items)
        if len(made) != len(items):
            # One that a later twin replaces must not leave its id to another.
            alive.append(made)
            seen: set[str] = set()
            doubled[id(made)] = [k for k, _ in items if k in seen or seen.add(k)]  # type: ignore[func-returns-value]
        return made

    whole = json.loads(body, object_pairs_hook=pairs)
    if not doubled:
        return []
    return [
        f'duplicate field "{path}"' for path, again in _places(whole, doubled) for path in _under(path, again)
    ]


def _under(path: str, names: Iterable[str]) -> list[str]:
    return [join(path, name) for name in dict.fromkeys(names)]


def _places(value: Any, doubled: Mapping[int, T], path: str = "") -> Iterator[tuple[str, T]]:
    """What is known of the objects in a value, each with its path."""
    if id(value) in doubled:
        yield path, doubled[id(value)]
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _places(part, doubled, join(path, name))
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from _places(part, doubled, f"{path}[{i}]")


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
    try:
        obj = _object(_decode(msgspec.json.encode(whole)))
    except (UnicodeError, msgspec.DecodeError, TypeError) as problem:
        raise bad_request(f"couldn't get version/kind; yaml parse error: {problem}") from None
    _count(obj)
    if not duplicates or not doubled:
        return obj, []
    return obj, [
        f'line {line}: key "{name}" already set in map ({join(path, name)})'
        for path, again in _places(whole, doubled)
        for name, line in again
    ]


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
