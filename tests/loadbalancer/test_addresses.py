"""Who gets which address: ranges, pools, sharing, waiting, and that nobody has what another has."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sampan.api import address_ranges
from sampan.loadbalancer.addresses import AddressBook, Given
from sampan.loadbalancer.pools import Pool
from sampan.loadbalancer.requests import Refused, Request, request_of
from sampan.loadbalancer.waiting import Waiting


def pool(name: str, *ranges: str, **more: object) -> Pool:
    return Pool(name, tuple(map(address_ranges.parse, ranges)), **more)  # type: ignore[arg-type]


def asked(*ports: int, sharing: str = "", backend: str = "", want: str = "", **more: object) -> Request:
    addresses = tuple(ipaddress.ip_address(a) for a in want.split(",") if a)
    numbers = frozenset(("TCP", p) for p in ports or (80,))
    made = Request("default", ("IPv4",), False, numbers, sharing, backend, addresses)
    return replace(made, **more)  # type: ignore[arg-type]


def texts(given: Given) -> list[str]:
    return [str(a) for a in given.addresses]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("192.0.2.0/30", "192.0.2.0", "192.0.2.3"),
        ("192.0.2.10 - 192.0.2.12", "192.0.2.10", "192.0.2.12"),
        ("2001:db8::/126", "2001:db8::", "2001:db8::3"),
        ("192.0.2.7-192.0.2.7", "192.0.2.7", "192.0.2.7"),
    ],
)
def test_a_range_is_a_network_or_two_ends(text: str, first: str, last: str) -> None:
    found = address_ranges.parse(text)
    assert (str(found.first), str(found.last)) == (first, last)


@pytest.mark.parametrize(
    "text", ["192.0.2.1", "192.0.2.1/24", "192.0.2.9-192.0.2.3", "192.0.2.1-2001:db8::1", "a-b", "", "fe80::1%e-fe80::2"]
)  # fmt: skip
def test_what_is_no_range_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        address_ranges.parse(text)


def test_addresses_are_given_lowest_first_and_again_when_they_are_free() -> None:
    book = AddressBook()
    book.set_pools([pool("a", "192.0.2.10-192.0.2.12")])
    given = [texts(book.allocate(f"default/{i}", asked())) for i in range(3)]
    assert given == [["192.0.2.10"], ["192.0.2.11"], ["192.0.2.12"]]
    with pytest.raises(Refused, match="no available IPs") as refused:
        book.allocate("default/3", asked())
    assert refused.value.waits_for == ("a",)
    book.release("default/1")
    assert texts(book.allocate("default/3", asked())) == ["192.0.2.11"]
    assert book.counts("a") == {"assignedIPv4": 3, "availableIPv4": 0, "assignedIPv6": 0, "availableIPv6": 0}


def test_pools_are_chosen_by_namespace_priority_and_name() -> None:
    book = AddressBook()
    book.set_pools(
        [
            pool("everyone", "192.0.2.0/28"),
            pool("by-hand", "192.0.2.32/28", auto_assign=False),
            pool("second", "192.0.2.48/28", namespaces=frozenset({"team"}), priority=2),
            pool("first", "192.0.2.64/31", namespaces=frozenset({"team"}), priority=1),
        ]
    )
    team = asked(namespace="team")
    pools = [book.allocate(f"team/{i}", team).pool for i in range(4)]
    assert pools == ["first", "first", "second", "second"]
    assert book.allocate("default/a", asked()).pool == "everyone"
    assert book.allocate("default/b", asked(pool="by-hand")).pool == "by-hand"
    for request, why in (
        (asked(pool="first"), "pool first not compatible"),
        (asked(want="192.0.2.50"), "pool second not compatible"),
        (asked(want="198.51.100.1"), r'\["198.51.100.1"\] is not allowed in config'),
        (asked(want="192.0.2.5", pool="by-hand"), "not compatible with requested address pool by-hand"),
        (asked(pool="none"), 'unknown pool "none"'),
    ):
        with pytest.raises(Refused, match=why):
            book.allocate("default/c", request)


def test_buggy_addresses_are_passed_over_and_not_counted() -> None:
    book = AddressBook()
    book.set_pools([pool("a", "192.0.2.254-192.0.3.1", avoid_buggy=True)])
    assert book.counts("a")["availableIPv4"] == 2
    assert [texts(book.allocate(f"default/{i}", asked())) for i in range(2)] == [
        ["192.0.2.254"],
        ["192.0.3.1"],
    ]


def test_an_address_is_shared_by_key_ports_and_backends() -> None:
    book = AddressBook()
    book.set_pools([pool("a", "192.0.2.0/24")])
    first = book.allocate("default/a", asked(80, sharing="k"))
    assert book.allocate("default/b", asked(443, sharing="k")) == first
    assert book.allocate("default/c", asked(80, sharing="k")) != first, "the port is taken"
    assert book.allocate("default/d", asked(81)) != first
    one = str(first.addresses[0])
    for request, why in (
        (asked(80, sharing="k", want=one), 'port TCP/80 is already in use on "192.0.2.0"'),
        (
            asked(81, sharing="other", want=one),
            "can't change sharing key for .* also in use by default/a,default/b",
        ),
        (asked(81, want=one), "can't change sharing key"),
        (asked(81, sharing="k", backend="app=x", want=one), "can't change sharing key"),
    ):
        with pytest.raises(Refused, match=why) as refused:
            book.allocate("default/e", request)
        assert refused.value.waits_for == (one,)
    book.release("default/a")
    assert texts(book.allocate("default/e", asked(80, sharing="k", want=one))) == [one]
    assert book.counts("a")["assignedIPv4"] == 3


def test_two_families_come_from_one_pool() -> None:
    book = AddressBook()
    book.set_pools(
        [pool("a4", "192.0.2.0/31"), pool("both", "192.0.2.16/31", "2001:db8::/127"), pool("c6", "2001:db8::10/127")]
    )  # fmt: skip
    both = asked(families=("IPv6", "IPv4"), both=True)
    assert texts(book.allocate("default/a", both)) == ["2001:db8::", "192.0.2.16"]
    prefer = asked(families=("IPv4", "IPv6"))
    assert texts(book.allocate("default/b", prefer)) == ["192.0.2.17", "2001:db8::1"]
    assert texts(book.allocate("default/c", prefer)) == ["192.0.2.0"], "one is better than none"
    with pytest.raises(Refused, match="no IPv6 and IPv4 address is free in"):
        book.allocate("default/d", both)


def test_an_enormous_range_is_no_trouble() -> None:
    book = AddressBook()
    book.set_pools([pool("a", "2001:db8::/32")])
    assert texts(book.allocate("default/a", asked(families=("IPv6",)))) == ["2001:db8::"]
    assert book.counts("a")["availableIPv6"] == 2**63 - 2


def service(annotations: dict[str, str] | None = None, **spec: object) -> dict[str, object]:
    metadata = {"namespace": "default", "name": "a", "annotations": annotations or {}}
    return {"metadata": metadata, "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], **spec}}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            service({"metallb.io/loadBalancerIPs": "192.0.2.1"}, loadBalancerIP="192.0.2.2"),
            "can not have both",
        ),
        (service({"metallb.io/loadBalancerIPs": "here"}), 'invalid metallb.io/loadBalancerIPs: "here"'),
        (service(loadBalancerIP="2001:db8::1"), "does not match the ipFamily"),
        (service({"metallb.io/loadBalancerIPs": "192.0.2.1,192.0.2.2"}), "has the same family"),
        (service({"metallb.io/loadBalancerIPs": "192.0.2.1,192.0.2.2,::1"}), "more than two addresses"),
    ],
)
def test_what_a_service_cannot_ask_for(given: dict[str, object], why: str) -> None:
    with pytest.raises(Refused, match=why):
        request_of(given)


def test_the_older_annotations_are_honoured() -> None:
    request = request_of(
        service({"metallb.universe.tf/allow-shared-ip": "k", "metallb.universe.tf/address-pool": "p"})
    )
    assert (request.sharing, request.pool) == ("k", "p")


def test_a_free_address_wakes_one_and_then_the_next() -> None:
    woken: list[str] = []
    waiting = Waiting(woken.append)
    for who in ("a", "b", "c"):
        waiting.add(who, ("pool",))
    waiting.freed("other")
    assert not woken
    waiting.freed("pool")
    assert woken == ["a"]
    waiting.add("a", ("pool",))  # It could not use it.
    assert woken == ["a", "b"]
    waiting.remove("b", "pool")
    assert woken == ["a", "b"], "b took it"
    waiting.freed("pool")
    waiting.freed("pool")
    assert woken[2:] == ["c", "c"]
    waiting.remove("c", "pool")
    assert woken[4:] == ["a"], "there were two"
    waiting.add("a", ("pool",))
    assert woken[5:] == []


PORTS = st.frozensets(st.sampled_from([80, 443, 8080]), min_size=1)
NAMES = st.sampled_from([f"default/{c}" for c in "abcdefgh"])


class Books(RuleBasedStateMachine):
    """Whatever Services come, change and go: the book agrees with what was said, and a free address is never withheld."""

    def __init__(self) -> None:
        super().__init__()
        self.book = AddressBook()
        self.book.set_pools([pool("a", "192.0.2.0/30"), pool("b", "192.0.2.64/31")])
        self.has: dict[str, tuple[Given, Request]] = {}

    @rule(name=NAMES, ports=PORTS, sharing=st.sampled_from(["", "k", "l"]), wish=st.sampled_from(["", "192.0.2.1", "192.0.2.64"]))  # fmt: skip
    def allocate(self, name: str, ports: frozenset[int], sharing: str, wish: str) -> None:
        request = asked(*ports, sharing=sharing, want=wish)
        self.book.release(name)
        self.has.pop(name, None)
        try:
            self.has[name] = self.book.allocate(name, request), request
        except Refused:
            assert wish or len(self.in_use()) == 6

    @rule(name=NAMES)
    def release(self, name: str) -> None:
        self.book.release(name)
        self.has.pop(name, None)

    @rule()
    def pools_come_anew(self) -> None:
        self.book.set_pools([pool("a", "192.0.2.0/30"), pool("b", "192.0.2.64/31")])

    def in_use(self) -> dict[str, list[Request]]:
        found: dict[str, list[Request]] = {}
        for given, request in self.has.values():
            found.setdefault(texts(given)[0], []).append(request)
        return found

    @invariant()
    def who_shares_may(self) -> None:
        for requests in self.in_use().values():
            if len(requests) > 1:
                assert {r.sharing for r in requests} != {""}
                assert len({r.sharing for r in requests}) == 1
            ports = [p for r in requests for p in r.ports]
            assert len(ports) == len(set(ports))

    @invariant()
    def counted_right(self) -> None:
        used = sum(self.book.counts(name)["assignedIPv4"] for name in ("a", "b"))
        assert used == len(self.in_use())


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ("192.0.2.0-192.0.2.9", ["192.0.2.10-192.0.2.20"]),
        ("192.0.2.0-192.0.2.10", ["192.0.2.11-192.0.2.20"]),
        ("192.0.2.12-192.0.2.13", ["192.0.2.10-192.0.2.11", "192.0.2.14-192.0.2.20"]),
        ("192.0.2.20-192.0.2.30", ["192.0.2.10-192.0.2.19"]),
        ("192.0.2.0/24", []),
        ("2001:db8::/32", ["192.0.2.10-192.0.2.20"]),
    ],
)
def test_what_is_left_of_a_range(taken: str, left: list[str]) -> None:
    found = address_ranges.parse("192.0.2.10-192.0.2.20").without(address_ranges.parse(taken))
    assert list(map(str, found)) == left
