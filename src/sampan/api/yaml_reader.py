"""YAML as Kubernetes reads it: YAML 1.1 booleans and octal numbers, but no dates and no base-60 numbers.

Duplicate keys are kept note of instead of being lost silently.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from sampan.api import intent

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(Exception):
    """The document cannot be read; the text says where and why."""


Doubled = dict[int, list[tuple[str, int]]]
"""The keys that a mapping repeats, each with its line, by the id of the mapping."""


class _Loader(_Base):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.doubled: Doubled = {}
        self.alive: list[Any] = []
        """Mappings that a later twin may replace: they must not leave their ids to others."""


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver("tag:yaml.org,2002:" + tag, re.compile(pattern), list(first))


_resolve("bool", r"(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)\Z", "yYnNtTfFoO")  # fmt: skip
_resolve("int", r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)\Z", "-+0123456789")
_resolve(
    "float",
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z",
    "-+0123456789.",
)
_resolve("merge", r"<<\Z", "<")
_resolve("null", r"(?:~|null|Null|NULL|)\Z", "~nN\0")
_Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile(r"\Z")))


def _bool(loader: Any, node: Any) -> bool:
    return str(node.value).lower() in ("y", "yes", "true", "on")


def _int(loader: Any, node: Any) -> int:
    text = str(node.value).replace("_", "")
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("+-")
    for prefix, base in (("0b", 2), ("0x", 16), ("0o", 8)):
        if text.startswith(prefix):
            return sign * int(text[2:], base)
    return sign * int(text, 8 if len(text) > 1 and text.startswith("0") else 10)


def _float(loader: Any, node: Any) -> float:
    text = str(node.value).lower()
    value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    if value != value or value in (float("inf"), float("-inf")):
        raise YamlError(f"line {node.start_mark.line + 1}: json: unsupported value: {node.value}")
    return value


def _mapping(loader: Any, node: Any) -> Any:
    made: dict[str, Any] = {}
    yield made
    if any(k.tag == "tag:yaml.org,2002:merge" for k, _ in node.value):
        loader.flatten_mapping(node)
    again: list[tuple[str, int]] = []
    for key_node, value_node in node.value:
        key = _key(loader.construct_object(key_node, deep=True), key_node)
        if key in made:
            again.append((key, key_node.start_mark.line + 1))
        made[key] = loader.construct_object(value_node, deep=True)
    if again:
        loader.alive.append(made)
        loader.doubled[id(made)] = again


def _key(key: Any, node: Any) -> str:
    """A key as JSON has it: a string."""
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int | float):
        return str(key)
    raise YamlError(f"line {node.start_mark.line + 1}: unsupported map key: {key!r}")


def _binary(loader: Any, node: Any) -> str:
    return str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:bool", _bool)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _binary)


def read(body: bytes) -> tuple[Any, Doubled]:
    """The one document of a body, and the keys that its mappings repeat.

    Raises YamlError.
    """
    try:
        loader = _Loader(body)
        try:
            return loader.get_single_data(), loader.doubled
        finally:
            loader.dispose()
    except yaml.YAMLError as problem:
        raise YamlError(_explained(body, problem)) from None
    except (UnicodeDecodeError, RecursionError, ValueError) as problem:
        raise YamlError(str(problem)) from None


def _explained(body: bytes, problem: yaml.YAMLError) -> str:
    """What is wrong and where, with the likely intent of the lines around."""
    said = str(getattr(problem, "problem", None) or problem).replace("\n", " ")
    marks = [getattr(problem, name, None) for name in ("context_mark", "problem_mark")]
    lines = [mark.line for mark in marks if mark is not None]
    if not lines:
        return said
    text = body.decode(errors="replace").splitlines()
    for number in range(max(min(lines) - 1, 0), min(max(lines) + 1, len(text))):
        hint = intent.of_yaml_line(text[number])
        if hint:
            return f"line {lines[0] + 1}: {said} (line {number + 1}: {hint})"
    return f"line {lines[0] + 1}: {said}"
