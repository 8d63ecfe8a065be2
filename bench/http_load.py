"""Load for HTTP servers, by programs that nobody here wrote: `wrk` for HTTP/1.1 and `h2load` for HTTP/2 and for a given rate.

The name of the host is what is asked for and what TLS shows; the address is given beside it, so no name has to be known to anybody.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.figures import quantile

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_LUA = """
local host, port = "{address}", "{port}"
wrk.resolve = function(name, service) wrk.addrs = wrk.lookup(host, port) end
"""


@dataclass(frozen=True, slots=True)
class Site:
    """Where to ask and for whom."""

    address: str
    port: int
    host: str
    tls: bool = False

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}/"


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it: requests a second, the 99th percentile of their latency in ms, and how many went wrong."""

    rate: float
    p99: float
    failed: int = 0


def http1(site: Site, *, seconds: int, connections: int, reconnect: bool = False) -> Load:
    """As many requests as can be had, one after the other on each connection; with `reconnect` each on a new one."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_LUA.format(address=site.address, port=site.port))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name]
        command += ["-H", "Connection: close"] if reconnect else []
        said = subprocess.run([*command, site.url], capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    late = re.search(r"99%\s+([0-9.]+)(us|ms|s)", said)
    assert rate is not None, said
    assert late is not None, said
    failed = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", said))
    failed += sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", said))
    return Load(float(rate[1]), float(late[1]) * _UNITS[late[2]], failed)


def http2(site: Site, *, seconds: int, connections: int, streams: int) -> Load:
    """As many requests as can be had, `streams` at once on each connection."""
    return _h2load(site, seconds, connections, "-m", str(streams))


def paced(site: Site, *, seconds: int, connections: int, rate: int) -> Load:
    """HTTP/1.1 at so many requests a second: what latency is like below the limit."""
    return _h2load(site, seconds, connections, "--h1", f"--rps={rate / connections:g}")


def _h2load(site: Site, seconds: int, connections: int, *options: str) -> Load:
    with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
        command = ["h2load", "-t1", f"-c{connections}", f"-D{seconds}", f"--log-file={log.name}", *options]
        command += [f"--connect-to={site.address}:{site.port}", site.url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines = [line.split("\t") for line in Path(log.name).read_text().splitlines()]
    rate = re.search(r"finished in [^,]+, ([0-9.]+) req/s", said)
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", said)
    assert rate is not None, said
    assert failed is not None, said
    took = [int(micro) / 1e3 for _, status, micro in lines if status == "200"]
    return Load(float(rate[1]), quantile(took, 0.99), sum(map(int, failed.groups())) + len(lines) - len(took))
