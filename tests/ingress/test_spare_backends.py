"""Backends that are declared beforehand, and how many of them."""

from __future__ import annotations

from sampan.ingress.haproxy.content import Content, Section
from sampan.ingress.haproxy.spare_backends import SpareBackends


def test_times_to_connect_that_nobody_has_any_more_leave_nothing() -> None:
    content = Content()
    spare = SpareBackends(content)
    before = len(content.backends)
    for connect in range(1, 50):
        name, new = spare.take(Section(connect=connect))
        assert new
        spare.leave(name)
        spare.removed(name)
        spare.forget_rare()
        assert len(content.backends) == before


def test_of_a_time_that_one_has_there_is_more_without_a_reload() -> None:
    spare = SpareBackends(Content())
    spare.take(Section(connect=5))
    other, _ = spare.take(Section(connect=5))
    spare.leave(other)
    spare.removed(other)
    spare.forget_rare()
    assert not spare.take(Section(connect=5))[1]
