"""How late the event loop is: what everybody waits for while somebody holds it.

Whoever is about to do work arms the gauge; it asks the loop to be called back at once and sees how long that took. An
idle loop is never woken, and work that comes in one turn of the loop shares one measurement.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from sampan.client.metrics import Histogram

BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds."""


class LoopLag(Histogram):
    """A histogram of lags in seconds; `longest` is the longest so far."""

    __slots__ = ("_armed", "longest")

    def __init__(self) -> None:
        super().__init__(BOUNDS)
        self.longest = 0.0
        self._armed = False

    def arm(self) -> None:
        """Measure from now until the loop has come round. Must be called in the loop's thread."""
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._round, perf_counter())

    def _round(self, began: float) -> None:
        self._armed = False
        self.observe(perf_counter() - began)

    def observe(self, value: float) -> None:
        super().observe(value)
        if value > self.longest:
            self.longest = value
