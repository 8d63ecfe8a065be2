from __future__ import annotations

from typing import Any

import pytest

from sampan.api import apply as server_side
from sampan.api import field_set, managed_fields, schema
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
    out = server_side.apply(
        node, live, config, manager=manager, api_version=api_version, time=time, force=force, subresource=sub
    )
    assert live == before
    return out


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
        for path in field_set.paths(entry["fieldsV1"])
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

    # `new` is the applier's alone and goes; of `web` the part stays that the injector owns.
    live = apply(live, of("Pod", {"labels": {"x": "y"}}))
    assert [c["name"] for c in live["spec"]["containers"]] == ["side", "web"]
    assert live["spec"]["containers"][1] == {"name": "web", "imagePullPolicy": "Always"}


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
    assert live["metadata"]["finalizers"] == ["x/two", "x/one"]
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
            r'\.spec\.containers: duplicate entries for key \[name="a"\]',
        ),
        (_pod({"image": "a"}), 'omits key field "name"'),
    ],
)
def test_refused(config: Any, message: str) -> None:
    with pytest.raises(StatusError, match=message) as e:
        apply(None, config)
    assert e.value.code == 400
