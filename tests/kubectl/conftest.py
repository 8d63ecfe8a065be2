"""Fixtures for the tests of kubectl's commands; the cluster is the one of tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import namespace_name
from tests.kubectl.commands import IMAGE
from tests.kubectl.terminal import Terminal
from tests.real_cluster import Cluster, Kubectl

_TWO = f"""
apiVersion: v1
kind: Pod
metadata: {{name: two, labels: {{app: two}}}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {{name: before, image: "{IMAGE}", command: [echo, from before]}}
  containers:
  - name: reader
    image: "{IMAGE}"
    stdin: true
    command: [sh, -c, 'echo one; echo two >&2; while read line; do echo "got $line"; done']
  - name: web
    image: "{IMAGE}"
    ports: [{{name: http, containerPort: 8080}}]
    command: [sh, -c, "echo serving; mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www"]
"""


@pytest.fixture(scope="session")
def left(cluster: Cluster) -> Iterator[list[str]]:
    """The namespaces of the tests that are over. They go while the next tests run; at the end of all, none may be left."""
    names: list[str] = []
    yield names
    for name in names:
        cluster.wait_gone(name)


@pytest.fixture
def namespace(cluster: Cluster, left: list[str], request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, with its default ServiceAccount. Nobody waits until it is gone."""
    name = namespace_name(request.node.name)
    cluster.make_namespace(name)
    yield name
    cluster.delete_namespace(name)
    left.append(name)


@pytest.fixture
def two(kubectl: Kubectl) -> str:
    """A ready pod: `before` ran first, `reader` reads lines and says them again, `web` serves hello on 8080."""
    kubectl("apply", "-f", "-", stdin=_TWO)
    kubectl.wait_ready("two")
    return "two"


@pytest.fixture
def told(kubectl: Kubectl, two: str) -> str:
    """The same pod, once the events of its start are written: that is after it is ready, perhaps."""
    seen: set[str] = set()

    def all_started(container: str) -> bool:
        seen.add(container)
        return len(seen) == 3

    kubectl.watch(
        "events --field-selector reason=Started", "{{.object.involvedObject.fieldPath}}", all_started
    )
    return two


@pytest.fixture
def on_terminal(cluster: Cluster, namespace: str) -> Callable[..., Terminal]:
    """kubectl as typed at a terminal, in the test's namespace."""

    def start(*arguments: str, columns: int = 80, rows: int = 24) -> Terminal:
        command = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace, *arguments]
        return Terminal(command, columns=columns, rows=rows)

    return start
