"""What is kept of other servers' answers, for how long, and what makes room."""

from __future__ import annotations

import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.dns import messages, settings, wire
from sampan.dns.cache import Cache, Shelf
from sampan.dns.cache import Entry as Kept
from sampan.dns.resolver import Complaints
from sampan.dns.upstreams import Server, resolvers, searches

ROOT = (b"\0",)


def key(name: str) -> tuple[bytes, int, bool, bool]:
    return wire.encode_name(name), wire.A, False, False


def put(
    cache: Cache, name: str, *, ttl: int = 60, rcode: str = "NOERROR", soa: str = "", now: float = 0.0
) -> int:
    made = dns.message.make_response(dns.message.make_query(name, "A"))
    made.set_rcode(dns.rcode.from_text(rcode))
    if rcode == "NOERROR" and not soa:
        made.answer.append(dns.rrset.from_text(name, ttl, "IN", "A", "192.0.2.1"))
    if soa:
        made.authority.append(dns.rrset.from_text("example.", ttl, "IN", "SOA", f"ns. mail. 1 2 3 4 {soa}"))
    message = messages.read_message(made.to_wire())
    answer = wire.encode(key(name)[0], message.answer, message.authority, rcode=message.rcode)
    return cache.put(key(name), answer, message, now)


@pytest.mark.parametrize(
    ("options", "put_", "lasts"),
    [
        ({}, {"ttl": 60}, 60),
        ({"success_ttl": 30}, {"ttl": 60}, 30),
        ({}, {"ttl": 1}, 5),
        ({}, {"ttl": 100_000}, 3600),
        ({}, {"rcode": "NXDOMAIN", "ttl": 600, "soa": "77"}, 77),
        ({}, {"rcode": "NXDOMAIN", "ttl": 50, "soa": "77"}, 50),
        ({"denial_ttl": 30}, {"rcode": "NXDOMAIN", "ttl": 600, "soa": "77"}, 30),
        ({}, {"rcode": "NOERROR", "ttl": 600, "soa": "88"}, 88),
        ({}, {"rcode": "SERVFAIL"}, 5),
        ({"servfail": 0}, {"rcode": "SERVFAIL"}, 0),
        ({}, {"rcode": "REFUSED"}, 0),
        ({"no_success": ROOT}, {"ttl": 60}, 0),
        ({"no_denial": ROOT}, {"rcode": "NXDOMAIN", "soa": "77"}, 0),
        ({"zones": (wire.encode_name("other"),)}, {"ttl": 60}, 0),
    ],
)
def test_how_long_an_answer_is_kept(options: dict, put_: dict, lasts: int) -> None:
    cache = Cache(settings.Cache(**{"zones": ROOT, **options}))
    assert put(cache, "www.example.", **put_) == lasts
    for at in (0, lasts - 0.01):
        assert (cache.get(key("www.example"), at) is not None) == bool(lasts)
    assert cache.get(key("www.example"), lasts) is None


def test_who_was_not_asked_for_the_longest_time_makes_room() -> None:
    cache = Cache(settings.Cache(ROOT, success_capacity=2))
    put(cache, "a.example.")
    put(cache, "b.example.")
    assert cache.get(key("a.example"), 1) is not None
    put(cache, "c.example.")
    assert cache.get(key("b.example"), 1) is None
    assert cache.get(key("a.example"), 1) is not None
    assert cache.success.evictions == 1


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60), st.integers(1, 4))
def test_a_shelf_is_a_list_by_last_use(steps: list[tuple[str, bool]], capacity: int) -> None:
    shelf, model = Shelf(capacity), []
    answer = wire.encode(b"\0", ())
    for name, write in steps:
        if write:
            shelf.put(name, Kept(answer, 0.0, 10))
            model = [n for n in model if n != name] + [name]
            model = model[-capacity:]
        else:
            assert (shelf.get(name, 1.0) is not None) == (name in model)
            if name in model:
                model = [n for n in model if n != name] + [name]
        assert list(shelf.entries) == model


def test_records_grow_older_with_the_answer() -> None:
    answer = wire.encode(
        *[key("www.example")[0]], [wire.Record(key("www.example")[0], wire.A, 60, b"\1\2\3\4")]
    )
    for seconds, most, left in ((0, 30, 30), (10, 30, 20), (10, 100, 50), (90, 100, 0)):
        body = answer.aged(seconds, most)
        assert int.from_bytes(body[answer.ttls[0] : answer.ttls[0] + 4], "big") == left


def test_a_server_that_fails_rests_longer_each_time() -> None:
    server = Server("192.0.2.1", 53)
    rests = []
    for n in range(8):
        server.failed(2, float(n))
        rests.append(server.down_until - n if server.down_until else 0)
    assert rests == [0, 0.5, 1, 2, 4, 8, 10, 10]
    server.answered(0.1, 0)
    assert (server.fails, server.down_until) == (0, 0.0)
    server.failed(0, 1.0)
    assert not server.down_until, "max_fails 0: it is never left alone"


def test_resolv_conf(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# x\nnameserver 127.0.0.53\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver x\nsearch a b.\n"
    )
    assert resolvers(file) == ["127.0.0.53:53", "[2001:db8::1]:53", "[fe80::1%eth0]:53"]
    assert searches(file) == ["a", "b."]
    assert resolvers(tmp_path / "none") == []


def test_failures_are_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints()
    for n in range(50):
        complaints.tell(f"x{n}.example. A: no answer", n / 20)
    assert [r.getMessage() for r in caplog.records] == [
        "x0.example. A: no answer",
        "x20.example. A: no answer (and 19 more before)",
        "x40.example. A: no answer (and 19 more before)",
    ]
