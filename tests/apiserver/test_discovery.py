from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.api.errors import StatusError
from sampan.api.resources import RESOURCES
from sampan.apiserver import discovery
from sampan.transport.types import Request, Response

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
BETA = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"


def answer(target: str, accept: str = "application/json", **headers: str) -> Response:
    given = {"accept": accept, "host": "h:6443"} | {k.replace("_", "-"): v for k, v in headers.items()}
    found = discovery.handle(Request("GET", target, given))
    assert found is not None, target
    return found


def body(target: str, accept: str = "application/json") -> Any:
    data = answer(target, accept).body
    assert isinstance(data, bytes)
    return json.loads(data)


def test_other_paths_are_for_others() -> None:
    for target in (
        "/healthz",
        "/apiv1",
        "/api/v2",
        "/api/v1/pods",
        "/apis/nope",
        "/apis/apps/v2",
        "/apis/apps/v1/deployments",
        "/openapi/v3/apis/nope/v1",
        "/openapi/v4",
    ):
        assert discovery.handle(Request("GET", target, {})) is None, target
    with pytest.raises(StatusError) as e:
        discovery.handle(Request("POST", "/api", {}))
    assert e.value.code == 405


def test_version_satisfies_version_checks() -> None:
    version = body("/version")
    assert (version["major"], version["minor"]) == ("1", "36")
    assert version["gitVersion"].startswith("v1.36.")
    assert version["gitVersion"].endswith("+sampan")


def test_legacy_discovery() -> None:
    assert body("/api")["versions"] == ["v1"]
    assert body("/api")["serverAddressByClientCIDRs"] == [{"clientCIDR": "0.0.0.0/0", "serverAddress": "h:6443"}]  # fmt: skip
    names = [g["name"] for g in body("/apis")["groups"]]
    assert names[:2] == ["apps", "events.k8s.io"]
    assert sorted(names) == sorted({r.group for r in RESOURCES if r.group})
    group = body("/apis/apps")
    assert (group["kind"], group["preferredVersion"]) == (
        "APIGroup",
        {"groupVersion": "apps/v1", "version": "v1"},
    )
    listed = {r["name"]: r for r in body("/api/v1")["resources"]}
    assert listed["pods"]["shortNames"] == ["po"]
    assert listed["pods"]["singularName"] == "pod"
    assert listed["pods/eviction"] == {
        "name": "pods/eviction",
        "singularName": "",
        "namespaced": True,
        "group": "policy",
        "version": "v1",
        "kind": "Eviction",
        "verbs": ["create"],
    }
    scale = next(r for r in body("/apis/apps/v1")["resources"] if r["name"] == "deployments/scale")
    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")


def test_the_first_form_that_both_know_is_given() -> None:
    chosen = answer("/apis", f"{AGGREGATED},{BETA},application/json")
    assert chosen.content_type == AGGREGATED
    assert answer("/apis", f"{BETA},application/json").content_type == "application/json"
    assert answer("/apis", "*/*").content_type == "application/json"
    assert answer("/apis", "").content_type == "application/json"
    with pytest.raises(StatusError) as e:
        answer("/apis", BETA)
    assert e.value.code == 406


def test_aggregated_discovery() -> None:
    (core,) = body("/api", AGGREGATED)["items"]
    rows = {r["resource"]: r for r in core["versions"][0]["resources"]}
    assert rows["nodes"]["scope"] == "Cluster"
    assert rows["pods"]["responseKind"] == {"group": "", "version": "", "kind": "Pod"}
    log = next(s for s in rows["pods"]["subresources"] if s["subresource"] == "log")
    assert log["verbs"] == ["get"]
    whole = body("/apis", AGGREGATED)
    assert whole["apiVersion"] == "apidiscovery.k8s.io/v2"
    assert whole["items"][0]["metadata"]["name"] == "apps"
    tag = dict(answer("/apis", AGGREGATED).headers)["ETag"]
    assert answer("/apis", AGGREGATED, if_none_match=tag).status == 304


def test_openapi_v3() -> None:
    paths = body("/openapi/v3")["paths"]
    assert set(paths) >= {"api/v1", "apis/apps/v1"}
    url = paths["apis/apps/v1"]["serverRelativeURL"]
    found = answer(url)
    assert "immutable" in dict(found.headers)["Cache-Control"]
    assert answer(url, if_none_match=dict(found.headers)["ETag"]).status == 304
    assert "Cache-Control" not in dict(answer("/openapi/v3/apis/apps/v1").headers)
    moved = answer("/openapi/v3/apis/apps/v1?hash=OLD")
    assert (moved.status, dict(moved.headers)["Location"]) == (301, url)
    assert body(url)["openapi"] == "3.0.0"


def test_openapi_v2() -> None:
    document = body("/openapi/v2")
    assert document["swagger"] == "2.0"
    tag = dict(answer("/openapi/v2").headers)["ETag"]
    assert answer("/openapi/v2", if_none_match=tag).status == 304
    protobuf = answer("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
    assert protobuf.content_type == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    assert dict(protobuf.headers)["ETag"] != tag
    with pytest.raises(StatusError) as e:
        answer("/openapi/v2", "application/xml")
    assert e.value.code == 406


def test_the_root_lists_the_paths() -> None:
    paths = body("/")["paths"]
    assert {"/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v2", "/version"} <= set(
        paths
    )
    assert paths == sorted(paths)
