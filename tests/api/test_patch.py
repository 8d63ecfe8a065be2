from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import patch, strategic_merge
from sampan.api.errors import StatusError
from sampan.api.schema import Node


@pytest.mark.parametrize(
    ("doc", "ops", "expected"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ({"a": {"b": 1}}, [{"op": "replace", "path": "/a/b", "value": None}], {"a": {"b": None}}),
        ({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
        ({"a": {"x": 1}}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": {"x": 1}, "b": {"x": 1}}),
        ({"a/b": {"~": 1}}, [{"op": "remove", "path": "/a~1b/~0"}], {"a/b": {}}),
        ({"a": [{"b": 1}]}, [{"op": "test", "path": "/a/0/b", "value": 1}], {"a": [{"b": 1}]}),
        ({"a": 1}, [{"op": "test", "path": "/b", "value": None}], {"a": 1}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"z": 1}}], {"z": 1}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-1"}], {"a": [1]}),
        ({"a": [1, 2]}, [{"op": "add", "path": "/a/-1", "value": 3}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/b"}], {"a": [1], "b": None}),
    ],
)
def test_json_patch(doc: Any, ops: Any, expected: Any) -> None:
    assert patch.json_patch(doc, ops) == expected


@pytest.mark.parametrize(
    ("ops", "code", "message"),
    [
        ({}, 400, "array"),
        ([{"op": "jump", "path": "/a"}], 422, "jump"),
        ([{"op": "test", "path": "/a", "value": 2}], 422, "testing value /a failed"),
        ([{"op": "test", "path": "/a", "value": True}], 422, "testing value /a failed"),
        ([{"op": "remove", "path": "/x"}], 422, "/x"),
        ([{"op": "replace", "path": "/x", "value": 1}], 422, "/x"),
        ([{"op": "add", "path": "/x/y", "value": 1}], 422, "/x/y"),
        ([{"op": "add", "path": "/l/5", "value": 1}], 422, "invalid index: 5"),
        ([{"op": "add", "path": "/l/01", "value": 1}], 422, "invalid array index"),
        ([{"op": "add", "path": "x", "value": 1}], 422, "x"),
        ([{"op": "move", "from": "/l", "path": "/l/0"}], 422, "inside"),
        ([{"op": "add", "path": "/l/-2", "value": 1}], 422, "invalid index: -2"),
        ([{"op": "add", "value": 1}], 422, "add operation failed to decode path: missing value"),
        (
            [{"op": "copy", "path": "/a", "from": 3}],
            422,
            "copy operation failed to decode from: missing value",
        ),
        ([{"op": ["add"], "path": "/a"}], 422, "Unexpected kind: unknown"),
        (
            [{"op": "copy", "from": "/x", "path": "/y"}],
            422,
            "unable to get nonexistent key: x: missing value",
        ),
        (
            [{"op": "move", "from": "/x/y", "path": "/y"}],
            422,
            "doc is missing from path: /x/y: missing value",
        ),
        ([{"op": "copy", "from": "/a", "path": "/y/z"}], 422, "doc is missing destination path: /y/z"),
        (
            [{"op": "remove", "path": "/l/0"}],
            422,
            "error in remove for path: '/l/0': Unable to access invalid index",
        ),
        ([{"op": "replace", "path": "", "value": 3}], 422, "not an object"),
        ([{"op": "remove", "path": ""}], 422, "not an object"),
        ([{"op": "remove", "path": ""}, {"op": "add", "path": "/a", "value": 1}], 422, "doc is missing path"),
        ([{"op": "test", "path": "/a"}] * 10_001, 413, "maximum operations"),
    ],
)
def test_json_patch_refused(ops: Any, code: int, message: str) -> None:
    doc = {"a": 1, "l": []}
    with pytest.raises(StatusError, match=message) as e:
        patch.json_patch(doc, ops)
    assert e.value.code == code
    assert doc == {"a": 1, "l": []}


def test_json_patch_cannot_grow_without_end() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": f"/a/{i}"} for i in range(60)]
    with pytest.raises(StatusError, match="accumulated size increase of copy is") as e:
        patch.json_patch({"a": {"b": "x" * 1000}}, doubling)
    assert e.value.code == 422
    deeper = [{"op": "add", "path": "/a" * i, "value": {}} for i in range(1, 300)]
    with pytest.raises(StatusError, match="deeper than 200 levels") as e:
        patch.json_patch({}, deeper)
    assert e.value.code == 422


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
DOCS = st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4)


def _no_nulls(value: Any) -> Any:
    return {k: _no_nulls(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


@given(DOCS, DOCS)
def test_merge_patch_is_idempotent(doc: Any, change: Any) -> None:
    once = patch.merge_patch(doc, change)
    assert patch.merge_patch(once, change) == once
    assert patch.merge_patch(doc, {}) == doc
    assert patch.merge_patch({}, change) == _no_nulls(change)


def test_merge_patch() -> None:
    doc = {"a": {"b": 1, "c": [1]}, "d": 1}
    assert patch.merge_patch(doc, {"a": {"b": None, "c": [2]}, "e": {"f": None}}) == {
        "a": {"c": [2]}, "d": 1, "e": {},
    }  # fmt: skip
    assert doc == {"a": {"b": 1, "c": [1]}, "d": 1}
    with pytest.raises(StatusError):
        patch.merge_patch(doc, [])


STRING = Node("string")


def pod_type() -> Node:
    env = Node(
        "array",
        items=Node("object", fields={"name": STRING, "value": STRING}),
        patch_strategy=("merge",),
        patch_merge_key="name",
    )
    container = Node(
        "object",
        fields={"name": STRING, "image": STRING, "env": env, "args": Node("array", items=STRING)},
    )
    volume = Node("object", fields={"name": STRING})
    spec = Node(
        "object",
        fields={
            "containers": Node("array", items=container, patch_strategy=("merge",), patch_merge_key="name"),
            "volumes": Node(
                "array", items=volume, patch_strategy=("merge", "retainKeys"), patch_merge_key="name"
            ),
            "strategy": Node("object", patch_strategy=("retainKeys",), fields={"type": STRING}),
            "tolerations": Node("array", items=Node("object", fields={"key": STRING})),
        },
    )
    meta = Node(
        "object",
        fields={
            "labels": Node("map", items=STRING),
            "finalizers": Node("array", items=STRING, patch_strategy=("merge",)),
        },
    )
    return Node("object", fields={"metadata": meta, "spec": spec})


def _containers(*items: Any, **more: Any) -> Any:
    return {"spec": {"containers": list(items), **more}}


@pytest.mark.parametrize(
    ("doc", "change", "expected"),
    [
        pytest.param(
            _containers({"name": "a", "image": "1"}, {"name": "b", "image": "1"}),
            _containers({"name": "b", "image": "2"}, {"name": "c", "image": "3"}),
            _containers(
                {"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}
            ),
            id="merges by key, new ones last",
        ),
        pytest.param(
            _containers({"name": "a"}, {"name": "b"}),
            _containers({"name": "a", "$patch": "delete"}),
            _containers({"name": "b"}),
            id="deletes an item",
        ),
        pytest.param(
            _containers({"name": "a"}, {"name": "b"}),
            _containers({"$patch": "replace"}, {"name": "z"}),
            _containers({"name": "z"}),
            id="replaces the list",
        ),
        pytest.param(
            _containers({"name": "a", "env": [{"name": "X", "value": "1"}], "args": ["1"]}),
            _containers({"name": "a", "env": [{"name": "Y", "value": "2"}], "args": ["2"]}),
            _containers(
                {
                    "name": "a",
                    "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}],
                    "args": ["2"],
                }
            ),
            id="nested lists, what the patch names first; an atomic list is replaced",
        ),
        pytest.param(
            _containers({"name": "a"}, {"name": "srv"}, {"name": "b"}),
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            _containers({"name": "srv"}, {"name": "b"}, {"name": "a"}),
            id="order only; the server's own item stays before the one it preceded",
        ),
        pytest.param(
            _containers({"name": "a"}, {"name": "b"}),
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "a"}, {"name": "n"}, {"name": "b"}],
                    "containers": [{"name": "n"}],
                }
            },
            _containers({"name": "a"}, {"name": "n"}, {"name": "b"}),
            id="order with a new item",
        ),
        pytest.param(
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}},
            {"metadata": {"finalizers": ["c", "b"]}},
            id="primitive list",
        ),
        pytest.param(
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            {"metadata": {"labels": {"a": None, "c": "3"}}},
            {"metadata": {"labels": {"b": "2", "c": "3"}}},
            id="map",
        ),
        pytest.param(
            {"metadata": {"labels": {"a": "1"}}},
            {"metadata": {"labels": {"$patch": "replace", "b": "2"}}},
            {"metadata": {"labels": {"b": "2"}}},
            id="replace a map",
        ),
        pytest.param(
            {"metadata": {"labels": {"a": "1"}}},
            {"metadata": {"labels": {"$patch": "delete"}}},
            {"metadata": {"labels": {}}},
            id="empty a map",
        ),
        pytest.param(
            {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}},
            {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}},
            {"spec": {"strategy": {"type": "Recreate"}}},
            id="retain keys",
        ),
        pytest.param(
            {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
            {
                "spec": {
                    "volumes": [
                        {"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}
                    ]
                }
            },
            {"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}},
            id="retain keys in a list item",
        ),
        pytest.param(
            _containers({"name": "a"}),
            {"spec": {"containers": None}},
            {"spec": {}},
            id="null deletes a list",
        ),
        pytest.param(
            {},
            {"spec": {"containers": [{"name": "a", "env": None}, {"name": "b", "$patch": "delete"}]}},
            _containers({"name": "a"}),
            id="into nothing: no nulls, no directives",
        ),
        pytest.param(
            {"spec": {"tolerations": [{"key": "a"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
            id="list without strategy",
        ),
        pytest.param(
            _containers({"name": "a"}, {"name": "b"}),
            _containers({"name": "b", "$patch": "replace", "image": "x"}, {"name": "z"}),
            _containers({"name": "z"}),
            id="an item marked replace is only the mark",
        ),
        pytest.param(
            {"metadata": {"labels": {"a": "1"}}},
            {"metadata": {"labels": {"$patch": "merge", "b": "2"}}},
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            id="merge is what happens anyway",
        ),
        pytest.param(
            {"metadata": {"finalizers": ["a", "b", "c"]}},
            {
                "metadata": {
                    "$setElementOrder/finalizers": ["c", "n", "a"],
                    "$deleteFromPrimitiveList/finalizers": ["b"],
                    "finalizers": ["n"],
                }
            },
            {"metadata": {"finalizers": ["c", "n", "a"]}},
            id="primitive list with order, deletion and a new one",
        ),
        pytest.param(
            {},
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                    "containers": [{"name": "a"}, {"name": "b"}],
                }
            },
            _containers({"name": "a"}, {"name": "b"}),
            id="into nothing there is nothing to order",
        ),
        pytest.param(
            {"spec": {"strategy": {"type": "a"}, "tolerations": "odd"}},
            {"spec": {"strategy": "b", "tolerations": [{"key": "x"}]}},
            {"spec": {"strategy": "b", "tolerations": [{"key": "x"}]}},
            id="another type takes the place",
        ),
        pytest.param(
            _containers({"name": "a", "image": "1"}, {"name": "a", "image": "2"}),
            _containers({"name": "a", "$patch": "delete"}),
            _containers(),
            id="delete takes all of the name",
        ),
        pytest.param(
            {"x": {"y": [1]}}, {"x": {"y": [2], "z": 1}}, {"x": {"y": [2], "z": 1}}, id="unknown type"
        ),
    ],
)
def test_strategic_merge(doc: Any, change: Any, expected: Any) -> None:
    assert strategic_merge.strategic_merge(pod_type(), doc, change) == expected


THERE: Any = {
    "metadata": {"labels": {"a": "1"}, "finalizers": ["a", "b"]},
    "spec": {"containers": [{"name": "a"}, {"name": "b"}], "strategy": {"type": "x"}},
}


@pytest.mark.parametrize(
    ("doc", "change", "code", "message"),
    [
        ({}, [], 400, "invalid JSON document"),
        (
            THERE,
            {"spec": {"containers": [{"image": "x"}]}},
            400,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            THERE,
            {"spec": {"containers": [{"image": "x", "$patch": "delete"}]}},
            400,
            "map: map[$patch:delete image:x] does not contain declared merge key: name",
        ),
        (
            THERE,
            {"spec": {"$patch": "explode"}},
            400,
            "unknown patch type: explode in map: map[$patch:explode]",
        ),
        ({}, {"spec": {"$patch": "explode"}}, 400, "unknown patch type: explode in map: map[$patch:explode]"),
        (
            THERE,
            {"spec": {"containers": [{"name": "a", "$patch": "x"}]}},
            400,
            "unknown patch type: x in map: map[$patch:x name:a]",
        ),
        (
            THERE,
            {"spec": {"strategy": {"$retainKeys": ["type"], "other": 1}}},
            400,
            "invalid patch format of retainKeys: other is in the patch but is not retained",
        ),
        (THERE, {"spec": {"strategy": {"$retainKeys": "type"}}}, 400, "invalid patch format of retainKeys"),
        (
            THERE,
            {"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}},
            400,
            "invalid patch format of primitive list",
        ),
        (
            THERE,
            {"metadata": {"$deleteFromPrimitiveList": ["a"]}},
            400,
            "invalid patch format of primitive list",
        ),
        (
            THERE,
            {"spec": {"$setElementOrder/containers": {}}},
            400,
            "invalid patch format of setElementOrder list",
        ),
        (
            THERE,
            {"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}},
            400,
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        ),
        (THERE, {"metadata": {"finalizers": [["a"]]}}, 422, "lists of lists are not supported"),
        (THERE, {"spec": {"containers": ["a"]}}, 400, "list element types are not identical"),
        (
            THERE,
            {"spec": {"$setElementOrder/containers": [], "containers": {}}},
            400,
            "expected a []interface {}, but received a map[string]interface {}",
        ),
    ],
)
def test_strategic_merge_refused(doc: Any, change: Any, code: int, message: str) -> None:
    with pytest.raises(StatusError) as e:
        strategic_merge.strategic_merge(pod_type(), doc, change)
    assert (e.value.code, e.value.message) == (code, message)
