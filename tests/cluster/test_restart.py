"""The control plane ends and begins anew under its clients' hands: nobody is cut off, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

from tests.cluster.test_faults import pytestmark  # noqa: F401
from tests.cluster.test_lifecycle import Owner, owner  # noqa: F401

MAPS = "/api/v1/namespaces/default/configmaps"


def test_clients_go_on_through_a_restart(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    owner.run("up", "--name", name, "--logging-format", "json")
    owner.kubectl(name, "create", "configmap", "watched")

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["kubectl", "--context", f"sampan-{name}", *arguments],
            env=owner.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    waiting = start("wait", "--for=jsonpath={.data.done}=yes", "configmap/watched", "--timeout=60s")
    raw = start("get", "--raw", f"{MAPS}?watch=1")
    listed = start("get", "configmaps", "-w", "--output-watch-events", "-o", "name")
    assert raw.stdout
    assert listed.stdout
    raw.stdout.readline()
    listed.stdout.readline()

    made: list[str] = []
    refused: list[str] = []
    told = threading.Event()

    def write() -> None:
        """Create one after the other until the server is gone."""
        for n in range(10_000):
            manifest = json.dumps(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"made-{n}"}}
            )
            done = subprocess.run(
                ["kubectl", "--context", f"sampan-{name}", "create", "-f", "-"],
                env=owner.environment, capture_output=True, text=True, check=False, input=manifest,
            )  # fmt: skip
            if done.returncode:
                refused.append(done.stderr)
                return
            made.append(f"made-{n}")
            if len(made) == 3:
                told.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert told.wait(30)
    os.kill(control_plane(owner, name), signal.SIGTERM)
    writer.join()
    # Not cut off in the middle: there was nobody to connect to, or it was said that the server ends.
    assert "refused" in refused[0]

    # A watch that ends has ended well: kubectl says nothing and is content.
    for process in (raw, listed):
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")

    owner.run("up", "--name", name)
    present = owner.kubectl(name, "get", "configmaps", "-o", "name").split()
    assert set(made) <= {p.removeprefix("configmap/") for p in present}
    # Those who follow through lists and watches never notice.
    owner.kubectl(name, "patch", "configmap", "watched", "--type=merge", "-p", '{"data":{"done":"yes"}}')
    # (What they may say on stderr is that a watch of less than a second was a short one.)
    out, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (0, "configmap/watched condition met\n")

    log = Path("/var/lib/sampan", name, "logs/control-plane.log").read_text().splitlines()
    assert all({"ts", "logger", "msg"} <= json.loads(line).keys() for line in log)


def control_plane(owner: Owner, name: str) -> int:  # noqa: F811
    told = owner.run("status", "--name", name).stdout
    line = next(line for line in told.splitlines() if line.strip().startswith("control-plane: pid "))
    return int(line.rpartition(" ")[2])
