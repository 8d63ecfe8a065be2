from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.api import apply as server_side
from sampan.api import configuration, field_set, managed_fields, schema
from sampan.api.errors import StatusError
from sampan.api.objects import deep_copy

KINDS = {
    "Deployment": ("apps/v1", schema.node("io.k8s.api.apps.v1.Deployment")),
    "ConfigMap": ("v1", schema.node("io.k8s.api.core.v1.ConfigMap")),
    "Pod": ("v1", schema.node("io.k8s.api.core.v1.Pod")),
    "Service": ("v1", schema.node("io.k8s.api.core.v1.Service")),
}


def of(kind: str, metadata: Any = None, **more: Any) -> Any:
    return {"apiVersion": KINDS[kind][0], "kind": kind, "metadata": {"name": "x", **(metadata or {})}, **more}


def apply(
    live: Any, config: Any, manager: str = "a", *, force: bool = False, time: str = "T", sub: str = ""
) -> Any:
    api_version, node = KINDS[config["kind"]]
    before = deep_copy(live)
    configuration.refuse(node, config, "", config["metadata"]["name"])
    out = server_side.apply(
        node, live, config, manager=manager, api_version=api_version, time=time, force=force, subresource=sub
    )
    assert live == before
    return managed_fields.plain(out) if out is not live else out


def update(live: Any, new: Any, manager: str, sub: str = "") -> Any:
    api_version, node = KINDS[new["kind"]]
    managed_fields.record_update(
        node, live, new, manager=manager, api_version=api_version, time="T", subresource=sub
    )
    return new


def owned(obj: Any, manager: str) -> set[str]:
    return {
        path
        for entry in obj["metadata"].get("managedFields", ())
        if entry["manager"] == manager
        for path in field_set.paths(managed_fields.fields(entry))
    }


def test_the_first_apply_owns_what_it_names() -> None:
    out = apply(None, of("ConfigMap", {"labels": {"l": "1"}}, data={"k": "v"}))
    assert out["data"] == {"k": "v"}
    assert out["metadata"]["managedFields"] == [
        {
            "manager": "a",
            "operation": "Apply",
            "apiVersion": "v1",
            "time": "T",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:l": {}}}, "f:data": {"f:k": {}}},
        }
    ]


def test_the_same_apply_changes_nothing() -> None:
    config = of("ConfigMap", data={"k": "v"})
    live = apply(None, config)
    assert apply(live, config, time="LATER") == live


def test_what_is_not_applied_any_more_goes() -> None:
    live = apply(None, of("ConfigMap", data={"a": "1", "b": "2"}))
    out = apply(live, of("ConfigMap", data={"b": "2"}))
    assert out["data"] == {"b": "2"}
    out = apply(out, of("ConfigMap"))
    assert "data" not in out
    assert "managedFields" not in out["metadata"]


def test_shared_ownership() -> None:
    live = apply(None, of("ConfigMap", data={"a": "1", "b": "2"}))
    live = apply(live, of("ConfigMap", data={"a": "1"}), "b")
    assert owned(live, "a") == {".data.a", ".data.b"}
    assert owned(live, "b") == {".data.a"}
    live = apply(live, of("ConfigMap", data={"b": "2"}))
    assert live["data"] == {"a": "1", "b": "2"}
    assert owned(live, "a") == {".data.b"}


def test_conflict_and_force() -> None:
    live = update(
        None, of("Deployment", spec={"replicas": 1, "minReadySeconds": 5}), "kubectl-client-side-apply"
    )
    with pytest.raises(StatusError) as e:
        apply(live, of("Deployment", spec={"replicas": 3}))
    assert (e.value.code, e.value.reason) == (409, "Conflict")
    assert e.value.message == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas'
    )
    assert e.value.status()["details"] == {
        "causes": [
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "kubectl-client-side-apply" using apps/v1',
                "field": ".spec.replicas",
            }
        ]
    }
    out = apply(live, of("Deployment", spec={"replicas": 3}), force=True)
    assert out["spec"] == {"replicas": 3, "minReadySeconds": 5}
    assert owned(out, "a") == {".spec.replicas"}
    assert owned(out, "kubectl-client-side-apply") == {".spec.minReadySeconds"}


