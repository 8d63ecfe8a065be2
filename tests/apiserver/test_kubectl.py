"""The machine's kubectl, unmodified, against the API over HTTPS."""

from __future__ import annotations

import asyncio
import json

from tests.apiserver.conftest import Kubectl

MANIFESTS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: cm, labels: {app: x}}
data: {x: "1"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: nginx}
spec:
  replicas: 2
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec: {containers: [{name: nginx, image: nginx, ports: [{containerPort: 80}]}]}
"""


async def test_apply_get_edit_delete(kubectl: Kubectl) -> None:
    out = await kubectl("apply", "-f", "-", stdin=MANIFESTS)
    assert out == "configmap/cm created\ndeployment.apps/nginx created\n"
    out = await kubectl("apply", "-f", "-", stdin=MANIFESTS)
    assert out == "configmap/cm unchanged\ndeployment.apps/nginx unchanged\n"
    changed = MANIFESTS.replace('x: "1"', 'b: "2"')
    assert "configmap/cm configured" in await kubectl("apply", "-f", "-", stdin=changed)
    found = json.loads(await kubectl("get", "cm", "cm", "-o", "json"))
    assert found["data"] == {"b": "2"}
    table = await kubectl("get", "cm,deploy", "-l", "app=x")
    assert "configmap/cm" in table
    assert "0/2" in await kubectl("get", "deploy")
    assert "scaled" in await kubectl("scale", "deploy", "nginx", "--replicas=0")
    assert "0/0" in await kubectl("get", "deploy", "nginx")
    assert "Name:                   nginx" in await kubectl("describe", "deploy", "nginx")
    await kubectl("label", "cm", "cm", "tier=back")
    await kubectl("annotate", "cm", "cm", "note=hello")
    await kubectl("patch", "cm", "cm", "-p", '{"data":{"z":"3"}}')
    assert (await kubectl("get", "cm", "cm", "-o", "jsonpath={.data.z}")) == "3"
    assert "exposed" in await kubectl("expose", "deploy", "nginx", "--port=80", "--type=NodePort")
    assert "80:3" in await kubectl("get", "svc", "nginx")
    await kubectl("delete", "-f", "-", stdin=MANIFESTS)
    code, _, err = await kubectl.run("get", "cm", "cm")
    assert code == 1
    assert err == 'Error from server (NotFound): configmaps "cm" not found\n'


async def test_create_from_the_command_line(kubectl: Kubectl) -> None:
    """These send protobuf bodies."""
    assert "created" in await kubectl("create", "namespace", "x")
    assert "created" in await kubectl("create", "configmap", "c", "--from-literal=a=b")
    assert (await kubectl("get", "cm", "c", "-o", "jsonpath={.data}")) == '{"a":"b"}'
    assert "created" in await kubectl("create", "serviceaccount", "robot")
    assert "created" in await kubectl("create", "deployment", "web", "--image=nginx", "--replicas=3")
    assert "created" in await kubectl("create", "secret", "generic", "s", "--from-literal=p=w")
    assert len((await kubectl("create", "token", "robot")).split(".")) == 3
    assert (await kubectl("auth", "can-i", "create", "pods")) == "yes\n"
    who = "system:serviceaccount:default:robot"
    code, out, _ = await kubectl.run("auth", "can-i", "create", "pods", f"--as={who}")
    assert (code, out) == (1, "no\n")


async def test_server_side_apply(kubectl: Kubectl) -> None:
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", "-", stdin=MANIFESTS)
    changed = MANIFESTS.replace('x: "1"', 'b: "2"')
    await kubectl("apply", "--server-side", "-f", "-", stdin=changed)
    assert (await kubectl("get", "cm", "cm", "-o", "jsonpath={.data}")) == '{"b":"2"}'
    other = changed.replace('b: "2"', 'b: "3"')
    code, _, err = await kubectl.run(
        "apply", "--server-side", "--field-manager=other", "-f", "-", stdin=other
    )
    assert code == 1
    assert 'conflict with "kubectl"' in err
    await kubectl(
        "apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-", stdin=other
    )
    assert (await kubectl("get", "cm", "cm", "-o", "jsonpath={.data.b}")) == "3"


async def test_watching_and_waiting(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFESTS)
    waiting = asyncio.create_task(kubectl("wait", "cm/cm", "--for=jsonpath={.data.x}=9", "--timeout=20s"))
    going = asyncio.create_task(kubectl("wait", "deploy/nginx", "--for=delete", "--timeout=20s"))
    await kubectl("patch", "cm", "cm", "-p", '{"data":{"x":"9"}}')
    await kubectl("delete", "deploy", "nginx")
    assert "condition met" in await waiting
    await going


async def test_diff_explain_and_resources(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFESTS)
    changed = MANIFESTS.replace('x: "1"', 'x: "2"')
    code, out, _ = await kubectl.run("diff", "-f", "-", stdin=changed)
    assert code == 1
    assert '+  x: "2"' in out
    assert "deployments" in await kubectl("api-resources")
    assert "nodePort" in await kubectl("explain", "service.spec.ports")
    code, _, err = await kubectl.run("get", "nginx-svc")
    assert code == 1
    assert 'the server doesn\'t have a resource type "nginx-svc"' in err


async def test_unknown_fields_are_refused_by_name(kubectl: Kubectl) -> None:
    wrong = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nspec: {x: 1}\n"
    code, _, err = await kubectl.run("apply", "-f", "-", stdin=wrong)
    assert code == 1
    assert 'unknown field "spec"' in err
