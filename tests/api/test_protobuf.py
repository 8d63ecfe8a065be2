from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import protobuf, resources, schema
from sampan.api.errors import StatusError
from tests.programs import kubectl_problem


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return (
        b"k8s\x00"
        + field(1, field(1, api_version) + field(2, kind))
        + field(2, raw)
        + field(3, "")
        + field(4, "")
    )


def test_scalars_maps_lists_and_bytes() -> None:
    meta = (
        field(1, "c")
        + field(2, "")
        + field(3, "ns")
        + field(7, 0)
        + field(8, b"")
        + field(11, field(1, "a") + field(2, "b"))
    )
    raw = (
        field(1, meta)
        + field(2, field(1, "k") + field(2, "v"))
        + field(3, field(1, "b") + field(2, b"\x00\xff"))
        + field(4, 0)
    )
    assert protobuf.decode(envelope("v1", "ConfigMap", raw)) == {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": "c", "namespace": "ns", "labels": {"a": "b"}},
        "data": {"k": "v"},
        "binaryData": {"b": base64.b64encode(b"\x00\xff").decode()},
        "immutable": False,
    }


def test_pods() -> None:
    port = field(1, "") + field(2, 0) + field(3, 80) + field(4, "TCP") + field(5, "")
    limits = field(1, field(1, "cpu") + field(2, field(1, "100m")))
    probe = (
        field(1, field(2, field(1, "/") + field(2, field(1, 1) + field(2, 0) + field(3, "http"))))
        + field(2, 0)
        + field(3, 5)
    )
    container = (
        field(1, "web")
        + field(2, "nginx")
        + field(6, port)
        + field(8, limits)
        + field(10, probe)
        + field(18, 0)
    )
    volume = field(1, "v") + field(2, field(19, field(1, field(1, "cm")) + field(3, 420)))
    spec = (
        field(1, volume)
        + field(2, container)
        + field(3, "Always")
        + field(4, 0)
        + field(14, field(2, 0) + field(4, 5) + field(4, 6))
        + field(41, "h")
    )
    got = protobuf.decode(
        envelope("v1", "Pod", field(1, field(1, "p")) + field(2, spec) + field(3, field(17, 0)))
    )
    assert got["spec"] == {
        "volumes": [{"name": "v", "configMap": {"name": "cm", "defaultMode": 420}}],
        "containers": [
            {
                "name": "web",
                "image": "nginx",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "timeoutSeconds": 5},
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsUser": 0, "supplementalGroups": [5, 6]},
        "hostnameOverride": "h",
    }
    assert got["status"] == {}


def test_times_reviews_and_options() -> None:
    times = field(3, field(1, 1767225600) + field(2, 5000)) + field(
        4, field(1, 1767225600) + field(2, 999999000)
    )
    lease = protobuf.decode(
        envelope("coordination.k8s.io/v1", "Lease", field(2, field(1, "") + field(2, -1) + times))
    )
    assert lease["spec"] == {
        "holderIdentity": "",
        "leaseDurationSeconds": -1,
        "acquireTime": "2026-01-01T00:00:00.000005Z",
        "renewTime": "2026-01-01T00:00:00.999999Z",
    }
    meta = (
        field(1, "n")
        + field(9, field(1, 1767225600))
        + field(17, field(1, "m") + field(7, field(1, b'{"f:a":{}}')))
    )
    namespace = protobuf.decode(envelope("v1", "Namespace", field(1, meta)))
    assert namespace["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"
    assert namespace["metadata"]["managedFields"] == [{"manager": "m", "fieldsV1": {"f:a": {}}}]
    extra = field(5, field(1, "scopes") + field(2, field(1, "a") + field(1, "b")))
    review = protobuf.decode(
        envelope("authorization.k8s.io/v1", "SubjectAccessReview", field(2, field(3, "u") + extra))
    )
    assert review["spec"] == {"user": "u", "extra": {"scopes": ["a", "b"]}}
    options = protobuf.decode(envelope("apps/v1", "DeleteOptions", field(1, 0) + field(4, "Foreground")))
    assert options == {
        "kind": "DeleteOptions",
        "apiVersion": "apps/v1",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Foreground",
    }


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"{}", 400, "expected prefix"),
        (envelope("v1", "Pizza", b""), 400, 'no kind "Pizza" is registered for version "v1"'),
        (envelope("v1", "ConfigMap", b"\x0a\x7f"), 400, "unexpected end"),
        (envelope("v1", "ConfigMap", field(1, 5)), 400, "a number where bytes"),
        (
            envelope("v1", "ConfigMap", field(99, "x")),
            400,
            "field 99 of io.k8s.api.core.v1.ConfigMap is not known",
        ),
    ],
)
def test_refused(body: bytes, code: int, message: str) -> None:
    with pytest.raises(StatusError, match=message) as e:
        protobuf.decode(body)
    assert e.value.code == code


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(StatusError):
        protobuf.decode(envelope("v1", "Pod", data))


