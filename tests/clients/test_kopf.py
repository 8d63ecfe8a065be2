"""A kopf operator on built-in kinds: finalizers, progress in annotations, owner references, events."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real_cluster import Cluster, Kubectl

_OPERATOR = Path(__file__).with_name("operator_of_configmaps.py")


@pytest.fixture
def operator(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[None]:
    log = tmp_path / "log"
    command = [
        sys.executable, "-m", "kopf", "run", "--namespace", namespace, "--standalone", str(_OPERATOR),
    ]  # fmt: skip
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    with (
        log.open("w") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)
            print(log.read_text())


@pytest.mark.usefixtures("operator")
def test_operator(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    kubectl("label", "configmap", "c", "mirror=me")
    kubectl.wait("secret/c", "create")
    assert kubectl.value("secret/c", ".data.a") == "MQ=="
    assert kubectl.value("secret/c", ".metadata.ownerReferences[0].name") == "c"
    assert kubectl.value("configmap/c", ".metadata.finalizers") == '["kopf.zalando.org/KopfFinalizerMarker"]'
    kubectl("patch", "configmap", "c", "-p", '{"data": {"a": "2"}}')
    kubectl.wait("secret/c", "jsonpath={.data.a}=Mg==")
    kubectl.wait(
        "event", "jsonpath={.reason}=Mirrored", "--field-selector=involvedObject.name=c,reason=Mirrored"
    )
    kubectl("delete", "configmap", "c", "--timeout=30s")
    kubectl.wait("configmap/c-gone", "create")
    kubectl.wait("secret/c", "delete")
