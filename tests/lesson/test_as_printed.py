"""The text's faulty YAML, exactly as printed: what its reader is told. docs/lesson-errata.md explains each.

Where kubectl cannot read the file, its own words stand, and a second test sends the document to the API as it is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.lesson.manifests import AS_PRINTED, LESSON, with_fault
from tests.real_cluster import ROOT, Cluster, Kubectl


def refusal(kubectl: Kubectl, manifest: str | Path) -> str:
    """What kubectl prints where it must not get through; one way for a file as printed and for a single fault."""
    done = (
        kubectl.run("apply", "-f", manifest)
        if isinstance(manifest, Path)
        else kubectl.run("apply", "-f", "-", stdin=manifest)
    )
    assert done.code == 1, done
    assert done.out == ""
    return done.err


def test_they_are_printed_so() -> None:
    """The files still have the text's faults: full-width colon and blanks, missing blanks, spelling."""
    printed = {p.name: p.read_text() for p in AS_PRINTED.iterdir()}
    assert "\n　　   nodePort：37844 " in printed["nginx-svc.yml"]
    assert "\n        -containerPort: 80\n" in printed["mc3.yaml"]
    assert "mountPath:/ect/nginx/nginx.conf\n          subPath:nginx.conf\nvolumes:\n" in printed["mc3.yaml"]
    assert "worker_conections" in printed["mc3-nginx-conf.yaml"]
    assert "\nspec:\n" in printed["mc3-nginx-conf.yaml"]


def test_mc3(kubectl: Kubectl) -> None:
    assert refusal(kubectl, AS_PRINTED / "mc3.yaml") == (
        f"error: error parsing {AS_PRINTED}/mc3.yaml: error converting YAML to JSON: "
        "yaml: line 18: could not find expected ':'\n"
    )


def test_mc3_sent_as_it_is(cluster: Cluster, namespace: str) -> None:
    status = post(cluster, namespace, "pods", (AS_PRINTED / "mc3.yaml").read_text())
    assert status["code"] == 400
    assert 'a blank after ":" is missing: write "mountPath: /ect/nginx/nginx.conf"' in status["message"]


def test_no_blank_after_the_dash(kubectl: Kubectl) -> None:
    said = refusal(kubectl, with_fault("mc3.yaml", "- containerPort: 80", "-containerPort: 80"))
    assert "spec.containers[1].ports" in said
    assert 'write a space after "-"' in said


def test_no_blank_after_the_colon_of_sub_path(kubectl: Kubectl) -> None:
    said = refusal(kubectl, with_fault("mc3.yaml", "subPath: nginx.conf", "subPath:nginx.conf"))
    assert re.fullmatch(r"error: .*: yaml: line \d+: could not find expected ':'\n", said)


def test_volumes_at_the_top_level(kubectl: Kubectl) -> None:
    said = refusal(kubectl, with_fault("mc3.yaml", "\n  volumes:\n", "\nvolumes:\n"))
    assert 'unknown field "volumes" (did you mean "spec.volumes"? It is indented too little)' in said


def test_misspelt_mount_path_is_legal(kubectl: Kubectl) -> None:
    """A warning and no refusal: the path may be meant. nginx then runs with the image's own configuration."""
    kubectl.apply(LESSON / "mc3-nginx-conf.yaml")
    manifest = with_fault("mc3.yaml", "/etc/nginx/nginx.conf", "/ect/nginx/nginx.conf")
    done = kubectl.run("apply", "-f", "-", stdin=manifest)
    assert (done.code, done.out) == (0, "pod/mc3 created\n")
    assert done.err.startswith("Warning: spec.containers[1].volumeMounts[0].mountPath: ")
    assert 'did you mean "/etc/nginx/nginx.conf"?' in done.err
    kubectl.wait_ready("mc3")
    assert kubectl("exec", "mc3", "-c", "nginx", "--", "ls", "/ect/nginx") == "nginx.conf\n"
    said = kubectl("exec", "mc3", "-c", "nginx", "--", "wget", "-q", "-O", "-", "http://localhost/")
    assert "Welcome to nginx!" in said


