"""What goes wrong while HAProxy serves: it goes on serving, the trouble is told, and what is wanted is in force as soon as that is over."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

import pytest

from sampan.ingress.haproxy.configuration import render
from sampan.ingress.haproxy.content import MAPS, Content, Operation, RemoveServer
from sampan.ingress.haproxy.driver import RELOAD_PAUSE, HaproxyDriver
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import HaproxyError, Process
from sampan.ingress.haproxy.runtime import NoAnswer, ask, perform
from sampan.ingress.haproxy.spare_backends import SPARE
from sampan.ingress.haproxy.translation import Translation
from sampan.ingress.haproxy.writing import Writer
from sampan.ingress.types import INGRESS_SCOPE, Certificate, Contribution, Host, Listener, Source
from sampan.linux.syscalls import mount, unmount
from tests.ingress.door import Door, Upstream, free_port, open_door
from tests.ingress.objects import add, ingress, remove, set_backends
from tests.ingress.test_certificates import make

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]


@dataclass
class Site:
    """A door with one backend, and what was told of it."""

    door: Door
    told: list[tuple[bool, str]] = field(default_factory=list)

    async def until(self, wanted: str) -> None:
        """Until something with these words was told."""
        async with asyncio.timeout(15):
            while not any(wanted in why for _, why in self.told):
                await asyncio.sleep(0.01)

    def reach(self, name: str) -> None:
        """A rule more, for the host of that name; not waited for."""
        add(self.door.table, ingress(name, [(f"{name}.com", "/", "Prefix", "s")]))
        self.apply()

    def apply(self) -> None:
        self.door.driver.apply(self.door.table.routing, self.door.table.take_change())

    def another_listener(self, name: str = "more") -> int:
        """What needs a reload: a port more, which is returned."""
        port = free_port()
        more = Listener(name, port, INGRESS_SCOPE)
        self.door.table.set_listeners([*self.door.table.routing.listeners.values(), more])
        self.apply()
        return port

    async def who(self, name: str) -> str:
        return await self.door.who(f"{name}.com", "/")

    async def until_answered(self, name: str) -> None:
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError):  # it may have ended
                    if await self.who(name) == "one":
                        return
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def site_in(directory: Path) -> AsyncIterator[Site]:
    async with Upstream("one") as one, open_door(directory) as door:
        site = Site(door)
        was = door.driver._serving

        def tell(on: bool, why: str) -> None:
            site.told.append((on, why))
            was(on, why)

        door.driver._serving = tell
        set_backends(door.table, {"s": [one.endpoint]})
        site.reach("first")
        await door.settle()
        yield site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_in(tmp_path) as opened:
        yield opened


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of its own, of 4 MB."""
    where = tmp_path / "disk"
    where.mkdir()
    mount("tmpfs", str(where), "tmpfs", 0, "size=4m,mode=755")
    yield where
    unmount(str(where))


def fill(disk: Path) -> Path:
    """Take all that is left of a disk by one file."""
    with contextlib.suppress(OSError), open(disk / "full", "wb", buffering=0) as f:
        while f.write(b"x" * 4096):
            pass
    return disk / "full"


@pytest.mark.skipif(os.getuid() != 0, reason="mounts need root")
async def test_a_full_disk(small_disk: Path) -> None:
    async with site_in(small_disk) as site:
        site.another_listener("before")
        await site.door.settle()
        full = fill(small_disk)
        port = site.another_listener("after")
        await site.until("No space left on device")
        assert await site.who("first") == "one"
        # What needs no reload gets there all the same.
        site.reach("second")
        await site.until_answered("second")
        assert not site.door.driver._idle.is_set(), "the port is not open yet"
        # Killed now, it begins with what it was reloaded with last.
        os.kill(site.door.process._pid, signal.SIGKILL)
        os.kill(site.door.process.worker, signal.SIGKILL)
        await site.until_answered("first")
        full.unlink()
        await asyncio.wait_for(site.door.driver.settled(), 15)
        assert site.told[-1] == (True, "")
        assert [await site.who(n) for n in ("first", "second")] == ["one", "one"]
        (await asyncio.open_connection("127.0.0.1", port))[1].close()
        assert not list(site.door.files.directory.rglob("*.new"))


