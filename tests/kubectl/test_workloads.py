"""label, annotate, scale, expose, set, rollout, wait, delete: commands on what runs."""

from __future__ import annotations

from tests.kubectl.commands import IMAGE, refused, said
from tests.real_cluster import Kubectl

DEPLOYMENT = "deployment/web"
FORCED = (
    "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. "
    "The resource may continue to run on the cluster indefinitely.\n"
)


def deployment(kubectl: Kubectl, replicas: int = 1) -> None:
    """`web`, ready, whose pods end at once when told to."""
    said(kubectl, "create", "deployment", "web", f"--image={IMAGE}", f"--replicas={replicas}", "--port=8080",
         "--", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done")  # fmt: skip
    rolled_out(kubectl)


def rolled_out(kubectl: Kubectl) -> None:
    out = said(kubectl, "rollout", "status", DEPLOYMENT, "--timeout=60s")
    assert out.endswith('deployment "web" successfully rolled out\n')


def test_labels_and_annotations(kubectl: Kubectl) -> None:
    said(kubectl, "create", "configmap", "c")
    assert said(kubectl, "label", "configmap", "c", "a=1") == "configmap/c labeled\n"
    assert "already has a value (1)" in refused(kubectl, "label", "configmap", "c", "a=2")
    assert said(kubectl, "label", "configmap", "c", "a=2", "--overwrite") == "configmap/c labeled\n"
    assert said(kubectl, "label", "configmap", "c", "--list") == "a=2\n"
    assert said(kubectl, "label", "configmap", "c", "a-") == "configmap/c unlabeled\n"
    assert "invalid label value" in refused(kubectl, "label", "configmap", "c", "a=not valid")
    assert said(kubectl, "annotate", "configmap", "c", "note=two words") == "configmap/c annotated\n"
    assert kubectl.value("configmap/c", ".metadata.annotations.note") == "two words"
    assert said(kubectl, "annotate", "configmap", "c", "note-") == "configmap/c annotated\n"


def test_scale_and_expose(kubectl: Kubectl) -> None:
    deployment(kubectl)
    assert said(kubectl, "scale", DEPLOYMENT, "--replicas=3") == "deployment.apps/web scaled\n"
    kubectl.wait(DEPLOYMENT, "jsonpath={.status.readyReplicas}=3")
    refusal = refused(kubectl, "scale", DEPLOYMENT, "--replicas=1", "--current-replicas=7")
    assert refusal == "error: Expected replicas to be 7, was 3\n"
    assert (
        said(kubectl, "scale", DEPLOYMENT, "--replicas=1", "--current-replicas=3")
        == "deployment.apps/web scaled\n"
    )
    rs = kubectl.value("replicaset", ".items[0].metadata.name")
    kubectl.wait(f"replicaset/{rs}", "jsonpath={.status.replicas}=1")
    assert said(kubectl, "expose", DEPLOYMENT, "--type=NodePort", "--name=n") == "service/n exposed\n"
    assert 30000 <= int(kubectl.value("service/n", ".spec.ports[0].nodePort")) <= 32767
    assert kubectl.value("service/n", ".spec.ports[0].port") == "8080"
    assert kubectl.value("service/n", ".spec.selector.app") == "web"
    kubectl.wait_endpoints("n", 1)
    dry = said(kubectl, "expose", DEPLOYMENT, "--port=80", "--dry-run=server", "-o", "name")
    assert dry == "service/web\n"
    assert "(NotFound)" in refused(kubectl, "get", "service", "web")


def test_set(kubectl: Kubectl) -> None:
    deployment(kubectl)
    said(kubectl, "create", "configmap", "c", "--from-literal=KEY=value")
    assert (
        said(kubectl, "set", "image", DEPLOYMENT, "busybox=busybox:latest")
        == "deployment.apps/web image updated\n"
    )
    assert said(kubectl, "set", "env", DEPLOYMENT, "A=1", "B=2") == "deployment.apps/web env updated\n"
    assert said(kubectl, "set", "env", DEPLOYMENT, "A-") == "deployment.apps/web env updated\n"
    assert (
        said(kubectl, "set", "env", DEPLOYMENT, "--from=configmap/c") == "deployment.apps/web env updated\n"
    )
    listed = said(kubectl, "set", "env", DEPLOYMENT, "--list")
    assert listed == "# Deployment web, container busybox\nB=2\n# KEY from configmap c, key KEY\n"
    limits = ("--limits=cpu=200m,memory=64Mi", "--requests=cpu=10m")
    done = said(kubectl, "set", "resources", DEPLOYMENT, *limits)
    assert done == "deployment.apps/web resource requirements updated\n"
    said(kubectl, "create", "serviceaccount", "robot")
    done = said(kubectl, "set", "serviceaccount", DEPLOYMENT, "robot")
    assert done == "deployment.apps/web serviceaccount updated\n"
    rolled_out(kubectl)
    kubectl.wait("pods", "delete", "-l", "app=web,pod-template-hash!=" + newest_hash(kubectl))
    said(kubectl, "exec", DEPLOYMENT, "--", "sh", "-c", '[ "$B" = 2 ] && [ "$KEY" = value ] && [ -z "$A" ]')
    pod = said(kubectl, "get", "pods", "-o", "name").strip()
    assert kubectl.value(pod, ".spec.serviceAccountName") == "robot"
    assert kubectl.value(pod, ".spec.containers[0].image") == "busybox:latest"
    assert kubectl.value(pod, ".spec.containers[0].resources.limits.cpu") == "200m"


def newest_hash(kubectl: Kubectl) -> str:
    newest = kubectl("get", "replicasets", "--sort-by=.metadata.annotations.deployment\\.kubernetes\\.io/revision",
                     "-o", "jsonpath={.items[-1:].metadata.labels.pod-template-hash}")  # fmt: skip
    assert newest
    return newest


def revisions(kubectl: Kubectl) -> list[str]:
    history = said(kubectl, "rollout", "history", DEPLOYMENT)
    return [line.split(maxsplit=1)[0] for line in history.splitlines() if line[:1].isdigit()]


def test_rollout(kubectl: Kubectl) -> None:
    deployment(kubectl, 2)
    said(kubectl, "set", "env", DEPLOYMENT, "LIFE=2")
    said(kubectl, "annotate", DEPLOYMENT, "kubernetes.io/change-cause=a second life")
    rolled_out(kubectl)
    assert revisions(kubectl) == ["1", "2"]
    kubectl.wait("replicaset", "jsonpath={.metadata.annotations.kubernetes\\.io/change-cause}=a second life",
                 "-l", f"pod-template-hash={newest_hash(kubectl)}")  # fmt: skip
    assert "a second life" in said(kubectl, "rollout", "history", DEPLOYMENT)
    assert "LIFE:\t2" in said(kubectl, "rollout", "history", DEPLOYMENT, "--revision=2")
    assert "rolled back (server dry run)" in said(kubectl, "rollout", "undo", DEPLOYMENT, "--dry-run=server")
    assert said(kubectl, "rollout", "undo", DEPLOYMENT) == "deployment.apps/web rolled back\n"
    rolled_out(kubectl)
    kubectl.wait(DEPLOYMENT, "jsonpath={.metadata.annotations.deployment\\.kubernetes\\.io/revision}=3")
    assert revisions(kubectl) == ["2", "3"]
    assert said(kubectl, "set", "env", DEPLOYMENT, "--list") == "# Deployment web, container busybox\n"
    assert (
        said(kubectl, "rollout", "undo", DEPLOYMENT, "--to-revision=2") == "deployment.apps/web rolled back\n"
    )
    rolled_out(kubectl)
    assert refused(kubectl, "rollout", "undo", DEPLOYMENT, "--to-revision=99") == (
        "error: unable to find specified revision 99 in history\n"
    )
    assert said(kubectl, "rollout", "pause", DEPLOYMENT) == "deployment.apps/web paused\n"
    assert "is already paused" in refused(kubectl, "rollout", "pause", DEPLOYMENT)
    assert "can't restart paused deployment" in refused(kubectl, "rollout", "restart", DEPLOYMENT)
    before = newest_hash(kubectl)
    said(kubectl, "set", "env", DEPLOYMENT, "LIFE=3")
    kubectl.wait(
        DEPLOYMENT, 'jsonpath={.status.conditions[?(@.type=="Progressing")].reason}=DeploymentPaused'
    )
    assert newest_hash(kubectl) == before, "paused"
    assert said(kubectl, "rollout", "resume", DEPLOYMENT) == "deployment.apps/web resumed\n"
    rolled_out(kubectl)
    assert newest_hash(kubectl) != before
    assert (
        said(kubectl, "rollout", "restart", "deployment", "-l", "app=web")
        == "deployment.apps/web restarted\n"
    )
    rolled_out(kubectl)
    assert len(revisions(kubectl)) == 4
    last = revisions(kubectl)[-1]
    assert said(kubectl, "rollout", "status", DEPLOYMENT, f"--revision={last}", "--watch=false").endswith(
        "rolled out\n"
    )
    assert "desired revision (2) is different from the running revision" in refused(
        kubectl, "rollout", "status", DEPLOYMENT, "--revision=2"
    )


def test_rollout_that_fails_says_so(kubectl: Kubectl) -> None:
    deployment(kubectl)
    said(kubectl, "patch", DEPLOYMENT, "-p", '{"spec": {"progressDeadlineSeconds": 1}}')
    said(kubectl, "set", "image", DEPLOYMENT, "busybox=No_Such/Image")
    waited = kubectl.run("rollout", "status", DEPLOYMENT, "--timeout=30s")
    assert (waited.code, waited.err) == (1, 'error: deployment "web" exceeded its progress deadline\n')
    assert kubectl.value(DEPLOYMENT, ".status.readyReplicas") == "1", "the old pod goes on serving"


def test_wait(kubectl: Kubectl, two: str) -> None:
    assert said(kubectl, "wait", "--for=condition=Ready", "pod/two") == "pod/two condition met\n"
    assert said(kubectl, "wait", "--for=condition=Ready=True", "pod", "--all") == "pod/two condition met\n"
    assert (
        said(kubectl, "wait", "--for=jsonpath={.status.phase}=Running", "pod", "-l", "app=two")
        == "pod/two condition met\n"
    )
    assert said(kubectl, "wait", "--for=jsonpath={.status.podIP}", "pod/two") == "pod/two condition met\n"
    assert said(kubectl, "wait", "--for=condition=Initialized", "pod/two", "-o", "name") == "pod/two\n"
    never = refused(kubectl, "wait", "--for=create", "configmap/none", "--timeout=100ms")
    assert never == "error: timed out waiting for the condition\n"
    late = refused(kubectl, "wait", "--for=condition=Ready=False", "pod/two", "--timeout=100ms")
    assert late == "error: timed out waiting for the condition on pods/two\n"
    assert '"none" not found' in refused(kubectl, "wait", "--for=condition=Ready", "pod/none")
    with kubectl.start("wait", "--for=create", "configmap/c", "--timeout=30s") as lines:
        said(kubectl, "create", "configmap", "c")
        assert next(lines) == "configmap/c condition met\n"
    with kubectl.start("wait", "--for=delete", "pod/two", "--timeout=30s") as lines:
        said(kubectl, "delete", "pod", "two", "--wait=false")
        assert next(lines) == "pod/two condition met\n"
    assert said(kubectl, "wait", "--for=delete", "pod/two") == ""


def test_delete(kubectl: Kubectl, two: str) -> None:
    for name in ("a", "b", "c"):
        said(kubectl, "create", "secret", "generic", name)
    said(kubectl, "label", "secret", "a", "b", "old=yes")
    dry = said(kubectl, "delete", "secret", "c", "--dry-run=server")
    assert dry == 'secret "c" deleted (server dry run)\n'
    assert said(kubectl, "delete", "secret", "-l", "old") == 'secret "a" deleted\nsecret "b" deleted\n'
    assert said(kubectl, "delete", "secrets", "--all") == 'secret "c" deleted\n'
    assert '"c" not found' in refused(kubectl, "delete", "secret", "c")
    assert said(kubectl, "delete", "secret", "c", "--ignore-not-found") == ""
    assert said(kubectl, "delete", "pod", two, "--now") == 'pod "two" deleted\n'


def test_delete_by_force(kubectl: Kubectl, two: str) -> None:
    done = said(kubectl, "delete", "pod", two, "--force", "--grace-period=0", err=FORCED)
    assert done == 'pod "two" force deleted\n'
    assert said(kubectl, "get", "pod", two, "--ignore-not-found") == ""


def test_delete_with_and_without_dependents(kubectl: Kubectl) -> None:
    deployment(kubectl)
    replicaset = said(kubectl, "get", "replicasets", "-o", "name").strip()
    said(kubectl, "delete", DEPLOYMENT, "--cascade=orphan")
    assert kubectl.value(replicaset, ".metadata.ownerReferences") == ""
    pod = said(kubectl, "get", "pods", "-o", "name").strip()
    assert said(kubectl, "delete", replicaset, "--cascade=foreground").endswith("deleted\n")
    assert said(kubectl, "get", pod, "--ignore-not-found") == ""
    deployment(kubectl)
    pod = said(kubectl, "get", "pods", "-o", "name").strip()
    assert said(kubectl, "delete", DEPLOYMENT, "--cascade=background") == 'deployment.apps "web" deleted\n'
    kubectl.wait(pod, "delete")
