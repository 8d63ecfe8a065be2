"""CPU that an idle cluster takes: one node, no pods, nobody asking. As a share of one core."""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict

from bench import cluster
from bench.memory import SETTLE
from bench.processes import cpu_of_threads, parts
from sampan.cluster import config as configuration
from sampan.cluster.config import ClusterConfig

SECONDS = 30.0


def measure(config: ClusterConfig, seconds: float = SECONDS) -> dict[str, float]:
    """The share of one core that each part takes, by name."""
    before = {pid: (name, cpu_of_threads(pid)) for pid, name in parts(config).items()}
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    shares: dict[str, float] = defaultdict(float)
    for pid, (name, used) in before.items():
        shares[name] += (cpu_of_threads(pid) - used) / took
    return dict(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", help="a running cluster; without it one is started and deleted again")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    o = parser.parse_args()
    if o.name:
        shares = measure(configuration.existing(o.name), o.seconds)
    else:
        with cluster.empty() as config:
            time.sleep(SETTLE)
            shares = measure(config, o.seconds)
    print(json.dumps({"percent_of_a_core": {n: round(s * 100, 3) for n, s in shares.items()}}, indent=1))


if __name__ == "__main__":
    main()
