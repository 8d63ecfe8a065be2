"""What the author of a faulty manifest probably meant.

The faults of people who write YAML by hand have few causes: no blank after `-` or `:`, a full-width colon or blank from
an East Asian keyboard, a field at the wrong level, a typing error. The type that was expected at the place tells which.
Everything here is reached only after something was found wrong, so it may take its time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from sampan.api.errors import FieldError, Object
from sampan.api.schema import Node

FULL_WIDTH_COLONS = "：﹕꞉"
WIDE_BLANKS = "\u3000\u00a0\u2002\u2003\u2007\u202f\ufeff"
_FOLDED = re.compile(rf"(?:^|[\s{WIDE_BLANKS}])(-?)([A-Za-z][A-Za-z0-9]*)([:{FULL_WIDTH_COLONS}])(\S|$)?")


def of_unknown_field(name: str, node: Node, root: Node | None = None) -> str:
    """What a field that the type does not have was meant to be, or "". `root` is given for a top-level field only."""
    known = node.fields
    bare = name.strip().strip(WIDE_BLANKS).strip()
    if bare.startswith("-") and bare.lstrip("-").strip() in known:
        return f'write a space after "-": "- {bare.lstrip("-").strip()}"'
    for colon in FULL_WIDTH_COLONS:
        if colon in bare:
            before, _, after = bare.partition(colon)
            return f'"{colon}" is a full-width colon: write "{before.strip()}: {after.strip()}"'
    if ":" in bare:
        before, _, after = bare.partition(":")
        if before in known:
            return f'a blank after ":" is missing: write "{before}: {after}"'
    if bare != name:
        return f'the name has a wide or stray blank: write "{bare}"'
    folded = {k.lower(): k for k in known}
    if name.lower() in folded:
        return f'did you mean "{folded[name.lower()]}"?'
    if root is not None:
        for part in ("spec", "metadata"):
            inner = root.fields.get(part)
            if inner is not None and name in inner.fields:
                return f'did you mean "{part}.{name}"? It is indented too little'
        if name == "spec":
            own = ", ".join(sorted(known.keys() - {"apiVersion", "kind", "metadata", "status"}))
            return f"a {root.kind} has no spec; it has {own}"
    # Slow to import, and rarely needed.
    import difflib

    close = difflib.get_close_matches(name, known, 1, 0.8)
    return f'did you mean "{close[0]}"?' if close else ""


def of_wrong_type(value: Any, node: Node) -> str:
    """Why a value may have the wrong type, or ""."""
    items = node.items
    if node.type == "array" and isinstance(value, dict):
        if any(isinstance(k, str) and k.startswith("-") for k in value):
            return 'write a space after "-": a list item starts with "- "'
        if items is not None and any(k in items.fields for k in value):
            return 'a list is expected here: start the item with "- "'
    if isinstance(value, str):
        text = value.strip().strip(WIDE_BLANKS)
        if any(c in text for c in FULL_WIDTH_COLONS):
            return "it contains a full-width colon: write ':' and a blank after it"
        if node.type == "array" and text.startswith("-"):
            return 'write a space after "-": a list item starts with "- "'
        target = items if node.type == "array" and items is not None else node
        if target.type in ("object", "map") and ":" in text:
            if text.startswith("-"):
                return 'write a space after "-" and a blank after ":"'
            return 'a blank after ":" is missing' if ": " not in text else ""
        if node.type in ("integer", "number", "boolean") and text:
            return "write it without quotes" if _is_literal(text, node.type) else ""
    if node.type == "string" and isinstance(value, bool | int | float):
        return "write it in quotes"
    return ""


def _is_literal(text: str, kind: str) -> bool:
    return text in ("true", "false") if kind == "boolean" else bool(re.fullmatch(r"-?[0-9]+", text))


def of_folded_text(text: str, siblings: Iterable[str]) -> str:
    """Whether a value swallowed the lines after it because a colon there was not followed by a blank, or ""."""
    if ":" not in text and not any(c in text for c in FULL_WIDTH_COLONS):
        return ""
    known = set(siblings)
    for match in _FOLDED.finditer(text):
        dash, name, colon, _after = match.groups()
        if name not in known:
            continue
        start = match.start(2)
        shown = text[start:].split()[0]
        if colon != ":":
            return f'"{colon}" in "{shown}" is a full-width colon: write "{name}: "'
        if dash:
            return f'a space after "-" and a blank after ":" are missing in "-{shown}"'
        return f'a blank after ":" is missing in "{shown}"'
    return ""


_UNSPACED = re.compile(r"\s*(?:- )?([A-Za-z][A-Za-z0-9]*):([^\s/:][^\s]*|/[^\s/][^\s]*)\s*(?:#.*)?")


def of_yaml_line(line: str) -> str:
    """What is wrong with a line near the place where a YAML document cannot be read, or ""."""
    if any(c in line.partition("#")[0] for c in FULL_WIDTH_COLONS):
        return "it has a full-width colon: write ':' and a blank after it"
    if any(c in line.partition("#")[0] for c in WIDE_BLANKS):
        return "it has a wide blank: YAML knows only ordinary spaces"
    if line.lstrip() != line.lstrip(" "):
        return "it is indented with a tab: write spaces"
    matched = _UNSPACED.fullmatch(line)
    if matched:
        return f'a blank after ":" is missing: write "{matched[1]}: {matched[2]}"'
    bare = re.fullmatch(r"\s*-([A-Za-z][A-Za-z0-9]*:.*)", line)
    return f'write a space after "-": "- {bare[1]}"' if bare else ""


def explain(node: Node, obj: Object, problems: list[FieldError]) -> list[FieldError]:
    """The problems of an object, with the likely intent added to those whose value swallowed its neighbours."""
    found = list(_folded(node, obj, ""))
    if not found:
        return problems
    out: list[FieldError] = []
    for problem in problems:
        hint = next((h for path, owner, h in found if problem.path in (path, owner)), "")
        if not hint:
            hint = next((h for _, owner, h in found if problem.path.startswith(owner + ".")), "")
        detail = f"{problem.detail} ({hint})" if problem.detail else hint
        out.append(FieldError(problem.type, problem.path, problem.value, detail) if hint else problem)
    return out


def _folded(node: Node, value: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """(path of the text, path of the object around it, hint) for each swallowed neighbour."""
    if node.type == "object" and isinstance(value, dict):
        for name, part in value.items():
            inner = node.fields.get(name)
            if inner is None:
                continue
            at = f"{path}.{name}" if path else name
            if isinstance(part, str) and inner.type in ("string", "int-or-string"):
                hint = of_folded_text(part, node.fields)
                if hint:
                    yield at, path, hint
            elif isinstance(part, dict | list):
                yield from _folded(inner, part, at)
    elif node.type == "array" and isinstance(value, list) and node.items is not None:
        for i, item in enumerate(value):
            yield from _folded(node.items, item, f"{path}[{i}]")
