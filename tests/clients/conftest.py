"""What the tests of foreign clients share: a pod to talk to, and a Deployment to change.

Each client lists, watches, patches, applies, runs commands and forwards ports as far as it offers it, on the one real cluster
of tests/conftest.py. None of them is ours: what they take for granted of Kubernetes is what is tested.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.kubectl.commands import IMAGE
from tests.real_cluster import Kubectl

_POD = f"""
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: "{IMAGE}"
    ports: [{{name: http, containerPort: 8080}}]
    command: [sh, -c, "echo serving; mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www"]
"""


@pytest.fixture
def web(kubectl: Kubectl) -> str:
    """A ready pod whose log is `serving` and which answers `hello` on port 8080."""
    kubectl("apply", "-f", "-", stdin=_POD)
    kubectl.wait_ready("web")
    return "web"


def deployment(name: str = "d", replicas: int = 0, image: str = IMAGE) -> dict[str, Any]:
    """A Deployment for clients to make."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image, "command": ["sleep", "1000"]}]},
            },
        },
    }