def test_several_conflicts() -> None:
    live = apply(None, of("ConfigMap", data={"a": "1", "b": "2"}), "one")
    live = apply(live, of("ConfigMap", data={"a": "1", "c": "3"}), "two")
    with pytest.raises(StatusError) as e:
        apply(live, of("ConfigMap", data={"a": "x", "b": "y", "c": "z"}), "three")
    assert e.value.message == (
        'Apply failed with 4 conflicts: conflicts with "one":\n- .data.a\n- .data.b\n'
        'conflicts with "two":\n- .data.a\n- .data.c'
    )


def _pod(*containers: Any, **spec: Any) -> Any:
    return of("Pod", spec={"containers": list(containers), **spec})


def test_lists_with_keys() -> None:
    live = apply(None, _pod({"name": "web", "image": "1", "ports": [{"containerPort": 80}]}))
    assert owned(live, "a") >= {
        '.spec.containers[name="web"]',
        '.spec.containers[name="web"].image',
        '.spec.containers[name="web"].ports[containerPort=80,protocol="TCP"]',
    }
    # Defaults are nobody's, and somebody puts a container in front.
    defaulted = deep_copy(live)
    defaulted["spec"]["containers"][0]["imagePullPolicy"] = "Always"
    defaulted["spec"]["containers"].insert(0, {"name": "side", "image": "s"})
    live = update(live, defaulted, "injector")
    live = apply(live, _pod({"name": "web", "image": "2"}, {"name": "new", "image": "n"}))
    names = [c["name"] for c in live["spec"]["containers"]]
    assert names == ["side", "web", "new"]
    web = live["spec"]["containers"][1]
    assert web == {"name": "web", "image": "2", "imagePullPolicy": "Always"}

    # An item goes with its last owner, and with it what somebody else put into it without owning the item.
    live = apply(live, of("Pod", {"labels": {"x": "y"}}))
    assert [c["name"] for c in live["spec"]["containers"]] == ["side"]
    assert owned(live, "injector") == {
        '.spec.containers[name="side"]',
        '.spec.containers[name="side"].name',
        '.spec.containers[name="side"].image',
    }


def test_an_item_goes_with_what_nobody_owns_in_it() -> None:
    live = apply(None, _pod({"name": "a", "image": "1"}, {"name": "b", "image": "1"}))
    live["spec"]["containers"][1]["terminationMessagePath"] = "/dev/log"
    out = apply(live, _pod({"name": "a", "image": "1"}))
    assert out["spec"]["containers"] == [{"name": "a", "image": "1"}]


def test_atomic_and_set() -> None:
    selector = {"matchLabels": {"app": "x"}}
    live = apply(None, of("Deployment", {"finalizers": ["x/one"]}, spec={"selector": selector}))
    assert ".spec.selector" in owned(live, "a")
    live = apply(live, of("Deployment", {"finalizers": ["x/two"]}), "b")
    assert live["metadata"]["finalizers"] == ["x/one", "x/two"]
    with pytest.raises(StatusError, match=r"\.spec\.selector$"):
        apply(live, of("Deployment", spec={"selector": {"matchLabels": {"app": "y"}}}), "b")
    live = apply(live, of("Deployment", spec={"selector": selector}))
    assert live["metadata"]["finalizers"] == ["x/two"]


def test_null_takes_a_field_away() -> None:
    live = update(None, of("ConfigMap", data={"a": "1"}), "u")
    out = apply(live, of("ConfigMap", data={"a": None}), force=True)
    assert out["data"] == {}