async def test_a_configuration_that_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = site.door.process._pid

    def broken(*arguments: object) -> dict[Path, str]:
        found = render(*arguments)  # type: ignore[arg-type]
        found[site.door.files.configuration] += "backend x\n    nonsense\n"
        return found

    monkeypatch.setattr("sampan.ingress.haproxy.driver.render", broken)
    port = site.another_listener()
    await site.until("unknown keyword 'nonsense'")
    site.reach("second")
    await site.until_answered("second")
    assert len([why for _, why in site.told if why]) == 1, "it is told once"
    assert not site.door.driver._idle.is_set()
    # Killed now, it begins with what it was reloaded with last, and has all the same what came since.
    remove(site.door.table, "first")
    site.apply()
    os.kill(pid, signal.SIGKILL)
    os.kill(site.door.process.worker, signal.SIGKILL)
    await site.until_answered("second")
    assert await site.who("first") == "404"
    site.reach("third")
    await site.until_answered("third")
    pid = site.door.process._pid
    site.reach("first")
    monkeypatch.setattr("sampan.ingress.haproxy.driver.render", render)
    await asyncio.wait_for(site.door.driver.settled(), 15)
    assert site.door.process._pid == pid
    (await asyncio.open_connection("127.0.0.1", port))[1].close()
    assert [await site.who(n) for n in ("first", "second")] == ["one", "one"]
    assert site.told[-1] == (True, "")


async def test_a_change_that_is_not_understood(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = Translation.step
    odd = True

    def broken(self: Translation, *arguments: object) -> object:
        if odd:
            raise KeyError("odd")
        return step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Translation, "step", broken)
    site.reach("second")
    assert "what was in force before stays so" in caplog.text
    assert await site.who("first") == "one"
    odd = False
    site.reach("third")
    await asyncio.wait_for(site.door.driver.settled(), 15)
    assert [await site.who(n) for n in ("first", "second", "third")] == ["one"] * 3


async def test_an_answer_that_does_not_come_while_clearing_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def broken(operations: list[Operation], files: Files) -> list[str]:
        if asked.is_set():
            return await perform(operations, files)
        asked.set()
        raise NoAnswer("busy")

    site.reach("second")
    await site.door.settle()
    remove(site.door.table, "second")
    site.apply()
    await site.door.settle()
    monkeypatch.setattr("sampan.ingress.haproxy.driver.perform", broken)
    await asyncio.wait_for(asked.wait(), 10)
    remove(site.door.table, "first")
    site.apply()
    async with asyncio.timeout(20):
        while site.door.driver._aging or site.door.driver._busy or site.door.driver._superfluous:
            await asyncio.sleep(0.05)
    content = site.door.driver.translation.content
    assert not {name: entries for name, entries in content.maps.items() if entries}
    assert not content.servers
    files = site.door.files
    for name in MAPS:
        shown = (await ask(f"show map {files.map(name)}", files.admin_socket)).strip()
        assert not shown or "Unknown map identifier" in shown, name
    servers = (await ask("show servers state", files.admin_socket)).splitlines()[2:]
    assert not any(servers)


