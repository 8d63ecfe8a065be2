"""One priority level at work: its seats, and the queues of those who wait for one.

Each flow is dealt a hand of queues (shuffle sharding) and waits in the shortest of them, so that a flow that fills its queues
leaves most others some that are free. Of the queues in which somebody waits the one goes next that has had the least work done
for it (start-time fair queuing): whoever asks for little does not wait behind whoever asks for much.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from dataclasses import dataclass, field

from sampan.apiserver.flowcontrol.classification import Flow
from sampan.client.metrics import Histogram

TURN_SECONDS = 0.003
"""How much work a level may do in one turn of the loop before whoever comes next has to wait."""
_AROUND = 50e-6
"""Seconds that a request costs beside its handler: reading and parsing it, the records of TLS, calls of the kernel."""
_WRITE = 3e-9
"""Seconds that a byte of an answer costs after it has been made: encryption, copies, the kernel."""
_BOUNDS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
"""Seconds; upstream's for its queues."""


class Rejected(Exception):
    """There is no seat and no place to wait, or the wait took too long. `reason` is upstream's word for the metric."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Queuing:
    """How many queues a level has, how many of them a flow may use, how many may wait in each."""

    queues: int = 0
    hand: int = 0
    length: int = 0


@dataclass(slots=True)
class Counts:
    """What a level has done since the server began, for its metrics."""

    dispatched: dict[str, int] = field(default_factory=dict)
    """By FlowSchema."""
    rejected: dict[tuple[str, str], int] = field(default_factory=dict)
    """By FlowSchema and reason."""
    waits: Histogram = field(default_factory=lambda: Histogram(_BOUNDS))
    """Seconds spent in queues by those who then got a seat."""


class PriorityLevel:
    """The seats of a level. What has one calls `release` once; `hold_for_turn` gives it back at the end of the turn."""

    def __init__(self, name: str, uid: str) -> None:
        self.name = name
        self.uid = uid
        self.exempt = False
        self.seats = 0
        """Of its own."""
        self.borrowable = 0
        """How many more it may have while others leave them idle."""
        self.lendable = 0
        """How many of its own others may have while it leaves them idle."""
        self.executing = 0
        self.waiting = 0
        self.counts = Counts()
        self._queuing = Queuing()
        self._queues: list[list[tuple[asyncio.Future[None], float]]] = []
        """Short ones, hundreds of them and mostly empty: deques would take ten times the memory."""
        self._busy: list[tuple[float, int]] = []
        """A heap of the queues in which somebody waits, each with the work done for it (its virtual start)."""
        self._worked: list[float] = []
        """Seconds of work done for each queue, on a clock that all share."""
        self._now = 0.0
        """That clock: where the queue served last stood."""
        self._hands: dict[Flow, tuple[int, ...]] = {}
        self._to_release = 0
        self._spent = 0.0
        """Seconds of work in this turn of the loop."""
        self._usual = TURN_SECONDS
        """Seconds that a request takes, of late."""

    def configure(self, queuing: Queuing) -> None:
        """Take new queues; who waits in old ones is served first."""
        if queuing == self._queuing:
            return
        self._queuing = queuing
        old = [waiter for q in self._queues for waiter in q]
        self._queues = [[] for _ in range(queuing.queues or (1 if old else 0))]
        self._worked = [self._now] * len(self._queues)
        self._busy.clear()
        self._hands.clear()
        for i, waiter in enumerate(old):
            self._queue(i % len(self._queues), waiter)

    @property
    def queue_lengths(self) -> list[int]:
        return [len(queue) for queue in self._queues]

    @property
    def lent(self) -> int:
        """Seats that it has beyond its own."""
        return max(0, self.executing - self.seats)

    @property
    def idle(self) -> int:
        """Seats of its own that others may have now."""
        return max(0, min(self.lendable, self.seats - self.executing - self.waiting))

    def take(self, spare: int) -> bool:
        """Take a seat if there is one and nobody waits for it; `spare` is how many others would lend."""
        if self.waiting or self._spent >= TURN_SECONDS or not self._has_seat(spare):
            return False
        self.executing += 1
        return True

    def _has_seat(self, spare: int) -> bool:
        return self.executing < self.seats or self.executing - self.seats < min(self.borrowable, spare)

    def _queue(self, at: int, waiter: tuple[asyncio.Future[None], float]) -> None:
        queue = self._queues[at]
        queue.append(waiter)
        if len(queue) == 1:
            # One who asked for nothing lately has saved nothing up.
            self._worked[at] = max(self._worked[at], self._now)
            heapq.heappush(self._busy, (self._worked[at], at))

    async def wait(self, flow: Flow, patience: float) -> int:
        """Wait for a seat, for `patience` seconds at most; returns the queue that the work is to be put down to (-1: none).
        Raises Rejected."""
        if self.take(0):
            # The turn in which there was none is over: nobody would ever hand one on.
            return -1
        queues = self._queues
        if not self._queuing.queues:
            raise Rejected("concurrency-limit")
        at = min(self._hand(flow), key=lambda i: len(queues[i]))
        queue = queues[at]
        if len(queue) >= self._queuing.length:
            raise Rejected("queue-full")
        loop = asyncio.get_running_loop()
        began = loop.time()
        seat: asyncio.Future[None] = loop.create_future()
        self._queue(at, (seat, began))
        self.waiting += 1
        late = loop.call_later(patience, self._give_up, seat)
        try:
            await seat
        except asyncio.CancelledError:
            if seat.done() and not seat.cancelled() and seat.exception() is None:
                self.release()
            raise
        finally:
            late.cancel()
        self.counts.waits.observe(loop.time() - began)
        return at

    @staticmethod
    def _give_up(seat: asyncio.Future[None]) -> None:
        if not seat.done():
            seat.set_exception(Rejected("time-out"))

    def release(self) -> None:
        """Give a seat back, to whoever is next."""
        self.executing -= 1
        self.serve(0)

    def hold_for_turn(self, seconds: float, size: int, queue: int = -1) -> None:
        """Give a seat back when the loop has come round: what is answered at once counts for this turn, with the
        seconds that it took and the bytes of its answer. `queue` is where it waited."""
        if not self._to_release:
            asyncio.get_running_loop().call_soon(self._turn_over)
        self._to_release += 1
        work = seconds + _AROUND + size * _WRITE
        self._spent += work
        if 0 <= queue < len(self._worked):
            # When it was let in, it was put down as a usual one.
            self._worked[queue] += work - self._usual
        self._usual += (work - self._usual) / 8

    def _turn_over(self) -> None:
        released, self._to_release = self._to_release, 0
        self.executing -= released
        self._spent = 0.0
        self.serve(0)

    def serve(self, spare: int) -> None:
        """Give free seats to those who wait, a queue at a time, as many as this turn is likely to have time for."""
        if not self._busy:
            return
        most = 1 + int(max(0.0, TURN_SECONDS - self._spent) / max(self._usual, 1e-6))
        while self._busy and most and self._spent < TURN_SECONDS and self._has_seat(spare):
            _, at = heapq.heappop(self._busy)
            queue = self._queues[at]
            seat, _ = queue.pop(0)
            self.waiting -= 1
            gone = seat.done()
            if not gone:
                self._now = max(self._now, self._worked[at])
                self._worked[at] += self._usual
            if queue:
                heapq.heappush(self._busy, (self._worked[at], at))
            if gone:
                # Gave up, or its connection has gone.
                continue
            most -= 1
            self.executing += 1
            seat.set_result(None)

    def _hand(self, flow: Flow) -> tuple[int, ...]:
        hand = self._hands.get(flow)
        if hand is None:
            if len(self._hands) > 4096:
                self._hands.clear()
            hand = self._hands[flow] = deal(
                f"{flow.schema}/{flow.distinguisher}", self._queuing.queues, self._queuing.hand
            )
        return hand


def deal(flow: str, queues: int, hand: int) -> tuple[int, ...]:
    """`hand` different queues out of `queues`, always the same for a flow."""
    left = int.from_bytes(hashlib.blake2b(flow.encode(), digest_size=16).digest())
    deck = list(range(queues))
    dealt = []
    for _ in range(min(hand, queues)):
        left, at = divmod(left, len(deck))
        dealt.append(deck.pop(at))
    return tuple(dealt)
