"""How long `sampan up` takes from nothing to a Ready node, and where that time goes.

The stopwatch is around the whole command, the start of its interpreter included; the timeline is one further run whose
steps (those of cluster/bringup.py) are timed, merged with what the parts log.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.cluster import sampan
from bench.figures import quantile
from sampan.cluster import config as configuration

NAME = "bench-up"
_STEPS = (
    "check_host",
    "choose_cluster",
    "make_certificates",
    "start_supervisor",
    "wait_until_ready",
    "write_kubeconfig",
)
_TRACED = """
import sys, time
def say(what): print("@", time.time(), what, file=sys.stderr)
say("up: interpreter started")
from sampan.cli.main import main
from sampan.cluster.bringup import Bringup
say("up: imported the command line")
def traced(name, step):
    def run(self):
        step(self)
        say(f"up: {name}")
    return run
for name in sys.argv.pop(1).split(","):
    setattr(Bringup, name, traced(name, getattr(Bringup, name)))
main()
"""
_LOG_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) \w ([\w.]+): (.*)")


def stopwatch(runs: int = 5) -> list[float]:
    """Seconds of each of `runs` starts of a cluster that is deleted after each."""
    took = []
    with tempfile.TemporaryDirectory(prefix="sampan-bench-") as home:
        _delete(Path(home))
        for _ in range(runs):
            try:
                began = time.perf_counter()
                sampan("up", "--name", NAME, home=Path(home))
                took.append(time.perf_counter() - began)
            finally:
                _delete(Path(home))
    return took


def timeline() -> list[tuple[float, str]]:
    """What had happened when, in seconds from the start of the command."""
    with tempfile.TemporaryDirectory(prefix="sampan-bench-") as home:
        environment = {**os.environ, "KUBECONFIG": f"{home}/kubeconfig"}
        _delete(Path(home))
        try:
            began = time.time()
            said = subprocess.run(
                [sys.executable, "-c", _TRACED, ",".join(_STEPS), "up", "--name", NAME],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stderr
            happened = [(time.time() - began, "up: command ended")]
            for line in said.splitlines():
                if line.startswith("@ "):
                    _, at, what = line.split(" ", 2)
                    happened.append((float(at) - began, what))
            for path in (configuration.existing(NAME).directory / "logs").glob("*.log"):
                happened += [(at - began, f"{path.stem}: {what}") for at, what in _logged(path)]
        finally:
            _delete(Path(home))
    return sorted(happened)


def _logged(path: Path) -> Iterator[tuple[float, str]]:
    for line in path.read_text().splitlines():
        if match := _LOG_LINE.match(line):
            yield datetime.datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S,%f").timestamp(), match[3]


def _delete(home: Path) -> None:
    if NAME in configuration.names():
        sampan("delete", "--name", NAME, home=home)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    o = parser.parse_args()
    took = stopwatch(o.runs)
    for at, what in timeline():
        print(f"{at * 1000:6.0f} ms  {what}")
    print(json.dumps({"p50_s": round(quantile(took, 0.5), 3), "runs_s": [round(t, 3) for t in took]}))


if __name__ == "__main__":
    main()
