"""The machine's kubectl with what makes, scales and protects pods; no controllers run here."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.apiserver.conftest import Api, Kubectl
from tests.apiserver.test_eviction import budget, running

POD = "{metadata: {labels: {app: x}}, spec: {containers: [{name: c, image: nginx}]}}"
MANIFESTS = f"""
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: ds}}
spec: {{selector: {{matchLabels: {{app: x}}}}, template: {POD}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: sts}}
spec: {{serviceName: web, replicas: 2, selector: {{matchLabels: {{app: x}}}}, template: {POD}}}
---
apiVersion: v1
kind: ReplicationController
metadata: {{name: rc}}
spec: {{replicas: 2, selector: {{app: x}}, template: {POD}}}
---
apiVersion: v1
kind: PodTemplate
metadata: {{name: pt}}
template: {POD}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: pdb}}
spec: {{minAvailable: 50%, selector: {{matchLabels: {{app: x}}}}}}
"""


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def test_apply_diff_and_get(kubectl: Kubectl) -> None:
    kinds = ("daemonset.apps/ds", "statefulset.apps/sts", "replicationcontroller/rc", "podtemplate/pt",
             "poddisruptionbudget.policy/pdb")  # fmt: skip
    out = await kubectl("apply", "-f", "-", stdin=MANIFESTS)
    assert out == "".join(f"{k} created\n" for k in kinds)
    out = await kubectl("apply", "-f", "-", stdin=MANIFESTS)
    # A budget's selector has the patch strategy `replace`, for which kubectl always makes a patch.
    assert out == "".join(f"{k} {'configured' if 'pdb' in k else 'unchanged'}\n" for k in kinds)
    assert await kubectl("diff", "-f", "-", stdin=MANIFESTS) == ""
    code, out, _ = await kubectl.run(
        "diff", "-f", "-", stdin=MANIFESTS.replace("image: nginx", "image: nginx:2")
    )
    assert code == 1
    assert out.count("+      - image: nginx:2") == 3
    out = await kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=MANIFESTS)
    assert out == "".join(f"{k} serverside-applied\n" for k in kinds)
    heads = {
        "ds": "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE CONTAINERS IMAGES SELECTOR",
        "sts": "NAME READY AGE CONTAINERS IMAGES",
        "rc": "NAME DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR",
        "podtemplates": "NAME CONTAINERS IMAGES POD LABELS",
        "pdb": "NAME MIN AVAILABLE MAX UNAVAILABLE ALLOWED DISRUPTIONS AGE",
    }
    for kind, head in heads.items():
        (first, _) = table(await kubectl("get", kind, "-o", "wide"))
        assert " ".join(first) == head
    listed = await kubectl("get", "all", "-l", "!component", "-o", "name")
    assert listed.split() == ["replicationcontroller/rc", "daemonset.apps/ds", "statefulset.apps/sts"]
    assert "nginx" in await kubectl("describe", "ds,sts,rc,pdb")
    out = await kubectl("delete", "-f", "-", stdin=MANIFESTS)
    assert out.count("deleted") == 5


async def test_explain(kubectl: Kubectl) -> None:
    for field, text in (
        ("daemonset.spec.updateStrategy", "DaemonSetUpdateStrategy"),
        ("sts.spec.volumeClaimTemplates", "<[]PersistentVolumeClaim>"),
        ("job.spec.podFailurePolicy.rules", "<[]PodFailurePolicyRule>"),
        ("cronjob.spec.timeZone", "<string>"),
        ("hpa.spec.behavior", "VERSION:    v2"),
        ("pdb.spec.unhealthyPodEvictionPolicy", "IfHealthyBudget"),
    ):
        assert text in await kubectl("explain", field), field
    assert "targetCPUUtilizationPercentage" in await kubectl(
        "explain", "hpa.spec", "--api-version=autoscaling/v1"
    )


async def test_jobs_from_the_command_line(kubectl: Kubectl) -> None:
    """`create` sends protobuf."""
    assert await kubectl("create", "job", "j", "--image=busybox", "--", "date") == "job.batch/j created\n"
    out = await kubectl("create", "cronjob", "c", "--image=busybox", "--schedule=*/5 * * * *")
    assert out == "cronjob.batch/c created\n"
    assert await kubectl("create", "job", "one", "--from=cronjob/c") == "job.batch/one created\n"
    made = json.loads(await kubectl("get", "job", "one", "-o", "json"))
    assert made["metadata"]["annotations"] == {"cronjob.kubernetes.io/instantiate": "manual"}
    assert made["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert table(await kubectl("get", "jobs"))[1][:3] == ["j", "Running", "0/1"]
    assert table(await kubectl("get", "cj"))[1][:9] == [
        "c",
        "*/5",
        "*",
        "*",
        "*",
        "*",
        "<none>",
        "False",
        "0",
    ]
    assert "Completion Mode:  NonIndexed" in await kubectl("describe", "job", "j")
    code, _, err = await kubectl.run("create", "cronjob", "d", "--image=busybox", "--schedule=never")
    assert code == 1
    assert "expected exactly 5 fields, found 1: [never]" in err
    code, _, err = await kubectl.run("patch", "job", "j", "-p", '{"spec":{"completions":3}}')
    assert "spec.completions: Invalid value: 3: field is immutable" in err
    assert "patched" in await kubectl("patch", "cj", "c", "-p", '{"spec":{"suspend":true}}')
    assert await kubectl("delete", "job,cj", "--all") == (
        'job.batch "j" deleted\njob.batch "one" deleted\ncronjob.batch "c" deleted\n'
    )


async def test_scale_and_set(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFESTS)
    assert await kubectl("scale", "sts", "sts", "--replicas=5") == "statefulset.apps/sts scaled\n"
    assert await kubectl("scale", "rc", "rc", "--replicas=0") == "replicationcontroller/rc scaled\n"
    assert table(await kubectl("get", "sts"))[1][1] == "0/5"
    assert table(await kubectl("get", "rc"))[1][1] == "0"
    await kubectl("create", "cronjob", "c", "--image=busybox", "--schedule=@daily")
    for target in ("ds/ds", "sts/sts", "rc/rc"):
        assert "image updated" in await kubectl("set", "image", target, "c=nginx:2")
        assert "env updated" in await kubectl("set", "env", target, "A=b")
    assert "image updated" in await kubectl("set", "image", "cronjob/c", "c=busybox:2")
    found = await kubectl("get", "ds", "ds", "-o", "jsonpath={.metadata.generation}")
    assert found == "3"
    assert "restarted" in await kubectl("rollout", "restart", "ds/ds", "sts/sts")


async def test_autoscale(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFESTS)
    out = await kubectl("autoscale", "sts", "sts", "--min=2", "--max=5", "--cpu-percent=70")
    assert out == "horizontalpodautoscaler.autoscaling/sts autoscaled\n"
    (_, row) = table(await kubectl("get", "hpa"))
    assert row[:7] == ["sts", "StatefulSet/sts", "cpu:", "<unknown>/70%", "2", "5", "0"]
    assert table(await kubectl("get", "horizontalpodautoscalers.v1.autoscaling"))[1][:7] == row[:7]
    v1 = json.loads(
        await kubectl(
            "get", "horizontalpodautoscalers.v1.autoscaling", "sts", "-o", "json", "--show-managed-fields"
        )
    )
    assert v1["spec"]["targetCPUUtilizationPercentage"] == 70
    (manager,) = v1["metadata"]["managedFields"]
    assert (manager["manager"], manager["apiVersion"]) == ("kubectl-autoscale", "autoscaling/v1")
    assert "f:targetCPUUtilizationPercentage" in manager["fieldsV1"]["f:spec"]
    behavior = '{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":9}}}}'
    assert "patched" in await kubectl("patch", "hpa", "sts", "-p", behavior)
    patch = '{"spec":{"targetCPUUtilizationPercentage":60}}'
    assert "patched" in await kubectl("patch", "horizontalpodautoscalers.v1.autoscaling", "sts", "-p", patch)
    v2 = json.loads(await kubectl("get", "hpa", "sts", "-o", "json"))
    assert v2["apiVersion"] == "autoscaling/v2"
    assert v2["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 9
    assert v2["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
    assert "annotations" not in v2["metadata"]
    assert "deleted" in await kubectl("delete", "hpa", "sts")


def revision(number: int, owner: Any) -> Any:
    kind, meta = owner["kind"], owner["metadata"]
    template = owner["spec"]["template"]
    template["spec"]["containers"][0]["image"] = f"nginx:{number}"
    reference = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": f"r{number}", "labels": {"app": "x"}, "ownerReferences": [reference]},
        "data": {"spec": {"template": {**template, "$patch": "replace"}}},
        "revision": number,
    }


async def test_rollout_history(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFESTS)
    for kind in ("ds", "sts"):
        owner = json.loads(await kubectl("get", kind, kind, "-o", "json"))
        for number in (1, 2):
            made = json.dumps(revision(number, owner))
            assert "created" in await kubectl("create", "-f", "-", stdin=made)
        history = table(await kubectl("rollout", "history", f"{kind}/{kind}"))
        assert history[1:4] == [["REVISION", "CHANGE-CAUSE"], ["1", "<none>"], ["2", "<none>"]]
        assert "nginx:2" in await kubectl("rollout", "history", f"{kind}/{kind}", "--revision=2")
        listed = table(await kubectl("get", "controllerrevisions"))
        full = {"ds": "daemonset.apps/ds", "sts": "statefulset.apps/sts"}[kind]
        assert listed[1][:3] == ["r1", full, "1"]
        assert "rolled back" in await kubectl("rollout", "undo", f"{kind}/{kind}", "--to-revision=1")
        image = await kubectl("get", kind, kind, "-o", "jsonpath={.spec.template.spec.containers[0].image}")
        assert image == "nginx:1"
        await kubectl("delete", "controllerrevisions", "--all")


async def test_edit(kubectl: Kubectl, tmp_path: Path) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFESTS)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/minAvailable: 50%/minAvailable: 1/" "$1"\n')
    editor.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        "kubectl",
        "edit",
        "pdb",
        "pdb",
        env={**os.environ, "KUBE_EDITOR": str(editor), "KUBECONFIG": str(kubectl.kubeconfig)},
        stdout=subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert out.decode() == "poddisruptionbudget.policy/pdb edited\n"
    assert await kubectl("get", "pdb", "pdb", "-o", "jsonpath={.spec.minAvailable}") == "1"


async def test_budgets_and_drain(kubectl: Kubectl, api: Api) -> None:
    out = await kubectl("create", "pdb", "p", "--selector=app=db", "--max-unavailable=1")
    assert out == "poddisruptionbudget.policy/p created\n"
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
    await running(api, "one")
    await budget(api, allowed=0)
    code, _, err = await kubectl.run("drain", "n1", "--force", "--timeout=1s")
    assert code == 1
    assert "Cannot evict pod as it would violate the pod's disruption budget." in err
    status = {"status": {"disruptionsAllowed": 1}}
    path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/b/status"
    await api.ok("PATCH", path, status, content_type="application/merge-patch+json")
    code, out, err = await kubectl.run("drain", "n1", "--force", "--timeout=1s")
    assert "pod/one" in out + err
    left = await api.ok("GET", "/api/v1/namespaces/default/pods/one")
    assert left["metadata"]["deletionTimestamp"]
