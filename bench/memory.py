"""Memory of an idle cluster: one node, no pods. It is PSS: a page that N processes share counts 1/N to each."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass

from bench import cluster
from bench.processes import memory, parts
from sampan.cluster import config as configuration
from sampan.cluster.config import ClusterConfig


@dataclass(frozen=True, slots=True)
class PartMemory:
    """Of one process, in bytes."""

    name: str
    pss: int
    rss: int
    private: int
    """What would be freed if it ended."""


def by_part(config: ClusterConfig) -> list[PartMemory]:
    """Every process of the cluster, the supervisor first."""
    found = []
    for pid, name in sorted(parts(config).items()):
        pages = memory(pid)
        private = pages["Private_Clean"] + pages["Private_Dirty"]
        found.append(PartMemory(name, pages["Pss"], pages["Rss"], private))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", help="a running cluster; without it one is started and deleted again")
    o = parser.parse_args()
    if o.name:
        _tell(configuration.existing(o.name))
    else:
        with cluster.empty() as config:
            time.sleep(SETTLE)
            _tell(config)


SETTLE = 5.0
"""Seconds after which a new cluster is idle."""


def _tell(config: ClusterConfig) -> None:
    measured = by_part(config)
    print(
        json.dumps(
            {"total_pss": sum(p.pss for p in measured), "parts": [asdict(p) for p in measured]}, indent=1
        )
    )


if __name__ == "__main__":
    main()
