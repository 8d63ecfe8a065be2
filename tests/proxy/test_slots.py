from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sampan.proxy.skeleton import SLOT_COUNTS
from sampan.proxy.slots import assign
from sampan.proxy.types import Backend


def backends(*numbers: int) -> list[Backend]:
    return [Backend(f"10.0.{n // 256}.{n % 256}", 80) for n in numbers]


some = st.lists(st.integers(0, 300), unique=True, max_size=200)


@given(some, some, st.booleans())
def test_every_backend_has_a_slot_and_nobody_else(before: list[int], after: list[int], sticky: bool) -> None:
    old = assign((), backends(*before), sticky=sticky)
    new = assign(old, backends(*after), sticky=sticky)
    assert set(new) == set(backends(*after))
    assert not new or len(new) in SLOT_COUNTS


@given(st.integers(1, 60), st.data())
def test_one_backend_more_or_less_changes_one_slot(count: int, data: st.DataObject) -> None:
    old = assign((), backends(*range(count)), sticky=False)
    more = assign(old, backends(*range(count + 1)), sticky=False)
    assert more[:count] == old
    lost = data.draw(st.integers(0, count - 1))
    fewer = assign(old, backends(*(n for n in range(count) if n != lost)), sticky=False)
    changed = [i for i in range(count - 1) if fewer[i] != old[i]]
    assert len(changed) <= 1


@given(some, some)
def test_sticky_slots_of_backends_that_stay_never_move(before: list[int], after: list[int]) -> None:
    old = assign((), backends(*before), sticky=True)
    new = assign(old, backends(*after), sticky=True)
    if new:
        stay = set(backends(*after))
        assert all(new[i] == b for i, b in enumerate(old) if b in stay)


def test_many_backends_share_evenly() -> None:
    slots = assign((), backends(*range(200)), sticky=False)
    counts = [slots.count(b) for b in set(slots)]
    assert max(counts) / min(counts) <= 1.2
