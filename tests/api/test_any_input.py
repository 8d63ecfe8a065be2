"""Whatever a client sends is answered, never crashed on: objects of every served type, half of them broken."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api import decoding, defaults, resources, schema, strategy, support, validation
from sampan.api.errors import FieldError, Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import Resource

_TEXTS = (
    "",
    "a",
    "A b",
    "a/b/c",
    "/x",
    "..",
    "10.0.0.1",
    "None",
    "Always",
    "NodePort",
    "Never",
    "x：1",
    "é",
    "a:b",
    "1%",
)
_NUMBERS = (0, 1, -1, 80, 30001, 70000, 2**31 - 1)


def invent(node: schema.Node, chance: random.Random, depth: int = 0) -> Any:
    """A value of a type; now and then null, or of another type."""
    roll = chance.random()
    if roll < 0.01:
        return chance.choice([None, 1, "x", [], {}, True, 1.5])
    if node.type == "object":
        share = 0.9 if depth < 2 else 0.35 if depth < 6 else 0.1
        return {k: invent(v, chance, depth + 1) for k, v in node.fields.items() if chance.random() < share}
    if node.type == "array" and node.items is not None:
        return [invent(node.items, chance, depth + 1) for _ in range(chance.choice((0, 1, 1, 2)))]
    if node.type == "map" and node.items is not None:
        return {
            chance.choice(_TEXTS): invent(node.items, chance, depth + 1)
            for _ in range(chance.choice((0, 1, 2)))
        }
    if node.type == "string":
        if node.format == "quantity":
            return chance.choice(["1", "0.5", "1Gi", "-1", 2, "100m", "1e3"])
        if node.format in ("time", "micro-time"):
            return chance.choice(["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.123456+02:00"])
        return chance.choice(["eA==", ""]) if node.format == "byte" else chance.choice(_TEXTS)
    if node.type == "integer":
        return chance.choice(_NUMBERS)
    if node.type == "boolean":
        return chance.random() < 0.5
    if node.type == "int-or-string":
        return chance.choice([*_NUMBERS[:-1], "web", "25%", ""])
    return 1.5 if node.type == "number" else {"a": [1]}


def _is_bad_request(refusal: StatusError) -> None:
    assert refusal.code == 400
    assert refusal.message


def answer(resource: Resource, obj: Object, old: Object | None = None) -> Object | None:
    """The object as it would be stored, or None if it is refused as it should be."""
    try:
        decoding.check(schema.node(resource.definition), obj)
    except StatusError as refusal:
        _is_bad_request(refusal)
        return None
    obj.setdefault("metadata", {})
    defaults.apply(resource, obj)
    if old is None:
        strategy.prepare_create(resource, obj)
        problems = validation.create(resource, obj)
    else:
        subresources = ["", *(s.name for s in resource.subresources if s.name in ("status", "finalize"))]
        problems = []
        for subresource in subresources:
            new = deep_copy(obj)
            strategy.prepare_update(resource, new, old, subresource)
            problems += validation.update(resource, new, old, subresource)
    assert all(isinstance(p, FieldError) and str(p) for p in problems)
    warnings, refusals = support.unsupported(resource, obj)
    assert all(isinstance(w, str) for w in warnings)
    assert all(isinstance(r, FieldError) for r in refusals)
    # What is stored has its type and its defaults: another round changes nothing.
    again = deep_copy(obj)
    decoding.check(schema.node(resource.definition), again)
    defaults.apply(resource, again)
    assert again == obj
    return obj


@pytest.mark.parametrize("resource", resources.RESOURCES, ids=lambda r: f"{r.group}/{r.kind}")
def test_any_object_is_answered(resource: Resource) -> None:
    chance = random.Random(f"{resource.group}/{resource.kind}")
    node = schema.node(resource.definition)
    old: Object | None = None
    for _ in range(60):
        obj = invent(node, chance)
        if not isinstance(obj, dict):
            continue
        obj = json.loads(json.dumps(obj))
        stored = answer(resource, deep_copy(obj))
        if stored is not None and old is not None:
            answer(resource, deep_copy(obj), old)
        old = stored or old


_PRINTABLE = st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_categories=["Cc", "Cs"])
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(_PRINTABLE, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["spec", "metadata", "containers", "ports", "name", "labels", "x", "volumes", "env"]
            )
            | st.text(_PRINTABLE, max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["spec", "metadata", "kind", "apiVersion", "data", "status"]), _json))
def test_any_json_is_answered(obj: Object) -> None:
    body = json.dumps(obj).encode()
    for resource in (resources.PODS, resources.SERVICES, resources.CONFIGMAPS, resources.DEPLOYMENTS):
        parsed, duplicates = decoding.parse(body, "application/json")
        assert not duplicates
        answer(resource, parsed)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="{}[]:,-\"'ab01&*#!|> \n\t", max_size=60).map(str.encode))
def test_any_bytes_are_answered(body: bytes) -> None:
    for media in ("application/json", "application/yaml"):
        try:
            parsed, _ = decoding.parse(body, media)
        except StatusError as refusal:
            _is_bad_request(refusal)
        else:
            assert isinstance(parsed, dict)


@settings(max_examples=150, deadline=None)
@given(_json)
def test_yaml_and_json_agree(value: object) -> None:
    """JSON is YAML: the same text read either way is the same object."""
    body = json.dumps({"a": value}).encode()
    try:
        as_json = decoding.parse(body, "application/json")
    except StatusError:
        return
    assert json.dumps(decoding.parse(body, "application/yaml")[0]) == json.dumps(as_json[0])