def test_status_is_not_owned_through_the_main_resource() -> None:
    out = apply(None, of("Deployment", spec={"replicas": 1}, status={"replicas": 4}))
    assert owned(out, "a") == {".spec.replicas"}
    out = apply(out, of("Deployment", status={"readyReplicas": 1}), sub="status")
    entry = out["metadata"]["managedFields"][1]
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:readyReplicas": {}}})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (of("ConfigMap", {"managedFields": [{"manager": "x"}]}), "metadata.managedFields must be nil"),
        (
            _pod({"name": "a"}, {"name": "a"}),
            r'\(/x; v1, Kind=Pod\): \.spec\.containers: duplicate entries for key \[name="a"\]$',
        ),
        (_pod({"image": "a"}), 'omits key field "name"'),
    ],
)
def test_refused(config: Any, message: str) -> None:
    with pytest.raises(StatusError, match=message) as e:
        apply(None, config)
    assert e.value.code == 400


def _steps(*steps: Any) -> Any:
    """Run `(manager, object)` for an apply, `("-manager", object)` for an update with the whole object."""
    live = None
    for manager, config in steps:
        if manager.startswith("-"):
            new = deep_copy(config)
            if live is not None:
                new["metadata"]["managedFields"] = live["metadata"].get("managedFields")
            live = update(live, new, manager[1:])
        else:
            live = apply(live, config, manager, force=True)
    return live


def _cm(**data: Any) -> Any:
    return of("ConfigMap", data=data) if data else of("ConfigMap")


def _dep(**spec: Any) -> Any:
    return of("Deployment", spec=spec) if spec else of("Deployment")


def _con(*containers: Any) -> Any:
    return {"template": {"spec": {"containers": list(containers)}}}


ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}


@pytest.mark.parametrize(
    ("steps", "left", "owners"),
    [
        # A key that is replaced by another, in a map.
        ([("a", _cm(a="1")), ("a", _cm(b="1"))], _cm(b="1"), {"a": {".data.b"}}),
        # A struct goes with its last field, and with what nobody owns in it.
        ([("a", _dep(strategy={"type": "Recreate"})), ("a", _dep())], of("Deployment"), {}),
        # What an update added stays; so does the struct around it.
        (
            [("a", _dep(strategy={"type": "RollingUpdate"})), ("-c", _dep(strategy=ROLLING)), ("a", _dep())],
            _dep(strategy={"rollingUpdate": {"maxSurge": 1}}),
            {"c": {".spec.strategy.rollingUpdate", ".spec.strategy.rollingUpdate.maxSurge"}},
        ),
        # The same where the applier still names the struct, empty.
        (
            [
                ("a", _dep(strategy={"type": "RollingUpdate"})),
                ("-c", _dep(strategy=ROLLING)),
                ("a", _dep(strategy={})),
            ],
            _dep(strategy={"rollingUpdate": {"maxSurge": 1}}),
            {
                "a": {".spec.strategy"},
                "c": {".spec.strategy.rollingUpdate", ".spec.strategy.rollingUpdate.maxSurge"},
            },
        ),
        # A controller took a field over: it is not the applier's to take away any more.
        (
            [("a", _dep(replicas=1)), ("-hpa", _dep(replicas=5)), ("a", _dep(minReadySeconds=1))],
            _dep(replicas=5, minReadySeconds=1),
            {"a": {".spec.minReadySeconds"}, "hpa": {".spec.replicas"}},
        ),
        # An item of a list with keys, and one of its fields.
        (
            [
                ("a", _dep(**_con({"name": "x", "image": "1"}, {"name": "y", "image": "1"}))),
                ("b", _dep(**_con({"name": "y", "workingDir": "/"}))),
                ("a", _dep(**_con({"name": "x", "image": "1"}))),
            ],
            _dep(**_con({"name": "x", "image": "1"}, {"name": "y", "workingDir": "/"})),
            {
                "a": {
                    '.spec.template.spec.containers[name="x"]',
                    '.spec.template.spec.containers[name="x"].image',
                    '.spec.template.spec.containers[name="x"].name',
                },
                "b": {
                    '.spec.template.spec.containers[name="y"]',
                    '.spec.template.spec.containers[name="y"].name',
                    '.spec.template.spec.containers[name="y"].workingDir',
                },
            },
        ),
        # A list that is applied empty says nothing; an empty map is there, and owned.
        ([("a", _dep(**_con()))], _dep(template={"spec": {}}), {}),
        ([("a", of("ConfigMap", data={}))], of("ConfigMap", data={}), {"a": {".data"}}),
        # An atomic list is one value.
        (
            [
                ("a", _pod({"name": "x", "args": ["1", "2"]})),
                ("b", _pod({"name": "x", "args": ["3"]})),
            ],
            _pod({"name": "x", "args": ["3"]}),
            {
                "a": {'.spec.containers[name="x"]', '.spec.containers[name="x"].name'},
                "b": {
                    '.spec.containers[name="x"]',
                    '.spec.containers[name="x"].args',
                    '.spec.containers[name="x"].name',
                },
            },
        ),
    ],
)
def test_what_is_left_and_whose_it_is(steps: Any, left: Any, owners: dict[str, set[str]]) -> None:
    out = _steps(*steps)
    entries = out["metadata"].pop("managedFields", [])
    assert out == left
    assert {e["manager"]: set(field_set.paths(e["fieldsV1"])) for e in entries} == owners


