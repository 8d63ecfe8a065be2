"""Growing pauses between attempts, by key: 10 s, doubled each time up to 5 minutes, forgotten after 10 quiet minutes.

Upstream: `client-go/util/flowcontrol.Backoff` as the kubelet uses it for crashed containers and failed pulls.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_SECONDS, MOST_SECONDS = 10.0, 300.0


class Backoff:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._entries: dict[str, tuple[float, float]] = {}

    def remaining(self, key: str, since: float) -> float:
        """Seconds still to wait for something that failed at `since` (seconds since the epoch); 0 if none."""
        entry = self._entries.get(key)
        if entry is None or since - entry[1] > 2 * MOST_SECONDS:
            return 0.0
        return max(0.0, since + entry[0] - self.clock())

    def pause(self, key: str) -> float:
        """The present length of the pause, in seconds."""
        entry = self._entries.get(key)
        return entry[0] if entry else 0.0

    def next(self, key: str, since: float) -> None:
        """Note one more attempt after a failure at `since`."""
        entry = self._entries.get(key)
        if entry is None or since - entry[1] > 2 * MOST_SECONDS:
            pause = FIRST_SECONDS
        else:
            pause = min(entry[0] * 2, MOST_SECONDS)
        self._entries[key] = (pause, self.clock())

    def forget(self, prefix: str) -> None:
        """Drop every key that begins with `prefix`."""
        for key in [k for k in self._entries if k.startswith(prefix)]:
            del self._entries[key]


def show_seconds(seconds: float) -> str:
    """Whole seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
