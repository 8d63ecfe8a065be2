"""Unknown and duplicate fields: refused, warned of or left alone, by every way to write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.apiserver.conftest import Api, Kubectl, Reply

NS = "/apis/apps/v1/namespaces/default/deployments"
LABELS = '"metadata":{"labels":{"app":"web"}}'
BODY = (
    '{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{'
    '"unknown1":"val1","unknownDupe":"a","unknownDupe":"b","paused":true,"paused":false,'
    '"selector":{"matchLabels":{"app":"web"}},"template":{' + LABELS + ',"spec":{"containers":['
    '{"name":"c","image":"nginx","imagePullPolicy":"Never","imagePullPolicy":"Always","unknownNested":"x"}]}}}}'
)
FOUND = {
    'unknown field "spec.unknown1"',
    'unknown field "spec.unknownDupe"',
    'duplicate field "spec.paused"',
    'unknown field "spec.template.spec.containers[0].unknownNested"',
    'duplicate field "spec.template.spec.containers[0].imagePullPolicy"',
}
YAML = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  unknown1: val1
  paused: true
  paused: false
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: nginx
        imagePullPolicy: Never
        imagePullPolicy: Always
"""
LINES = (
    'line 8: key "paused" already set in map (spec.paused)',
    'line 17: key "imagePullPolicy" already set in map (spec.template.spec.containers[0].imagePullPolicy)',
)
GOOD = json.loads(BODY)
del GOOD["spec"]["unknown1"], GOOD["spec"]["unknownDupe"]
del GOOD["spec"]["template"]["spec"]["containers"][0]["unknownNested"]


def texts(reply: Reply) -> list[str]:
    return [w.removeprefix('299 - "')[:-1].replace('\\"', '"') for w in reply.warnings]


async def all_ways(api: Api, method: str, target: str, body: Any, **headers: str) -> dict[str, Reply]:
    """The same request with Strict first, which must change nothing, then Warn, then Ignore."""
    out = {}
    for validation in ("Strict", "Warn", "Ignore"):
        joint = "&" if "?" in target else "?"
        out[validation] = await api(method, f"{target}{joint}fieldValidation={validation}", body, **headers)
    assert out["Strict"].status >= 400
    assert out["Warn"].status < 300, out["Warn"].body
    assert not out["Ignore"].warnings
    return out


async def test_create_and_update_in_json(api: Api) -> None:
    strict = await api("POST", NS + "?fieldValidation=Strict", BODY.encode())
    assert strict.status == 400
    said = strict.json["message"]
    start = 'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
    assert said.startswith(start)
    assert set(said.removeprefix(start).split(", ")) == FOUND
    assert (await api("GET", f"{NS}/web")).status == 404
    made = await api("POST", NS, BODY.encode())
    assert made.status == 201
    assert set(texts(made)) == FOUND
    assert made.json["spec"]["paused"] is False
    updates = await all_ways(api, "PUT", f"{NS}/web", BODY.encode())
    assert set(texts(updates["Warn"])) == FOUND
    assert updates["Ignore"].status == 200


async def test_create_and_update_in_yaml(api: Api) -> None:
    kind = {"content_type": "application/yaml"}
    strict = await api("POST", NS + "?fieldValidation=Strict", YAML.encode(), **kind)
    assert strict.status == 400
    assert strict.json["message"] == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
        f'yaml: unmarshal errors:\n  {LINES[0]}\n  {LINES[1]}, unknown field "spec.unknown1"'
    )
    warned = await api("POST", NS, YAML.encode(), **kind)
    assert texts(warned) == [*LINES, 'unknown field "spec.unknown1"']
    updates = await all_ways(api, "PUT", f"{NS}/web", YAML.encode(), **kind)
    assert texts(updates["Warn"]) == [*LINES, 'unknown field "spec.unknown1"']


@pytest.mark.parametrize(
    ("media", "body", "found"),
    [
        (
            "application/json-patch+json",
            '[{"op":"add","path":"/spec/unknown1","value":1,"foo":2},'
            '{"op":"add","path":"/spec/paused","path":"/spec/paused","value":true}]',
            ['json patch unknown field "[0].foo"', 'json patch duplicate field "[1].path"', 'unknown field "spec.unknown1"'],
        ),
        (
            "application/merge-patch+json",
            '{"spec":{"unknown1":1,"paused":true,"paused":false}}',
            ['duplicate field "spec.paused"', 'unknown field "spec.unknown1"'],
        ),
        (
            "application/strategic-merge-patch+json",
            '{"spec":{"unknown1":1,"paused":true,"paused":false}}',
            ['duplicate field "spec.paused"', 'unknown field "spec.unknown1"'],
        ),
    ],
)  # fmt: skip
async def test_patches(api: Api, media: str, body: str, found: list[str]) -> None:
    await api.ok("POST", NS, GOOD)
    replies = await all_ways(api, "PATCH", f"{NS}/web", body.encode(), content_type=media)
    strict = replies["Strict"].json
    assert (strict["code"], strict["reason"]) == (422, "Invalid")
    assert strict["message"].startswith(' "" is invalid: patch: Invalid value: "')
    assert strict["message"].endswith("strict decoding error: " + ", ".join(found))
    assert strict["details"]["causes"][0]["field"] == "patch"
    assert texts(replies["Warn"]) == found


