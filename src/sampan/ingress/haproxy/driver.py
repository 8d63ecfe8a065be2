"""A HAProxy that does what a Routing says: changes go to it while it runs; where its sections must change it is reloaded, and
where it ends it is started again with all that is wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sampan.ingress.haproxy import certificates, default_certificate
from sampan.ingress.haproxy.configuration import render
from sampan.ingress.haproxy.content import Operation, RemoveServer
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import HaproxyError, Process
from sampan.ingress.haproxy.runtime import NoAnswer, perform
from sampan.ingress.haproxy.translation import Translation
from sampan.ingress.types import Change, Routing

log = logging.getLogger(__name__)
RELOAD_PAUSE = 1.0
"""Seconds between two reloads at least."""
_LATER = 1.0
"""Seconds after which what a change made superfluous is removed."""
_BUSY_AGAIN = 5.0
_FIRST_PAUSE, _MOST_PAUSE = 0.1, 5.0


class HaproxyDriver:
    """Drives one HAProxy. `run()` must be running; `serving` is told of each change between serving and not, with the reason
    for the latter."""

    def __init__(
        self, files: Files, process: Process, serving: Callable[[bool, str], None] = lambda on, why: None
    ) -> None:
        self._files = files
        self._process = process
        self._serving = serving
        self.translation = Translation()
        self._changed = asyncio.Event()
        self._pending: list[Operation] = []
        self._structure = False
        self._superfluous: list[Operation] = []
        self._aging: list[Operation] = []
        self._left = asyncio.Event()
        self._turn = asyncio.Lock()
        """Of whoever writes the files or clears up: a file never has what is being removed."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._written: dict[Path, str] = {}
        """What files named after what they hold have."""
        self.reloads = 0

    def apply(self, routing: Routing, change: Change) -> None:
        """Have a change done; returns at once."""
        if not change:
            return
        step = self.translation.step(routing, change)
        self._structure |= step.structure
        self._pending += step.now
        self._superfluous += step.later
        if step.later:
            self._left.set()
        self._idle.clear()
        self._changed.set()

    async def settled(self) -> None:
        """Returns once all that was applied is in force."""
        await self._idle.wait()

    async def run(self) -> None:
        """Until cancelled; the proxy goes on. One that runs already is taken over, and reloaded with what is wanted."""
        self._files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._files.directory / "empty").mkdir(mode=0o755, exist_ok=True)
        self._files.named.mkdir(mode=0o700, exist_ok=True)
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        adopted = self._process.adopt()
        while True:
            began = loop.time()
            try:
                await self._have_default()
                self._write()
                if adopted:
                    adopted = False
                    await self._process.check()
                    await self._process.reload()
                else:
                    await self._process.start()
                self._serving(True, "")
                await self._follow()
                reason = "it ended"
            except (HaproxyError, OSError) as e:
                reason = str(e)
                await self._process.end()
            if self.translation.drop_certificates(reason):
                continue
            log.warning("HAProxy does not serve: %s", reason)
            self._serving(False, reason)
            if loop.time() - began > _MOST_PAUSE:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MOST_PAUSE)

    async def _follow(self) -> None:
        """Do what is applied, until HAProxy ends."""
        ended = asyncio.ensure_future(self._process.ended())
        tasks = [ended, asyncio.ensure_future(self._work()), asyncio.ensure_future(self._clear_up())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not task.cancelled() and (e := task.exception()):
                    raise e
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time() - RELOAD_PAUSE
        while True:
            self._changed.clear()
            if self._structure:
                await asyncio.sleep(max(0.0, last + RELOAD_PAUSE - loop.time()))
                last = loop.time()
                await self._reload()
            elif self._pending:
                operations, self._pending = self._pending, []
                await self._perform(operations)
            if not self._pending and not self._structure:
                self._idle.set()
                await self._changed.wait()

    async def _perform(self, operations: Sequence[Operation]) -> None:
        try:
            refused = await perform(operations, self._files)
        except NoAnswer as e:
            refused = [str(e)]
        if refused:
            # It is not as we think: the files are.
            log.warning("HAProxy is reloaded, for it refused: %s", "; ".join(refused[:5]))
            self.translation.drop_certificates("\n".join(refused))
            self._structure = True

    async def _reload(self) -> None:
        async with self._turn:
            await self._have_default()
            self._write()
            try:
                await self._process.check()
            except HaproxyError as e:
                if self.translation.drop_certificates(str(e)):
                    self._structure = True
                    return
                log.error("HAProxy refuses the configuration, the old one stays in force: %s", e)
                return
            await self._process.reload()
            self.reloads += 1

    async def _have_default(self) -> None:
        if certificates.lists(self.translation.content.listeners.values()):
            await default_certificate.ensure(self._files.default_certificate)

    def _write(self) -> None:
        """Write down everything as it is wanted; what was pending is part of it."""
        self._pending, self._structure = [], False
        self.translation.settle([*self._aging, *self._superfluous])
        self._aging, self._superfluous = [], []
        self.translation.reloaded()
        files = render(self.translation.content, self._files)
        for path, text in files.items():
            if path.parent == self._files.named and self._written.get(path) == text:
                continue
            temporary = path.with_suffix(".new")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
                f.write(text.encode(errors="replace"))
            temporary.replace(path)
        for path in self._files.named.iterdir():
            if path not in files:
                path.unlink()
        self._written = {p: text for p, text in files.items() if p.parent == self._files.named}

    async def _clear_up(self) -> None:
        """Remove what nobody can find any more, a while after it became so. A server that somebody is still connected to is
        tried again."""
        busy: list[RemoveServer] = []
        while True:
            if busy:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._left.wait(), _BUSY_AGAIN)
            else:
                await self._left.wait()
            self._left.clear()
            self._aging, self._superfluous = self._superfluous, []
            await asyncio.sleep(_LATER)
            async with self._turn:
                operations, self._aging = self._aging, []
                with contextlib.suppress(NoAnswer):  # it has ended: the next one begins without all this
                    busy = await self._remove(operations, busy)

    async def _remove(
        self, operations: Sequence[Operation], busy: Sequence[RemoveServer]
    ) -> list[RemoveServer]:
        """Returns what is still in use."""
        others = [op for op in operations if not isinstance(op, RemoveServer)]
        await perform(others, self._files)
        self.translation.settle(others)
        left = []
        for op in [*busy, *(op for op in operations if isinstance(op, RemoveServer))]:
            if any("connections" in why for why in await perform([op], self._files)):
                left.append(op)
            else:
                self.translation.settle([op])
        return left
