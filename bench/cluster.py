"""A cluster for the benchmarks alone, driven by the `sampan` command as a user would."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.api import Target
from sampan.cluster import config as configuration
from sampan.cluster.config import ClusterConfig

NAME = "bench"
IMAGE = "localhost/busybox:1"
ROOT = Path(__file__).resolve().parent.parent
_SAMPAN = os.environ.get("SAMPAN_COMMAND") or str(Path(sys.executable).with_name("sampan"))


def sampan(*arguments: str, home: Path | None = None) -> str:
    """What the command prints. Raises CalledProcessError; its words are on our standard error by then."""
    environment = {**os.environ, "KUBECONFIG": str(home / "kubeconfig")} if home else None
    return subprocess.run(
        [_SAMPAN, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


@contextlib.contextmanager
def empty(name: str = NAME, *options: str) -> Iterator[ClusterConfig]:
    """A running cluster with one node, nothing in it, started with `options`; deleted at the end, as is one that an earlier
    run left."""
    with tempfile.TemporaryDirectory(prefix="sampan-bench-") as directory:
        home = Path(directory)
        if name in configuration.names():
            sampan("delete", "--name", name, home=home)
        try:
            sampan("up", "--name", name, *options, home=home)
            yield configuration.existing(name)
        finally:
            if name in configuration.names():
                sampan("delete", "--name", name, home=home)


def add_image(config: ClusterConfig) -> None:
    """Have the image that pods are started from."""
    sampan("image", "build", str(ROOT / "images" / "busybox"), "--name", config.name)


def target(config: ClusterConfig) -> Target:
    """Its API, and a token that may do everything, for `wrk` knows no client certificates."""
    kubectl = ["kubectl", f"--kubeconfig={config.directory}/kubeconfig", "--namespace=kube-system"]
    for command in (
        ["create", "serviceaccount", "bench"],
        [
            "create",
            "clusterrolebinding",
            "bench",
            "--clusterrole=cluster-admin",
            "--serviceaccount=kube-system:bench",
        ],
    ):
        subprocess.run([*kubectl, *command], capture_output=True, check=True)
    token = subprocess.run(
        [*kubectl, "create", "token", "bench"], capture_output=True, text=True, check=True
    ).stdout
    return Target(config.server, token.strip())
