"""Bodies to objects, and objects held against their types: what a client reads when something is wrong."""

from __future__ import annotations

import json

import pytest

from sampan.api import decoding, schema
from sampan.api.errors import Object, StatusError

POD = schema.node("io.k8s.api.core.v1.Pod")
SERVICE = schema.node("io.k8s.api.core.v1.Service")
DEPLOYMENT = schema.node("io.k8s.api.apps.v1.Deployment")
JSON = "application/json"
YAML = "application/yaml"


def pod(**container: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i", **container}]},
    }


def yaml_pod(text: str) -> Object:
    return decoding.parse(text.encode(), YAML)[0]


def test_parse_json() -> None:
    assert decoding.parse(b'{"a":{"b":[1,"x"]}}', JSON) == ({"a": {"b": [1, "x"]}}, [])
    assert decoding.parse(b'{"a":1}', "application/json; charset=utf-8")[0] == {"a": 1}


@pytest.mark.parametrize(
    ("body", "duplicates"),
    [
        (b'{"a":1,"a":2}', ['duplicate field "a"']),
        (b'{"a" :1,"a" :2}', ['duplicate field "a"']),
        (b'{"a":{"x":1,"x":2,"x":3}}', ['duplicate field "a.x"']),
        (b'{"a":[{"x":1},{"x":1,"x":2}]}', ['duplicate field "a[1].x"']),
        (b'{"a":":1","b":"\\":"}', []),
        (b'{"a":"{\\"x\\":1}"}', []),
        (b'{"a\\\\":1,"a\\\\":2}', ['duplicate field "a\\"']),
    ],
)
def test_duplicate_fields_of_json(body: bytes, duplicates: list[str]) -> None:
    assert decoding.parse(body, JSON)[1] == duplicates
    assert decoding.parse(body, JSON, duplicates=False)[1] == []


@pytest.mark.parametrize(
    ("body", "kind", "code", "text"),
    [
        (b"", JSON, 400, "unexpected end of JSON input"),
        (b'{"a":', JSON, 400, "unexpected end of JSON input"),
        (b"{a:1}", JSON, 400, "json parse error"),
        (b"[]", JSON, 400, "cannot unmarshal array"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, JSON, 400, "exceeded max depth"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, JSON, 400, "exceeded max depth"),
        (b'{"a":"' + b"x" * (3 << 20) + b'"}', JSON, 413, "limit is 3145728"),
        (b"a: [1", YAML, 400, "yaml parse error"),
        (b"a: b: c", YAML, 400, "yaml parse error"),
        (b"- 1", YAML, 400, "cannot unmarshal array"),
        (b"a: .inf", YAML, 400, "unsupported value"),
        (b"x", "text/plain", 415, "accepted media types"),
    ],
)
def test_bodies_that_are_refused(body: bytes, kind: str, code: int, text: str) -> None:
    with pytest.raises(StatusError) as caught:
        decoding.parse(body, kind)
    assert caught.value.code == code
    assert text in caught.value.message


def test_yaml_is_read_as_kubernetes_reads_it() -> None:
    text = "a: yes\nb: 0644\nc: 0o644\nd: 2020-01-01\ne: 1:30\nf: 1e3\ng: ~\nh: 'yes'\ni: 1.5\n1: x\nj:\nk: 0x10\nl: 1_000\n"
    assert decoding.parse(text.encode(), YAML)[0] == {
        "a": True, "b": 420, "c": 420, "d": "2020-01-01", "e": "1:30", "f": 1000.0, "g": None, "h": "yes", "i": 1.5,
        "1": "x", "j": None, "k": 16, "l": 1000,
    }  # fmt: skip


def test_yaml_aliases_are_written_out_and_bounded() -> None:
    obj, _ = decoding.parse(b"a: &x {b: [1]}\nc: *x\nd:\n  <<: *x\n  e: 2\n", YAML)
    assert obj == {"a": {"b": [1]}, "c": {"b": [1]}, "d": {"b": [1], "e": 2}}
    assert obj["a"] is not obj["c"]
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    with pytest.raises(StatusError, match="excessive aliasing"):
        decoding.parse(bomb.encode(), YAML)


def test_duplicate_fields_of_yaml() -> None:
    assert decoding.parse(b"a: 1\nb:\n  c: 1\n  c: 2\n", YAML) == (
        {"a": 1, "b": {"c": 2}},
        ['line 4: key "c" already set in map (b.c)'],
    )


def test_good_object_is_untouched() -> None:
    obj = pod(ports=[{"containerPort": 80}], resources={"limits": {"cpu": "500m", "memory": "64Mi"}})
    before = json.dumps(obj)
    assert decoding.check(POD, obj) == []
    assert json.dumps(obj) == before


def test_unknown_fields_are_dropped_and_named() -> None:
    obj = pod(foo=1, ports=[{"containerport": 80, "containerPort": 80}])
    obj["volumes"] = []
    obj["spec"]["restartpolicy"] = "Never"
    assert decoding.check(POD, obj) == [
        'unknown field "spec.containers[0].foo"',
        'unknown field "spec.containers[0].ports[0].containerport" (did you mean "containerPort"?)',
        'unknown field "spec.restartpolicy" (did you mean "restartPolicy"?)',
        'unknown field "volumes" (did you mean "spec.volumes"? It is indented too little)',
    ]
    assert obj == pod(ports=[{"containerPort": 80}])