def test_config_map_with_a_spec(kubectl: Kubectl) -> None:
    said = refusal(kubectl, AS_PRINTED / "mc3-nginx-conf.yaml")
    assert 'unknown field "spec" (a ConfigMap has no spec; it has binaryData, data, immutable)' in said


def test_nginx_svc(kubectl: Kubectl) -> None:
    assert refusal(kubectl, AS_PRINTED / "nginx-svc.yml") == (
        f"error: error parsing {AS_PRINTED}/nginx-svc.yml: error converting YAML to JSON: "
        "yaml: line 12: could not find expected ':'\n"
    )


def test_nginx_svc_sent_as_it_is(cluster: Cluster, namespace: str) -> None:
    status = post(cluster, namespace, "services", (AS_PRINTED / "nginx-svc.yml").read_text())
    assert status["code"] == 400
    assert "full-width colon" in status["message"]


def test_wide_blanks_before_a_name(kubectl: Kubectl) -> None:
    """After ordinary ones they become a part of the name, which YAML allows."""
    said = refusal(kubectl, with_fault("nginx-svc.yml", "nodePort: 31844", "　　nodePort: 31844"))
    assert 'the name has a wide or stray blank: write "nodePort"' in said


def test_full_width_colon_in_flow_style(kubectl: Kubectl) -> None:
    """Where YAML can be read all the same: the name and its value are one name without a value."""
    manifest = with_fault(
        "nginx-svc.yml",
        "    - protocol: TCP\n      nodePort: 31844\n      port: 8080\n      targetPort: 80",
        "    - {protocol: TCP, port: 8080, targetPort: 80, nodePort：31844}",
    )
    done = kubectl.run("create", "-f", "-", stdin=manifest)
    assert done.code == 1
    assert 'unknown field "spec.ports[0].nodePort：31844"' in done.err
    assert '"：" is a full-width colon: write "nodePort: 31844"' in done.err


def test_node_port_out_of_range(kubectl: Kubectl) -> None:
    said = refusal(kubectl, with_fault("nginx-svc.yml", "nodePort: 31844", "nodePort: 37844"))
    assert "spec.ports[0].nodePort: Invalid value: 37844: provided port is not in the valid range" in said
    assert "30000-32767" in said


def test_get_without_a_type(kubectl: Kubectl) -> None:
    done = kubectl.run("get", "nginx-svc")
    assert done.code == 1
    assert done.err == 'error: the server doesn\'t have a resource type "nginx-svc"\n'


def test_misspelt_describe(kubectl: Kubectl) -> None:
    done = kubectl.run("desribe", "service", "nginx-svc")
    assert done.code == 1
    assert 'unknown command "desribe" for "kubectl"' in done.err
    assert "Did you mean this?" in done.err


@pytest.mark.parametrize("name", ["my-internal-service.yaml", "my-nodeport-service.yaml", "nginx.yaml"])
def test_without_a_fault(kubectl: Kubectl, name: str) -> None:
    """Trailing blanks and comments in Chinese are harmless."""
    assert kubectl.run("apply", "-f", AS_PRINTED / name).code == 0


@pytest.mark.parametrize("path", sorted(LESSON.glob("*.y*ml")), ids=lambda p: p.name)
def test_every_corrected_manifest_is_accepted_without_a_word(kubectl: Kubectl, path: Path) -> None:
    done = kubectl.run("apply", "--dry-run=server", "-f", path)
    assert done.code == 0, done
    assert done.err == ""


def test_errata_name_every_manifest() -> None:
    text = (ROOT / "docs" / "lesson-errata.md").read_text()
    for path in AS_PRINTED.iterdir():
        assert path.name in text


def post(cluster: Cluster, namespace: str, plural: str, document: str) -> dict[str, object]:
    """The Status that answers a document of ours as it is."""
    answer = cluster.post_yaml(f"/api/v1/namespaces/{namespace}/{plural}", document)
    status = json.loads(answer.out)
    assert status["kind"] == "Status", status
    return dict(status)
