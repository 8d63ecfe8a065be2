"""Cron schedules: what they mean, and what is said of one that means nothing."""

from __future__ import annotations

import pytest

from sampan.api import cron


@pytest.mark.parametrize(
    ("text", "minutes", "hours", "days", "months", "weekdays"),
    [
        ("5 4 3 2 1", {5}, {4}, {3}, {2}, {1}),
        ("*/20 0-6/3 1,15 jan-mar Mon,FRI", {0, 20, 40}, {0, 3, 6}, {1, 15}, {1, 2, 3}, {1, 5}),
        ("50/5 ? * * ?", {50, 55}, set(range(24)), set(range(1, 32)), set(range(1, 13)), set(range(7))),
        ("@hourly", {0}, set(range(24)), set(range(1, 32)), set(range(1, 13)), set(range(7))),
        ("@weekly", {0}, {0}, set(range(1, 32)), set(range(1, 13)), {0}),
        ("  0   0  1 1 *", {0}, {0}, {1}, {1}, set(range(7))),
    ],
)
def test_meaning(
    text: str, minutes: set[int], hours: set[int], days: set[int], months: set[int], weekdays: set[int]
) -> None:
    schedule = cron.parse(text)
    found = (schedule.minutes, schedule.hours, schedule.days, schedule.months, schedule.weekdays)
    assert [set(f) for f in found] == [minutes, hours, days, months, weekdays]


def test_stars() -> None:
    """Whether a day is left open decides how day and weekday go together."""
    assert (cron.parse("0 0 * * 1").any_day, cron.parse("0 0 * * 1").any_weekday) == (True, False)
    assert (cron.parse("0 0 */2 * ?").any_day, cron.parse("0 0 */2 * ?").any_weekday) == (False, True)


def test_every_and_zones() -> None:
    assert cron.parse("@every 1h30m").every == 5400
    assert cron.parse("@every 10ms").every == 1
    assert cron.parse("TZ=Asia/Tokyo 0 6 * * *").zone == "Asia/Tokyo"
    assert cron.parse("CRON_TZ=Europe/Rome @daily").hours == {0}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("*/2/3 * * * *", "too many slashes: */2/3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("* * * juni *", 'failed to parse int from juni: strconv.Atoi: parsing "juni": invalid syntax'),
        ("99999999999999999999 * * * *", 'failed to parse int from 99999999999999999999: strconv.Atoi: parsing '
         '"99999999999999999999": value out of range'),
        ("*/-5 * * * *", "negative number (-5) not allowed: -5"),
        ("@fortnightly", "unrecognized descriptor: @fortnightly"),
        ("@every day", 'failed to parse duration @every day: time: invalid duration "day"'),
    ],
)  # fmt: skip
def test_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as refusal:
        cron.parse(text)
    assert str(refusal.value) == problem
