"""How long a machine takes to join, to come back and to be followed to another address: `python -m bench.join [ROUNDS] [DELAY] [LOSS]`.

Starts a cluster of its own and, each round, a machine behind a router that delays every packet by DELAY seconds each way and loses the
part LOSS (`tests/cluster/machines.py`). Times are medians in seconds, from the command (or the change) to what `kubectl` would show.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sampan.cluster import config as configuration
from tests.cluster import machines
from tests.real_cluster import SAMPAN, run

NAME = f"bench-join-{os.getpid()}"


def sampan(home: Path, *arguments: str) -> str:
    done = run([SAMPAN, *arguments, "--name", NAME], env={"KUBECONFIG": str(home / "kubeconfig")})
    assert done.code == 0, done.err
    return done.out


def watch(kubeconfig: Path, template: str) -> subprocess.Popen[str]:
    """A watch of Nodes that prints what the template makes of each event; it stands when this returns."""
    watching = subprocess.Popen(
        ["kubectl", "--kubeconfig", str(kubeconfig), "get", "nodes", "--watch", "--output-watch-events", "-o", f'go-template={{{{.object.metadata.name}}}} {template}{{{{"\\n"}}}}'],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watching.stdout is not None
    watching.stdout.readline()  # of the first node
    return watching


def until(watching: subprocess.Popen[str], line: str) -> float:
    assert watching.stdout is not None
    for text in watching.stdout:
        if text.strip() == line:
            return time.monotonic()
    raise SystemExit(f"never seen: {line}")


READY = '{{range .object.status.conditions}}{{if eq .type "Ready"}}{{.status}}{{end}}{{end}}'
ADDRESS = '{{range .object.status.addresses}}{{if eq .type "InternalIP"}}{{.address}}{{end}}{{end}}'


def main(rounds: int, delay: float, loss: float) -> None:
    home = Path(tempfile.mkdtemp(prefix="bench-join-"))
    took: dict[str, list[float]] = {"join": [], "new address": []}
    with machines.network(f"join{os.getpid()}", home, delay, loss) as network:
        try:
            sampan(home, "up", "--listen", network.host)
            kubeconfig = configuration.existing(NAME).directory / "kubeconfig"
            for number in range(rounds):
                machine = network.machine(f"far-{number}")
                words = sampan(home, "token", "create").split()[2:]
                watching = watch(kubeconfig, READY)
                begun = time.monotonic()
                with machine.node(*words):
                    took["join"].append(until(watching, f"{machine.name} True") - begun)
                    watching.terminate()
                    watching = watch(kubeconfig, ADDRESS)
                    new = f"{machine.net}.9"
                    begun = time.monotonic()
                    machine.run(
                        "sh", "-c",
                        f"ip addr del {machine.address}/24 dev eth0; ip addr add {new}/24 dev eth0;"
                        f" ip route replace default via {machine.gateway}",
                    )  # fmt: skip
                    took["new address"].append(until(watching, f"{machine.name} {new}") - begun)
                    watching.terminate()
                machine.sampan("node", "reset")
        finally:
            sampan(home, "delete")
    for what, seconds in took.items():
        print(
            f"{what}: {statistics.median(seconds):.2f} s (of {rounds}: {min(seconds):.2f} to {max(seconds):.2f})"
        )


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        int(given[0]) if given else 5,
        float(given[1]) if len(given) > 1 else machines.DELAY,
        float(given[2]) if len(given) > 2 else machines.LOSS,
    )
