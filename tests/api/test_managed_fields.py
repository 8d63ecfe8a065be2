from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import comparison, field_set, managed_fields, schema, typed
from sampan.api.objects import deep_copy

DEPLOYMENT = schema.node("io.k8s.api.apps.v1.Deployment")
POD = schema.node("io.k8s.api.core.v1.Pod")
SERVICE = schema.node("io.k8s.api.core.v1.Service")


def deployment() -> Any:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web",
            "namespace": "default",
            "uid": "u",
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web"},
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            },
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {
                            "name": "nginx",
                            "image": "nginx",
                            "resources": {},
                            "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        }
                    ],
                    "securityContext": {},
                    "restartPolicy": "Always",
                },
            },
        },
        "status": {},
    }


def record(
    node: schema.Node, old: Any, new: Any, manager: str = "kubectl", time: str = "T1", sub: str = ""
) -> Any:
    managed_fields.record_update(
        node, old, new, manager=manager, api_version=new["apiVersion"], time=time, subresource=sub
    )
    return managed_fields.plain(new)["metadata"].get("managedFields")


def test_create_as_upstream_writes_it() -> None:
    assert record(DEPLOYMENT, None, deployment(), "kubectl-create") == [
        {
            "manager": "kubectl-create",
            "operation": "Update",
            "apiVersion": "apps/v1",
            "time": "T1",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:strategy": {
                        "f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}},
                        "f:type": {},
                    },
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {
                            "f:containers": {
                                'k:{"name":"nginx"}': {
                                    ".": {},
                                    "f:name": {},
                                    "f:image": {},
                                    "f:resources": {},
                                    "f:ports": {
                                        ".": {},
                                        'k:{"containerPort":80,"protocol":"TCP"}': {
                                            ".": {},
                                            "f:containerPort": {},
                                            "f:protocol": {},
                                        },
                                    },
                                }
                            },
                            "f:securityContext": {},
                            "f:restartPolicy": {},
                        },
                    },
                },
            },
        }
    ]


def test_update_takes_only_what_changed() -> None:
    old = deployment()
    record(DEPLOYMENT, None, old, "a")
    new = deep_copy(old)
    new["spec"]["replicas"] = 3
    new["metadata"]["labels"]["tier"] = "x"
    first, second = record(DEPLOYMENT, old, new, "b", "T2")
    assert second["manager"] == "b"
    assert second["fieldsV1"] == {"f:metadata": {"f:labels": {"f:tier": {}}}, "f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in first["fieldsV1"]["f:spec"]
    assert first["time"] == "T1"

    gone = deep_copy(new)
    del gone["metadata"]["labels"]
    first, second = record(DEPLOYMENT, new, gone, "c", "T3")
    assert (first["manager"], second["manager"]) == ("a", "b")
    assert "f:metadata" not in first["fieldsV1"]
    assert second["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


def test_no_change_keeps_the_entries() -> None:
    old = deployment()
    before = record(DEPLOYMENT, None, old, "a")
    new = deep_copy(old)
    del new["metadata"]["managedFields"]
    assert record(DEPLOYMENT, old, new, "a", "T2") == before


def test_status_is_its_own_entry() -> None:
    old = deployment()
    record(DEPLOYMENT, None, old, "a")
    new = deep_copy(old)
    new["status"] = {"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]}
    first, second = record(DEPLOYMENT, old, new, "controller", "T2", "status")
    assert first["manager"] == "a"
    assert second["subresource"] == "status"
    assert second["fieldsV1"] == {
        "f:status": {
            "f:replicas": {},
            "f:conditions": {
                ".": {},
                'k:{"type":"Available"}': {".": {}, "f:type": {}, "f:status": {}},
            },
        }
    }


def test_lists_in_metadata() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "finalizers": ["example.com/x"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "1-2"}],
        },
    }
    assert record(POD, None, pod)[0]["fieldsV1"] == {
        "f:metadata": {
            "f:finalizers": {".": {}, 'v:"example.com/x"': {}},
            "f:ownerReferences": {".": {}, 'k:{"uid":"1-2"}': {}},
        }
    }


def test_items_without_keys_are_owned_with_their_list() -> None:
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "a"},
        "secrets": [{}, {"name": "x"}],
    }
    node = schema.node("io.k8s.api.core.v1.ServiceAccount")
    assert record(node, None, account)[0]["fieldsV1"] == {"f:secrets": {}}
    account["secrets"] = [{"name": "x"}]
    assert record(node, None, account)[0]["fieldsV1"]["f:secrets"].keys() == {".", 'k:{"name":"x"}'}


def test_reset_and_cap() -> None:
    old = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {}}
    node = schema.node("io.k8s.api.core.v1.ConfigMap")
    record(node, None, old, "m0", "T00")
    for i in range(1, 13):
        new = deep_copy(old)
        new["data"][f"k{i}"] = "v"
        record(node, old, new, f"m{i}", f"T{i:02}")
        old = new
    entries = managed_fields.plain(old)["metadata"]["managedFields"]
    assert len(entries) == 10
    assert entries[0]["manager"] == managed_fields.ANCIENT
    assert entries[-1]["manager"] == "m12"
    owned = [p for e in entries for p in field_set.paths(e["fieldsV1"])]
    assert {f".data.k{i}" for i in range(1, 13)} <= set(owned)

    reset = deep_copy(old)
    reset["metadata"]["managedFields"] = [{}]
    assert record(node, old, reset) is None


NAMES = st.sampled_from(["f:a", "f:b", "f:c"])
TREES = st.recursive(
    st.just({}),
    lambda inner: st.tuples(st.dictionaries(NAMES, inner, min_size=1, max_size=3), st.booleans()).map(
        lambda t: {**t[0], ".": {}} if t[1] else t[0]
    ),
    max_leaves=8,
)
SETS = st.dictionaries(NAMES, TREES, max_size=3)


def members(tree: Any) -> set[str]:
    return set(field_set.paths(tree))


@given(SETS, SETS)
def test_set_algebra(a: Any, b: Any) -> None:
    assert members(field_set.union(a, b)) == members(a) | members(b)
    assert members(field_set.difference(a, b)) == members(a) - members(b)
    assert members(field_set.intersection(a, b)) == members(a) & members(b)


@pytest.mark.parametrize(
    ("element", "text"),
    [
        ("f:spec", ".spec"),
        ('k:{"name":"web"}', '[name="web"]'),
        ('k:{"containerPort":80,"protocol":"TCP"}', '[containerPort=80,protocol="TCP"]'),
        ('v:"x"', '[="x"]'),
    ],
)
def test_element_text(element: str, text: str) -> None:
    assert field_set.element_text(element) == text


@given(
    st.dictionaries(
        st.sampled_from(["labels", "annotations"]), st.dictionaries(st.sampled_from("ab"), st.just("x"))
    )
)
def test_what_is_created_is_what_a_comparison_with_nothing_finds(metadata: Any) -> None:
    for node, kind in ((DEPLOYMENT, "Deployment"), (POD, "Pod"), (SERVICE, "Service")):
        obj = deployment() | {"kind": kind}
        obj["metadata"] |= metadata
        obj["spec"] |= {"containers": obj["spec"]["template"]["spec"]["containers"], "ports": [{"port": 1}]}
        for skip in ({}, {"status": None}, {"spec": None}, {"metadata": {"labels": None}}):
            found = comparison.compare(node, {}, obj, skip=skip)
            assert not found.removed
            assert typed.created(node, obj, skip) == found.written()
            # The second time from what was kept of the first.
            assert typed.created(node, deep_copy(obj), skip) == found.written()
