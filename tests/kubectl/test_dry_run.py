"""`--dry-run=server` of every command that has it: the same answer, nothing written, no address spent."""

from __future__ import annotations

import pytest

from tests.kubectl.commands import IMAGE, answers, said
from tests.real_cluster import Kubectl

MADE = [
    "configmap x", "secret generic x --from-literal=a=b", "serviceaccount x", "role x --verb=get --resource=pods",
    "rolebinding x --clusterrole=view --user=ann", "clusterrole NAME --verb=get --resource=pods",
    "clusterrolebinding NAME --clusterrole=view --user=ann", "namespace NAME-dry", "quota x --hard=pods=1",
    f"deployment x --image={IMAGE}", "service clusterip x --tcp=80", "service nodeport x --tcp=80", "job x --image=i",
    "cronjob x --image=i --schedule=@daily", "ingress x --rule=a/b=c:80", "priorityclass NAME --value=1",
    "pdb x --selector=a=b --min-available=1",
]  # fmt: skip


@pytest.fixture
def counted(kubectl: Kubectl) -> str:
    """What there is that tests make, with revisions: to be the same afterwards."""
    return everything(kubectl)


def everything(kubectl: Kubectl) -> str:
    kinds = (
        "configmaps,secrets,serviceaccounts,roles,rolebindings,quota,deployments,services,jobs,cronjobs,ingresses,pdb,pods,"
        "clusterroles,clusterrolebindings,priorityclasses"
    )
    shown = '{{range .items}}{{.kind}} {{.metadata.name}} {{.metadata.resourceVersion}}{{"\\n"}}{{end}}'
    return kubectl("get", kinds, "-o", f"go-template={shown}")


def test_create(kubectl: Kubectl, counted: str) -> None:
    name = kubectl.namespace
    for command in MADE:
        out = answers(kubectl, "create", *command.replace("NAME", name).split(), "--dry-run=server")
        assert out.endswith(" created (server dry run)\n")
    assert everything(kubectl) == counted


def test_on_what_is_there(kubectl: Kubectl) -> None:
    said(kubectl, "create", "deployment", "d", f"--image={IMAGE}", "--replicas=0", "--port=80")
    said(kubectl, "rollout", "pause", "deployment/d")
    kubectl.wait("deployment/d", "jsonpath={.status.observedGeneration}=2")
    said(kubectl, "create", "rolebinding", "b", "--clusterrole=view", "--user=ann")
    said(kubectl, "create", "service", "clusterip", "s", "--tcp=80")
    before = everything(kubectl)
    for command in (
        "annotate deployment d a=b", "label deployment d a=b", "scale deployment d --replicas=3",
        "set image deployment/d busybox=other", "set env deployment/d A=1", "set resources deployment/d --limits=cpu=1",
        "set serviceaccount deployment/d default", "set selector service/s a=b", "set subject rolebinding/b --user=bob",
        "expose deployment d --name=e", "run p --image=i", "delete deployment d", "delete service s --wait=false",
    ):  # fmt: skip
        out = said(kubectl, *command.split(), "--dry-run=server")
        assert out.endswith("(server dry run)\n"), command
    # Of patch kubectl says no such thing.
    said(kubectl, "patch", "deployment", "d", "-p", '{"spec": {"replicas": 2}}', "--dry-run=server")
    resumed = said(kubectl, "get", "deployment", "d", "-o", "jsonpath={.spec.paused}")
    assert resumed == "true"
    said(kubectl, "taint", "nodes", "node-1", "dry=run:NoSchedule", "--dry-run=server")
    assert said(kubectl, "cordon", "node-1", "--dry-run=server") == "node/node-1 cordoned (server dry run)\n"
    assert "dry" not in kubectl.value("node/node-1", ".spec.taints")
    assert kubectl.value("node/node-1", ".spec.unschedulable") == ""
    assert everything(kubectl) == before
