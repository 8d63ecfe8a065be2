"""Request bodies to objects: JSON and YAML, with their duplicate fields. `check` holds an object against its type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from sampan.api.errors import Object, StatusError, bad_request, unsupported_media_type
from sampan.api.type_check import Undecodable, check, join, json_kind

__all__ = ["MAX_BODY", "MAX_DEPTH", "Undecodable", "check", "parse", "strict_error"]

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


def strict_error(obj: Object, problems: Iterable[str]) -> Undecodable:
    """The refusal of an object with unknown or duplicate fields (fieldValidation Strict)."""
    return Undecodable(obj, "strict decoding error: " + ", ".join(problems))


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
                out.append(f'duplicate field "{join(path, name)}"')
            for name, part in value.items():
                walk(part, join(path, name))
        elif isinstance(value, list):
            for i, part in enumerate(value):
                walk(part, f"{path}[{i}]")

    walk(whole, "")
    return out


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
