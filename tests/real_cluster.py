"""A whole cluster on this machine, as its user has it: the `sampan` command, the machine's own kubectl, curl.

Nothing here looks inside: what a test says about a cluster is what these programs print.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import IO, Any

from sampan.cluster import config as configuration
from sampan.cluster.config import ClusterConfig
from tests.programs import kubectl_problem

ROOT = Path(__file__).resolve().parent.parent
SAMPAN = os.environ.get("SAMPAN_COMMAND") or str(Path(sys.executable).with_name("sampan"))
RECIPES = ("busybox", "debian", "nginx", "nginx-alpine", "webapp")
_PROGRAMS = ("curl", "conmon", "catatonit", "nft", "skopeo", "mmdebstrap")
_PREFIX = "pytest-"


def missing() -> str:
    """Why no cluster can be started here, or ""."""
    if os.geteuid() != 0:
        return "a cluster needs root"
    absent = [p for p in _PROGRAMS if not which(p)]
    if not (which("crun") or which("runc")):
        absent.append("crun")
    return f"programs are missing: {', '.join(absent)}" if absent else kubectl_problem()


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 90,
) -> Result:
    """Run to the end, whatever the exit code."""
    done = subprocess.run(
        [str(c) for c in command],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=timeout,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def curl(url: str, *options: str) -> Result:
    """`curl` of this machine, the answer's body in `out`. An answer of 400 or more is a failure (exit code 22)."""
    return run(
        ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "10", *options, url]
    )


def fetch(url: str) -> str:
    """The body that `url` answers. A refused connection is tried again for a little while: kubectl may tell of an
    endpoint some milliseconds before the kernel has its rule."""
    done = curl(url, "--retry", "8", "--retry-connrefused", "--retry-max-time", "20")
    assert done.code == 0, f"curl {url}: {done.err}"
    return done.out


