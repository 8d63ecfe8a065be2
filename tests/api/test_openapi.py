from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.api import openapi, resources, schema


def _v3(path: str) -> Any:
    body = openapi.v3(path)
    assert body is not None
    return json.loads(body)


def _refs(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*map(_refs, value.values()))
    return set().union(*map(_refs, value)) if isinstance(value, list) else set()


def test_index_names_every_group_version() -> None:
    index = json.loads(openapi.v3_index())["paths"]
    assert set(index) == {
        f"apis/{r.group}/{r.version}" if r.group else f"api/{r.version}" for r in resources.RESOURCES
    }
    for path, entry in index.items():
        assert entry["serverRelativeURL"].startswith(f"/openapi/v3/{path}?hash=")
    assert openapi.v3("apis/nobody/v1") is None
    assert openapi.etag("api/v1") != openapi.etag("v2")


@pytest.mark.parametrize("path", openapi.v3_paths())
def test_v3_is_closed(path: str) -> None:
    document = _v3(path)
    schemas = document["components"]["schemas"]
    assert all(s is not None for s in schemas.values())
    assert _refs(document) <= {f"#/components/schemas/{name}" for name in schemas}
    ids = [
        op["operationId"]
        for item in document["paths"].values()
        for op in item.values()
        if isinstance(op, dict)
    ]
    assert len(ids) == len(set(ids))


def test_what_kubectl_looks_for() -> None:
    """Server-side validation and strategic patches need a patch operation that says so; explain needs the type."""
    patched = set()
    for path in openapi.v3_paths():
        document = _v3(path)
        for item in document["paths"].values():
            if operation := item.get("patch"):
                if operation["x-kubernetes-action"] != "patch":
                    continue
                gvk = operation["x-kubernetes-group-version-kind"]
                names = {(p["name"], p["in"]) for p in operation["parameters"]}
                assert {("fieldValidation", "query"), ("dryRun", "query"), ("fieldManager", "query")} <= names
                assert "application/strategic-merge-patch+json" in operation["requestBody"]["content"]
                patched.add((gvk["group"], gvk["version"], gvk["kind"]))
        typed = {
            (g["group"], g["version"], g["kind"])
            for s in document["components"]["schemas"].values()
            for g in s.get("x-kubernetes-group-version-kind", ())
        }
        for resource in resources.RESOURCES:
            if path == resource.path().removeprefix("/").rpartition("/")[0]:
                assert (resource.group, resource.version, resource.kind) in typed
    assert patched >= {(r.group, r.version, r.kind) for r in resources.RESOURCES if "patch" in r.verbs}


def test_v3_of_pods() -> None:
    document = _v3("api/v1")
    pod = document["components"]["schemas"]["io.k8s.api.core.v1.Pod"]
    assert pod["type"] == "object"
    assert pod["properties"]["spec"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]
    assert "enum" not in pod["properties"]["kind"]
    containers = document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    paths = document["paths"]
    assert paths["/api/v1/namespaces/{namespace}/pods"]["get"]["x-kubernetes-action"] == "list"
    assert paths["/api/v1/pods"]["get"]["operationId"] == "listCoreV1ForAllNamespacesPod"
    eviction = paths["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]
    assert eviction["x-kubernetes-group-version-kind"] == {
        "group": "policy", "kind": "Eviction", "version": "v1",
    }  # fmt: skip
    exec_ = paths["/api/v1/namespaces/{namespace}/pods/{name}/exec"]
    assert exec_["post"]["x-kubernetes-action"] == "connect"
    assert {p["name"] for p in exec_["parameters"]} == {"namespace", "name"}


def test_v3_of_deployments() -> None:
    schemas = _v3("apis/apps/v1")["components"]["schemas"]
    replicas = schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["replicas"]
    assert (replicas["type"], replicas["format"]) == ("integer", "int32")
    assert schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"] == "int-or-string"


def test_v2() -> None:
    document = json.loads(openapi.v2())
    assert document["swagger"] == "2.0"
    assert _refs(document) <= {f"#/definitions/{name}" for name in document["definitions"]}
    for resource in resources.RESOURCES:
        definition = document["definitions"][resource.definition]
        assert {
            "group": resource.group,
            "version": resource.version,
            "kind": resource.kind,
        } in definition["x-kubernetes-group-version-kind"]
    assert document["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"] == {"type": "string"}
    identities = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
    ]
    assert len(identities) == len(set(identities))
    assert len(document["definitions"]) < len(schema.definitions())
