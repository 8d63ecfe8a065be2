"""The machine as a cluster may change it: what is compared before and after."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """A picture of everything that a cluster makes on its host."""

    processes: frozenset[str]
    namespaces: frozenset[str]
    links: frozenset[str]
    routes: frozenset[str]
    rules: str
    mounts: frozenset[str]
    cgroups: frozenset[str]
    files: frozenset[str]
    sysctls: str
    hosts: tuple[str, ...]
    """What is the host's own, and stays so while a cluster runs: its resolver and its firewall."""


def picture(name: str) -> Machine:
    """The machine now, as far as the cluster `name` (or anything that all clusters share) can show in it."""
    return Machine(
        frozenset(_processes(name)),
        frozenset(p.name for p in Path("/run/netns").glob(f"sampan-{name}-*")),
        frozenset(_not_others(_links(), name)),
        frozenset(_not_others(_run("ip", "route", "show", "table", "all").splitlines(), name)),
        _tables(name),
        frozenset(
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{name}" in line
        ),
        frozenset(p for p in _below("/sys/fs/cgroup") if p.endswith(f"/sampan/{name}")),
        frozenset(p for root in ("/var/lib/sampan", "/run/sampan") for p in _below(f"{root}/{name}")),
        _run(
            "sysctl",
            "-n",
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.rp_filter",
            "net.ipv4.conf.all.send_redirects",
        ),
        (Path("/etc/resolv.conf").read_text(), Path("/etc/hosts").read_text(), *_foreign_rules()),
    )


def _below(root: str) -> Iterator[str]:
    """All that is below a directory; what goes meanwhile is left out (`Path.glob` fails at it)."""
    for directory, names, files in os.walk(root):
        yield from (f"{directory}/{n}" for n in (*names, *files))


def _not_others(lines: list[str], name: str) -> list[str]:
    """Without what other clusters of this machine, which may come and go meanwhile, have."""
    others = []
    for path in Path("/var/lib/sampan").glob("*/cluster.json"):
        if path.parent.name != name:
            with contextlib.suppress(OSError):
                others.append(json.loads(path.read_text())["number"])
    theirs = re.compile("sampan(" + "|".join(map(str, others)) + r")\b") if others else None
    return [line for line in lines if theirs is None or not theirs.search(line)]


def _processes(name: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and f"/sampan/{name}/" in path.read_text():
                found.append(f"{path.parent.name} {(path.parent / 'comm').read_text().strip()}")
        except OSError:
            continue
    return found


def _links() -> list[str]:
    shown = json.loads(_run("ip", "-j", "link"))
    return [link["ifname"] for link in shown if link["ifname"].startswith("sampan")]


def _tables(name: str) -> str:
    return "\n".join(
        line for line in _run("nft", "list", "tables").splitlines() if line.endswith(f" sampan-{name}")
    )


def _foreign_rules() -> list[str]:
    """The tables that no cluster made, without their counters."""
    tables = [line for line in _run("nft", "list", "tables").splitlines() if " sampan-" not in line]
    return [_run("nft", "--stateless", "list", *table.split()) for table in tables]


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
