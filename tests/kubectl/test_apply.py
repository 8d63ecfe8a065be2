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


def pair(*names: str) -> str:
    """ConfigMaps with a label in common."""
    items = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": n, "labels": {"of": "a-pair"}}}
        for n in names
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def test_prune(kubectl: Kubectl) -> None:
    apply = ("apply", "-f", "-")
    said(kubectl, *apply, stdin=pair("a", "b"))
    said(kubectl, "create", "configmap", "other")
    said(kubectl, "label", "configmap", "other", "of=a-pair")
    prune = (*apply, "--prune", "-l", "of=a-pair", "--prune-allowlist=core/v1/ConfigMap")
    dry = said(kubectl, *prune, "--dry-run=server", stdin=pair("a"))
    assert "configmap/b pruned (server dry run)" in dry.splitlines()
    out = said(kubectl, *prune, stdin=pair("a"))
    assert [line for line in out.splitlines() if line.endswith("pruned")] == ["configmap/b pruned"]
    left = said(kubectl, "get", "configmaps", "-l", "of=a-pair", "-o", "name")
    assert left.split() == ["configmap/a", "configmap/other"], "what was not applied is nobody's to prune"


def test_last_applied(kubectl: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = manifest(tmp_path, "one")
    said(kubectl, "create", "-f", file)
    told = kubectl.run("apply", "-f", file)
    assert "is missing the kubectl.kubernetes.io/last-applied-configuration annotation" in told.err
    monkeypatch.setenv("KUBE_EDITOR", "sed -i 's/a: one/a: two/'")
    assert said(kubectl, "apply", "edit-last-applied", "configmap", "c") == "configmap/c edited\n"
    assert "a: two" in said(kubectl, "apply", "view-last-applied", "configmap", "c")
    assert kubectl.value("configmap/c", ".data.a") == "one"
    assert said(kubectl, "apply", "set-last-applied", "-f", file) == "configmap/c configured\n"
    assert "a: one" in said(kubectl, "apply", "view-last-applied", "configmap", "c")
    said(kubectl, "apply", "set-last-applied", "-f", file, "-o", "name", "--dry-run=server")


def test_from_client_side_to_server_side(kubectl: Kubectl, tmp_path: Path) -> None:
    """What was applied by the client is the server-side manager's from its first apply on: a field left out goes."""
    file = tmp_path / "c.yaml"
    head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
    file.write_text(head + "data: {a: one, b: two}\n")
    said(kubectl, "apply", "-f", file)
    assert said(kubectl, "apply", "--server-side", "-f", file) == "configmap/c serverside-applied\n"
    assert said(kubectl, "diff", "--server-side", "-f", file) == ""
    object = json.loads(said(kubectl, "get", "configmap", "c", "-o", "json", "--show-managed-fields"))
    owners = {(m["manager"], m["operation"]) for m in object["metadata"]["managedFields"]}
    assert owners == {("kubectl", "Apply"), ("kubectl-last-applied", "Apply")}
    file.write_text(head + "data: {a: one}\n")
    changed = kubectl.run("diff", "--server-side", "-f", file)
    assert changed.code == 1
    assert "-  b: two" in changed.out.splitlines()
    said(kubectl, "apply", "--server-side", "-f", file)
    assert kubectl.value("configmap/c", ".data") == '{"a":"one"}'
    other = said(kubectl, "apply", "--server-side", "--field-manager=second", "-f", file)
    assert other == "configmap/c serverside-applied\n", "who wants the same is no conflict"
    shown = said(kubectl, "get", "configmap", "c", "-o", "yaml", "--show-managed-fields")
    assert "    manager: second\n    operation: Apply\n" in shown
    assert "managedFields" not in said(kubectl, "get", "configmap", "c", "-o", "yaml")


def test_replace_leaves_what_was_allocated(kubectl: Kubectl) -> None:
    """A Service's manifest does not say its address; no more is wanted by replacing it."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
               "spec": {"type": "NodePort", "ports": [{"port": 80}]}}  # fmt: skip
    said(kubectl, "create", "-f", "-", stdin=json.dumps(service))
    before = kubectl.value("service/s", ".spec['clusterIP','ipFamilies','ports']")
    assert said(kubectl, "replace", "-f", "-", stdin=json.dumps(service)) == "service/s replaced\n"
    assert kubectl.value("service/s", ".spec['clusterIP','ipFamilies','ports']") == before


def test_optimistic_locking(kubectl: Kubectl) -> None:
    said(kubectl, "create", "configmap", "c")
    version = kubectl.value("configmap/c", ".metadata.resourceVersion")
    for verb, done in (("label", "labeled"), ("annotate", "annotated")):
        conflict = refused(kubectl, verb, "configmap", "c", "a=b", "--resource-version=1")
        assert conflict.startswith(
            'Error from server (Conflict): Operation cannot be fulfilled on configmaps "c"'
        )
        now = kubectl.value("configmap/c", ".metadata.resourceVersion")
        assert (
            said(kubectl, verb, "configmap", "c", "a=b", f"--resource-version={now}")
            == f"configmap/c {done}\n"
        )
        assert said(kubectl, verb, "configmap", "c", "--list") == "a=b\n"
        said(kubectl, verb, "configmap", "c", "a=c", "--overwrite", "--dry-run=server")
        assert said(kubectl, verb, "configmap", "c", "--list") == "a=b\n"
    stale = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "resourceVersion": version}}
    assert "(Conflict)" in refused(kubectl, "replace", "-f", "-", stdin=json.dumps(stale))