def test_revisions_hold_anything() -> None:
    data = field(1, b'{"spec":{"a":[1]}}')
    got = protobuf.decode(envelope("apps/v1", "ControllerRevision", field(2, data) + field(3, 4)))
    assert (got["data"], got["revision"]) == ({"spec": {"a": [1]}}, 4)


def test_budgets() -> None:
    percent = field(1, 1) + field(2, 0) + field(3, "50%")
    spec = field(1, percent) + field(2, field(1, field(1, "a") + field(2, "b"))) + field(4, "AlwaysAllow")
    disrupted = field(1, "p") + field(2, field(1, 1767225600) + field(2, 0))
    status = field(1, 2) + field(2, disrupted) + field(3, 0) + field(4, 1) + field(5, 1) + field(6, 2)
    got = protobuf.decode(envelope("policy/v1", "PodDisruptionBudget", field(2, spec) + field(3, status)))
    assert got["spec"] == {
        "minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}, "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }  # fmt: skip
    assert got["status"]["disruptedPods"] == {"p": "2026-01-01T00:00:00Z"}
    assert (got["status"]["observedGeneration"], got["status"]["currentHealthy"]) == (2, 1)


def test_jobs() -> None:
    codes = field(2, "In") + field(3, 1) + field(3, 2)
    policy = field(1, field(1, "FailJob") + field(2, codes))
    spec = (
        field(1, 0)
        + field(6, b"")
        + field(10, 0)
        + field(11, policy)
        + field(16, field(1, field(1, "0-1") + field(2, 2)))
    )
    got = protobuf.decode(envelope("batch/v1", "Job", field(2, spec)))["spec"]
    # What Go holds by a pointer counts, even as zero.
    assert (got["parallelism"], got["suspend"]) == (0, False)
    assert got["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}}
    ]
    assert got["successPolicy"]["rules"] == [{"succeededIndexes": "0-1", "succeededCount": 2}]


def test_autoscalers() -> None:
    cpu = field(1, "cpu") + field(2, field(1, "Utilization") + field(4, 80))
    up = (
        field(1, "Max")
        + field(2, field(1, "Pods") + field(2, 4) + field(3, 15))
        + field(3, 0)
        + field(4, field(1, "50m"))
    )
    spec = field(2, 0) + field(3, 5) + field(4, field(1, "Resource") + field(4, cpu)) + field(5, field(1, up))
    got = protobuf.decode(envelope("autoscaling/v2", "HorizontalPodAutoscaler", field(2, spec)))["spec"]
    target = {"type": "Utilization", "averageUtilization": 80}
    assert got["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    assert (got["minReplicas"], got["maxReplicas"]) == (0, 5)
    assert got["behavior"]["scaleUp"] == {
        "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
        "stabilizationWindowSeconds": 0, "tolerance": "50m",
    }  # fmt: skip
    old = field(2, 2) + field(3, 5) + field(4, 70)
    got = protobuf.decode(envelope("autoscaling/v1", "HorizontalPodAutoscaler", field(2, old)))["spec"]
    assert (got["minReplicas"], got["maxReplicas"], got["targetCPUUtilizationPercentage"]) == (2, 5, 70)


CUSTOM_GROUPS = ("gateway.networking.k8s.io", "loadbalancer.sampan.io")


def test_the_table_fits_the_schema() -> None:
    """Every field of the table is in the schema, and every kind that is served can be read."""

    def check(definition: str, node: schema.Node, seen: set[str]) -> None:
        for f in protobuf._message(definition).values():
            if f.inline:
                check(f.inline, node, seen)
                continue
            place: Any = node.fields[f.name]
            while place.type in ("array", "map"):
                place = place.items
            if place.type != "object":
                assert place.type in ("string", "integer", "boolean", "int-or-string", "any")
            elif place.definition not in seen:
                seen.add(place.definition)
                check(place.definition, place, seen)

    for resource in resources.RESOURCES:
        # Kinds that are a CRD elsewhere have no protobuf there either.
        if resource.group not in CUSTOM_GROUPS:
            check(resource.definition, schema.node(resource.definition), set())


@contextlib.contextmanager
def api() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """A server that takes whatever is posted and answers with it as JSON."""
    posted: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path.partition("?")[0], self.headers["Content-Type"], body))
            obj = protobuf.decode(body) if body.startswith(protobuf.MAGIC) else json.loads(body)
            if obj["kind"] == "TokenRequest":
                obj["status"] = {"token": "t", "expirationTimestamp": "2026-01-01T00:00:00Z"}
            self._answer(201, obj)

        def _answer(self, code: int, obj: Any) -> None:
            data = json.dumps(obj).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", posted
        finally:
            server.shutdown()
            thread.join()


