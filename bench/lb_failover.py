"""How long a load balancer address is gone when the node that announces it fails: `python -m bench.lb_failover NAME [ROUNDS]`.

NAME is a running cluster of at least two nodes with a Service of type LoadBalancer that answers HTTP on its first port. In
each round the link of the node that has the address is cut, and time runs from there to the first answer that comes
without it; then the same with the node's process stopped (SIGSTOP), measured to the word by ARP of the new node.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from sampan.cluster import config as configuration
from sampan.cluster import link
from sampan.cluster.config import ClusterConfig

LIMIT = 30.0


def kubectl(config: ClusterConfig, *arguments: str) -> str:
    environment = {**os.environ, "KUBECONFIG": str(config.directory / "kubeconfig")}
    return subprocess.run(
        ["kubectl", *arguments], env=environment, check=True, capture_output=True, text=True
    ).stdout


def service(config: ClusterConfig) -> tuple[str, int]:
    found = json.loads(kubectl(config, "get", "services", "-A", "-o", "json"))["items"]
    for one in found:
        ingress = (one["status"].get("loadBalancer") or {}).get("ingress") or ()
        if ingress:
            return ingress[0]["ip"], one["spec"]["ports"][0]["port"]
    raise SystemExit("no Service has an address: kubectl expose ... --type=LoadBalancer")


def answers(address: str, port: int, timeout: float = 0.1) -> bool:
    try:
        with socket.create_connection((address, port), timeout) as s:
            s.settimeout(timeout)
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return bool(s.recv(1))
    except OSError:
        return False


def macs(config: ClusterConfig) -> dict[str, str]:
    """The nodes by the hardware address of their uplink."""
    found = {}
    for node in config.nodes:
        shown = subprocess.run(
            ["ip", "-n", f"sampan-{config.name}-{node}", "-j", "link", "show", "eth0"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        found[json.loads(shown)[0]["address"]] = node
    return found


def holder(config: ClusterConfig, address: str) -> str:
    """The node that has the address, as this machine knows it."""
    for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
        words = line.split()
        if words[0] == address:
            return macs(config).get(words[3], "")
    return ""


def until(what: str, holds: Callable[[], bool]) -> float:
    start = time.monotonic()
    while time.monotonic() - start < LIMIT:
        if holds():
            return time.monotonic() - start
        time.sleep(0.005)
    raise SystemExit(f"not within {LIMIT:.0f} s: {what}")


def moved(config: ClusterConfig, address: str, node: str) -> float:
    """How long it takes until the neighbours know the address to be elsewhere."""
    return until("the address by another node", lambda: holder(config, address) != node)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("rounds", nargs="?", type=int, default=3)
    given = parser.parse_args()
    config = configuration.existing(given.name)
    address, port = service(config)
    print(f"{address}:{port} of cluster {config.name}, {len(config.nodes)} nodes")
    for _ in range(given.rounds):
        until("an answer", lambda: answers(address, port, 2))
        node = holder(config, address)
        cut = config.node_host_link(node)
        subprocess.run(["ip", "link", "set", cut, "down"], check=True)
        try:
            # A connection through the bridge to a pod of the dead node fails; any that succeeds came by the other one.
            took = moved(config, address, node)
            until("an answer", lambda: answers(address, port))
        finally:
            subprocess.run(["ip", "link", "set", cut, "up"], check=True)
        print(f"link of {node} cut: the neighbours know of the new node after {took:.2f} s")
        until("the address back", lambda node=node: holder(config, address) == node)  # type: ignore[misc]
        parts = link.ask(config.run_directory, "status")["parts"]
        pid = next(p["pid"] for p in parts if p["name"] == node)
        os.kill(pid, signal.SIGSTOP)
        try:
            took = moved(config, address, node)
        finally:
            os.kill(pid, signal.SIGCONT)
        print(f"process of {node} stopped: the neighbours know of the new node after {took:.2f} s")
        until("the address back", lambda node=node: holder(config, address) == node)  # type: ignore[misc]


if __name__ == "__main__":
    main()
