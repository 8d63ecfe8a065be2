"""What holds of server-side apply whatever is applied, and of patches whatever they say."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api import apply as server_side
from sampan.api import (
    comparison,
    field_set,
    managed_fields,
    patch,
    schema,
    strategic_merge,
    typed,
    typed_merge,
)
from sampan.api.objects import deep_copy

NODE = schema.node("io.k8s.api.apps.v1.Deployment")
NAMES = st.sampled_from("abc")
TEXT = st.sampled_from(["1", "2", ""])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def listed(
    key: str, names: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    item = st.fixed_dictionaries({key: names}, optional=fields)
    return st.lists(item, max_size=3, unique_by=lambda i: i[key])


ENV = listed("name", NAMES, value=TEXT)
PORTS = listed("containerPort", st.integers(1, 3), name=TEXT)
CONTAINERS = listed(
    "name", NAMES, image=TEXT, args=st.lists(TEXT, max_size=2), env=ENV, ports=PORTS, securityContext=some(privileged=st.booleans())
)  # fmt: skip
SPEC = some(
    replicas=st.integers(0, 2),
    paused=st.booleans(),
    strategy=some(type=TEXT, rollingUpdate=some(maxSurge=st.integers(0, 2))),
    selector=some(matchLabels=st.dictionaries(NAMES, TEXT, max_size=2)),
    template=some(
        metadata=some(labels=st.dictionaries(NAMES, TEXT, max_size=2)),
        spec=some(containers=CONTAINERS, nodeSelector=st.dictionaries(NAMES, TEXT, max_size=2)),
    ),
)
CONFIGS = st.builds(
    lambda metadata, spec: {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", **metadata},
        **({"spec": spec} if spec is not None else {}),
    },
    some(
        labels=st.dictionaries(NAMES, TEXT, max_size=3),
        finalizers=st.lists(st.sampled_from(["x/a", "x/b", "x/c"]), max_size=3, unique=True),
    ),
    st.none() | SPEC,
)
STEPS = st.lists(st.tuples(st.sampled_from(["one", "two", "-three", "-four"]), CONFIGS), max_size=5)


def apply(live: Any, config: Any, manager: str, time: str = "T") -> Any:
    before = deep_copy(live)
    out = server_side.apply(NODE, live, config, manager=manager, api_version="apps/v1", time=time, force=True)
    assert live == before
    return deep_copy(out)


def run(steps: Any) -> Any:
    """Applies, and updates (`-`) that merge a change into what is there."""
    live: Any = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}
    managed_fields.record_update(NODE, None, live, manager="maker", api_version="apps/v1", time="T")
    live["metadata"]["labels"] = {"seed": "x"}
    managed_fields.record_update(NODE, None, live, manager="maker", api_version="apps/v1", time="T")
    for manager, config in steps:
        if manager.startswith("-"):
            new = deep_copy(strategic_merge.strategic_merge(NODE, live, config))
            managed_fields.record_update(NODE, live, new, manager=manager, api_version="apps/v1", time="T")
            live = new
        else:
            live = apply(live, config, manager)
    return live


def _full(value: Any) -> Any:
    """Without empty lists and objects."""
    if isinstance(value, dict):
        return {k: full for k, v in value.items() if (full := _full(v)) not in ({}, [])}
    return [_full(v) for v in value] if isinstance(value, list) else value


def entries(obj: Any) -> list[Any]:
    return list(managed_fields.plain(obj)["metadata"].get("managedFields") or ())


def without_entries(obj: Any) -> Any:
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}


@settings(max_examples=150, deadline=None)
@given(STEPS, CONFIGS)
def test_applying_twice_is_applying_once(steps: Any, config: Any) -> None:
    once = apply(run(steps), config, "one")
    assert apply(once, config, "one", time="LATER") == once


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_nobody_owns_what_is_not_there(steps: Any) -> None:
    """But for what is applied empty, which goes with its last part."""
    live = run([(manager, _full(config)) for manager, config in steps])
    there = typed.with_structs(NODE, typed.whole(NODE, without_entries(live)))
    for entry in entries(live):
        gone = field_set.difference(entry["fieldsV1"], there)
        assert not list(field_set.paths(gone)), entry


@settings(max_examples=150, deadline=None)
@given(STEPS, CONFIGS)
def test_what_is_applied_is_there(steps: Any, config: Any) -> None:
    live = apply(run(steps), config, "one")
    merged = typed_merge.merge(NODE, live, config)
    assert merged == live or comparison.compare(NODE, live, merged, skip={}).same


@settings(max_examples=150, deadline=None)
@given(CONFIGS, CONFIGS)
def test_taking_all_back_leaves_what_was_there(first: Any, second: Any) -> None:
    """Whoever applies nothing any more leaves the object as if the other had been alone."""
    base = run([])
    bare = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}
    both = apply(apply(base, first, "one"), second, "two")
    left = apply(both, bare, "one")
    assert not [e for e in entries(left) if e["manager"] == "one"]
    assert _sorted(without_entries(apply(left, bare, "two"))) == _sorted(without_entries(base))


def _sorted(value: Any) -> Any:
    """Without the order of lists that have keys or are sets."""
    if isinstance(value, dict):
        return {k: _sorted(v) for k, v in value.items()}
    if isinstance(value, list) and not all(isinstance(v, str) and "/" not in v for v in value):
        return sorted((_sorted(v) for v in value), key=repr)
    return value


def _apart(config: Any, ours: str) -> Any:
    """The part of a configuration about labels and containers whose name is ours."""
    out = {k: config[k] for k in ("apiVersion", "kind")}
    labels = {k: v for k, v in (config["metadata"].get("labels") or {}).items() if k in ours}
    out["metadata"] = {"name": "x", **({"labels": labels} if labels else {})}
    spec = config.get("spec", {}).get("template", {}).get("spec", {})
    containers = [c for c in spec.get("containers", ()) if c["name"] in ours]
    if containers:
        out["spec"] = {"template": {"spec": {"containers": containers}}}
    return out


@settings(max_examples=150, deadline=None)
@given(STEPS, CONFIGS, CONFIGS)
def test_disjoint_appliers_commute(steps: Any, first: Any, second: Any) -> None:
    # Nobody else, or else what others own in the same places decides.
    live = run([])
    mine, yours = _apart(first, "a"), _apart(second, "bc")
    one = apply(apply(live, mine, "one"), yours, "two")
    two = apply(apply(live, yours, "two"), mine, "one")
    assert _sorted(without_entries(one)) == _sorted(without_entries(two))
    assert {e["manager"]: e["fieldsV1"] for e in entries(one)} == {
        e["manager"]: e["fieldsV1"] for e in entries(two)
    }


# --- Patches against plain models ---------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
DOCS = st.dictionaries(NAMES, VALUES, max_size=3)


def rfc7386(target: Any, change: Any) -> Any:
    """The pseudo code of the RFC."""
    if not isinstance(change, dict):
        return change
    out = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = rfc7386(out.get(name), value)
    return out


@given(DOCS, DOCS)
def test_merge_patch_is_the_rfc_s(doc: Any, change: Any) -> None:
    assert patch.merge_patch(doc, change) == rfc7386(doc, change)


def places(value: Any, path: str = "") -> list[tuple[str, Any]]:
    out = [(path, value)] if path else []
    if isinstance(value, dict):
        for name, part in value.items():
            out += places(part, f"{path}/{name}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            out += places(part, f"{path}/{i}")
    return out


@given(DOCS, st.data())
def test_json_patch_laws(doc: Any, data: st.DataObject) -> None:
    found = places(doc)
    if not found:
        return
    path, value = data.draw(st.sampled_from(found))
    new = data.draw(VALUES)
    before = deep_copy(doc)
    replaced = patch.json_patch(doc, [{"op": "replace", "path": path, "value": new}])
    assert dict(places(replaced))[path] == new
    back = [
        {"op": "test", "path": path, "value": new},
        {"op": "remove", "path": path},
        {"op": "add", "path": path, "value": value},
        {"op": "test", "path": path, "value": value},
    ]
    assert patch.json_patch(replaced, back) == doc == before
    copied = [{"op": "copy", "from": path, "path": "/new"}, {"op": "move", "from": "/new", "path": "/other"}]
    assert patch.json_patch(doc, copied) == {**doc, "other": value}


@settings(max_examples=150, deadline=None)
@given(CONFIGS, CONFIGS)
def test_strategic_merge_of_a_configuration(doc: Any, change: Any) -> None:
    """Twice is once, and where everything merges part by part it comes to what a merge by type does."""
    once = strategic_merge.strategic_merge(NODE, doc, change)
    assert strategic_merge.strategic_merge(NODE, once, change) == once
    assert strategic_merge.strategic_merge(NODE, doc, {}) == doc
    assert strategic_merge.strategic_merge(NODE, {}, change) == change
