"""The checker itself, on histories whose verdict is known."""

from __future__ import annotations

import math
import random

import pytest

from tests.linearizability.checker import Call, explain

INF = math.inf


def w(kind: str, began: float, ended: float, value: str | None = None, outcome: str = "done", expected: str | None = None) -> Call:  # fmt: skip
    return Call("k", kind, began, ended, outcome, value, expected)  # type: ignore[arg-type]


def r(began: float, ended: float, value: str | None) -> Call:
    return Call("k", "read", began, ended, "done", value)


@pytest.mark.parametrize(
    ("name", "history", "fits"),
    [
        ("in turn", [w("create", 0, 1, "a"), r(2, 3, "a"), w("delete", 4, 5), r(6, 7, None)], True),
        ("a stale read", [w("create", 0, 1, "a"), w("update", 2, 3, "b"), r(4, 5, "a")], False),
        ("a read beside a write", [w("create", 0, 1, "a"), w("update", 2, 6, "b"), r(3, 4, "a"), r(4.5, 5, "b")], True),
        ("back and forth", [w("create", 0, 1, "a"), w("update", 2, 6, "b"), r(3, 4, "b"), r(4.5, 5, "a")], False),
        ("a lost write", [w("create", 0, 1, "a"), r(2, 3, None)], False),
        ("unknown and done", [w("create", 0, INF, "a", "unknown"), r(2, 3, None), r(4, 5, "a")], True),
        ("unknown and undone", [w("create", 0, INF, "a", "unknown"), r(2, 3, None), r(4, 5, None)], True),
        ("done twice", [w("create", 0, INF, "a", "unknown"), r(2, 3, "a"), w("delete", 4, 5), r(6, 7, "a")], False),
        ("two creates", [w("create", 0, 2, "a"), w("create", 1, 3, "b")], False),
        ("one of two", [w("create", 0, 2, "a"), w("create", 1, 3, "b", "exists")], True),
        ("refused without reason", [w("create", 0, 1, "a"), w("update", 2, 3, "b", "conflict", "a")], False),
        ("refused for a reason", [w("create", 0, 1, "a"), w("update", 2, 3, "b", "done"), w("update", 4, 5, "c", "conflict", "a")], True),
        ("two on one version", [w("create", 0, 1, "a"), w("update", 2, 4, "b", "done", "a"), w("update", 3, 5, "c", "done", "a")], False),
    ],
)  # fmt: skip
def test_known_histories(name: str, history: list[Call], fits: bool) -> None:
    assert (explain(history, {}) == "") is fits


def test_versions_that_fall() -> None:
    history = [w("create", 0, 1, "a"), w("update", 2, 3, "b")]
    assert explain(history, {"a": 1, "b": 2}) == ""
    assert explain(history, {"a": 2, "b": 1}) != ""


@pytest.mark.parametrize("seed", range(6))
def test_a_true_history_passes_and_a_spoilt_one_does_not(seed: int) -> None:
    """Calls that take effect at a point between their ends, in an order known to the test alone."""
    rng = random.Random(seed)
    state: str | None = None
    history: list[Call] = []
    for i in range(200):
        began, ended = i - rng.random() * 8, i + rng.random() * 8
        kind = rng.choice(["create", "update", "delete", "read", "read"])
        value = f"v{i}"
        if kind == "read":
            history.append(r(began, ended, state))
        elif kind == "create":
            history.append(w(kind, began, ended, value, "done" if state is None else "exists"))
            state = state or value
        else:
            done = state is not None
            history.append(
                w(kind, began, ended, value if kind == "update" else None, "done" if done else "missing")
            )
            state = (value if kind == "update" else None) if done else None
    assert explain(history, {}) == ""
    spoilt = [i for i, c in enumerate(history) if c.kind == "read" and c.value is not None]
    at = spoilt[len(spoilt) // 2]
    history[at] = r(history[at].began, history[at].ended, "never written")
    assert explain(history, {}) != ""
