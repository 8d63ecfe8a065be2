"""Values as Go prints them, for messages that say what upstream says."""

from __future__ import annotations

from typing import Any

_TYPES = {
    bool: "bool",
    str: "string",
    int: "int64",
    float: "float64",
    list: "[]interface {}",
    type(None): "nil",
}


def show(value: Any, most: int = 200) -> str:
    """A value in the form of `%v`, cut where it is longer than `most` characters."""
    if isinstance(value, dict):
        text = "map[" + " ".join(f"{k}:{show(v, most)}" for k, v in sorted(value.items())) + "]"
    elif isinstance(value, list):
        text = "[" + " ".join(show(v, most) for v in value) + "]"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = "<nil>" if value is None else str(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def type_of(value: Any) -> str:
    """The Go type of a decoded JSON value."""
    return _TYPES.get(type(value), "map[string]interface {}")
