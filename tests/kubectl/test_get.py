"""get in all its forms, describe, events and what the cluster says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kubectl.commands import IMAGE, refused, rows, said
from tests.real_cluster import Kubectl


def test_formats(kubectl: Kubectl, two: str) -> None:
    for short in ("po", "pod/two"):
        assert rows(said(kubectl, "get", short))[0][0] == two
    name, ready, status, restarts, _ = rows(said(kubectl, "get", "pods"))[0]
    assert (name, ready, status, restarts) == (two, "2/2", "Running", "0")
    address = kubectl.value("pod/two", ".status.podIP")
    assert rows(said(kubectl, "get", "pods", "-o", "wide"))[0][5:] == [address, "node-1", "<none>", "<none>"]
    assert said(kubectl, "get", "pods,services", "-o", "name") == "pod/two\n"
    listed = json.loads(said(kubectl, "get", "pods", "-o", "json"))
    assert (listed["kind"], [p["metadata"]["name"] for p in listed["items"]]) == ("List", [two])
    assert said(kubectl, "get", "pod", two, "-o", "yaml").startswith("apiVersion: v1\nkind: Pod\nmetadata:\n")
    names = "{range .items[*].spec.containers[*]}{.name} {end}"
    assert said(kubectl, "get", "pods", "-o", f"jsonpath={names}") == "reader web "
    chosen = said(kubectl, "get", "pods", "-o", "custom-columns=N:.metadata.name,I:.spec.containers[0].image")
    assert [line.split() for line in chosen.splitlines()] == [["N", "I"], [two, IMAGE]]
    assert "app=two" in said(kubectl, "get", "pods", "--show-labels")
    assert rows(said(kubectl, "get", "pods", "-L", "app"))[0][-1] == "two"
    assert (
        json.loads(said(kubectl, "get", "--raw", f"/api/v1/namespaces/{kubectl.namespace}/pods/two"))["kind"]
        == "Pod"
    )
    assert "namespace" not in said(kubectl, "get", "all").splitlines()[0].lower()
    assert kubectl.namespace in said(kubectl, "get", "pods", "-A")


def test_selectors_and_chunks(kubectl: Kubectl) -> None:
    for number in range(5):
        said(kubectl, "create", "configmap", f"c{number}")
        parity = "even" if number % 2 == 0 else "odd"
        assert (
            said(kubectl, "label", "configmap", f"c{number}", f"parity={parity}")
            == f"configmap/c{number} labeled\n"
        )

    def names(*options: str) -> list[str]:
        found = said(kubectl, "get", "configmaps", "-o", "name", *options).split()
        return sorted(n.removeprefix("configmap/") for n in found)

    assert names("-l", "parity=even") == ["c0", "c2", "c4"]
    assert names("-l", "parity!=even,parity") == ["c1", "c3"]
    assert names("-l", "parity in (odd, none)") == ["c1", "c3"]
    assert names("-l", "!parity") == ["kube-root-ca.crt"]
    assert names("--field-selector", "metadata.name=c3") == ["c3"]
    assert names("--chunk-size=1") == names("--chunk-size=2") == names("--chunk-size=0") == names()
    sorted_by_parity = said(
        kubectl, "get", "configmaps", "-l", "parity", "--sort-by=.metadata.labels.parity", "-o", "name"
    )
    assert sorted_by_parity.split()[3:] == ["configmap/c1", "configmap/c3"]
    assert "field label not supported" in refused(
        kubectl, "get", "pods", "--field-selector", "spec.color=red"
    )


def test_watch(kubectl: Kubectl) -> None:
    command = ("get", "configmaps", "-l", "watched", "--output-watch-events", "-o", "name", "--watch-only")
    with kubectl.start("get", "configmaps", "-w", "--output-watch-events") as lines:
        assert next(lines).split()[:2] == ["EVENT", "NAME"]
        assert next(lines).split()[:2] == ["ADDED", "kube-root-ca.crt"]
        said(kubectl, "create", "configmap", "c")
        assert next(lines).split()[:3] == ["ADDED", "c", "0"]
        said(kubectl, "patch", "configmap", "c", "-p", '{"data": {"a": "1"}}')
        assert next(lines).split()[:3] == ["MODIFIED", "c", "1"]
        said(kubectl, "delete", "configmap", "c")
        assert next(lines).split()[:3] == ["DELETED", "c", "1"]
    assert "unable" not in kubectl.run(*command, "--request-timeout=1s").err


def test_what_is_not_there(kubectl: Kubectl) -> None:
    assert refused(kubectl, "get", "pod", "none") == 'Error from server (NotFound): pods "none" not found\n'
    assert refused(kubectl, "get", "nosuch") == 'error: the server doesn\'t have a resource type "nosuch"\n'
    empty = kubectl.run("get", "pods")
    assert (empty.code, empty.out, empty.err) == (
        0,
        "",
        f"No resources found in {kubectl.namespace} namespace.\n",
    )
    assert said(kubectl, "get", "pod", "none", "--ignore-not-found") == ""


def test_describe(kubectl: Kubectl, told: str) -> None:
    pod = said(kubectl, "describe", "pod", told)
    for line in (
        "Service Account:  default",
        "Status:           Running",
        "  web:\n",
        "PodScheduled                True",
    ):
        assert line in pod
    events = pod.split("Events:")[1]
    for reason in ("Scheduled", "Pulled", "Created", "Started"):
        assert reason in events
    said(kubectl, "expose", "pod", told, "--port=80", "--target-port=http", "--name=s")
    kubectl.wait_endpoints("s", 1)
    address = kubectl.value("pod/two", ".status.podIP")
    service = " ".join(said(kubectl, "describe", "service", "s").split())
    assert f"Endpoints: {address}:8080" in service
    assert address in said(kubectl, "describe", "endpointslices")
    said(kubectl, "create", "deployment", "d", f"--image={IMAGE}", "--replicas=0")
    kubectl("rollout", "status", "deployment/d")
    assert "Scaled up replica set" not in said(kubectl, "describe", "deployment", "d")
    node = said(kubectl, "describe", "node", "node-1")
    assert f"{kubectl.namespace}" in node.split("Non-terminated Pods:")[1]
    assert "kubelet is posting ready status" in node
    assert "Status:       Active" in said(kubectl, "describe", "namespace", kubectl.namespace)
    for kind in ("configmaps", "secrets", "serviceaccounts", "replicasets", "roles", "ingresses"):
        done = kubectl.run("describe", kind)
        assert done.code == 0
        assert done.err in ("", f"No resources found in {kubectl.namespace} namespace.\n")


def test_events(kubectl: Kubectl, told: str) -> None:
    of_pod = said(kubectl, "events", "--for", "pod/two", "--types=Normal")
    reasons = [row[2] for row in rows(of_pod)]
    assert reasons[0] == "Scheduled"
    assert reasons.count("Started") == 3
    assert "Started" in said(kubectl, "get", "events", "--sort-by=.lastTimestamp")
    found = said(
        kubectl, "get", "events", "--field-selector", "reason=Scheduled,involvedObject.name=two", "-o", "name"
    )
    assert len(found.split()) == 1


def test_cluster_info(kubectl: Kubectl) -> None:
    assert "Kubernetes control plane" in said(kubectl, "cluster-info")


def test_cluster_info_dump(kubectl: Kubectl, two: str, tmp_path: Path) -> None:
    space = kubectl.namespace
    out = said(kubectl, "cluster-info", "dump", f"--namespaces={space}", f"--output-directory={tmp_path}")
    assert str(tmp_path) in out
    assert {p.name for p in (tmp_path / space).glob("*.json")} >= {
        "pods.json",
        "events.json",
        "deployments.json",
    }
    assert "serving" in (tmp_path / space / two / "logs.txt").read_text()


@pytest.mark.parametrize("where", ["livez", "readyz", "healthz"])
def test_health(kubectl: Kubectl, where: str) -> None:
    assert said(kubectl, "get", "--raw", f"/{where}") == "ok"


def test_kinds_without_a_controller_are_stored_with_a_warning(kubectl: Kubectl) -> None:
    template = f'{{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: "{IMAGE}"}}]}}}}'
    for version, kind in (("apps/v1", "DaemonSet"), ("v1", "ReplicationController")):
        selector = "{matchLabels: {a: b}}" if kind == "DaemonSet" else "{a: b}"
        manifest = f"""