class Kubectl:
    """kubectl on one cluster, in one namespace.

    `kubectl("get", "pods")` returns what it prints and fails the test if it fails; `kubectl.run` returns a Result
    whatever happens; `kubectl.start` leaves it running for the `with` block.
    """

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.namespace = namespace
        # What it remembers of a server goes with the cluster: another one may have the same address.
        remembered = kubeconfig.with_name("kubectl-cache")
        self._environment = {"KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(remembered)}

    def _command(self, arguments: Sequence[str | Path]) -> list[str]:
        """The namespace comes after the verb: kubectl takes a verb that it does not know for a plugin's name."""
        verb, *rest = (str(a) for a in arguments)
        return ["kubectl", verb, f"--namespace={self.namespace}", *rest]

    def run(self, *arguments: str | Path, stdin: str | None = None) -> Result:
        return run(self._command(arguments), stdin=stdin, env=self._environment)

    def __call__(self, *arguments: str | Path, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        said = f"kubectl {' '.join(map(str, arguments))}: exit code {done.code}\n{done.out}{done.err}"
        assert done.code == 0, said
        return done.out

    @contextmanager
    def start(self, *arguments: str | Path) -> Iterator[IO[str]]:
        """Its output to read from, line by line, while it runs; it is ended with the block."""
        command = self._command(arguments)
        environment = {**os.environ, **self._environment}
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                yield process.stdout
            finally:
                process.terminate()

    def apply(self, *files: Path) -> str:
        return self("apply", *(part for file in files for part in ("-f", file)))

    def value(self, resource: str, path: str) -> str:
        """One value of an object: `value("pod/mc3", ".status.podIP")`."""
        return self("get", resource, "-o", f"jsonpath={{{path}}}")

    def wait(self, resource: str, condition: str, *options: str, timeout: int = 60) -> None:
        """`kubectl wait`: `wait("pod/mc3", "condition=Ready")`, `wait("pod", "jsonpath={.status.phase}=Failed", "--all")`."""
        self("wait", f"--for={condition}", resource, f"--timeout={timeout}s", *options)

    def wait_ready(self, *pods: str) -> None:
        for pod in pods:
            self.wait(f"pod/{pod}", "condition=Ready")

    def wait_container(self, pod: str, container: str, field: str, value: str) -> None:
        """Wait for a field of a container's status: `("mc1", "2nd", "state.waiting.reason", "CrashLoopBackOff")`."""
        self.wait(
            f"pod/{pod}", f'jsonpath={{.status.containerStatuses[?(@.name=="{container}")].{field}}}={value}'
        )

    def wait_endpoints(self, service: str, count: int) -> None:
        """Wait until the Service has exactly `count` ready endpoints."""
        self.watch(
            f"endpointslices -l kubernetes.io/service-name={service}",
            "{{range .object.endpoints}}{{if .conditions.ready}}{{index .addresses 0}} {{end}}{{end}}",
            lambda addresses: len(addresses.split()) == count,
        )

    def watch(self, resources: str, template: str, enough: Callable[[str], bool]) -> str:
        """Watch until what a Go template makes of one event (`.type`, `.object`) is `enough`; returns that text."""
        seen = []
        with self.start(
            "get", *resources.split(" "), "--watch", "--output-watch-events", "--request-timeout=60s",
            "-o", f'go-template={template}{{{{"\\n"}}}}',
        ) as lines:  # fmt: skip
            for line in lines:
                seen.append(line.rstrip("\n"))
                if enough(seen[-1]):
                    return seen[-1]
        raise AssertionError(f"watched {resources} for 60 s and saw {seen}")


@dataclass(frozen=True)
class Cluster:
    """A running cluster. `config` has its name, ranges and directories."""

    config: ClusterConfig

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def kubeconfig(self) -> Path:
        """The cluster's own, which nobody else changes."""
        return self.config.directory / "kubeconfig"

    @property
    def node_address(self) -> str:
        """The first node's address: what the lesson calls nodeIP."""
        return self.config.node_address(self.config.nodes[0])

    def kubectl(self, namespace: str = "default") -> Kubectl:
        return Kubectl(self.kubeconfig, namespace)

    def in_node(self, *command: str) -> Result:
        """Run a program of this machine on the first node's network."""
        return run(["nsenter", f"--net={self.config.node_netns(self.config.nodes[0])}", *command])

    def post_yaml(self, path: str, document: str) -> Result:
        """POST a document as it is, where kubectl would turn it into JSON first."""
        pki = self.config.directory / "pki"
        return run(
            ["curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", pki / "ca.crt", "--cert", pki / "admin.crt",
             "--key", pki / "admin.key", "-H", "Content-Type: application/yaml", "--data-binary", "@-", self.config.server + path],
            stdin=document,
        )  # fmt: skip

    @contextmanager
    def call(self, method: str, path: str, body: object = None) -> Iterator[IO[bytes]]:
        """The answer of the API, to read in the `with` block. For what stands around tests: kubectl needs ten times as long."""
        pki = self.config.directory / "pki"
        tls = ssl.create_default_context(cafile=pki / "ca.crt")
        tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        request = urllib.request.Request(
            self.config.server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        direct = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls)
        )
        with direct.open(request, timeout=60) as answer:
            yield answer

    def make_namespace(self, name: str) -> None:
        """Make it and wait until pods can be made in it: for its default ServiceAccount."""
        with self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}}):
            pass
        path = f"/api/v1/namespaces/{name}/serviceaccounts"
        with self.call("GET", f"{path}?watch=1&fieldSelector=metadata.name%3Ddefault") as events:
            assert json.loads(events.readline())["type"] == "ADDED"

    def delete_namespace(self, name: str) -> None:
        """Have it deleted, its pods with one second to end."""
        with self.call("DELETE", f"/api/v1/namespaces/{name}"):
            pass
        with self.call("DELETE", f"/api/v1/namespaces/{name}/pods?gracePeriodSeconds=1"):
            pass

    def wait_gone(self, namespace: str) -> None:
        path = f"/api/v1/namespaces?watch=1&timeoutSeconds=60&fieldSelector=metadata.name%3D{namespace}"
        with self.call("GET", f"{path}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true") as events:  # fmt: skip
            last: dict[str, Any] = {}
            for line in events:
                before, last = last, json.loads(line)
                # The bookmark ends what there is at first: if nothing came before it, there is none.
                if last["type"] == "DELETED" or (last["type"] == "BOOKMARK" and not before):
                    return
        raise AssertionError(f"namespace {namespace} was still there after 60 s: {last}")


def sampan(*arguments: str, kubeconfig: Path) -> str:
    """The command line; the context is merged into `kubeconfig`, never into the user's own file."""
    done = run([SAMPAN, *arguments], env={"KUBECONFIG": str(kubeconfig)}, timeout=600)
    assert done.code == 0, f"sampan {' '.join(arguments)}: exit code {done.code}\n{done.out}{done.err}"
    return done.out


@contextmanager
def started(home: Path) -> Iterator[Cluster]:
    """A cluster with every image of images/, deleted at the end of the block; first, those that a killed test run left."""
    config_file = home / "kubeconfig"
    _delete_orphans(config_file)
    name = f"{_PREFIX}{os.getpid()}"
    try:
        sampan("up", "--name", name, kubeconfig=config_file)
        recipes = [str(ROOT / "images" / recipe) for recipe in RECIPES]
        sampan("image", "build", *recipes, "--name", name, kubeconfig=config_file)
        yield Cluster(configuration.existing(name))
    finally:
        if configuration.load(name) is not None:
            sampan("delete", "--name", name, kubeconfig=config_file)


def _delete_orphans(config_file: Path) -> None:
    for name in configuration.names():
        pid = name.removeprefix(_PREFIX)
        if name.startswith(_PREFIX) and pid.isdigit() and not Path("/proc", pid).exists():
            sampan("delete", "--name", name, kubeconfig=config_file)
