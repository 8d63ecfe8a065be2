"""Many nodes on one machine: how long `sampan up --nodes N` takes, and the memory (PSS) of what then idles, per node."""

from __future__ import annotations

import argparse
import json
import time

from bench import cluster
from bench.memory import SETTLE, by_part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--ip-families", default="IPv4")
    o = parser.parse_args()
    for number in o.nodes:
        began = time.monotonic()
        with cluster.empty(cluster.NAME, "--nodes", str(number), "--ip-families", o.ip_families) as config:
            ready = time.monotonic() - began
            time.sleep(SETTLE)
            parts = by_part(config)
            told = {
                "nodes": number,
                "ready_seconds": round(ready, 2),
                "processes": len(parts),
                "pss_mib": round(sum(p.pss for p in parts) / 2**20),
            }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