async def test_apply(api: Api) -> None:
    """Apply never takes a field that nobody knows; fields that are there twice are a matter of the directive."""
    target = f"{NS}/web?fieldManager=m"
    kind = {"content_type": "application/apply-patch+yaml"}
    for validation in ("Strict", "Warn", "Ignore"):
        refused = await api("PATCH", f"{target}&fieldValidation={validation}", YAML.encode(), **kind)
        assert refused.status == 400
        assert (
            ".spec.unknown1: field not declared in schema" in refused.json["message"]
            or validation == "Strict"
        )
    known = YAML.replace("  unknown1: val1\n", "  # nothing\n").encode()
    replies = await all_ways(api, "PATCH", target, known, **kind)
    assert replies["Strict"].json["message"] == (
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n"
        f"  {LINES[0]}\n  {LINES[1]}"
    )
    assert texts(replies["Warn"]) == list(LINES)
    # JSON is YAML too, and told in the same words.
    twice = b'{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"one","a":"two"}}'
    reply = await api("PATCH", "/api/v1/namespaces/default/configmaps/c?fieldManager=m", twice, **kind)
    assert texts(reply) == ['line 1: key "a" already set in map (data.a)']


@pytest.mark.parametrize("media", ["merge", "strategic-merge"])
async def test_a_patch_that_makes_a_wrong_type(api: Api, media: str) -> None:
    await api.ok("POST", NS, GOOD)
    body = {"spec": {"replicas": "three"}}
    reply = await api("PATCH", f"{NS}/web", body, content_type=f"application/{media}-patch+json")
    assert reply.status == 422
    assert reply.json["message"].startswith(
        ' "" is invalid: patch: Invalid value: "map[spec:map[replicas:three]]": json: cannot unmarshal string into '
        "Go struct field DeploymentSpec.spec.replicas of type int32"
    )


@pytest.mark.parametrize(
    ("method", "query", "kind", "problem"),
    [
        ("POST", "fieldValidation=x", "Create", 'fieldValidation: Unsupported value: "x": supported values: "", "Ignore", "Strict", "Warn"'),
        ("PUT", "dryRun=yes", "Update", 'dryRun: Unsupported value: ["yes"]: supported values: "All"'),
        ("PATCH", "fieldManager=" + "x" * 129, "Patch", "fieldManager: Too long: may not be more than 128 bytes"),
        ("POST", "fieldManager=a%00b", "Create", 'fieldManager: Invalid value: "a\\u0000b": should not contain an unprintable one: invalid character U+0000 (at position 1)'),
    ],
)  # fmt: skip
async def test_options(api: Api, method: str, query: str, kind: str, problem: str) -> None:
    target = f"{NS}?{query}" if method == "POST" else f"{NS}/web?{query}"
    reply = await api(
        method, target, GOOD, content_type="application/merge-patch+json" if method == "PATCH" else ""
    )
    assert reply.status == 422
    assert reply.json["message"] == f'{kind}Options.meta.k8s.io "" is invalid: {problem}'


async def test_actions(api: Api) -> None:
    eviction = b'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p","name":"p"},"foo":1}'
    path = "/api/v1/namespaces/default/pods/p/eviction"
    strict = await api("POST", path + "?fieldValidation=Strict", eviction)
    assert strict.status == 400
    assert strict.json["message"].endswith('strict decoding error: duplicate field "metadata.name"')


async def test_kubectl_validate(kubectl: Kubectl) -> None:
    code, _, err = await kubectl.run("apply", "--validate=strict", "-f", "-", stdin=BODY)
    assert code == 1
    assert "strict decoding error: unknown field" in err or "strict decoding error: duplicate field" in err
    code, out, err = await kubectl.run("create", "--validate=warn", "-f", "-", stdin=BODY)
    assert code == 0
    assert 'Warning: unknown field "spec.unknown1"' in err
    assert "deployment.apps/web created" in out
    code, _, err = await kubectl.run("patch", "deploy", "web", "-p", '{"spec":{"foo":1}}')
    assert code == 0
    assert 'Warning: unknown field "spec.foo"' in err
    code, _, err = await kubectl.run("patch", "deploy", "web", "--type=json", "-p", '[{"op":"test","path":"/spec/replicas","value":7}]')  # fmt: skip
    assert code == 1
    assert "the server rejected our request due to an error in our request" in err
    assert "testing value /spec/replicas failed: test failed" in err
