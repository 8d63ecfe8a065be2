"""The server that does nothing: our transport, TLS, and a handler with one ready answer. What it reaches is the most that
any handler could; other figures are told as shares of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.api import Target

_SIZE = 700
"""Bytes of the answer: about a small ConfigMap."""


@dataclass(frozen=True, slots=True)
class NullServer:
    target: Target
    pid: int


@contextlib.contextmanager
def running() -> Iterator[NullServer]:
    """The server in a process of its own, on a port of its own on loopback."""
    with tempfile.TemporaryDirectory(prefix="sampan-null-") as directory:
        command = [sys.executable, "-m", "bench.null_server", directory]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
            assert process.stdout is not None
            try:
                port = int(process.stdout.readline())
                yield NullServer(Target(f"https://127.0.0.1:{port}", "none"), process.pid)
            finally:
                process.terminate()


def _certificate(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "tls.crt", directory / "tls.key"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=null",
        "-days", "1", "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


async def _serve(directory: Path) -> None:
    from sampan.transport.http import HttpServer
    from sampan.transport.tls import server_context
    from sampan.transport.types import Response

    certificate, key = _certificate(directory)
    body = b'{"data":"' + b"x" * (_SIZE - 11) + b'"}'
    server = HttpServer(
        lambda _: Response(200, body), ssl_context=server_context(certificate, key, certificate)
    )
    _, port = await server.listen()
    print(port, flush=True)
    sys.stdout.close()
    await asyncio.Event().wait()


def main(directory: str) -> None:
    import uvloop

    uvloop.run(_serve(Path(directory)))


if __name__ == "__main__":
    main(sys.argv[1])
