"""A ClusterIP against the pod itself, between network namespaces joined as a node joins its pods: throughput of streams (iperf3),
requests on open connections and new connections a second (wrk against HAProxy), with 1 endpoint and with 1,000.

    python -m bench.service_streams [--seconds 5] [--rounds 3] [--endpoints 1 1000]

As root; needs iperf3, wrk and haproxy. Straight and through the Service take turns, so that a noisy machine harms both alike;
medians are printed. Aim for streams: a ratio of at least 0.95.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sampan.proxy.rules import Rules
from sampan.proxy.types import Backend, Frontend, Target
from tests.proxy.wires import LAYOUT, PODS, Wires, wires

_SERVICE, _POD = "10.96.0.7", PODS["a"][0]
_FIRST_PORT = 20_000
_STRAIGHT_PORT = _FIRST_PORT - 1
"""Not one of the Service's: a client's port that was just used with one of those has to be translated, too."""
_HAPROXY = """
global
  maxconn 4000
  nbthread 1
defaults
  mode http
  timeout client 10s
  timeout server 10s
  timeout connect 10s
frontend all
  bind :{first}-{last}
  {close}
  http-request return status 200 content-type text/plain string ok
"""


@contextmanager
def _server(net: Wires, command: Sequence[str], ready: str) -> Iterator[None]:
    """A program in the namespace of pod a, until it says `ready` at the latest when asked for it."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", f"{net.name}-a", *command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        if ready:
            assert process.stdout is not None
            said = []
            while ready not in (line := process.stdout.readline()):
                said.append(line)
                if not line:
                    raise SystemExit(f"{' '.join(command)}: {''.join(said)}")
        yield
    finally:
        process.terminate()
        process.wait()


def _stream(net: Wires, address: str, seconds: int) -> float:
    """Gigabits a second."""
    said = net.run("b", "iperf3", "-c", address, "-t", str(seconds), "-J")
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9


def _wrk(net: Wires, address: str, port: int, seconds: int) -> tuple[float, float]:
    """Requests a second and the 99th percentile of their latency in ms."""
    said = net.run("b", "wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", f"http://{address}:{port}/")
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    late = re.search(r"99%\s+([0-9.]+)(us|ms|s)", said)
    assert rate is not None, said
    assert late is not None, said
    return float(rate[1]), float(late[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[late[2]]


def _row(
    what: str, rounds: int, straight: Callable[[], float], through: Callable[[], float], unit: str
) -> None:
    pairs = [(straight(), through()) for _ in range(rounds)]
    first, second = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    print(f"| {what} | {first:,.1f} {unit} | {second:,.1f} {unit} | {second / first:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.service_streams", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[1, 1000])
    o = parser.parse_args()
    print("| | pod | ClusterIP | ratio |\n|---|---|---|---|")
    with wires("bench-streams") as net, tempfile.TemporaryDirectory() as directory:
        rules = Rules(net.table(), LAYOUT)
        rules.start({"d/iperf": {Frontend(_SERVICE, "TCP", 5201): Target("d/iperf", (Backend(_POD, 5201),))}})
        with _server(net, ["iperf3", "-s", "--forceflush"], "Server listening"):
            _row(
                "stream, iperf3", o.rounds,
                lambda: _stream(net, _POD, o.seconds), lambda: _stream(net, _SERVICE, o.seconds), "Gbit/s",
            )  # fmt: skip
        for count in o.endpoints:
            backends = tuple(Backend(_POD, _FIRST_PORT + n) for n in range(count))
            rules.update({"d/web": {Frontend(_SERVICE, "TCP", 80): Target("d/web", backends)}})
            for what, close in (
                ("requests on open connections", ""),
                ("new connections", "option httpclose"),
            ):
                file = Path(directory, "haproxy.cfg")
                last = _FIRST_PORT + count - 1
                file.write_text(_HAPROXY.format(first=_STRAIGHT_PORT, last=last, close=close))
                with _server(net, ["haproxy", "-W", "-f", str(file)], "Loading success"):
                    late: dict[str, list[float]] = {_POD: [], _SERVICE: []}

                    def rate(address: str, port: int, late: dict[str, list[float]] = late) -> float:
                        found, p99 = _wrk(net, address, port, o.seconds)
                        late[address].append(p99)
                        return found

                    _row(
                        f"{what}, {count:,} endpoints", o.rounds,
                        lambda: rate(_POD, _STRAIGHT_PORT), lambda: rate(_SERVICE, 80), "/s",
                    )  # fmt: skip
                    first, second = statistics.median(late[_POD]), statistics.median(late[_SERVICE])
                    print(f"| - p99 | {first:.2f} ms | {second:.2f} ms | {second / first:.3f} |", flush=True)


if __name__ == "__main__":
    main()