@pytest.mark.parametrize(
    ("live", "config", "order"),
    [
        ("abc", "d", "abcd"),
        ("abc", "da", "dabc"),
        ("abc", "ca", "bca"),
        ("abc", "cba", "cba"),
        ("abc", "adc", "abdc"),
        ("abcd", "dxb", "acdxb"),
        ("", "ab", "ab"),
        ("ab", "ba", "ba"),
    ],
)
def test_order_of_a_merged_list(live: str, config: str, order: str) -> None:
    before = of("ConfigMap", {"finalizers": [f"x/{c}" for c in live]})
    out = apply(before, of("ConfigMap", {"finalizers": [f"x/{c}" for c in config]}))
    assert "".join(f[2:] for f in out["metadata"]["finalizers"]) == order


def test_an_object_that_was_not_followed_is_of_before_first_apply() -> None:
    live = of("ConfigMap", data={"a": "1"})
    with pytest.raises(StatusError) as e:
        apply(live, _cm(a="2"))
    assert e.value.message == (
        'Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a'
    )
    out = apply(live, _cm(b="2"))
    assert owned(out, "before-first-apply") == {".data", ".data.a"}
    assert owned(out, "a") == {".data.b"}
    # A writer alone does not begin to follow what was reset.
    assert "managedFields" not in update(live, of("ConfigMap", data={"a": "2"}), "u")["metadata"]


