"""get and patch with --subresource, autoscale."""

from __future__ import annotations

from tests.kubectl.commands import IMAGE, answers, refused, rows, said
from tests.real_cluster import Kubectl


def test_scale(kubectl: Kubectl) -> None:
    said(kubectl, "create", "deployment", "d", f"--image={IMAGE}", "--replicas=0")
    said(kubectl, "rollout", "pause", "deployment/d")
    table = said(kubectl, "get", "deployment", "d", "--subresource=scale")
    assert table.splitlines()[0].split() == ["NAME", "DESIRED", "AVAILABLE", "AGE"]
    assert rows(table)[0][:3] == ["d", "0", "0"]
    assert (
        said(kubectl, "get", "deployment", "d", "--subresource=scale", "-o", "name")
        == "scale.autoscaling/d\n"
    )
    replicas = 0
    for kind, body in (
        ("merge", '{"spec": {"replicas": 1}}'),
        ("strategic", '{"spec": {"replicas": 0}}'),
        ("json", '[{"op": "test", "path": "/spec/replicas", "value": 0}, {"op": "replace", "path": "/spec/replicas", "value": 1}]'),
    ):  # fmt: skip
        replicas = 1 - replicas
        dry = said(kubectl, "patch", "deployment", "d", "--subresource=scale", f"--type={kind}", "-p", body,
                   "--dry-run=server", "-o", "jsonpath={.kind} {.spec.replicas}")  # fmt: skip
        assert dry == f"Scale {replicas}"
        assert kubectl.value("deployment/d", ".spec.replicas") == str(1 - replicas)
        done = said(kubectl, "patch", "deployment", "d", "--subresource=scale", f"--type={kind}", "-p", body)
        assert done == "scale.autoscaling/d patched\n"
        assert kubectl.value("deployment/d", ".spec.replicas") == str(replicas)
    wrong = refused(kubectl, "patch", "deployment", "d", "--subresource=scale", "--type=merge",
                    "-p", '{"spec": {"replicas": -1}}')  # fmt: skip
    assert "spec.replicas: Invalid value: -1: must be greater than or equal to 0" in wrong
    assert "(NotFound)" in refused(kubectl, "get", "configmap", "kube-root-ca.crt", "--subresource=scale")


def test_status(kubectl: Kubectl) -> None:
    """A PodDisruptionBudget is nobody's but ours here: no controller writes its status."""
    answers(kubectl, "create", "pdb", "p", "--selector=a=b", "--min-available=1")
    for kind, body, patched in (
        ("merge", '{"spec": {"minAvailable": 2}, "status": {"expectedPods": 4}}', "poddisruptionbudget.policy/p patched\n"),
        ("strategic", '{"status": {"disruptionsAllowed": 3}}', "poddisruptionbudget.policy/p patched\n"),
        ("json", '[{"op": "add", "path": "/status/currentHealthy", "value": 4}]', "poddisruptionbudget.policy/p patched\n"),
        ("json", '[{"op": "add", "path": "/status/currentHealthy", "value": 4}]', "poddisruptionbudget.policy/p patched (no change)\n"),
    ):  # fmt: skip
        done = kubectl.run("patch", "pdb", "p", "--subresource=status", f"--type={kind}", "-p", body)
        assert (done.code, done.out) == (0, patched), done
    assert kubectl.value("pdb/p", ".spec.minAvailable") == "1", "the status is all that can be written there"
    table = said(kubectl, "get", "pdb", "p", "--subresource=status")
    assert rows(table)[0][:4] == ["p", "1", "N/A", "3"]
    seen = "jsonpath={.status.expectedPods} {.status.currentHealthy} {.status.disruptionsAllowed}"
    assert said(kubectl, "get", "pdb", "p", "-o", seen) == "4 4 3"


def test_autoscale(kubectl: Kubectl) -> None:
    said(kubectl, "create", "deployment", "d", f"--image={IMAGE}", "--replicas=0")
    autoscale = ("autoscale", "deployment", "d", "--min=1", "--max=3", "--cpu-percent=50")
    dry = answers(kubectl, *autoscale, "--dry-run=server")
    assert dry == "horizontalpodautoscaler.autoscaling/d autoscaled (server dry run)\n"
    assert answers(kubectl, *autoscale) == "horizontalpodautoscaler.autoscaling/d autoscaled\n"
    [row] = rows(said(kubectl, "get", "hpa"))
    assert row[:-1] == ["d", "Deployment/d", "cpu:", "<unknown>/50%", "1", "3", "0"]
    one = said(
        kubectl,
        "get",
        "horizontalpodautoscalers.v1.autoscaling",
        "d",
        "-o",
        "jsonpath={.spec.targetCPUUtilizationPercentage}",
    )
    assert one == "50", "the same object in the version before"
    assert "(AlreadyExists)" in refused(kubectl, *autoscale)
    assert "Invalid value" in refused(kubectl, "patch", "hpa", "d", "-p", '{"spec": {"maxReplicas": 0}}')
