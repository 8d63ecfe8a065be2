"""apply, diff, edit, replace, patch: a manifest and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kubectl.commands import IMAGE, refused, said
from tests.real_cluster import Kubectl


def manifest(directory: Path, value: str, name: str = "c") -> Path:
    file = directory / "c.yaml"
    file.write_text(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: {value}}}\n")
    return file


def test_apply_and_diff(kubectl: Kubectl, tmp_path: Path) -> None:
    file = manifest(tmp_path, "one")
    new = kubectl.run("diff", "-f", file)
    assert (new.code, new.err) == (1, "")
    assert "+  a: one" in new.out
    assert said(kubectl, "apply", "-f", file) == "configmap/c created\n"
    assert said(kubectl, "apply", "-f", file) == "configmap/c unchanged\n"
    assert said(kubectl, "diff", "-f", file) == ""
    manifest(tmp_path, "two")
    changed = kubectl.run("diff", "-f", file)
    assert (changed.code, changed.err) == (1, "")
    assert {"-  a: one", "+  a: two"} <= set(changed.out.splitlines())
    assert (
        said(kubectl, "apply", "-f", file, "--dry-run=server") == "configmap/c configured (server dry run)\n"
    )
    assert kubectl.value("configmap/c", ".data.a") == "one"
    assert said(kubectl, "apply", "-f", file) == "configmap/c configured\n"
    assert '"two"' in said(kubectl, "apply", "view-last-applied", "configmap/c", "-o", "json")
    assert said(kubectl, "delete", "-f", file) == 'configmap "c" deleted\n'


def test_apply_prunes_a_field_that_is_no_longer_in_the_file(kubectl: Kubectl) -> None:
    base = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    for wanted in (ports, ports[1:]):
        said(kubectl, "apply", "-f", "-", stdin=json.dumps(base | {"spec": {"ports": wanted}}))
        assert kubectl.value("service/s", ".spec.ports[*].name").split() == [p["name"] for p in wanted]


def test_server_side_apply(kubectl: Kubectl, tmp_path: Path) -> None:
    file = manifest(tmp_path, "one")
    assert said(kubectl, "apply", "--server-side", "-f", file) == "configmap/c serverside-applied\n"
    manifest(tmp_path, "two")
    other = ("apply", "--server-side", "--field-manager=other", "-f", str(file))
    assert 'conflict with "kubectl": .data.a' in refused(kubectl, *other)
    assert said(kubectl, *other, "--force-conflicts") == "configmap/c serverside-applied\n"
    object = json.loads(said(kubectl, "get", "configmap", "c", "-o", "json", "--show-managed-fields"))
    owners = {m["manager"]: m["operation"] for m in object["metadata"]["managedFields"]}
    assert owners == {"other": "Apply"}
    assert object["data"] == {"a": "two"}


def test_edit(kubectl: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said(kubectl, "apply", "-f", manifest(tmp_path, "one"))
    monkeypatch.setenv("KUBE_EDITOR", "sed -i 's/a: one/a: two/'")
    assert said(kubectl, "edit", "configmap", "c") == "configmap/c edited\n"
    assert kubectl.value("configmap/c", ".data.a") == "two"
    monkeypatch.setenv("KUBE_EDITOR", "true")
    said(kubectl, "edit", "configmap", "c", err="Edit cancelled, no changes made.\n")
    monkeypatch.setenv("KUBE_EDITOR", "sed -i s/^data:/dato:/")
    # The reason stands in the file that kubectl opens again, and keeps.
    said_no = refused(kubectl, "edit", "configmap", "c")
    assert said_no.startswith('error: configmaps "c" is invalid\n')
    kept = Path(said_no.split('stored to "')[1].split('"')[0])
    assert 'strict decoding error: unknown field "dato"' in kept.read_text()
    kept.unlink()


def test_create_and_replace(kubectl: Kubectl, tmp_path: Path) -> None:
    file = manifest(tmp_path, "one")
    assert "(NotFound)" in refused(kubectl, "replace", "-f", file)
    assert said(kubectl, "create", "-f", file) == "configmap/c created\n"
    exists = refused(kubectl, "create", "-f", file)
    assert exists.startswith("Error from server (AlreadyExists): ")
    assert 'configmaps "c" already exists' in exists
    manifest(tmp_path, "two")
    uid = kubectl.value("configmap/c", ".metadata.uid")
    assert said(kubectl, "replace", "-f", file) == "configmap/c replaced\n"
    assert kubectl.value("configmap/c", ".metadata.uid") == uid
    again = said(kubectl, "replace", "--force", "-f", file)
    assert again == 'configmap "c" deleted\nconfigmap/c replaced\n'
    assert kubectl.value("configmap/c", ".metadata.uid") != uid


def test_replace_force_of_a_running_pod(kubectl: Kubectl) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
           "spec": {"terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "100000"]}]}}  # fmt: skip
    said(kubectl, "apply", "-f", "-", stdin=json.dumps(pod))
    kubectl.wait_ready("p")
    uid = kubectl.value("pod/p", ".metadata.uid")
    out = said(kubectl, "replace", "--force", "-f", "-", stdin=json.dumps(pod))
    assert out == 'pod "p" deleted\npod/p replaced\n'
    kubectl.wait_ready("p")
    assert kubectl.value("pod/p", ".metadata.uid") != uid


def test_patch(kubectl: Kubectl) -> None:
    said(kubectl, "create", "deployment", "d", f"--image={IMAGE}", "--replicas=0", "--", "true")
    env = {
        "spec": {
            "template": {"spec": {"containers": [{"name": "busybox", "env": [{"name": "A", "value": "1"}]}]}}
        }
    }
    assert said(kubectl, "patch", "deployment", "d", "-p", json.dumps(env)) == "deployment.apps/d patched\n"
    assert kubectl.value("deployment/d", ".spec.template.spec.containers[0].command[0]") == "true", (
        "merged by name"
    )
    said(kubectl, "patch", "deployment", "d", "--type=merge", "-p", '{"metadata": {"labels": {"x": "y"}}}')
    label = '[{"op": "test", "path": "/metadata/labels/x", "value": "y"}, {"op": "remove", "path": "/metadata/labels/x"}]'
    said(kubectl, "patch", "deployment", "d", "--type=json", "-p", label)
    assert "the server rejected our request" in refused(
        kubectl, "patch", "deployment", "d", "--type=json", "-p", label
    )
    out = said(kubectl, "patch", "deployment", "d", "-p", json.dumps(env))
    assert out == "deployment.apps/d patched (no change)\n"
    scale = (
        "patch",
        "deployment",
        "d",
        "--subresource=scale",
        "--type=merge",
        "-p",
        '{"spec": {"paused": true}}',
    )
    kubectl.run(*scale)
    assert kubectl.value("deployment/d", ".spec.paused") == "", "a scale has no such field"
    assert "replicas" in refused(kubectl, "patch", "deployment", "d", "-p", '{"spec": {"replicas": "many"}}')


def test_bad_field_is_named(kubectl: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndato: {a: b}\n")
    assert 'unknown field "dato"' in refused(kubectl, "apply", "-f", file)
    assert 'unknown field "dato"' in refused(kubectl, "create", "-f", file)
    assert said(kubectl, "create", "-f", file, "--validate=false") == "configmap/c created\n"
