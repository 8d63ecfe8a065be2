"""An applied configuration held against its type, before it is merged: fields that are not there, wrong types, list
items without their key or twice.

Unlike other bodies a configuration is never taken with fields that nobody knows: it would own them. Upstream:
`sigs.k8s.io/structured-merge-diff/typed` (`AsTyped`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sampan.api import go_text, typed
from sampan.api.errors import Object, StatusError, bad_request, show
from sampan.api.field_set import element_text
from sampan.api.schema import Node
from sampan.api.type_check import is_normal


def refuse(node: Node, config: Object, namespace: str, name: str) -> None:
    """Raise StatusError 400 with every problem of a configuration. (Upstream answers 500 with the same words.)"""
    if is_normal(node, config) and _lists_are_fine(node, config):
        return
    found = list(_problems(node, config, ""))
    if found:
        raise _failed(config, namespace, name, found)


def _lists_are_fine(node: Node, value: Any) -> bool:
    """Whether the items of all lists have their keys, each once. For values that have their type."""
    if value.__class__ is dict:
        for name, part in value.items():
            if part.__class__ is dict or part.__class__ is list:
                inner = typed.child(node, name)
                if inner is not None and not _lists_are_fine(inner, part):
                    return False
        return True
    items = node.items
    if items is None or not value:
        return True
    kind, keys = typed.list_kind(node)
    if kind != "atomic":
        if kind == "map" and any(_keyed_item(items, keys, item) for item in value):
            return False
        found = typed.elements(node, value)
        if found is None or len(set(found)) != len(found):
            return False
    if items.type not in ("object", "map", "array"):
        return True
    return all(_lists_are_fine(items, item) for item in value)


def _failed(config: Object, namespace: str, name: str, problems: list[str]) -> StatusError:
    group_version, kind = config.get("apiVersion"), config.get("kind")
    at = f"{namespace}/{name}" if namespace else f"/{name}"
    listed = problems[0] if len(problems) == 1 else "errors:\n" + "\n".join(f"  {p}" for p in problems)
    return bad_request(f"failed to create typed patch object ({at}; {group_version}, Kind={kind}): {listed}")


def _problems(node: Node, value: Any, path: str) -> Iterator[str]:
    if value is None:
        return
    kind = node.type
    if kind in ("object", "map"):
        if value.__class__ is not dict:
            yield f"{path}: expected map, got &{{{go_text.show(value)}}}"
            return
        for name, part in value.items():
            inner = typed.child(node, name)
            if inner is not None:
                yield from _problems(inner, part, f"{path}.{name}")
            elif kind == "object" and node.fields:
                yield f"{path}.{name}: field not declared in schema"
    elif kind == "array":
        if value.__class__ is not list:
            yield f"{path}: expected list, got &{{{go_text.show(value)}}}"
            return
        yield from _items(node, value, path)
    elif kind != "any":
        yield from _scalar(node, value, path)


def _items(node: Node, items: list[Any], path: str) -> Iterator[str]:
    kind, keys = typed.list_kind(node)
    assert node.items is not None
    if kind == "atomic":
        for i, item in enumerate(items):
            yield from _problems(node.items, item, f"{path}[{i}]")
        return
    seen: set[str] = set()
    for i, item in enumerate(items):
        problem = _set_item(item) if kind == "set" else _keyed_item(node.items, keys, item)
        if problem:
            yield f"{path}: element {i}: {problem}"
            continue
        element = typed.element_of(node, kind, keys, item)
        if element in seen:
            yield f"{path}: duplicate entries for key {element_text(element)}"
        seen.add(element)
        yield from _problems(node.items, item, path + element_text(element))


def _set_item(item: Any) -> str:
    if isinstance(item, dict):
        return "associative list without keys has an element that's a map type"
    if isinstance(item, list):
        return "not supported: associative list with lists as elements"
    return "associative list without keys has an element that's an explicit null" if item is None else ""


def _keyed_item(node: Node, keys: tuple[str, ...], item: Any) -> str:
    if item is None:
        return "associative list with keys may not have a null element"
    if not isinstance(item, dict):
        return "associative list with keys may not have non-map elements"
    left_out = [k for k in keys if item.get(k) is None and typed.key_default(node, k) is None]
    # A key that the type does not require may be missing beside others that are there.
    needed = [k for k in left_out if k in node.required] or (left_out if len(left_out) == len(keys) else [])
    if needed:
        return (
            f"associative list with keys has an element that omits key field {show(needed[0])} "
            "(and doesn't have default value)"
        )
    wrong = [k for k in keys if isinstance(item.get(k), dict | list)]
    return (
        f"associative list with keys has an element whose key field {show(wrong[0])} is no scalar"
        if wrong
        else ""
    )


def _scalar(node: Node, value: Any, path: str) -> Iterator[str]:
    compound = value.__class__ in (dict, list)
    if node.type in ("integer", "number"):
        if compound or isinstance(value, str | bool):
            yield f"{path}: expected numeric (int or float), got {go_text.type_of(value)}"
    elif node.type == "boolean":
        if not isinstance(value, bool):
            yield f"{path}: expected boolean, got &{{{go_text.show(value)}}}"
    elif node.type == "int-or-string" or node.format == "quantity":
        if compound:
            yield f"{path}: expected any scalar, got &{{{go_text.show(value)}}}"
    elif not isinstance(value, str):
        yield f"{path}: expected string, got &value.valueUnstructured{{Value:{go_text.show(value)}}}"
