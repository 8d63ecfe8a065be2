from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest

from sampan.api import openapi, openapi_protobuf


def read(message: bytes) -> dict[int, list[Any]]:
    """A message's fields by number, as any reader of the wire format sees them."""
    fields: dict[int, list[Any]] = defaultdict(list)
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            fields[number].append(varint())
            continue
        assert kind == 2
        size = varint()
        fields[number].append(message[at : at + size])
        at += size
    return fields


def named(entries: list[bytes]) -> dict[str, bytes]:
    return {read(e)[1][0].decode(): read(e)[2][0] for e in entries}


def test_the_document() -> None:
    plain = json.loads(openapi.v2())
    document = read(openapi.v2_protobuf())
    assert document[1] == [b"2.0"]
    definitions = named(read(document[9][0])[1])
    assert definitions.keys() == plain["definitions"].keys()

    deployment = read(definitions["io.k8s.api.apps.v1.Deployment"])
    extensions = named(deployment[31])
    kinds = json.loads(read(extensions["x-kubernetes-group-version-kind"])[2][0])
    assert kinds == [{"group": "apps", "kind": "Deployment", "version": "v1"}]
    assert read(deployment[22][0])[1] == [b"object"]
    properties = named(read(deployment[25][0])[1])
    assert read(properties["spec"])[1] == [b"#/definitions/io.k8s.api.apps.v1.DeploymentSpec"]
    labels = named(read(read(definitions["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"])[25][0])[1])[
        "labels"
    ]
    assert read(read(read(read(labels)[21][0])[1][0])[22][0])[1] == [b"string"]

    paths = named(read(document[8][0])[2])
    assert paths.keys() == plain["paths"].keys()
    path = "/api/v1/namespaces/{namespace}/pods"
    created = read(read(paths[path])[4][0])
    assert created[5] == [plain["paths"][path]["post"]["operationId"].encode()]
    assert named(read(created[9][0])[1]).keys() == {"200", "401"}
    parameters = [read(read(p)[1][0]) for p in created[8]]
    assert [read(p[1][0])[2] for p in parameters if 1 in p] == [[b"body"]]
    assert b"dryRun" in [read(read(p[2][0])[3][0])[4][0] for p in parameters if 2 in p]


def test_what_has_no_field_is_refused() -> None:
    with pytest.raises(ValueError, match="Document has no field for 'basePath'"):
        openapi_protobuf.encode({"basePath": "/"})
