"""Histories of sixteen clients through kills of the server: one order explains all that they saw."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.cluster.test_lifecycle import Owner, owner, pids  # noqa: F401
from tests.linearizability.checker import explain
from tests.linearizability.clients import Client, Record, connection

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("conmon"), reason="needs root and the system packages"
    ),
]
_CLIENTS, _KEYS = 16, 8
_CALLS_A_KILL = int(os.environ.get("SAMPAN_HISTORY_CALLS", "800"))
_KILLS = int(os.environ.get("SAMPAN_HISTORY_KILLS", "4"))


async def history(kubeconfig: Path, kill: Callable[[int], Awaitable[None]]) -> Record:
    """Let the clients run; `kill` is called each time that so many more calls were answered."""
    server, context = connection(kubeconfig)
    record, stop = Record(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(_CLIENTS):
            group.create_task(Client(number, [server], context, record, _KEYS).run(stop))
        for i in range(_KILLS + 1):
            await _grown(record, len(record.calls) + _CALLS_A_KILL)
            if i < _KILLS:
                await kill(i)
        stop.set()
    return record


async def _grown(record: Record, size: int) -> None:
    while len(record.calls) < size:
        await asyncio.sleep(0.01)


def hold(record: Record) -> None:
    assert record.doubled == []
    assert record.torn() == []
    assert explain(record.calls, record.versions) == ""
    unknown = sum(1 for c in record.calls if c.outcome == "unknown")
    print(f"{len(record.calls)} calls, {len(record.lists)} lists, {unknown} without an answer")


async def test_sqlite_through_kills_of_the_server(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    await asyncio.to_thread(owner.run, "up", "--name", name)

    async def kill(_: int) -> None:
        os.kill(pids(name)["sampan-control-"], signal.SIGKILL)

    hold(await history(Path("/var/lib/sampan", name, "kubeconfig"), kill))


async def test_etcd_through_kills_of_the_server_and_of_etcd(owner: Owner) -> None:  # noqa: F811
    name = owner.name()
    await asyncio.to_thread(owner.run, "up", "--name", name, "--store", "etcd")

    async def kill(i: int) -> None:
        os.kill(pids(name)["etcd" if i % 2 else "sampan-control-"], signal.SIGKILL)

    hold(await history(Path("/var/lib/sampan", name, "kubeconfig"), kill))