def refuse_reloads(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Have every configuration refused from now on; returns what grows by each."""
    refused: list[None] = []

    async def check(process: Process) -> None:
        refused.append(None)
        raise HaproxyError("no reload")

    monkeypatch.setattr(Process, "check", check)
    return refused


async def test_a_backend_is_not_anothers_before_it_is_cleared(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two Services that nobody can reach the pods of the other."""

    async def no_answer(operations: list[Operation], files: Files) -> list[str]:
        if any(isinstance(op, RemoveServer) for op in operations):
            raise NoAnswer("busy")
        return await perform(operations, files)

    monkeypatch.setattr("sampan.ingress.haproxy.driver.perform", no_answer)
    refuse_reloads(monkeypatch)
    table = site.door.table
    set_backends(table, {f"empty{n}": [] for n in range(SPARE + 8)})
    remove(table, "first")
    site.apply()
    await site.door.settle()
    for n in range(SPARE - 1):
        add(table, ingress(f"empty{n}", [(f"empty{n}.com", "/", "Prefix", f"empty{n}")]))
    site.apply()
    await site.door.settle()
    for n in range(SPARE - 1):
        assert await site.who(f"empty{n}") == "503"
    # All that are spare are used now: the next one waits for a reload, which cannot be.
    add(table, ingress("next", [("next.com", "/", "Prefix", f"empty{SPARE}")]))
    site.apply()
    async with asyncio.timeout(10):
        while (answered := await site.who("next")) == "404":
            await asyncio.sleep(0.01)
    assert answered == "503"
    assert site.told[-1][0]
    assert "no reload" in site.told[-1][1]


async def test_translated_anew_what_is_pending_waits_for_the_reload(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy knows other names: done to it, the change would lead to somebody else's pods."""
    step, odd = Translation.step, [True]

    def broken(self: Translation, *arguments: object) -> object:
        if odd:
            odd.clear()
            raise KeyError("odd")
        return step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Translation, "step", broken)
    refused = refuse_reloads(monkeypatch)
    asked: list[Operation] = []

    async def noted(operations: list[Operation], files: Files) -> list[str]:
        asked.extend(operations)
        return await perform(operations, files)

    monkeypatch.setattr("sampan.ingress.haproxy.driver.perform", noted)
    site.reach("second")
    await site.until("no reload")
    site.reach("third")
    remove(site.door.table, "first")
    site.apply()
    before = len(refused)
    async with asyncio.timeout(15):
        while len(refused) < before + 2:
            await asyncio.sleep(0.01)
    assert not asked
    assert await site.who("first") == "one"
    monkeypatch.undo()
    await asyncio.wait_for(site.door.driver.settled(), 15)
    assert [await site.who(n) for n in ("first", "second", "third")] == ["404", "one", "one"]


async def test_a_driver_that_fails_leaves_the_proxy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pid, failed = site.door.process._pid, asyncio.Event()
    work = HaproxyDriver._work

    async def broken(driver: HaproxyDriver) -> None:
        if failed.is_set():
            return await work(driver)
        await driver._changed.wait()
        failed.set()
        raise KeyError("odd")

    monkeypatch.setattr(HaproxyDriver, "_work", broken)
    # The one that works now ends with the proxy; the next one is ours.
    os.kill(pid, signal.SIGKILL)
    os.kill(site.door.process.worker, signal.SIGKILL)
    async with asyncio.timeout(10):
        while site.door.process._pid == pid or not site.door.process.worker:
            await asyncio.sleep(0.01)
    pid = site.door.process._pid
    site.reach("second")
    await failed.wait()
    await asyncio.wait_for(site.door.driver.settled(), 15)
    assert site.door.process._pid == pid, "it was taken over, not started again"
    assert [await site.who(n) for n in ("first", "second")] == ["one", "one"]


async def test_reloads_are_a_second_apart_however_many_are_asked_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []
    reload = HaproxyDriver._reload

    async def noted(driver: HaproxyDriver) -> bool:
        began.append(asyncio.get_running_loop().time())
        return await reload(driver)

    monkeypatch.setattr(HaproxyDriver, "_reload", noted)
    ports = []
    async with asyncio.timeout(30):
        for number in range(3):
            ports.append(site.another_listener(f"more-{number}"))
            ports.append(site.another_listener(f"and-{number}"))
            while len(began) <= number:
                await asyncio.sleep(0.001)
        await site.door.driver.settled()
    assert min(later - one for one, later in itertools.pairwise(began)) >= RELOAD_PAUSE - 0.01
    for port in ports:
        (await asyncio.open_connection("127.0.0.1", port))[1].close()


async def test_a_port_that_is_taken_closes_no_other(site: Site) -> None:
    """A worker that finds it taken has the one that serves stop listening while it tries again: it never gets so far."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        table = site.door.table
        more = Listener("more", port, INGRESS_SCOPE)
        table.set_listeners([*table.routing.listeners.values(), more])
        site.apply()
        await site.until(f"port {port} of 127.0.0.1: Address already in use")
        assert await site.who("first") == "one"
        # What needs no reload does not wait for one.
        site.reach("second")
        await site.until_answered("second")
        shown = await ask("show proc;quit", site.door.files.master_socket)
        assert "[failed: 0]" in shown
    await asyncio.wait_for(site.door.driver.settled(), 15)
    (await asyncio.open_connection("127.0.0.1", port))[1].close()
    assert site.told[-1] == (True, "")


def written(directory: Path) -> Files:
    """Files with which HAProxy can be started."""
    directory.chmod(0o755)
    files = Files(directory / "run", ("127.0.0.1",))
    writer, content = Writer(files), Content(listeners={"http": Listener("http", free_port(), INGRESS_SCOPE)})
    writer.make_directories()
    writer.write(render(content, files))
    return files


async def test_one_that_cannot_be_asked_is_ended_before_another_is_started(tmp_path: Path) -> None:
    """Both would have the port, and half of the clients each."""
    files = written(tmp_path)
    first, second = (Process(files, "haproxy", tmp_path / "access.log") for _ in range(2))
    await first.start()
    await first.reload()
    files.master_socket.unlink()
    try:
        assert not second.adopt()
        await second.start()
        await asyncio.wait_for(first.ended(), 15)
        assert second.running
    finally:
        await first.end()
        await second.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_who_has_the_same_names_in_another_network_is_left_alone(tmp_path: Path) -> None:
    """As in a container that is a node: its files are others."""
    files = written(tmp_path)
    process = Process(files, "haproxy", tmp_path / "access.log")
    code = "print(flush=True); import time; time.sleep(1000)"
    command = ["unshare", "--net", sys.executable, "-c", code, f"{files.master_socket},mode,600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            await process.start()
            assert other.poll() is None
        finally:
            await process.end()
            other.kill()


async def test_a_reload_that_fails_tells_why(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no check finds: another program was faster."""
    monkeypatch.setattr(Process, "check_ports", lambda *arguments: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        table = site.door.table
        more = Listener("more", taken.getsockname()[1], INGRESS_SCOPE)
        table.set_listeners([*table.routing.listeners.values(), more])
        async with asyncio.timeout(5):  # as soon as it fails, and not when it has taken too long
            site.apply()
            await site.until("cannot bind socket (Address already in use)")
            site.reach("second")
            await site.until_answered("second")
    await asyncio.wait_for(site.door.driver.settled(), 15)
    assert site.told[-1] == (True, "")


async def test_what_was_wrong_is_over_when_all_that_is_wanted_is_started(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_reloads(monkeypatch)
    site.another_listener()
    await site.until("no reload")
    os.kill(site.door.process._pid, signal.SIGKILL)
    os.kill(site.door.process.worker, signal.SIGKILL)
    await asyncio.wait_for(site.door.driver.settled(), 15)
    assert site.told[-1] == (True, "")


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Site]:
    """A site with TLS, and a certificate for `h.test`."""
    async with open_door(tmp_path, tls=True) as door:
        site = Site(door)
        source = Source("Ingress", "a", "i")
        pair = make("h.test")
        shown = Certificate(INGRESS_SCOPE, Host.of_ingress("h.test"), *pair, source)
        door.table.update(("Ingress", "a", "i"), Contribution(certificates=(shown,)))
        await door.settle()
        yield site


async def shows_its_certificate(site: Site) -> bool:
    """Whether clients that ask for `h.test` get another certificate than the node's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(
        "127.0.0.1", site.door.tls_port, ssl=context, server_hostname="h.test"
    )
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return bool(shown != ssl.PEM_cert_to_DER_cert(own_of(site.door.files.default_certificate)))


def own_of(path: Path) -> str:
    text = path.read_text()
    return text[text.index("-----BEGIN CERTIFICATE") :]


async def test_a_certificate_that_cannot_be_written_is_not_left_out(
    guarded: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    failed = asyncio.Event()

    def full(path: Path, *arguments: int) -> int:
        if not failed.is_set() and path.name == "c1.pem.new":
            failed.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opened(path, *arguments)

    monkeypatch.setattr("sampan.ingress.haproxy.writing.os.open", full)
    guarded.another_listener()
    await asyncio.wait_for(guarded.door.driver.settled(), 15)
    assert failed.is_set()
    assert await shows_its_certificate(guarded)


async def test_files_that_somebody_removed_are_written_again(guarded: Site) -> None:
    guarded.another_listener()
    await asyncio.wait_for(guarded.door.driver.settled(), 15)
    for path in guarded.door.files.named.iterdir():
        path.unlink()
    guarded.another_listener("again")
    await asyncio.wait_for(guarded.door.driver.settled(), 15)
    assert await shows_its_certificate(guarded)
