"""Quotas, limits, priorities and pod security on a real cluster, as kubectl tells of them."""

from __future__ import annotations

import json

from tests.kubectl.commands import IMAGE, refused, rows, said
from tests.real_cluster import Kubectl

LIMITS = """
apiVersion: v1
kind: LimitRange
metadata: {name: l}
spec:
  limits:
  - {type: Container, default: {cpu: 200m}, defaultRequest: {cpu: 100m}, max: {cpu: 500m}}
"""
DEPLOYMENT = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: d}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: d}}}}
  template:
    metadata: {{labels: {{app: d}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: c, image: "{IMAGE}", command: [sleep, "1000"]}}]
"""


def used(kubectl: Kubectl) -> dict[str, str]:
    found: dict[str, str] = json.loads(kubectl.value("quota/q", ".status.used"))
    return found


def test_a_deployment_gets_as_many_pods_as_its_quota_has(kubectl: Kubectl) -> None:
    said(kubectl, "create", "quota", "q", "--hard=pods=2,requests.cpu=1,count/deployments.apps=1")
    assert said(kubectl, "apply", "-f", "-", stdin=LIMITS) == "limitrange/l created\n"
    kubectl.wait("quota/q", "jsonpath={.status.used}")
    assert said(kubectl, "apply", "-f", "-", stdin=DEPLOYMENT) == "deployment.apps/d created\n"
    kubectl.wait("deploy/d", "jsonpath={.status.readyReplicas}=2")
    assert used(kubectl) == {"pods": "2", "requests.cpu": "200m", "count/deployments.apps": "1"}
    message = kubectl.value("deploy/d", '.status.conditions[?(@.type=="ReplicaFailure")].message')
    assert message.endswith(
        "is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
    )
    pod = rows(said(kubectl, "get", "pods", "-l", "app=d"))[0][0]
    assert json.loads(kubectl.value(f"pod/{pod}", ".metadata.annotations")) == {
        "kubernetes.io/limit-ranger": "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    }
    told = said(kubectl, "describe", "quota", "q")
    assert [line.split() for line in told.splitlines()[4:]] == [
        ["count/deployments.apps", "1", "1"],
        ["pods", "2", "2"],
        ["requests.cpu", "200m", "1"],
    ]
    assert refused(kubectl, "create", "deployment", "e", f"--image={IMAGE}") == (
        'error: failed to create deployment: deployments.apps "e" is forbidden: exceeded quota: q, requested: '
        "count/deployments.apps=1, used: count/deployments.apps=1, limited: count/deployments.apps=1\n"
    )
    big = '{"spec":{"containers":[{"name":"x","image":"x","resources":{"limits":{"cpu":"2"}}}]}}'
    assert refused(kubectl, "run", "x", "--image=x", f"--overrides={big}") == (
        'Error from server (Forbidden): pods "x" is forbidden: maximum cpu usage per Container is 500m, but limit is 2\n'
    )
    said(kubectl, "delete", "deploy", "d")
    kubectl.wait("quota/q", "jsonpath={.status.used.pods}=0")
    assert used(kubectl) == {"pods": "0", "requests.cpu": "0", "count/deployments.apps": "0"}


def test_a_priority_class_and_a_level_of_security(kubectl: Kubectl, namespace: str) -> None:
    name = f"high-{namespace}"
    assert said(kubectl, "create", "priorityclass", name, "--value=1000") == (
        f"priorityclass.scheduling.k8s.io/{name} created\n"
    )
    try:
        spec = json.dumps({"spec": {"priorityClassName": name}})
        said(kubectl, "run", "p", f"--image={IMAGE}", f"--overrides={spec}", "--", "sleep", "1000")
        assert kubectl.value("pod/p", ".spec.priority") == "1000"
        said(kubectl, "delete", "pod", "p", "--now")
    finally:
        kubectl("delete", "priorityclass", name)
    label = "pod-security.kubernetes.io/enforce=baseline"
    version = "pod-security.kubernetes.io/enforce-version=v1.31"
    said(kubectl, "label", "namespace", namespace, label, version)
    host = json.dumps({"spec": {"hostNetwork": True}})
    assert refused(kubectl, "run", "p", f"--image={IMAGE}", f"--overrides={host}") == (
        'Error from server (Forbidden): pods "p" is forbidden: violates PodSecurity "baseline:v1.31": host namespaces '
        "(hostNetwork=true)\n"
    )
