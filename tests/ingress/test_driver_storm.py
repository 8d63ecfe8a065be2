"""Random changes beside random faults: HAProxy killed, configurations refused, commands unanswered. Whatever the order, nobody is led to a Service that
his host never led to, and once the faults are over what is wanted is in force."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import ssl
from pathlib import Path
from shutil import which

import pytest

from sampan.ingress.haproxy import driver as driving
from sampan.ingress.haproxy.content import Operation
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import HaproxyError, Process
from sampan.ingress.haproxy.runtime import NoAnswer, perform
from sampan.ingress.haproxy.translation import Translation
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import (
    INGRESS_SCOPE,
    Certificate,
    Change,
    Contribution,
    Host,
    Listener,
    Routing,
    Source,
)
from tests.ingress.door import Door, Upstream, free_port, open_door
from tests.ingress.objects import add, ingress, remove, set_backends
from tests.ingress.test_certificates import make

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]
HOSTS, SERVICES, STEPS = 6, 12, 60
SOAK = int(os.environ.get("SAMPAN_SOAK", "0"))
SEEDS = random.sample(range(10**9), SOAK) if SOAK else range(3)
SPARE = 4
"""So few backends beforehand that reloads are many."""


class Faults:
    """What goes wrong, by the name of what does."""

    def __init__(self, chance: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chance = chance
        self.refuse = self.silent = self.odd = False
        check, step = Process.check, Translation.step

        async def refusing(process: Process) -> None:
            if self.refuse:
                raise HaproxyError("refused")
            await check(process)

        async def silent(operations: list[Operation], files: Files) -> list[str]:
            if self.silent and self.chance.random() < 0.5:
                # Some of it is done all the same.
                await perform(operations[: len(operations) // 2], files)
                raise NoAnswer("busy")
            return await perform(operations, files)

        def stumbling(translation: Translation, routing: Routing, change: Change) -> object:
            if self.odd:
                self.odd = False
                raise KeyError("odd")
            return step(translation, routing, change)

        monkeypatch.setattr(Process, "check", refusing)
        monkeypatch.setattr(driving, "perform", silent)
        monkeypatch.setattr(Translation, "step", stumbling)
        monkeypatch.setattr(driving, "RELOAD_PAUSE", 0.1)
        monkeypatch.setattr(driving, "_LATER", 0.05)
        monkeypatch.setattr(driving, "_BUSY_AGAIN", 0.2)

    def over(self) -> None:
        self.refuse = self.silent = self.odd = False


class Storm:
    def __init__(self, door: Door, upstreams: list[Upstream], faults: Faults) -> None:
        self.door, self.upstreams, self.faults, self.chance = door, upstreams, faults, faults.chance
        self.leads: dict[int, int] = {}
        """Host to Service."""
        self.open: set[int] = set()
        """Services that have an endpoint."""
        self.lately: dict[int, set[str]] = {n: set() for n in range(HOSTS)}
        """Who may answer for a host: whoever it led to since all was right."""
        self.more: list[Listener] = []
        self.pairs = [[make(f"h{n}.test"), make(f"h{n}.test")] for n in range(HOSTS)]
        self.shows: dict[int, str] = {}
        """Host to the chain that is shown for it."""

    @property
    def table(self) -> RoutingTable:
        return self.door.table

    def step(self) -> str:
        host, service = self.chance.randrange(HOSTS), self.chance.randrange(SERVICES)
        what = self.chance.choices(
            ["lead", "away", "pods", "show", "listen", "kill", "refuse", "silent", "odd", "right"],
            [10, 5, 8, 4, 1, 1, 1, 1, 1, 4],
        )[0]
        match what:
            case "lead":
                self.leads[host] = service
                self.lately[host].add(self.upstreams[service].name)
                rule = (f"h{host}.test", "/", "Prefix", f"s{service}")
                add(self.table, ingress(f"i{host}", [rule]))
            case "away":
                self.leads.pop(host, None)
                remove(self.table, f"i{host}")
            case "pods":
                self.open ^= {service}
                there = [self.upstreams[service].endpoint] if service in self.open else []
                set_backends(self.table, {f"s{service}": there})
            case "show":
                self.shows.pop(host, None)
                found: tuple[Certificate, ...] = ()
                if pair := self.chance.choice([None, *self.pairs[host]]):
                    self.shows[host] = pair[0]
                    source = Source("Ingress", "a", f"c{host}")
                    found = (Certificate(INGRESS_SCOPE, Host.of_ingress(f"h{host}.test"), *pair, source),)
                self.table.update(("Ingress", "a", f"c{host}"), Contribution(certificates=found))
            case "listen":
                self.more = [] if self.more else [Listener("more", free_port(), INGRESS_SCOPE)]
                always = self.table.routing.listeners
                self.table.set_listeners([always["http"], always["https"], *self.more])
            case "kill":
                for pid in (self.door.process._pid, self.door.process.worker):
                    if pid and self.door.process.running:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
            case "right":
                self.faults.over()
            case fault:
                setattr(self.faults, fault, True)
        self.door.driver.apply(self.table.routing, self.table.take_change())
        return what

    def wanted(self, host: int) -> str:
        if host not in self.leads:
            return "404"
        service = self.leads[host]
        return self.upstreams[service].name if service in self.open else "503"

    async def look(self, host: int) -> str:
        """Who answers for a host; "" for nobody. Nobody may who never was wanted."""
        try:
            found = await self.door.who(f"h{host}.test", "/")
        except OSError:
            return ""
        assert found in self.lately[host] | {"404", "503", "0"}, f"h{host} was answered by {found}"
        return found

    async def chain(self, host: int) -> str:
        """The certificate that is shown for a host, "" for the node's own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", self.door.tls_port, ssl=context, server_hostname=f"h{host}.test"
            )
        except OSError:
            return "nobody"
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        known = [pair[0] for pairs in self.pairs for pair in pairs]
        return next((c for c in known if ssl.PEM_cert_to_DER_cert(c) == shown), "")

    async def is_right(self) -> None:
        async with asyncio.timeout(30):
            for host in range(HOSTS):
                while await self.chain(host) != self.shows.get(host, ""):
                    await asyncio.sleep(0.02)
                while await self.look(host) != self.wanted(host):
                    await asyncio.sleep(0.02)
                self.lately[host] = {self.upstreams[self.leads[host]].name} if host in self.leads else set()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_storm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(Translation.__init__, "__defaults__", (SPARE,))
    async with contextlib.AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(Upstream(f"pod-{n}")) for n in range(SERVICES)]
        door = await stack.enter_async_context(open_door(tmp_path, tls=True))
        storm = Storm(door, upstreams, Faults(chance, monkeypatch))
        done = []
        try:
            for number in range(STEPS):
                done.append(storm.step())
                for _ in range(chance.randrange(3)):
                    await storm.look(chance.randrange(HOSTS))
                await asyncio.sleep(chance.choice([0, 0, 0.01, 0.1]))
                if number % 15 == 14:
                    storm.faults.over()
                    async with asyncio.timeout(30):
                        await door.driver.settled()
                    await storm.is_right()
        except BaseException:
            print(" ".join(done))
            raise
