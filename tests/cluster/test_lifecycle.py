"""A cluster's life as its owner sees it: up, stop, up again, delete; kills in between; several side by side."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.cluster.supervision import await_change
from tests import real_cluster
from tests.cluster.front_door import eventually
from tests.cluster.machine import picture

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(real_cluster.missing()), reason=real_cluster.missing()),
]
SAMPAN = os.environ.get("SAMPAN_COMMAND") or str(Path(sys.executable).with_name("sampan"))
ROOT = Path(__file__).resolve().parents[2]


class Owner:
    """Whoever types the commands: with a kubeconfig of its own, for clusters whose names only this test uses."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "KUBECONFIG": str(home / "config"), "HOME": str(home)}
        self.names: list[str] = []

    def name(self, suffix: str = "") -> str:
        name = f"t{os.getpid()}{suffix}"
        self.names.append(name)
        return name

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [SAMPAN, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"sampan {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def kubectl(self, name: str, *arguments: str, check: bool = True, input: str = "") -> str:
        done = subprocess.run(
            ["kubectl", "--context", f"sampan-{name}", *arguments],
            env=self.environment, capture_output=True, text=True, check=False, timeout=120, input=input,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def load_busybox(self, name: str) -> None:
        self.run("image", "build", str(ROOT / "images/busybox"), "--name", name)

    def start_keeper(self, name: str) -> None:
        """Run the pod `keeper`, which tells in its volume each time that it begins."""
        self.load_busybox(name)
        self.kubectl(name, "apply", "-f", "-", input=POD)
        self.kubectl(name, "wait", "--for=condition=Ready", "pod/keeper", "--timeout=60s")

    def wait_keeper_restarted(self, name: str) -> None:
        once = "jsonpath={.status.containerStatuses[0].restartCount}=1"
        for condition in (once, "condition=Ready"):
            self.kubectl(name, "wait", f"--for={condition}", "pod/keeper", "--timeout=60s")


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    made = Owner(tmp_path)
    yield made
    for name in made.names:
        made.run("delete", "--name", name, check=False)


def pids(name: str) -> dict[str, int]:
    """The parts of a cluster by comm."""
    return {comm: int(pid) for pid, comm in (p.split(" ", 1) for p in picture(name).processes)}


POD = """
apiVersion: v1
kind: Pod
metadata: {name: keeper}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: "localhost/busybox:1", command: [sh, -c, "echo begun >> /data/log; exec sleep 100000"], volumeMounts: [{name: d, mountPath: /data}]}
  volumes: [{name: d, emptyDir: {}}]
"""


def test_up_gives_a_cluster_and_delete_takes_every_trace_away(owner: Owner) -> None:
    name = owner.name()
    before = picture(name)
    said = owner.run("up", "--name", name).stdout
    assert f"cluster {name} is ready at https://127.0.0.1:" in said
    config = owner.home / "config"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert owner.kubectl(name, "config", "current-context").strip() == f"sampan-{name}"
    assert "Ready" in owner.kubectl(name, "get", "nodes")
    secrets = [
        p for p in Path("/var/lib/sampan", name).rglob("*") if p.suffix == ".key" or p.name == "kubeconfig"
    ]
    assert len(secrets) >= 5
    assert {stat.S_IMODE(p.stat().st_mode) for p in secrets} == {0o600}
    owner.start_keeper(name)
    assert picture(name).hosts == before.hosts
    again = owner.run("up", "--name", name).stdout
    assert "is ready" in again
    assert owner.run("status", "--name", name).returncode == 0
    owner.run("delete", "--name", name)
    assert picture(name) == before
    assert not config.exists() or name not in config.read_text()
    missing = owner.run("status", "--name", name, check=False)
    assert missing.returncode == 1
    assert f"there is no cluster '{name}'" in missing.stderr


def test_delete_finds_the_kubeconfig_that_up_merged_into(owner: Owner) -> None:
    name = owner.name()
    owner.run("up", "--name", name)
    config = owner.home / "config"
    assert f"sampan-{name}" in config.read_text()
    owner.environment["KUBECONFIG"] = str(owner.home / "elsewhere")
    owner.run("delete", "--name", name)
    assert not config.exists()


def test_clusters_run_side_by_side(owner: Owner) -> None:
    first, second = owner.name("a"), owner.name("b")
    for name in (first, second):
        owner.run("up", "--name", name)
    owner.kubectl(first, "create", "configmap", "only-here")
    assert "only-here" in owner.kubectl(first, "get", "configmaps")
    assert "only-here" not in owner.kubectl(second, "get", "configmaps")
    found = [json.loads(Path("/var/lib/sampan", n, "cluster.json").read_text()) for n in (first, second)]
    for key in ("api_port", "service_cidr", "pod_cidr", "node_subnet", "number"):
        assert found[0][key] != found[1][key]
    owner.run("delete", "--name", first)
    assert "node-1" in owner.kubectl(second, "get", "nodes")


def test_two_that_are_started_at_once_take_different_ports_and_ranges(owner: Owner) -> None:
    names = owner.name("c"), owner.name("d")
    starting = [
        subprocess.Popen(
            [SAMPAN, "up", "--name", n], env=owner.environment, stdout=subprocess.PIPE, text=True
        )
        for n in names
    ]
    said = [process.communicate(timeout=120)[0] for process in starting]
    assert [process.returncode for process in starting] == [0, 0], said
    found = [json.loads(Path("/var/lib/sampan", n, "cluster.json").read_text()) for n in names]
    for key in ("api_port", "service_cidr", "pod_cidr", "node_subnet", "number"):
        assert found[0][key] != found[1][key]
    for name in names:
        assert "node-1" in owner.kubectl(name, "get", "nodes")


def test_killing_any_part_of_ours_never_touches_a_container(owner: Owner) -> None:
    name = owner.name()
    owner.run("up", "--name", name)
    owner.start_keeper(name)
    containers = {p for p in picture(name).processes if p.endswith((" sleep", " conmon", " catatonit"))}
    assert len(containers) == 3
    for victims in (
        ["sampan-node-1"],
        ["sampan-control-"],
        ["sampan-superv"],
        ["sampan-superv", "sampan-control-", "sampan-node-1"],
    ):
        running = pids(name)
        fds = [os.pidfd_open(running[v]) for v in victims]
        for fd in fds:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)
        if len(victims) == 3:
            owner.run("up", "--name", name)
        elif "sampan-superv" in victims:
            old = running["sampan-superv"]
            file = Path("/run/sampan", name, "supervisor.pid")
            await_change(file.parent, lambda: file.read_text().strip() not in ("", str(old)), 30)  # noqa: B023
        follow = subprocess.run(
            ["kubectl", "--context", f"sampan-{name}", "wait", "--for=condition=Ready", "node/node-1", "--timeout=60s"],
            env=owner.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        while follow.returncode:  # the API server may be gone this moment: kubectl does not wait for it
            assert "refused" in follow.stderr or "EOF" in follow.stderr or "reset" in follow.stderr, (
                follow.stderr
            )
            follow = subprocess.run(
                follow.args, env=owner.environment, capture_output=True, text=True, check=False
            )
        owner.kubectl(name, "exec", "keeper", "--", "true", check=False)
        assert containers <= picture(name).processes, f"after killing {victims}"
    pod = json.loads(owner.kubectl(name, "get", "pod", "keeper", "-o", "json"))
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    owner.run("up", "--name", name)
    assert owner.kubectl(name, "exec", "keeper", "--", "cat", "/data/log") == "begun\n"


def test_stop_keeps_objects_and_data_and_up_resumes(owner: Owner) -> None:
    name = owner.name()
    owner.run("up", "--name", name)
    owner.start_keeper(name)
    uid = owner.kubectl(name, "get", "pod", "keeper", "-o", "jsonpath={.metadata.uid}")
    owner.run("stop", "--name", name)
    stopped = picture(name)
    assert not stopped.processes
    assert not stopped.namespaces
    assert not stopped.cgroups
    assert owner.run("status", "--name", name, check=False).returncode == 1
    owner.run("up", "--name", name)
    owner.wait_keeper_restarted(name)
    assert owner.kubectl(name, "get", "pod", "keeper", "-o", "jsonpath={.metadata.uid}") == uid
    assert owner.kubectl(name, "exec", "keeper", "--", "cat", "/data/log") == "begun\nbegun\n"


@pytest.mark.parametrize("moment", [0.05, 0.2, 0.4, 0.7])
def test_a_kill_in_the_middle_of_up_leaves_nothing_after_delete(owner: Owner, moment: float) -> None:
    name = owner.name()
    before = picture(name)
    process = subprocess.Popen(
        [SAMPAN, "up", "--name", name],
        env=owner.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(moment)  # not a wait for anything: the kill is to come at some moment in between
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for entry in picture(name).processes:
        try:
            os.kill(int(entry.split()[0]), signal.SIGKILL)
        except ProcessLookupError:
            continue
    owner.run("delete", "--name", name, check=False)
    assert picture(name) == before


def test_what_the_user_gave_is_never_changed_but_refused(owner: Owner) -> None:
    name = owner.name()
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = owner.run(
            "up", "--name", name, "--api-port", str(port), "--nodes", "99", "--service-cidr", "10.1.2/3", "--publish", "x",
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"--api-port {port} is not free on 127.0.0.1: Address already in use" in done.stderr
    assert "--nodes 99: allowed are 1 to 20" in done.stderr
    assert "--service-cidr '10.1.2/3' is not an IPv4 network" in done.stderr
    assert "--publish 'x': expected [ADDR:]PORT:NODEPORT" in done.stderr
    assert done.stderr.count("\n") == 1, "one line"
    assert not Path("/var/lib/sampan", name).exists()


def test_a_damaged_state_is_named_and_can_be_deleted(owner: Owner) -> None:
    name = owner.name()
    before = picture(name)
    owner.run("up", "--name", name)
    file = Path("/var/lib/sampan", name, "cluster.json")
    owner.run("stop", "--name", name)
    file.write_text(file.read_text()[:50])
    done = owner.run("up", "--name", name, check=False)
    assert done.returncode == 1
    assert f"{file} is damaged" in done.stderr
    assert "sampan delete" in done.stderr
    owner.run("delete", "--name", name)
    assert picture(name) == before


def test_a_damaged_store_is_named_and_nothing_is_lost(owner: Owner) -> None:
    name = owner.name()
    owner.run("up", "--name", name)
    owner.run("stop", "--name", name)
    (store,) = (p for p in Path("/var/lib/sampan", name).iterdir() if p.name == "store")
    data = store.read_bytes()
    store.write_bytes(b"\0" * 4096 + data[4096:])
    done = owner.run("up", "--name", name, check=False)
    assert done.returncode == 1
    assert "store" in done.stderr
    assert "Traceback" not in done.stderr
    store.write_bytes(data)
    owner.run("up", "--name", name)


def test_published_ports_lead_to_node_ports(owner: Owner) -> None:
    name = owner.name()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    owner.run("up", "--name", name, "--publish", f"{port}:30099")
    owner.load_busybox(name)
    owner.kubectl(
        name, "run", "web", "--image=localhost/busybox:1", "--port=8080", "--",
        "sh", "-c", "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www",
    )  # fmt: skip
    owner.kubectl(name, "create", "service", "nodeport", "web", "--tcp=80:8080", "--node-port=30099")
    owner.kubectl(name, "patch", "service", "web", "-p", '{"spec":{"selector":{"run":"web","app":null}}}')
    owner.kubectl(name, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    done = subprocess.run(
        ["curl", "-s", "--retry", "20", "--retry-all-errors", "--retry-delay", "0", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.stdout == "hello\n", done.stderr


def test_a_pod_whose_pause_process_dies_gets_a_new_sandbox(owner: Owner) -> None:
    name = owner.name()
    owner.run("up", "--name", name)
    owner.start_keeper(name)
    (pause,) = (int(p.split()[0]) for p in picture(name).processes if p.endswith(" catatonit"))
    os.kill(pause, signal.SIGKILL)
    owner.wait_keeper_restarted(name)
    reasons = "get", "events", "-o", "jsonpath={.items[*].reason}"
    eventually(lambda: owner.kubectl(name, *reasons), lambda found: "SandboxChanged" in found)
    assert owner.kubectl(name, "exec", "keeper", "--", "cat", "/data/log") == "begun\nbegun\n"


def test_after_a_reboot_up_makes_everything_anew(owner: Owner) -> None:
    """A reboot takes processes, namespaces, links, mounts and /run away and leaves /var/lib as it is."""
    name = owner.name()
    owner.run("up", "--name", name)
    owner.start_keeper(name)
    config = json.loads(Path("/var/lib/sampan", name, "cluster.json").read_text())
    while running := picture(name).processes:
        for entry in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.split()[0]), signal.SIGKILL)
    subprocess.run(
        ["umount", f"/run/netns/sampan-{name}-node-1", f"/run/sampan/{name}/ns/node-1"], check=True
    )
    Path(f"/run/netns/sampan-{name}-node-1").unlink()
    subprocess.run(["umount", "-R", f"/run/sampan/{name}/ns"], check=True)
    subprocess.run(["ip", "link", "del", f"sampan{config['number']}"], check=True)
    shutil.rmtree(f"/run/sampan/{name}")
    owner.run("up", "--name", name)
    owner.wait_keeper_restarted(name)
    assert owner.kubectl(name, "exec", "keeper", "--", "cat", "/data/log") == "begun\nbegun\n"