KUBECTL = [
    ("namespace web", {"kind": "Namespace", "metadata": {"name": "web"}}),
    ("serviceaccount bot", {"kind": "ServiceAccount", "apiVersion": "v1"}),
    ("configmap c --from-literal=a=b", {"kind": "ConfigMap", "data": {"a": "b"}}),
    (
        "secret generic s --from-literal=a=b",
        {"kind": "Secret", "data": {"a": base64.b64encode(b"b").decode()}},
    ),
    (
        "deployment d --image=nginx --replicas=2 --port=80",
        {
            "kind": "Deployment",
            "apiVersion": "apps/v1",
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "d"}},
                "strategy": {},
                "template": {
                    "metadata": {"labels": {"app": "d"}},
                    "spec": {
                        "containers": [
                            {"name": "nginx", "image": "nginx", "ports": [{"containerPort": 80}], "resources": {}}
                        ]
                    },
                },
            },
        },
    ),
    (
        "service nodeport n --tcp=80:http --node-port=30080",
        {
            "kind": "Service",
            "spec": {
                "type": "NodePort",
                "selector": {"app": "n"},
                "ports": [{"name": "80-http", "protocol": "TCP", "port": 80, "targetPort": "http", "nodePort": 30080}],
            },
        },
    ),
    (
        "ingress i --rule=h/*=svc:80",
        {
            "kind": "Ingress",
            "spec": {
                "rules": [
                    {
                        "host": "h",
                        "http": {
                            "paths": [
                                {
                                    "path": "/",
                                    "pathType": "Prefix",
                                    "backend": {"service": {"name": "svc", "port": {"number": 80}}},
                                }
                            ]
                        },
                    }
                ]
            },
        },
    ),
    (
        "rolebinding b --clusterrole=view --serviceaccount=ns:sa",
        {
            "kind": "RoleBinding",
            "subjects": [{"kind": "ServiceAccount", "name": "sa", "namespace": "ns"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        },
    ),
    ("token bot --duration=1h", {"kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}),
]  # fmt: skip


@pytest.mark.skipif(bool(kubectl_problem()), reason=kubectl_problem())
@pytest.mark.parametrize(("command", "expected"), KUBECTL, ids=[c.split()[0] for c, _ in KUBECTL])
def test_kubectl(command: str, expected: Any, tmp_path: Path) -> None:
    with api() as (url, posted):
        args = command.split()
        validate = [] if args[0] == "token" else ["--validate=false"]
        done = subprocess.run(
            ["kubectl", "--server", url, "--cache-dir", str(tmp_path), "create", *args, *validate],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "KUBECONFIG": "/dev/null", "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
    ((_, content_type, body),) = posted
    assert content_type == "application/vnd.kubernetes.protobuf"
    obj = protobuf.decode(body)
    assert "creationTimestamp" not in obj["metadata"]
    assert {k: obj.get(k) for k in expected} == expected
