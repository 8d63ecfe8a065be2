"""From a packet to the packet that answers it, whatever it came by.

Most packets come again and again, so what was answered is kept by the packet itself (all but its number), ready to be sent: one
look into a dict, and the addresses of a Service's endpoints take turns. A change of a Service drops what hung on it, and
nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator

from sampan.dns import wire
from sampan.dns.metrics import Counts, Labels
from sampan.dns.resolver import SERVFAIL, Chain, Question, Resolver
from sampan.dns.wire import Answer, Group, Query

log = logging.getLogger(__name__)
KEPT = 4096
"""Packets whose answers are kept; with one more, all are forgotten."""
KEPT_ANSWERS = 4096
MOST_NOTES = 32768
"""Of what hangs on what, those included whose answer was dropped for another reason."""
LONGEST_TCP = 65535
PER_SOURCE = 100
"""Questions of one address that may wait for other servers at a time."""

Send = Callable[[bytes], None]


class Kept:
    """What one packet is answered with, and how often it was."""

    __slots__ = ("count", "labels", "next", "sizes")

    def __init__(self, answers: Iterator[bytes], labels: Labels, sizes: tuple[int, int]) -> None:
        self.next = answers.__next__
        """The answer but for its number."""
        self.labels = labels
        self.sizes = sizes
        self.count = 0


class Answering:
    """One for all listeners of a process; `use` gives it its resolver, and another one when the configuration changes."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.kept: dict[bytes, Kept] = {}
        """By a packet's bytes from the third on. For UDP alone."""
        self.counts = Counts()
        self._tasks = tasks
        self._resolver: Resolver | None = None
        self._answers: dict[tuple[bytes, int], Answer] = {}
        self._hanging: dict[Group, set[bytes | tuple[bytes, int]]] = {}
        self._notes = 0
        self._waiting: dict[str, int] = {}

    @property
    def resolver(self) -> Resolver | None:
        return self._resolver

    def use(self, resolver: Resolver) -> None:
        """From now on answer with this one."""
        self._resolver = resolver
        self.forget_all()

    def count_kept(self) -> None:
        """Have `counts` include what was answered from what is kept."""
        for kept in self.kept.values():
            self.counts.add_kept(kept.labels, kept.count, kept.sizes)
            kept.count = 0

    def forget_all(self) -> None:
        self.count_kept()
        self.kept.clear()
        self._answers.clear()
        self._hanging.clear()
        self._notes = 0

    def forget(self, groups: Iterable[Group]) -> None:
        """Drop the answers that hang on something that changed."""
        for group in groups:
            for key in self._hanging.pop(group, ()):
                if isinstance(key, bytes):
                    kept = self.kept.pop(key, None)
                    if kept is not None:
                        self.counts.add_kept(kept.labels, kept.count, kept.sizes)
                else:
                    self._answers.pop(key, None)

    def answer(self, data: bytes, source: str, send: Send, *, tcp: bool = False) -> None:
        """Have `send` called with the answer, now or later; not at all for what is no query."""
        began = time.perf_counter()
        try:
            query = wire.read_query(data)
        except wire.Unanswerable:
            return
        except wire.Rejected as e:
            self.counts.rejected(e.rcode, tcp=tcp)
            send(wire.reject(data, e))
            return
        chain = self._resolver.chain(query.key) if self._resolver is not None else None
        if self._resolver is None or chain is None:
            rcode = wire.REFUSED if self._resolver is not None else wire.SERVFAIL
            self.counts.rejected(rcode, tcp=tcp)
            send(wire.reject(data, wire.Rejected(rcode, query.end)))
            return
        answer = self._answers.get((query.key, query.type)) if chain.keeps else None
        again = answer is not None
        if answer is None:
            try:
                found = self._resolver.now(chain, Question.of(query, source))
            except Exception:
                found = self._failed(query)
            if found is None:
                self._answer_later(chain, query, source, send, tcp, began)
                return
            answer, body = found
            if answer.group is not None:
                self._keep_answer(query, answer)
        else:
            body = answer.body
        kept = self._finish(chain, query, source, answer, body, send, tcp, began)
        # Packets are kept from the second question on: whoever asks for ever new names fills nothing that others need.
        if again and not tcp and answer.group is not None:
            self._keep(query, kept, answer.group)

    def _answer_later(
        self, chain: Chain, query: Query, source: str, send: Send, tcp: bool, began: float
    ) -> None:
        waiting = self._waiting.get(source, 0)
        if waiting >= PER_SOURCE:
            self.counts.rejected(wire.REFUSED, tcp=tcp)
            send(wire.reject(query.data, wire.Rejected(wire.REFUSED, query.end)))
            return
        self._waiting[source] = waiting + 1
        self._tasks.create_task(self._resolve(chain, query, source, send, tcp, began))

    async def _resolve(
        self, chain: Chain, query: Query, source: str, send: Send, tcp: bool, began: float
    ) -> None:
        assert self._resolver is not None
        try:
            answer, body = await self._resolver.later(chain, Question.of(query, source))
        except Exception:
            answer, body = self._failed(query)
        finally:
            self._waiting[source] -= 1
            if not self._waiting[source]:
                del self._waiting[source]
        self._finish(chain, query, source, answer, body, send, tcp, began)

    def _failed(self, query: Query) -> tuple[Answer, bytes]:
        """A fault of ours: whoever asks is answered, and the others are, too."""
        log.exception("%s", wire.decode_name(query.key))
        self.counts.panics += 1
        return SERVFAIL, b""

    def _finish(
        self, chain: Chain, query: Query, source: str, answer: Answer, body: bytes, send: Send, tcp: bool, began: float
    ) -> Kept:  # fmt: skip
        """Send the answer. Returns how more of the kind can be sent."""
        limit = LONGEST_TCP if tcp else wire.limit_of(query)
        head, length, tail = wire.frame(query, answer, limit)
        if chain.server.loadbalance and answer.run[2] and length > answer.run[0]:
            answers = _turns(head[2:], body, length, tail, answer.run)
        else:
            answers = itertools.repeat(head[2:] + body[:length] + tail)
        first = next(answers)
        labels = Labels.of(chain.server, query, answer, tcp=tcp, family=2 if ":" in source else 1)
        sizes = (len(query.data), len(first) + 2)
        took = time.perf_counter() - began
        self.counts.add(labels, sizes, took, dnssec=query.dnssec)
        if chain.server.log:
            _log_query(query, source, answer, sizes, took, tcp)
        send(query.data[:2] + first)
        return Kept(answers, labels, sizes)

    def _keep_answer(self, query: Query, answer: Answer) -> None:
        self._hang(answer.group, (query.key, query.type))
        self._answers[query.key, query.type] = answer

    def _keep(self, query: Query, kept: Kept, group: Group) -> None:
        packet = query.data[2:]
        self._hang(group, packet)
        self.kept[packet] = kept

    def _hang(self, group: Group | None, key: bytes | tuple[bytes, int]) -> None:
        """Note what an answer hangs on. What hangs on a Service hangs on its namespace as well."""
        assert group is not None
        if len(self.kept) >= KEPT or len(self._answers) >= KEPT_ANSWERS or self._notes >= MOST_NOTES:
            self.forget_all()
        self._hanging.setdefault(group, set()).add(key)
        if len(group) > 1:
            self._hanging.setdefault(group[:1], set()).add(key)
        self._notes += 2


