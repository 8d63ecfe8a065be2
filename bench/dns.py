"""Queries a second and the slowest hundredth, by dnsperf in the node's network: the cluster's DNS beside Debian's unbound and dnsmasq
with the same names; and how long a change of endpoints takes until it is answered. Needs root and, from Debian, `dnsperf`,
`unbound` and `dnsmasq-base`; a server that is not installed is left out. Makes a cluster of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import which

from bench import cluster
from bench.api import Target, connect
from bench.figures import Figure, quantile, table
from sampan.network.netlink import in_namespace

_ZONE = "default.svc.cluster.local"
_STEADY = 5000
"""Queries a second at which latencies are taken: well below what any of the three can."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=5, help="of each load")
    parser.add_argument("--changes", type=int, default=50)
    o = parser.parse_args()
    if which("dnsperf") is None:
        raise SystemExit("bench: apt-get install dnsperf unbound dnsmasq-base")
    with cluster.empty("bench-dns") as config, tempfile.TemporaryDirectory() as directory:
        target = cluster.target(config)
        addresses = asyncio.run(_make_services(target, o.services))
        netns = config.node_netns(config.nodes[0])
        inside = ["nsenter", f"--net={netns}"]
        queries = Path(directory, "queries")
        queries.write_text(_queries(list(addresses)))
        ours = config.dns_addresses[0]
        _until_answered(netns, ours, next(iter(addresses)))
        figures = _load(inside, "Sampan's DNS", ours, queries, o.seconds)
        for name, command in _others(Path(directory), addresses):
            with _running([*inside, *command]):
                _until_answered(netns, "127.0.0.53", next(iter(addresses)))
                figures += _load(inside, name, "127.0.0.53", queries, o.seconds)
        took = asyncio.run(_changes(target, ours, o.changes))
        figures += [
            Figure("EndpointSlice changed to answered, median", quantile(took, 0.5) * 1e3, "ms", 10),
            Figure("EndpointSlice changed to answered, slowest", max(took) * 1e3, "ms"),
        ]
        print(table(figures))


def _queries(names: Sequence[str]) -> str:
    """What pods ask: a name for both families, and a name of the world that is looked for along the search path."""
    lines = []
    for name in names:
        lines += [f"{name}.{_ZONE} A", f"{name}.{_ZONE} AAAA", f"www.{name}.example.{_ZONE} A"]
    return "\n".join([*lines, ""])


def _load(inside: Sequence[str], name: str, address: str, queries: Path, seconds: int) -> list[Figure]:
    perf = [*inside, "dnsperf", "-s", address, "-d", str(queries), "-c", "8", "-q", "200", "-l", str(seconds)]
    said = _out([*perf, "-e"])
    rate = float(_found(r"Queries per second:\s+([0-9.]+)", said))
    lost = int(_found(r"Queries lost:\s+(\d+)", said))
    steady = _out([*perf, "-e", "-Q", str(_STEADY), "-v"])
    latencies = [float(found) for found in re.findall(r"^> \S+ \S+ \S+ ([0-9.]+)$", steady, re.M)]
    return [
        Figure(f"{name}: queries/s", rate, "/s", more_is_better=True),
        Figure(f"{name}: lost of these", lost, ""),
        Figure(f"{name}: p50 at {_STEADY}/s", quantile(latencies, 0.5) * 1e3, "ms"),
        Figure(f"{name}: p99 at {_STEADY}/s", quantile(latencies, 0.99) * 1e3, "ms"),
    ]


def _others(directory: Path, addresses: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Others by the same names. A name that is not there does not exist, as with us."""
    unbound = which("unbound") or "/usr/sbin/unbound"
    if Path(unbound).exists():
        data = "".join(f'  local-data: "{n}.{_ZONE}. 30 IN A {a}"\n' for n, a in addresses.items())
        file = directory / "unbound.conf"
        file.write_text(
            'server:\n  interface: 127.0.0.53\n  do-daemonize: no\n  use-syslog: no\n  username: ""\n  chroot: ""\n'
            f'  pidfile: ""\n  directory: "{directory}"\n  num-threads: 1\n  so-reuseport: no\n  access-control: 0.0.0.0/0 allow\n'
            f'  local-zone: "cluster.local." static\n{data}remote-control:\n  control-enable: no\n'
        )
        yield "unbound, one thread", [unbound, "-d", "-c", str(file)]
    dnsmasq = which("dnsmasq") or "/usr/sbin/dnsmasq"
    if Path(dnsmasq).exists():
        hosts = directory / "hosts"
        hosts.write_text("".join(f"{a} {n}.{_ZONE}\n" for n, a in addresses.items()))
        yield "dnsmasq", [
            dnsmasq, "--no-daemon", "--conf-file=/dev/null", "--listen-address=127.0.0.53", "--bind-interfaces", "--no-resolv",
            "--no-hosts", f"--addn-hosts={hosts}", "--local=/cluster.local/", "--user=root", "--cache-size=10000",
        ]  # fmt: skip


async def _make_services(target: Target, count: int) -> dict[str, str]:
    """Names and addresses."""
    path = "/api/v1/namespaces/default/services"
    found = {}
    async with connect(target) as api:
        for n in range(count):
            spec = {"ports": [{"name": "http", "port": 80}]}
            made = await api.create(
                path, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"web-{n}"}, "spec": spec}
            )
            found[f"web-{n}"] = str(made["spec"]["clusterIP"])
    return found


async def _changes(target: Target, address: str, count: int) -> list[float]:
    """Seconds from the moment at which the API has an EndpointSlice until its endpoint is answered."""
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    took = []
    async with connect(target) as api:
        for n in range(count):
            name = f"peers-{n}"
            spec = {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}
            await api.create(
                "/api/v1/namespaces/default/services",
                {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec},
            )
            body = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}],
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            }
            await api.create(slices, body)
            began = time.perf_counter()
            while not _answers(address, f"{name}.{_ZONE}"):
                pass
            took.append(time.perf_counter() - began)
    return took


def _answers(address: str, name: str) -> int:
    """How many records there are at a name."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect((address, 53))
        sock.send(struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!2H", 1, 1))
        return int(struct.unpack_from("!H", sock.recv(4096), 6)[0])


def _until_answered(netns: Path, address: str, name: str, timeout: float = 30) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if in_namespace(str(netns), lambda: _answers(address, f"{name}.{_ZONE}")):
                return
    raise TimeoutError(f"{address} does not answer")


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def _out(command: Sequence[str]) -> str:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    ).stdout


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern} in {text}"
    return found[1]


if __name__ == "__main__":
    main()
