"""The compiled types: forms that OpenAPI does not tell apart, and the extensions that patches and apply read."""

from __future__ import annotations

import pytest

from sampan.api import resources, schema

POD_SPEC = "io.k8s.api.core.v1.PodSpec"


@pytest.mark.parametrize(
    ("definition", "field", "type_", "format_"),
    [
        ("io.k8s.api.core.v1.ContainerPort", "containerPort", "integer", "int32"),
        (POD_SPEC, "terminationGracePeriodSeconds", "integer", "int64"),
        (POD_SPEC, "hostNetwork", "boolean", ""),
        (POD_SPEC, "nodeSelector", "map", ""),
        (POD_SPEC, "containers", "array", ""),
        (POD_SPEC, "affinity", "object", ""),
        ("io.k8s.api.core.v1.ServicePort", "targetPort", "int-or-string", ""),
        ("io.k8s.api.core.v1.EmptyDirVolumeSource", "sizeLimit", "string", "quantity"),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp", "string", "time"),
        ("io.k8s.api.coordination.v1.LeaseSpec", "renewTime", "string", "micro-time"),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry", "fieldsV1", "any", ""),
        ("io.k8s.api.core.v1.Volume", "emptyDir", "object", ""),
    ],
)
def test_forms(definition: str, field: str, type_: str, format_: str) -> None:
    node = schema.node(definition).fields[field]
    assert (node.type, node.format) == (type_, format_)


def test_items() -> None:
    spec = schema.node(POD_SPEC)
    limits = schema.node("io.k8s.api.core.v1.ResourceRequirements").fields["limits"]
    assert limits.items is not None
    assert limits.items.format == "quantity"
    data = schema.node("io.k8s.api.core.v1.Secret").fields["data"]
    assert data.items is not None
    assert data.items.format == "byte"
    containers = spec.fields["containers"]
    assert containers.items is schema.node("io.k8s.api.core.v1.Container")
    assert containers.items.required == ("name",)


def test_extensions() -> None:
    fields = schema.node(POD_SPEC).fields
    assert (fields["containers"].list_type, fields["containers"].list_map_keys) == ("map", ("name",))
    assert (fields["containers"].patch_strategy, fields["containers"].patch_merge_key) == (("merge",), "name")
    assert fields["volumes"].patch_strategy == ("merge", "retainKeys")
    assert fields["nodeSelector"].map_type == "atomic"
    strategy = schema.node("io.k8s.api.apps.v1.DeploymentSpec").fields["strategy"]
    assert strategy.patch_strategy == ("retainKeys",)
    assert strategy.fields is schema.node("io.k8s.api.apps.v1.DeploymentStrategy").fields


def test_types_that_contain_themselves() -> None:
    props = schema.node("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    inner = props.fields["properties"].items
    assert inner is props
    assert props.fields["default"].type == "any"


def test_unknown_definition() -> None:
    with pytest.raises(KeyError):
        schema.node("io.k8s.api.core.v1.Nothing")


@pytest.mark.parametrize("resource", resources.RESOURCES, ids=lambda r: f"{r.group}/{r.kind}")
def test_each_served_resource_has_a_type_that_names_it(resource: resources.Resource) -> None:
    node = schema.node(resource.definition)
    assert node.kind == resource.kind
    assert {"apiVersion", "kind", "metadata"} <= node.fields.keys()
    assert node.fields["kind"].enum == (resource.kind,)
    found = schema.definitions()[resource.definition]["x-kubernetes-group-version-kind"]
    assert {"group": resource.group, "version": resource.version, "kind": resource.kind} in found
