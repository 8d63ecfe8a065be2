"""Pods come and go; what our processes hold open for them goes too."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from sampan.client.https import MOST_AT_ONCE
from sampan.cluster import processes
from tests.real_cluster import Cluster, Kubectl

PODS = 30
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: churn}
spec:
  replicas: 0
  selector: {matchLabels: {app: churn}}
  template:
    metadata: {labels: {app: churn}}
    spec:
      # Not 0: then the API would forget a pod before its node has.
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: "localhost/busybox:1", command: [sleep, "10000"]}]
"""


def descriptors(cluster: Cluster) -> dict[str, Counter[str]]:
    """What each of our processes has open, by kind."""
    found = {}
    for pid in processes.members(f"sampan/{cluster.name}"):
        comm = Path(f"/proc/{pid}/comm").read_text().strip()
        if comm.startswith("sampan-"):
            links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
            found[comm] = Counter(link.rstrip("0123456789[]") for link in links)
    return found


def test_churn_leaves_no_descriptor_open(cluster: Cluster, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)

    first = descriptors(cluster)
    assert sorted(first) == ["sampan-control-", "sampan-node-1", "sampan-node-1-d", "sampan-superv"]
    kubectl("scale", "deployment/churn", f"--replicas={PODS}")
    kubectl.wait("deployment/churn", f"jsonpath={{.status.readyReplicas}}={PODS}")
    kubectl("scale", "deployment/churn", "--replicas=0")
    kubectl.wait("pod", "delete", "--selector=app=churn")
    last = descriptors(cluster)
    for comm, before in first.items():
        after = last[comm]
        sockets = after.pop("socket:") - before.pop("socket:")
        assert sockets <= MOST_AT_ONCE + 2, f"{comm}: more than the connections that may be kept for a while"
        assert sum((after - before).values()) <= 4, f"{comm}: {after - before} of {PODS} pods"
