"""Connections of the past: entries of UDP endpoints that are gone, which would catch a client's packets for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sampan.proxy.types import Backend, Frontend

log = logging.getLogger(__name__)


async def forget(ended: Sequence[tuple[Frontend, Backend]]) -> None:
    """Delete the entries that lead from a frontend to a backend it no longer has. A failure is logged only."""
    for frontend, backend in ended:
        try:
            process = await asyncio.create_subprocess_exec(
                "conntrack", "-D", "-p", frontend.protocol.lower(), "--orig-dst", frontend.address,
                "--orig-port-dst", str(frontend.port), "--reply-src", backend.address,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError:
            log.warning("conntrack is missing: UDP clients of %s may keep a backend that is gone", frontend)
            return
        _, said = await process.communicate()
        if process.returncode and b"0 flow entries" not in said:
            log.warning("conntrack -D for %s: %s", frontend, said.decode(errors="replace").strip())