def _turns(head: bytes, body: bytes, length: int, tail: bytes, run: tuple[int, int, int]) -> Iterator[bytes]:
    """The answers for which the addresses stand in turn before each other, without end. What was cut off comes in turn, too."""
    start, end, size = run
    head += body[:start]
    fits = min(end, length) - start
    double = body[start:end] * 2
    tail = body[end:length] + tail if length > end else tail
    while True:
        for at in range(0, end - start, size):
            yield head + double[at : at + fits] + tail


def _log_query(
    query: Query, source: str, answer: Answer, sizes: tuple[int, int], took: float, tcp: bool
) -> None:
    """CoreDNS' common log format, but for the asker's port."""
    number = int.from_bytes(query.data[:2], "big")
    log.info(
        '%s - %d "%s IN %s %s %d %s %d" %s %s %d %.9fs',
        f"[{source}]" if ":" in source else source, number, wire.TYPES.get(query.type, f"TYPE{query.type}"),
        wire.decode_name(query.key), "tcp" if tcp else "udp", sizes[0], str(query.dnssec).lower(),
        query.payload or wire.SMALLEST, wire.RCODES.get(answer.rcode, answer.rcode),
        "qr,aa" if answer.flags & wire.AA else "qr", sizes[1], took,
    )  # fmt: skip
