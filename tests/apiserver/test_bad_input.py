"""Requests that are wrong, over real HTTPS: each is answered with one clear Status that says where and what, nothing of it is
stored, and the next request is served."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.running import Running, running

NS = "/api/v1/namespaces/default"
CM, PODS, SECRETS, SERVICES = f"{NS}/configmaps", f"{NS}/pods", f"{NS}/secrets", f"{NS}/services"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
JSON_PATCH, MERGE, STRATEGIC, APPLY = (
    f"application/{kind}" for kind in ("json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
)  # fmt: skip

Case = tuple[str, str, str, str, bytes, int, str, str]
"""What it is; method, target, media type, body; code, reason and a part of the message."""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        made.ok("POST", CM, {"metadata": {"name": "kept"}, "data": {"a": "1"}})
        yield made


def config_map(**fields: Any) -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad"}, **fields}).encode()  # fmt: skip


def named(name: str = "bad", **metadata: Any) -> bytes:
    return json.dumps({"metadata": {"name": name, **metadata}}).encode()


def deployment(replicas: bytes) -> bytes:
    template = b'{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}'
    spec = b'{"selector":{"matchLabels":{"a":"b"}},"template":%b,"replicas":%b}' % (template, replicas)
    return b'{"metadata":{"name":"bad"},"spec":%b}' % spec


def pod(**container: Any) -> bytes:
    containers = [{"name": "c", "image": "i", **container}]
    return json.dumps({"metadata": {"name": "bad"}, "spec": {"containers": containers}}).encode()


def token(**parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def bodies() -> Iterator[Case]:
    """Bodies that are no object."""
    data = config_map(data={"a": "MARK"})
    for what, body, said in (
        ("nothing", b"", "empty"),
        ("blanks", b"  \n ", "empty"),
        ("text", b"hello", "invalid character (byte 0)"),
        ("truncated", config_map()[:-2], "unexpected end of JSON input"),
        ("list", b"[]", "cannot unmarshal array"),
        ("null", b"null", "cannot unmarshal null"),
        ("number", b"3", "cannot unmarshal number"),
        ("string", b'"x"', "cannot unmarshal string"),
        ("two objects", config_map() + b"{}", "trailing characters"),
        ("BOM", b"\xef\xbb\xbf" + config_map(), "byte order mark"),
        ("UTF-16", config_map().decode().encode("utf-16"), "byte order mark"),
        ("NUL", data.replace(b"MARK", b"\0"), "invalid character (byte "),
        ("no UTF-8", data.replace(b"MARK", b"\xff\xfe"), "is not UTF-8"),
        ("half a surrogate pair", data.replace(b"MARK", b"\\ud800"), "half of a surrogate pair"),
        ("the other half", data.replace(b"MARK", b"\\udc00"), "half of a surrogate pair"),
        ("10,000 levels", b'{"data":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001, "exceeded max depth"),
        ("10,000 lists", b"[" * 10_000 + b"]" * 10_000, "exceeded max depth"),
        ("100 levels", b'{"data":' + b'{"a":' * 100 + b"1" + b"}" * 101, "data[a]"),
    ):
        yield what, "POST", CM, JSON, body, 400, "BadRequest", said
        yield f"{what}, PUT", "PUT", f"{CM}/kept", JSON, body, 400, "BadRequest", said
    big = config_map(data={"a": "x" * 10_000_000})
    for method, target in (("POST", CM), ("PUT", f"{CM}/kept"), ("PATCH", f"{CM}/kept"), ("DELETE", f"{CM}/none")):  # fmt: skip
        media = MERGE if method == "PATCH" else JSON
        yield "10 MB", method, target, media, big, 413, "RequestEntityTooLarge", "limit is 3145728"
    for what, body, said in (
        ("itself", b"a: &a [*a]", "recursive"),
        ("tags", b"!!python/object/apply:os.system ['true']", "python/object/apply"),
        ("tab", b"\tx: 1", "tab"),
        ("documents", b"a: 1\n---\nb: 2", "another document"),
        ("truncated", b'{"a":', "line 2"),
        ("NaN", b"spec: {replicas: .nan}", ".nan"),
        ("infinity", b"spec: {replicas: .inf}", ".inf"),
    ):
        yield f"YAML: {what}", "POST", CM, YAML, body, 400, "BadRequest", said


def types() -> Iterator[Case]:
    """Values that are not of their field's type."""
    for what, body, said in (
        ("a number as a map", config_map(data=3), "data: 3 given"),
        ("a list as a map", config_map(data=[]), "data: [] given"),
        ("a number as a text", config_map(data={"a": 1}), "data[a]: 1 given, a string expected"),
        ("a text as metadata", config_map(metadata="x"), 'metadata: "x" given, an object expected'),
        ("a number as a name", config_map(metadata={"name": 1}), "metadata.name: 1 given"),
        ("labels as a list", named(labels=[1]), "metadata.labels: [1] given"),
        ("a number as a label", named(labels={"a": 1}), "metadata.labels[a]: 1 given"),
        ("a list as kind", config_map(kind=[]), "kind is a text, not []"),
        ("an object as apiVersion", config_map(apiVersion={}), "apiVersion is a text, not {}"),
        ("no base64", config_map(binaryData={"a": "???"}), 'binaryData[a]: "???" given'),
    ):
        yield what, "POST", CM, JSON, body, 400, "BadRequest", said
    for number, said in (
        (b"2147483648", "2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (b"9223372036854775808", "9223372036854775808 into Go struct field DeploymentSpec.spec.replicas"),
        (b"1e400", "number 1e400 into spec.replicas: it is out of range"),
        (b"9" * 5000, "into spec.replicas: it is out of range"),
        (b"1.5", "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (b'"3"', "string into Go struct field DeploymentSpec.spec.replicas"),
        (b"true", "bool into Go struct field DeploymentSpec.spec.replicas"),
        (b"NaN", "invalid character (byte "),
        (b"+1", "invalid character (byte "),
        (b"01", "invalid number (byte "),
    ):
        shown = number.decode()[:20]
        yield f"replicas {shown}", "POST", DEPLOYMENTS, JSON, deployment(number), 400, "BadRequest", said
    yield "replicas -1", "POST", DEPLOYMENTS, JSON, deployment(b"-1"), 422, "Invalid", "spec.replicas: Invalid value: -1"  # fmt: skip


def names() -> Iterator[Case]:
    """Names, kinds and versions."""
    for name in ("Bad", "a_b", "x" * 254, "a/b", "..", "-a", "a.", "é", "a b"):
        yield f"name {name[:9]}", "POST", CM, JSON, named(name), 422, "Invalid", "metadata.name: Invalid value"  # fmt: skip
    yield "no name", "POST", CM, JSON, b'{"metadata":{}}', 422, "Invalid", "metadata.name: Required value"
    yield "no metadata", "POST", CM, JSON, b"{}", 422, "Invalid", "metadata.name: Required value"
    base = b'{"metadata":{"generateName":"A_"}}'
    yield "generateName", "POST", CM, JSON, base, 422, "Invalid", "metadata.generateName: Invalid value"
    yield "namespace a.b", "POST", "/api/v1/namespaces", JSON, named("a.b"), 422, "Invalid", "must not contain dots"  # fmt: skip
    ports = b'{"metadata":{"name":"1a"},"spec":{"ports":[{"port":80}]}}'
    yield "service 1a", "POST", SERVICES, JSON, ports, 422, "Invalid", "DNS-1035"
    other = "does not match the namespace sent on the request"
    yield "another namespace", "POST", CM, JSON, named(namespace="other"), 400, "BadRequest", other
    yield "no such namespace", "POST", "/api/v1/namespaces/none/configmaps", JSON, named(), 404, "NotFound", 'namespaces "none" not found'  # fmt: skip
    yield "another name", "PUT", f"{CM}/kept", JSON, named("other"), 400, "BadRequest", "(other) does not match the name on the URL (kept)"  # fmt: skip
    for fields, said in (
        ({"kind": "Secret"}, "Secret"),
        ({"kind": "Nonsense"}, "Nonsense"),
        ({"apiVersion": "v9"}, "(v9) does not match the expected API version (v1)"),
        ({"apiVersion": "a/b/c"}, "(a/b/c) does not match"),
    ):
        yield f"{fields}", "POST", CM, JSON, config_map(**fields), 400, "BadRequest", said
    for path in ("/api/v9/namespaces/default/configmaps", "/apis/no.such/v1/things", "/apis/apps/v1beta1/deployments"):  # fmt: skip
        for method in ("GET", "POST"):
            yield path, method, path, JSON, named(), 404, "NotFound", "could not find the requested resource"
    for path, method in (
        (CM, "PUT"), (CM, "PATCH"), (f"{CM}/kept", "POST"), (CM, "OPTIONS"), (CM, "TRACE"), ("/api/v1/configmaps", "POST"),
    ):  # fmt: skip
        media = MERGE if method == "PATCH" else JSON
        yield "method", method, path, media, named(), 405, "MethodNotAllowed", "does not allow this method"


def media_types() -> Iterator[Case]:
    for media in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "application/cbor", "json", "*/*", APPLY, MERGE, JSON_PATCH):  # fmt: skip
        yield media, "POST", CM, media, config_map(), 415, "UnsupportedMediaType", JSON
        yield media, "DELETE", f"{CM}/none", media, b"{}", 415, "UnsupportedMediaType", JSON
    for media in (JSON, YAML, "", "text/plain", "application/patch"):
        yield f"patch: {media}", "PATCH", f"{CM}/kept", media, b"{}", 415, "UnsupportedMediaType", MERGE
    yield "protobuf", "POST", CM, PROTOBUF, config_map(), 400, "BadRequest", "expected prefix"
    yield "protobuf", "POST", CM, PROTOBUF, b"k8s\0\xff\xff", 400, "BadRequest", "protobuf"


def options() -> Iterator[Case]:
    """Queries, continue tokens and resource versions."""
    for query, code, said in (
        ("fieldValidation=X", 422, 'fieldValidation: Unsupported value: "X": supported values: "", "Ignore", "Strict", "Warn"'),
        ("dryRun=X", 422, 'dryRun: Unsupported value: ["X"]: supported values: "All"'),
        ("fieldManager=" + "x" * 129, 422, "fieldManager: Too long: may not be more than 128 bytes"),
        ("fieldManager=%01", 422, "fieldManager: Invalid value"),
        ("timeout=x", 400, 'time: invalid duration "x"'),
    ):  # fmt: skip
        reason = "Invalid" if code == 422 else "BadRequest"
        yield query[:20], "POST", f"{CM}?{query}", JSON, named(), code, reason, said
    strict = f"{CM}?fieldValidation=Strict"
    twice = b'{"metadata":{"name":"bad"},"data":{"a":"1","a":"2"}}'
    yield "twice", "POST", strict, JSON, twice, 400, "BadRequest", 'duplicate field "data.a"'
    yield "unknown", "POST", strict, JSON, config_map(dota={}), 400, "BadRequest", 'unknown field "dota"'
    outside = token(v="meta.k8s.io/v1", rv=5, start="../../secrets/")
    for query, code, reason, said in (
        ("limit=1&continue=x", 400, "BadRequest", "continue key is not valid"),
        ("limit=1&continue=" + "A" * 9000, 400, "BadRequest", "continue key is not valid"),
        (f"limit=1&continue={token(v='meta.k8s.io/v9', rv=1, start='a')}", 400, "BadRequest", "continue"),
        (f"limit=1&continue={token(v='meta.k8s.io/v1', rv=0, start='a')}", 400, "BadRequest", "continue"),
        (f"limit=1&continue={token(v='meta.k8s.io/v1', rv='x', start=[])}", 400, "BadRequest", "continue"),
        (f"limit=1&continue={outside}", 400, "BadRequest", "continue key is not valid"),
        ("limit=x", 400, "BadRequest", 'limit: "x" is not a whole number'),
        ("limit=99999999999999999999", 400, "BadRequest", "limit: "),
        ("resourceVersion=x", 400, "BadRequest", 'resourceVersion: Invalid value: "x"'),
        ("resourceVersion=-1", 400, "BadRequest", 'resourceVersion: Invalid value: "-1"'),
        ("watch=1&resourceVersion=x", 400, "BadRequest", 'resourceVersion: Invalid value: "x"'),
        ("resourceVersion=999999999&resourceVersionMatch=Exact", 504, "Timeout", "Too large resource version: 999999999"),
        ("resourceVersion=1&resourceVersionMatch=No", 422, "Invalid", 'resourceVersionMatch: Unsupported value: "No"'),
        ("labelSelector=a%3D%3D%3Db", 400, "BadRequest", "unable to parse requirement"),
        ("fieldSelector=data.a%3Db", 400, "BadRequest", '"data.a" is not a known field selector'),
    ):  # fmt: skip
        yield query[:30], "GET", f"{CM}?{query}", "", b"", code, reason, said
    yield "version of a new one", "POST", CM, JSON, named(resourceVersion="1"), 400, "BadRequest", "resourceVersion should not be set"  # fmt: skip
    for version in ("1", "x", "-1", "99999999999999999999999"):
        body = named("kept", resourceVersion=version)
        yield f"version {version}", "PUT", f"{CM}/kept", JSON, body, 409, "Conflict", "has been modified"
    yield "uid", "PUT", f"{CM}/kept", JSON, named("kept", uid="x"), 409, "Conflict", "UID in precondition: x"


def limits() -> Iterator[Case]:
    for metadata, said in (
        ({"labels": {"a b": "c"}}, 'metadata.labels: Invalid value: "a b": name part must consist of'),
        ({"labels": {"a": "x" * 64}}, "must be no more than 63 bytes"),
        ({"labels": {"x" * 64: "a"}}, "name part must be no more than 63 bytes"),
        ({"labels": {"": ""}}, "name part must be non-empty"),
        ({"labels": {f"{'x' * 254}/a": ""}}, "prefix part"),
        ({"annotations": {"a b/c/d": ""}}, 'metadata.annotations: Invalid value: "a b/c/d"'),
        ({"annotations": {"a": "x" * 262_144}}, "metadata.annotations: Too long: may not be more than 262144 bytes"),
        ({"finalizers": ["a b"]}, "metadata.finalizers"),
        ({"ownerReferences": [{"apiVersion": "", "kind": "", "name": "", "uid": ""}]}, "metadata.ownerReferences"),
    ):  # fmt: skip
        yield str(metadata)[:40], "POST", CM, JSON, named(**metadata), 422, "Invalid", said
    mebibyte = "x" * (1024 * 1024 + 1)
    too_long = "Too long: may not be more than 1048576 bytes"
    yield "1 MiB", "POST", CM, JSON, config_map(data={"a": mebibyte}), 422, "Invalid", too_long
    secret = json.dumps({"metadata": {"name": "bad"}, "stringData": {"a": mebibyte}}).encode()
    yield "1 MiB", "POST", SECRETS, JSON, secret, 422, "Invalid", f"data: {too_long}"
    yield "keys", "POST", CM, JSON, config_map(data={"a/b": "x"}), 422, "Invalid", "data[a/b]: Invalid value"
    yield "..", "POST", CM, JSON, config_map(data={"..": "x"}), 422, "Invalid", "data[..]: Invalid value"
    both = config_map(data={"a": ""}, binaryData={"a": ""})
    yield "in both", "POST", CM, JSON, both, 422, "Invalid", "data[a]: Invalid value"
    for container, code, said in (
        ({"image": ""}, 422, "spec.containers[0].image: Required value"),
        ({"image": " i"}, 422, "spec.containers[0].image: Invalid value"),
        ({"ports": [{"containerPort": 70000}]}, 422, "spec.containers[0].ports[0].containerPort: Invalid value: 70000"),
        ({"ports": [{"containerPort": -(2**31)}]}, 422, "containerPort: Invalid value"),
        ({"imagePullPolicy": "No"}, 422, 'spec.containers[0].imagePullPolicy: Unsupported value: "No"'),
        ({"livenessProbe": {}}, 422, "spec.containers[0].livenessProbe"),
        ({"resources": {"limits": {"cpu": "1Zi"}}}, 400, "spec.containers[0].resources.limits[cpu]"),
        ({"resources": {"limits": {"cpu": "-1"}}}, 422, "spec.containers[0].resources.limits[cpu]: Invalid value"),
        ({"name": "C"}, 422, 'spec.containers[0].name: Invalid value: "C"'),
    ):  # fmt: skip
        reason = "Invalid" if code == 422 else "BadRequest"
        yield str(container)[:40], "POST", PODS, JSON, pod(**container), code, reason, said
    none = b'{"metadata":{"name":"bad"},"spec":{"containers":[]}}'
    yield "no containers", "POST", PODS, JSON, none, 422, "Invalid", "spec.containers: Required value"
    yield "no spec", "POST", PODS, JSON, named(), 422, "Invalid", "spec.containers: Required value"


def deletions() -> Iterator[Case]:
    kept = f"{CM}/kept"
    for body, code, said in (
        (b"garbage", 400, "invalid character"),
        (b"[]", 400, "cannot unmarshal array"),
        (b'{"kind":"Pod","apiVersion":"v1"}', 400, "not a Pod"),
        (b'{"gracePeriodSeconds":"x"}', 400, 'gracePeriodSeconds: "x" given'),
        (b'{"gracePeriodSeconds":1e400}', 400, "gracePeriodSeconds: it is out of range"),
        (b'{"preconditions":3}', 400, "preconditions: 3 given"),
        (b'{"preconditions":{"uid":"x"}}', 409, "the UID in the precondition (x)"),
        (b'{"preconditions":{"resourceVersion":"x"}}', 409, "ResourceVersion in the precondition (x)"),
        (b'{"propagationPolicy":"X"}', 422, 'propagationPolicy: Unsupported value: "X"'),
        (b'{"propagationPolicy":"Orphan","orphanDependents":true}', 422, "propagationPolicy: Invalid value"),
        (b'{"dryRun":["x"]}', 422, 'dryRun: Unsupported value: ["x"]'),
    ):
        reason = {400: "BadRequest", 409: "Conflict", 422: "Invalid"}[code]
        yield body.decode(), "DELETE", kept, JSON, body, code, reason, said
    yield "?grace", "DELETE", f"{kept}?gracePeriodSeconds=x", "", b"", 400, "BadRequest", "gracePeriodSeconds"
    yield "?policy", "DELETE", f"{kept}?propagationPolicy=x", "", b"", 422, "Invalid", "propagationPolicy"
    yield "all, limit", "DELETE", f"{CM}?limit=x", "", b"", 400, "BadRequest", "limit"
    yield "all, selector", "DELETE", f"{CM}?labelSelector=(", "", b"", 400, "BadRequest", "found '('"


def patches() -> Iterator[Case]:
    many = b"[" + b",".join([b'{"op":"add","path":"/data/x","value":"y"}'] * 10_001) + b"]"
    for media, body, code, reason, said in (
        (JSON_PATCH, b"{}", 400, "BadRequest", ""),
        (JSON_PATCH, b'[{"op":"x","path":"/a"}]', 422, "Invalid", "x"),
        (JSON_PATCH, b'[{"op":"remove","path":"/data/none"}]', 422, "Invalid", "/data/none"),
        (JSON_PATCH, b'[{"op":"test","path":"/data/a","value":"2"}]', 422, "Invalid", "/data/a"),
        (JSON_PATCH, b'[{"op":"add","path":"/data/b","value":"2"},{"op":"remove","path":"/no"}]', 422, "Invalid", "/no"),
        (JSON_PATCH, many, 413, "RequestEntityTooLarge", "10000"),
        (JSON_PATCH, b'[{"op":"add","path":"/data/x","value":1e400}]', 400, "BadRequest", "out of range"),
        (MERGE, b"[]", 400, "BadRequest", ""),
        (MERGE, b"3", 400, "BadRequest", ""),
        (MERGE, b'{"data":3}', 422, "Invalid", "data: 3 given"),
        (MERGE, b'{"data":{"a/b":"x"}}', 422, "Invalid", "data[a/b]"),
        (MERGE, b'{"metadata":{"name":"x"}}', 400, "BadRequest", "name"),
        (MERGE, b'{"metadata":{"resourceVersion":"1"}}', 409, "Conflict", "has been modified"),
        (STRATEGIC, b"nope", 400, "BadRequest", "error decoding patch"),
        (STRATEGIC, b'{"data":{"$patch":"x"}}', 400, "BadRequest", "x"),
        (STRATEGIC, b'{"metadata":[]}', 422, "Invalid", "metadata"),
    ):  # fmt: skip
        yield body.decode()[:60], "PATCH", f"{CM}/kept", media, body, code, reason, said
    applied = f"{CM}/kept?fieldManager=m"
    yield "no manager", "PATCH", f"{CM}/kept", APPLY, config_map(), 422, "Invalid", "fieldManager: Required value"  # fmt: skip
    yield "truncated", "PATCH", applied, APPLY, b'{"a":', 400, "BadRequest", "line 2"
    yield "no kind", "PATCH", applied, APPLY, b"{}", 400, "BadRequest", ""
    other = config_map(metadata={"name": "kept", "managedFields": []})
    yield "managedFields", "PATCH", applied, APPLY, other, 400, "BadRequest", "metadata.managedFields must be nil"  # fmt: skip
    yield "no such object", "PATCH", f"{CM}/none", MERGE, b"{}", 404, "NotFound", 'configmaps "none" not found'  # fmt: skip


CASES = [case for part in (bodies, types, names, media_types, options, limits, deletions, patches) for case in part()]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{c[1]} {c[0]}" for c in CASES])
def test_one_clear_status_and_nothing_stored(server: Running, case: Case) -> None:
    _, method, target, media, body, code, reason, said = case
    kinds = (CM, PODS, SECRETS, SERVICES, DEPLOYMENTS, "/api/v1/namespaces")
    before = [server.ok("GET", kind)["items"] for kind in kinds]
    answer = server(method, target, body, **({"Content_Type": media} if media else {}))
    assert answer.status == code, answer.body[:600]
    assert answer.headers["content-type"] == "application/json"
    status = answer.json
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert (status["code"], status["reason"]) == (code, reason), status["message"]
    assert said in status["message"]
    assert len(status["message"]) < 4000
    assert not any(word in status["message"] for word in ("Traceback", ".py", "codec", "$[", "object at 0x"))
    if code == 422 and media != JSON_PATCH:
        assert all(cause["field"] and cause["message"] for cause in status["details"]["causes"])
    assert [server.ok("GET", kind)["items"] for kind in kinds] == before


def test_a_body_that_is_too_large_is_not_read_to_its_end(server: Running) -> None:
    """The answer comes while 3 GB are still announced, and nothing more is taken."""
    connection = server._connection
    connection.close()
    connection.connect()
    sock: socket.socket = connection.sock
    sock.sendall(
        f"POST {CM} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nContent-Length: 3000000000\r\n\r\n".encode()
    )
    answer = b""
    while part := sock.recv(65536):
        answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["reason"] == "RequestEntityTooLarge"
    connection.close()