def test_a_config_map_has_no_spec() -> None:
    node = schema.node("io.k8s.api.core.v1.ConfigMap")
    assert decoding.check(node, {"data": {}, "spec": {"volumes": []}}) == [
        'unknown field "spec" (a ConfigMap has no spec; it has binaryData, data, immutable)'
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nodePort：37844", '"：" is a full-width colon: write "nodePort: 37844"'),
        ("\u3000nodePort", 'the name has a wide or stray blank: write "nodePort"'),
        ("-nodePort", 'write a space after "-": "- nodePort"'),
        ("nodePort:30001", 'a blank after ":" is missing: write "nodePort: 30001"'),
        ("nodeport", 'did you mean "nodePort"?'),
        ("nodePrt", 'did you mean "nodePort"?'),
    ],
)
def test_likely_intent_of_an_unknown_field(name: str, hint: str) -> None:
    obj = {"spec": {"ports": [{"port": 1, name: 2}]}}
    assert decoding.check(SERVICE, obj) == [f'unknown field "spec.ports[0].{name}" ({hint})']


@pytest.mark.parametrize(
    ("node", "obj", "texts"),
    [
        (POD, pod(ports=[{"containerPort": "80"}]),
         ["json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
          'spec.containers[0].ports[0].containerPort: "80" given, an integer (int32) expected', "write it without quotes"]),
        (POD, pod(ports={"-containerPort": 80}),
         ["cannot unmarshal object into Go struct field Container.spec.containers.ports of type []v1.ContainerPort",
          'write a space after "-"']),
        (POD, pod(ports={"containerPort": 80}), ['start the item with "- "']),
        (POD, pod(ports=["containerPort:80"]), ["of type v1.ContainerPort", 'a blank after ":" is missing']),
        (POD, pod(ports="-containerPort:80"), ['write a space after "-"']),
        (POD, pod(env=[{"name": "A", "value": 1}]),
         ["cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string", "write it in quotes"]),
        (POD, {"metadata": {"labels": {"a": True}}},
         ["cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string"]),
        (POD, {"metadata": {"labels": ["a"]}}, ["cannot unmarshal array", "of type map[string]string"]),
        (POD, {"spec": []}, ["cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec"]),
        (POD, pod(resources={"limits": {"cpu": "much"}}),
         ["quantities must match the regular expression", "spec.containers[0].resources.limits[cpu]"]),
        (POD, {"metadata": {"creationTimestamp": "yesterday"}}, ["parsing time", "metadata.creationTimestamp"]),
        (DEPLOYMENT, {"kind": "Deployment", "apiVersion": "apps/v1", "spec": {"replicas": 1.5}},
         ['Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal number 1.5']),
        (DEPLOYMENT, {"spec": {"replicas": 2**31}}, ["cannot unmarshal number 2147483648"]),
        (schema.node("io.k8s.api.core.v1.Secret"), {"data": {"a": "*"}}, ["illegal base64 data at input byte 0", "data[a]"]),
    ],
)  # fmt: skip
def test_wrong_types(node: schema.Node, obj: Object, texts: list[str]) -> None:
    with pytest.raises(StatusError) as caught:
        decoding.check(node, obj)
    assert (caught.value.code, caught.value.reason) == (400, "BadRequest")
    for text in texts:
        assert text in caught.value.message


def test_all_wrong_types_at_once() -> None:
    obj = pod(ports=[{"containerPort": "80"}], tty="yes", stdin=1)
    with pytest.raises(StatusError) as caught:
        decoding.check(POD, obj)
    for path in ("ports[0].containerPort", "tty", "stdin"):
        assert f"(spec.containers[0].{path}: " in caught.value.message


def test_normal_forms() -> None:
    obj = pod(resources={"limits": {"cpu": 0.5, "memory": "1024Mi", "x/y": 2}}, env=None, args=["a", None])
    obj["metadata"] |= {"creationTimestamp": "2024-01-01T01:00:00.5+01:00", "annotations": {"a": None}}
    assert decoding.check(POD, obj) == []
    assert obj["spec"]["containers"][0] == {
        "name": "c", "image": "i", "args": ["a", ""],
        "resources": {"limits": {"cpu": "500m", "memory": "1Gi", "x/y": "2"}},
    }  # fmt: skip
    assert obj["metadata"] == {
        "name": "p", "creationTimestamp": "2024-01-01T00:00:00Z", "annotations": {"a": ""},
    }  # fmt: skip


def test_the_lesson_s_faulty_pod() -> None:
    obj = yaml_pod(
        """
apiVersion: v1
kind: Pod
metadata: {name: mc3}
spec:
  containers:
    - name: nginx
      image: nginx:alpine
      ports:
        -containerPort: 80
"""
    )
    with pytest.raises(StatusError) as caught:
        decoding.check(POD, obj)
    assert 'write a space after "-"' in caught.value.message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n  - name: x\n    mountPath:/ect/nginx.conf\n    subPath:nginx.conf\nb: 1\n",
         'line 3: a blank after ":" is missing: write "mountPath: /ect/nginx.conf"'),
        ("a:\n  - protocol: TCP\n\u3000\u3000   nodePort：37844\n    port: 8080\n", "line 3: it has a full-width colon"),
        ("a:\n  - protocol: TCP\n\u3000\u3000   nodePort: 37844\n    port: 8080\n", "line 3: it has a wide blank"),
        ("a:\n\tb: 1\n", "line 2: it is indented with a tab: write spaces"),
    ],
)  # fmt: skip
def test_yaml_that_cannot_be_read_is_explained(text: str, hint: str) -> None:
    with pytest.raises(StatusError) as caught:
        decoding.parse(text.encode(), YAML)
    assert caught.value.code == 400
    assert hint in caught.value.message
