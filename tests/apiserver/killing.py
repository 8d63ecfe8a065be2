"""A program that writes to a store until it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path


async def run_and_kill(program: str, directory: Path, after: float) -> None:
    """Run a Python program on the store in `directory` until it prints `enough`, and kill it `after` seconds later."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(directory / "db"), stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"enough\n"
    time.sleep(after)  # another moment each time
    process.send_signal(signal.SIGKILL)
    await process.wait()