def test_from_client_side_apply() -> None:
    last = of("ConfigMap", data={"a": "1", "b": "1", "c": "1"})
    annotation = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(last)}
    live = update(
        None,
        of("ConfigMap", {"annotations": annotation}, data={"a": "1", "b": "other", "c": "1"}),
        "kubectl-client-side-apply",
    )
    # What it applied itself is no conflict, what somebody changed since is.
    with pytest.raises(StatusError) as e:
        apply(live, _cm(a="2", b="2", c="1"), "kubectl")
    assert e.value.message.endswith('conflict with "kubectl-client-side-apply" using v1: .data.b')
    with pytest.raises(StatusError) as e:
        apply(live, _cm(a="2"), "somebody-else")
    out = apply(live, _cm(a="2"), "kubectl")
    assert out["data"] == {"a": "2", "b": "other", "c": "1"}
    noted = out["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    assert json.loads(noted) == _cm(a="2")
    assert noted.endswith("\n")


def test_an_applier_may_change_its_version_and_is_not_its_own_subresource() -> None:
    live = apply(None, of("ConfigMap", data={"a": "1", "b": "1"}))
    live["metadata"]["managedFields"][0]["apiVersion"] = "v0"
    # v0 does not exist: what was owned in it cannot be told and stays.
    live = apply(live, _cm(a="1"))
    assert live["data"] == {"a": "1", "b": "1"}
    assert [e["apiVersion"] for e in live["metadata"]["managedFields"]] == ["v1"]
    live = apply(live, _cm(a="1", c="1"), sub="status")
    assert [e.get("subresource") for e in live["metadata"]["managedFields"]] == [None, "status"]


def test_versions_of_one_kind_share_their_fields() -> None:
    """Core Events and those of events.k8s.io name the same fields differently."""
    node = schema.node("io.k8s.api.core.v1.Event")
    live = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "x"}, "message": "m", "reason": "R"}
    live = server_side.apply(node, None, live, manager="a", api_version="v1", time="T", force=False)
    node = schema.node("io.k8s.api.events.v1.Event")
    shown = {k if k != "message" else "note": v for k, v in live.items()} | {"apiVersion": "events.k8s.io/v1"}
    config = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "x"}, "note": "n"}

    def applied(by: str, config: Any, force: bool = False) -> Any:
        out = server_side.apply(
            node, shown, config, manager=by, api_version="events.k8s.io/v1", time="T", force=force
        )
        return managed_fields.plain(out)

    with pytest.raises(StatusError) as e:
        applied("b", config)
    assert e.value.message == 'Apply failed with 1 conflict: conflict with "a": .message'
    out = applied("b", config, force=True)
    assert owned(out, "a") == {".reason"}
    assert owned(out, "b") == {".note"}
    # The same applier in the other version: what it does not name any more goes.
    out = applied("a", config)
    assert "reason" not in out
    assert out["note"] == "n"
    assert [(e["apiVersion"], e["fieldsV1"]) for e in out["metadata"]["managedFields"]] == [
        ("events.k8s.io/v1", {"f:note": {}})
    ]


def test_a_null_says_nothing_about_parts() -> None:
    live = update(None, of("ConfigMap", data={"a": "1"}), "u")
    assert apply(live, of("ConfigMap", data=None))["data"] == {"a": "1"}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"spec": {"foo": 1}}, ".spec.foo: field not declared in schema"),
        ({"spec": {"replicas": "3"}}, ".spec.replicas: expected numeric (int or float), got string"),
        ({"spec": {"paused": "x"}}, ".spec.paused: expected boolean, got &{x}"),
        ({"spec": []}, ".spec: expected map, got &{[]}"),
        (
            {"metadata": {"name": "x", "labels": {"a": 1}}},
            ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            {"spec": _con({"name": "c", "env": [{"value": "v"}]})},
            '.spec.template.spec.containers[name="c"].env: element 0: associative list with keys has an element '
            'that omits key field "name" (and doesn\'t have default value)',
        ),
        (
            {
                "spec": _con(
                    {"name": "c", "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}]}
                )
            },
            '.spec.template.spec.containers[name="c"].ports: duplicate entries for key '
            '[containerPort=1,protocol="TCP"]',
        ),
        (
            {"spec": {"a": 1}, "metadata": {"name": "x", "finalizers": ["a", "a"]}},
            'errors:\n  .metadata.finalizers: duplicate entries for key [="a"]\n  .spec.a: field not declared in schema',
        ),
    ],
)
def test_a_configuration_that_has_not_its_type(config: Any, problem: str) -> None:
    given = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}
    given |= {k: config[k] for k in sorted(config)}
    with pytest.raises(StatusError) as e:
        apply(None, given)
    assert e.value.code == 400
    assert e.value.message == f"failed to create typed patch object (/x; apps/v1, Kind=Deployment): {problem}"
