"""How late the event loop is: what everybody waits for while somebody holds it.

Whoever is about to do work arms the gauge; it asks the loop to be called back at once and sees how long that took. An
idle loop is never woken, and work that comes in one turn of the loop shares one measurement.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper bounds in seconds; what is longer is counted last."""


class LoopLag:
    """A histogram of lags. `counts` has one place more than `BUCKETS`; `total` and `longest` are in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0
        self.longest = 0.0
        self._armed = False

    @property
    def count(self) -> int:
        return sum(self.counts)

    def arm(self) -> None:
        """Measure from now until the loop has come round. Must be called in the loop's thread."""
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._round, perf_counter())

    def _round(self, began: float) -> None:
        self._armed = False
        self.observe(perf_counter() - began)

    def observe(self, seconds: float) -> None:
        self.total += seconds
        if seconds > self.longest:
            self.longest = seconds
        for i, bound in enumerate(BUCKETS):
            if seconds <= bound:
                self.counts[i] += 1
                return
        self.counts[-1] += 1
