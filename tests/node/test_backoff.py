"""Pauses between attempts."""

from __future__ import annotations

from sampan.node.backoff import Backoff, show_seconds


def test_pauses_double_from_ten_seconds_to_five_minutes_and_are_forgotten() -> None:
    now = 1000.0
    backoff = Backoff(lambda: now)
    assert backoff.remaining("a", now) == 0
    pauses = []
    for _ in range(7):
        backoff.next("a", now)
        pauses.append(backoff.remaining("a", now))
        now += pauses[-1]
        assert backoff.remaining("a", now - pauses[-1]) == 0
    assert pauses == [10, 20, 40, 80, 160, 300, 300]
    assert backoff.remaining("b", now) == 0
    # What ran for ten minutes and more begins anew.
    now += 601
    assert backoff.remaining("a", now) == 0
    backoff.next("a", now)
    assert backoff.pause("a") == 10
    backoff.forget("a")
    assert backoff.pause("a") == 0


def test_shown_as_go_does() -> None:
    assert [show_seconds(s) for s in (10, 80, 300)] == ["10s", "1m20s", "5m0s"]
