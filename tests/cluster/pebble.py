"""Pebble, the ACME server (RFC 8555) that Let's Encrypt made for tests: from the system's package, with its DNS server beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import acme

_PROGRAMS = ("pebble", "pebble-challtestsrv")


def missing() -> str:
    """What is not installed, as the reason to skip a test."""
    gone = [p for p in _PROGRAMS if not shutil.which(p)]
    return f"not installed: {', '.join(gone)}" if gone else ""


@dataclass(frozen=True)
class Pebble:
    """`trusted` is the file of the root that its own certificate is from, `root` that of those that it issues."""

    directory: str
    trusted: Path
    root: Path


@contextlib.contextmanager
def running(address: str, files: Path) -> Iterator[Pebble]:
    """One that finds every host at `address`, and asks it at port 80. Its files are in a directory of the caller's."""
    authority = acme.Authority()
    chain, key = authority.pair("localhost")
    trusted = acme.write(authority, files / "trusted.pem")
    (files / "pebble.crt").write_text(chain)
    (files / "pebble.key").write_text(key)
    api, management, dns, control = _ports(4)
    given = {
        "listenAddress": f"127.0.0.1:{api}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(files / "pebble.crt"),
        "privateKey": str(files / "pebble.key"),
        "httpPort": 80,
        "tlsPort": 443,
    }
    (files / "pebble.json").write_text(json.dumps({"pebble": given}))
    off = [word for what in ("http01", "https01", "tlsalpn01") for word in (f"-{what}", "")]
    with (
        _started([_PROGRAMS[1], *off, "-defaultIPv4", address, "-defaultIPv6", "", "-dns01", f"127.0.0.1:{dns}",
                  "-management", f"127.0.0.1:{control}"], files / "dns.log"),
        _started([_PROGRAMS[0], "-config", str(files / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"], files / "pebble.log"),
    ):  # fmt: skip
        context = ssl.create_default_context(cafile=trusted)
        root = files / "root.pem"
        root.write_bytes(_fetched(f"https://localhost:{management}/roots/0", context, files / "pebble.log"))
        yield Pebble(f"https://localhost:{api}/dir", trusted, root)


@contextlib.contextmanager
def _started(command: Sequence[str], log: Path) -> Iterator[None]:
    # It waits before it looks, and refuses some nonces, to try clients; neither is of interest here.
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
    with open(log, "wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _fetched(url: str, context: ssl.SSLContext, log: Path) -> bytes:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # it does not listen yet
            with urllib.request.urlopen(url, context=context) as answer:
                return bytes(answer.read())
        time.sleep(0.05)
    raise TimeoutError(log.read_text())


def _ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
