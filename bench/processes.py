"""What processes cost: CPU seconds and memory, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sampan.cluster import processes
from sampan.cluster.config import ClusterConfig

_TICKS = os.sysconf("SC_CLK_TCK")


def parts(config: ClusterConfig) -> dict[int, str]:
    """The processes of a cluster by pid, pods' own among them if there are any, with their names."""
    return {
        p: Path(f"/proc/{p}/comm").read_text().strip() for p in processes.members(f"sampan/{config.name}")
    }


def control_plane(config: ClusterConfig) -> int:
    """The pid of the process with the API server. Raises LookupError if it does not run."""
    for pid, name in parts(config).items():
        if name.startswith("sampan-control"):
            return pid
    raise LookupError(f"cluster {config.name} has no control plane")


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of all their threads so far, to a tick (10 ms)."""
    used = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / _TICKS


def cpu_of_threads(pid: int) -> float:
    """Seconds of CPU that the present threads of a process took so far, to a microsecond: for what takes next to none."""
    ran = (int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(ran) / 1e9


def memory(pid: int) -> dict[str, int]:
    """Bytes by the kernel's names: `Pss` (shared pages divided by those who share), `Rss`, `Pss_Anon`, ..."""
    return dict(_rollup(pid))


def _rollup(pid: int) -> Iterator[tuple[str, int]]:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, _ = line.split()
        yield name.rstrip(":"), int(value) * 1024