apiVersion: {version}
kind: {kind}
metadata: {{name: d}}
spec:
  selector: {selector}
  template: {template}
"""
        ran = kubectl.run("apply", "-f", "-", stdin=manifest)
        assert f"Warning: {kind} is stored, but its controller does not run here yet" in ran.err
        assert said(kubectl, "get", kind, "-o", "name").endswith("/d\n")


def test_more_formats(kubectl: Kubectl, tmp_path: Path) -> None:
    for name, label in (("b", "x"), ("a", "y"), ("c", "z")):
        said(kubectl, "create", "configmap", name, f"--from-literal={label}=1")
    mine = ("get", "configmaps", "-l=!none", "--field-selector=metadata.name!=kube-root-ca.crt")
    template = tmp_path / "t"
    template.write_text("{{range .items}}{{.metadata.name}};{{end}}")
    assert said(kubectl, *mine, f"--output=go-template-file={template}") == "a;b;c;"
    assert said(kubectl, *mine, "-o", "go-template={{len .items}}") == "3"
    template.write_text("{.items[*].data}")
    assert said(kubectl, *mine, f"--output=jsonpath-file={template}") == '{"y":"1"} {"x":"1"} {"z":"1"}'
    assert (
        said(kubectl, *mine, "-o", "jsonpath-as-json={.items[0].data}")
        == '[\n    {\n        "y": "1"\n    }\n]\n'
    )
    template.write_text("NAME           DATA\nmetadata.name  data\n")
    chosen = said(kubectl, *mine, f"--output=custom-columns-file={template}", "--sort-by=.metadata.name")
    assert [line.split()[0] for line in chosen.splitlines()] == ["NAME", "a", "b", "c"]
    assert said(kubectl, *mine, "--no-headers", "-o", "custom-columns=N:.metadata.name,M:.nothing").split()[:2] == ["a", "<none>"]  # fmt: skip
    names = said(kubectl, *mine, "--sort-by={.metadata.creationTimestamp}", "-o", "name").split()
    assert {n.removeprefix("configmap/") for n in names} == {"a", "b", "c"}
    assert rows(said(kubectl, *mine, "--show-kind"))[0][0] == "configmap/a"
    assert said(kubectl, *mine, "--show-labels").splitlines()[0].split() == ["NAME", "DATA", "AGE", "LABELS"]
    assert said(kubectl, *mine, "-L=app,tier").splitlines()[0].split() == [
        "NAME",
        "DATA",
        "AGE",
        "APP",
        "TIER",
    ]
    assert (
        said(kubectl, "get", "configmap/a", "service/kubernetes", "-o=name", "--ignore-not-found")
        == "configmap/a\n"
    )
    everywhere = said(kubectl, "get", "all,configmaps", "-A")
    assert "service/kubernetes" in everywhere
    assert f"{kubectl.namespace}" in everywhere
    plain = said(kubectl, "get", "configmaps", "--server-print=false").splitlines()
    assert plain[0].split() == ["NAME", "AGE"]


def test_watch_events(kubectl: Kubectl, two: str) -> None:
    """kubectl events is one list and one watch, with selectors of the object and the type."""
    normal = said(
        kubectl, "events", "--for", "pod/two", "--types=Normal", "-o", "jsonpath={.items[*].reason}"
    )
    assert "Started" in normal.split()
    none = f"No events found in {kubectl.namespace} namespace.\n"
    assert said(kubectl, "events", "--types=Warning", err=none) == ""
    with kubectl.start("events", "--watch", "--for=pod/two", "--no-headers") as lines:
        assert "Scheduled" in next(lines)
        said(kubectl, "delete", "pod", two, "--wait=false")
        assert any("Killing" in line for line in lines)
    assert f"{kubectl.namespace} " in said(kubectl, "events", "-A")


def test_what_has_no_server_here(kubectl: Kubectl) -> None:
    """Metrics come from a server of their own, here as elsewhere."""
    for what in ("node", "pod"):
        assert refused(kubectl, "top", what) == "error: Metrics API not available\n"
