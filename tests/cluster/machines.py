"""Machines that share nothing with the one that has the control plane but a way through a router: each has a network, mounts and
a name of its own, and its own /var/lib/sampan and /run. The way has a delay and loses packets (`wan`)."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import wan
from tests.real_cluster import SAMPAN, Result, run

DELAY, LOSS = 0.005, 0.005
"""Seconds each way, and the part of packets that is lost."""


def ip(*arguments: str) -> None:
    done = run(["ip", *arguments])
    assert done.code == 0, f"ip {' '.join(arguments)}: {done.err}"


@dataclass
class Machine:
    """One machine. Commands run in it by `run` and `start`."""

    name: str
    net: str
    """The first three numbers of its network's addresses."""
    holder: subprocess.Popen[str]
    home: Path

    @property
    def address(self) -> str:
        return f"{self.net}.2"

    @property
    def gateway(self) -> str:
        return f"{self.net}.1"

    @property
    def pid(self) -> int:
        return self.holder.pid

    def command(self, *arguments: str) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--uts", "--", *arguments]

    def run(self, *arguments: str, timeout: float = 90) -> Result:
        return run(self.command(*arguments), timeout=timeout, env={"HOME": str(self.home)})

    def sampan(self, *arguments: str) -> Result:
        return self.run(SAMPAN, *arguments)

    @contextmanager
    def node(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`sampan node` in the foreground, ended with the block by what Ctrl-C sends. Its log is `node.log` in `home`."""
        with open(self.home / "node.log", "a") as log:
            process = subprocess.Popen(
                self.command(SAMPAN, "node", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=30) == 0, self.log()

    def log(self) -> str:
        return (self.home / "node.log").read_text()

    def state(self, *parts: str) -> Path:
        """A file of its /var/lib/sampan, as seen from here."""
        return Path(self.home, "state", *parts)


@dataclass
class Network:
    """A router and the machines behind it, in networks 10.`second`.N.0/24, N 0 for the host's side. `host` is where the machine
    with the control plane is reached."""

    prefix: str
    home: Path
    second: int
    machines: list[Machine] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"10.{self.second}.0.1"

    @property
    def router(self) -> str:
        return f"{self.prefix}-router"

    def machine(self, name: str) -> Machine:
        """A new machine, which reaches the host through the router. Whatever it has goes at the end of the network."""
        number = len(self.machines) + 1
        home = self.home / name
        for part in ("state", "run"):
            (home / part).mkdir(parents=True)
        script = (
            'mount --bind "$1/state" /var/lib/sampan && mount --bind "$1/run" /run/sampan'
            ' && mount -t tmpfs none /run/netns && hostname "$2" && echo ready && exec sleep 100000'
        )
        holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--propagation", "private", "sh", "-c", script, "sh", str(home), name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        made = Machine(name, f"10.{self.second}.{number}", holder, home)
        self.machines.append(made)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        self._join(str(holder.pid), number)
        run(made.command("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0"))
        return made

    def _join(self, namespace: str, number: int) -> None:
        """Link a namespace (a pid) to the router: its eth0 is in a network of its own, where the router is .1."""
        net = f"10.{self.second}.{number}"
        ip(
            "-n",
            self.router,
            "link",
            "add",
            f"m{number}",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            namespace,
        )
        ip("-n", self.router, "addr", "add", f"{net}.1/24", "dev", f"m{number}")
        ip("-n", self.router, "link", "set", f"m{number}", "up")
        ip("-n", self.router, "rule", "add", "iif", f"m{number}", "lookup", "100")
        enter = ["nsenter", f"--target={namespace}", "--net", "ip"]
        for command in (
            "link set lo up",
            f"addr add {net}.2/24 dev eth0",
            "link set eth0 up",
            f"route add default via {net}.1",
        ):
            done = run([*enter, *command.split()])
            assert done.code == 0, done.err


@contextmanager
def network(prefix: str, home: Path, delay: float = DELAY, loss: float = LOSS) -> Iterator[Network]:
    """A router beside this host, and whatever machines are asked for; all of it is gone at the end of the block."""
    routes = run(["ip", "route"]).out
    made = Network(prefix, home, next(n for n in range(64, 96) if f"10.{n}." not in routes))
    uplink = f"{prefix}0"[:15]
    for path in ("/var/lib/sampan", "/run/sampan", "/run/netns"):
        Path(path).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        ip("netns", "add", made.router)
        stack.callback(run, ["ip", "netns", "delete", made.router])
        router = ["ip", "netns", "exec", made.router]
        ip("link", "add", uplink, "type", "veth", "peer", "name", "host", "netns", made.router)
        stack.callback(run, ["ip", "link", "delete", uplink])
        ip("addr", "add", f"{made.host}/24", "dev", uplink)
        ip("link", "set", uplink, "up")
        for command in (
            "link set lo up",
            f"addr add 10.{made.second}.0.2/24 dev host",
            "link set host up",
            "rule add iif host lookup 100",
        ):
            ip("-n", made.router, *command.split())
        run([*router, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"])  # fmt: skip
        process = subprocess.Popen(
            [*router, sys.executable, wan.__file__, str(delay), str(loss)], stdout=subprocess.PIPE, text=True
        )
        stack.callback(_end, [process])
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        ip("-n", made.router, "link", "set", wan.DEVICE, "up")
        run([*router, "sysctl", "-qw", f"net.ipv4.conf.{wan.DEVICE}.rp_filter=0"])
        ip("-n", made.router, "route", "add", "default", "dev", wan.DEVICE, "table", "100")
        ip("route", "add", f"10.{made.second}.0.0/16", "via", f"10.{made.second}.0.2", "dev", uplink)
        stack.callback(_clear, made)
        yield made


def _clear(made: Network) -> None:
    for machine in made.machines:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            machine.sampan("node", "reset")
    _end([m.holder for m in made.machines])


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
        process.wait(timeout=10)
        if process.stdout is not None:
            process.stdout.close()
