"""A HAProxy that does what a Routing says: changes go to it while it runs; where its sections must change it is reloaded, and
where it ends it is started again with all that is wanted.

Whatever goes wrong, a proxy that serves is left to serve what it has: the trouble is told, and it is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from sampan.ingress.haproxy import certificates, default_certificate
from sampan.ingress.haproxy.configuration import render
from sampan.ingress.haproxy.content import AddServer, Content, Operation, RemoveServer, SetServer
from sampan.ingress.haproxy.difference import difference
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import HaproxyError, Process
from sampan.ingress.haproxy.runtime import NoAnswer, perform
from sampan.ingress.haproxy.translation import Renewal, Translation
from sampan.ingress.haproxy.writing import Writer
from sampan.ingress.types import Change, Routing

log = logging.getLogger(__name__)
_Op = TypeVar("_Op", bound=Operation)
RELOAD_PAUSE = 1.0
"""Seconds between two reloads at least."""
_LATER = 1.0
"""Seconds after which what a change made superfluous is removed."""
_BUSY_AGAIN = 5.0
_FIRST_PAUSE, _MOST_PAUSE = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class _Written:
    """What the files have, whose it is, and how many of the operations that were pending are part of it."""

    translation: Translation
    renewal: Renewal
    pending: int


class HaproxyDriver:
    """Drives one HAProxy. `run()` must be running; `serving` is told of each change between serving and not, with the reason
    for the latter, and of what is wrong while it serves ("" when it is right again)."""

    def __init__(
        self, files: Files, process: Process, serving: Callable[[bool, str], None] = lambda on, why: None
    ) -> None:
        self._files = files
        self._process = process
        self._serving = serving
        self._writer = Writer(files)
        self.translation = Translation()
        self._changed = asyncio.Event()
        self._pending: list[Operation] = []
        """What is not done yet, or not to its end."""
        self._structure = False
        self._anew = False
        """Whether a change was not understood, and all has to be translated anew."""
        self._begun: Content | None = None
        """What the proxy had when it was started or reloaded last, and its files have. None: it is not known."""
        self._named: Translation | None = None
        """Whose names the proxy has. Another's mean something else: of those nothing is done to it before it is reloaded."""
        self._doubtful = False
        """Whether some of what was to be done may not be: nothing is cleared up before a reload."""
        self._superfluous: list[Operation] = []
        self._aging: list[Operation] = []
        self._busy: list[RemoveServer] = []
        """Servers that somebody is still connected to."""
        self._left = asyncio.Event()
        self._turn = asyncio.Lock()
        """Of whoever writes the files or clears up: a file never has what is being removed."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._trouble = ""
        self._pause = _FIRST_PAUSE
        self.reloads = 0

    def apply(self, routing: Routing, change: Change) -> None:
        """Have a change done; returns at once."""
        if not change and not self._anew:
            return
        try:
            if not self._anew:
                step = self.translation.step(routing, change)
                self._structure |= step.structure
                self._pending += step.now
                self._superfluous += step.later
                if step.later:
                    self._left.set()
        except Exception:
            log.exception("a change of the routing is not understood: all of it is translated anew")
            self._anew = True
        if self._anew:
            self._translate_anew(routing)
        self._idle.clear()
        self._changed.set()

    def _translate_anew(self, routing: Routing) -> None:
        everything = Change(
            frozenset(routing.listeners),
            frozenset(routing.routes),
            frozenset(routing.endpoints),
            frozenset(routing.certificates),
        )
        translation = Translation()
        try:
            translation.step(routing, everything)
        except Exception:
            log.exception("the routing is not understood: what was in force before stays so")
            return
        self.translation, self._anew, self._structure = translation, False, True
        self._pending, self._superfluous, self._aging, self._busy = [], [], [], []

    async def settled(self) -> None:
        """Returns once all that was applied is in force."""
        await self._idle.wait()

    async def run(self) -> None:
        """Until cancelled; the proxy goes on. One that runs already is taken over, and reloaded with what is wanted."""
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        adopt = True
        while True:
            began = loop.time()
            try:
                self._writer.make_directories()
                runs = self._process.running or (adopt and self._process.adopt())
                adopt = False
                if runs:
                    await self._reload()
                else:
                    await self._start()
                self._serving(True, self._trouble)
                await self._follow()
                reason = "it ended"
            except (HaproxyError, OSError) as e:
                reason = str(e)
            except Exception as e:
                log.exception("HAProxy is not driven")
                reason = repr(e)
            log.warning("HAProxy does not serve: %s", reason)
            self._serving(False, reason)
            if loop.time() - began > _MOST_PAUSE:  # it served for a while: it is started again at once
                pause = _FIRST_PAUSE
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MOST_PAUSE)

    async def _start(self) -> None:
        """Start it with all that is wanted; where that cannot be, with what it began with last and all that came since and takes
        no reload. Raises HaproxyError, OSError."""
        self._named = None
        try:
            renewal = await self._write()
            await self._process.start()
            self._take(renewal)
            self._trouble = ""
        except (HaproxyError, OSError) as e:
            if self._leave_out_certificates(e):
                return await self._start()
            if self._begun is None:
                raise
            self._writer.restore()
            with contextlib.suppress(HaproxyError, OSError):
                await self._process.start()
            if not self._process.running:
                raise
            await self._catch_up(self._begun)
            self._tell_not_in_force(e)

    async def _catch_up(self, begun: Content) -> None:
        """Have it do all that has been translated since, but for what takes a reload."""
        self._pending, self._structure, self._doubtful = [], True, False
        self._named = self.translation
        await self._perform(difference(begun, self.translation.content))

    async def _follow(self) -> None:
        """Do what is applied, until HAProxy ends."""
        ended = asyncio.ensure_future(self._process.ended())
        tasks = [asyncio.ensure_future(self._work()), asyncio.ensure_future(self._clear_up())]
        try:
            await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not task.cancelled() and (e := task.exception()):
                    raise e
        finally:
            for task in (ended, *tasks):
                task.cancel()
            await asyncio.gather(ended, *tasks, return_exceptions=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time() - RELOAD_PAUSE
        again = last
        while True:
            self._changed.clear()
            known = self._named is self.translation
            if self._pending and known and (not self._structure or self._trouble):
                pending = self._pending
                operations = list(pending)
                await self._perform(operations)
                del pending[: len(operations)]
            if self._structure and loop.time() >= again:
                await asyncio.sleep(max(0.0, last + RELOAD_PAUSE - loop.time()))
                last = loop.time()
                again = last if await self._reload() else loop.time() + self._pause
            if self._structure:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(again):
                        await self._changed.wait()
            elif not self._pending:
                self._idle.set()
                await self._changed.wait()

    async def _perform(self, operations: Sequence[Operation]) -> None:
        operations = [
            op for op in operations if not isinstance(op, AddServer) or self._has_section(op.backend)
        ]
        try:
            refused = await perform(operations, self._files)
        except NoAnswer as e:
            refused = [str(e)]
        except Exception as e:
            log.exception("a change is not understood")
            refused = [repr(e)]
        self._doubtful |= bool(refused)
        if refused and not self._structure:
            # It is not as we think: the files are.
            log.warning("HAProxy is reloaded, for it refused: %s", "; ".join(refused[:5]))
            self.translation.drop_certificates("\n".join(refused))
            self._structure = True

    def _has_section(self, backend: str) -> bool:
        """Whether what the proxy began with has this backend, and as it is wanted. Else who was led there would get around what guards
        it, where it had to begin with older files."""
        wanted = self.translation.content.backends.get(backend)
        return self._begun is None or self._begun.backends.get(backend) == wanted

    async def _reload(self) -> bool:
        """Have all that is wanted in force. Returns whether it is, or is tried again at once."""
        try:
            async with self._turn:
                renewal = await self._write()
                try:
                    await self._process.check()
                    self._process.check_ports(self._new_ports(renewal))
                    await self._process.reload()
                except BaseException:
                    self._writer.restore()
                    raise
                self._take(renewal)
        except Exception as e:
            self._structure = True
            if self._leave_out_certificates(e):
                return True
            if not isinstance(e, HaproxyError | OSError):
                log.exception("HAProxy cannot be given what is wanted")
            self._tell_not_in_force(e)
            self._pause = min(self._pause * 2, _MOST_PAUSE)
            return False
        self.reloads += 1
        self._pause = _FIRST_PAUSE
        self._tell("")
        return True

    def _leave_out_certificates(self, error: Exception) -> bool:
        """Whether there are any that HAProxy complains of. A file that could not be written is no fault of what is in it."""
        return isinstance(error, HaproxyError) and self.translation.drop_certificates(str(error))

    def _tell_not_in_force(self, error: Exception) -> None:
        self._tell(f"what changed last is not in force: {error}" if str(error) else repr(error))

    def _tell(self, trouble: str) -> None:
        """What is wrong while the proxy serves."""
        if trouble and trouble != self._trouble:
            log.error("HAProxy goes on as it is: %s", trouble)
        if trouble != self._trouble:
            self._trouble = trouble
            self._serving(True, trouble)

    async def _write(self) -> _Written:
        """Write down everything as it is wanted: what is pending is part of it, what is superfluous is not. Raises OSError."""
        if certificates.lists(self.translation.content.listeners.values()):
            await default_certificate.ensure(self._files.default_certificate)
        renewal = self.translation.renew([*self._busy, *self._aging, *self._superfluous])
        self._writer.write(render(renewal.content, self._files))
        self._structure = False
        return _Written(self.translation, renewal, len(self._pending))

    def _new_ports(self, written: _Written) -> list[int]:
        """Those that the proxy does not have yet; all where it is not known."""
        have = self._begun.listeners.values() if self._begun else ()
        want = written.renewal.content.listeners.values()
        return sorted({one.port for one in want} - {one.port for one in have})

    def _take(self, written: _Written) -> None:
        """The proxy has what was written last."""
        self._named, self._begun = written.translation, written.renewal.content
        self._doubtful = False
        try:
            self._writer.keep()
        except OSError as e:
            log.warning("files that are superfluous stay: %s", e)
        if written.translation is not self.translation:
            return
        del self._pending[: written.pending]
        done = {id(op) for op in written.renewal.superfluous}
        _leave_out(done, self._busy)
        _leave_out(done, self._aging)
        _leave_out(done, self._superfluous)
        self.translation.renewed(written.renewal)

    async def _clear_up(self) -> None:
        """Remove what nobody can find any more, a while after it became so. What cannot be removed yet, for somebody is still
        connected to it or nobody answers, is tried again."""
        while True:
            if not self._superfluous:
                again = _BUSY_AGAIN if self._busy or self._aging else None
                # Not "wait_for": before Python 3.12 it may lose a cancellation, and nobody would drive the proxy any more.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(again):
                        await self._left.wait()
            self._left.clear()
            aging = self._superfluous
            self._aging += aging
            self._superfluous = []
            await asyncio.sleep(_LATER if aging else 0)
            async with self._turn:
                try:
                    # What leads elsewhere comes first: what is pending may wait for a reload.
                    if self._named is self.translation and not self._pending and not self._doubtful:
                        await self._remove()
                except NoAnswer as e:
                    log.debug("what is superfluous stays: %s", e)
                except Exception:
                    log.exception("what is superfluous stays")
                    self._structure = True
                    self._changed.set()

    async def _remove(self) -> None:
        """What could not be done is left where it was. Raises NoAnswer."""
        translation = self.translation
        self._busy += [op for op in self._aging if isinstance(op, RemoveServer)]
        self._aging = [op for op in self._aging if not isinstance(op, RemoveServer)]
        entries = list(self._aging)
        await perform(entries, self._files)
        self._settle(translation, entries, self._aging)
        for op in list(self._busy):
            idle = SetServer(op.backend, op.name, "maint")
            if any("connections" in why for why in await perform([idle, op], self._files)):
                continue
            self._settle(translation, [op], self._busy)

    def _settle(self, translation: Translation, done: Sequence[_Op], left: list[_Op]) -> None:
        """What was left is done, if all has not been translated anew meanwhile."""
        if translation is self.translation:
            _leave_out({id(op) for op in done}, left)
            translation.settle(done)


def _leave_out(done: Set[int], left: list[_Op]) -> None:
    left[:] = [op for op in left if id(op) not in done]
