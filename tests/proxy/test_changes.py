"""Any sequence of changes ends at the content that a plain model says, in a fake and in the kernel; whoever meddles in between."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.network.netlink import Message
from sampan.network.nftables import Family
from sampan.proxy import elements
from sampan.proxy.fake import FakeTable
from sampan.proxy.rules import Rules
from sampan.proxy.skeleton import COUNT, INSIDE_SLOT
from sampan.proxy.types import Backend, Elements, Frontend, Table, Target
from tests.proxy.wires import LAYOUT, Wires, wires

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

State = dict[str, dict[Frontend, Target]]
backends = {
    4: st.lists(st.integers(2, 9), unique=True, max_size=5).map(
        lambda ns: tuple(Backend(f"10.244.0.{n}", 80) for n in ns)
    ),
    6: st.lists(st.integers(2, 9), unique=True, max_size=5).map(
        lambda ns: tuple(Backend(f"fd00:244::{n}", 80) for n in ns)
    ),
}
networks = {
    4: st.lists(st.sampled_from(["10.0.0.0/8", "192.0.2.0/24", "192.0.2.9/32", "0.0.0.0/0"]), max_size=2),
    6: st.lists(st.sampled_from(["fd00::/8", "2001:db8::/64", "::/0"]), max_size=2),
}


@st.composite
def fronts(draw: st.DrawFn) -> tuple[Frontend, Target]:
    v = draw(st.sampled_from([4, 6]))
    address = f"{'10.96.0.' if v == 4 else 'fd00:96::'}{draw(st.integers(1, 4))}"
    front = Frontend(address, draw(st.sampled_from(["TCP", "UDP", "SCTP"])), draw(st.integers(80, 81)))
    return front, Target(
        "d/x", draw(backends[v]), draw(st.sampled_from([0, 0, 5, 77])), draw(st.booleans()),
        draw(st.none() | backends[v]), tuple(draw(networks[v])), draw(st.booleans()),
    )  # fmt: skip


changes = st.dictionaries(
    st.sampled_from(["d/a", "d/b", "d/c", "d/d"]),
    st.lists(fronts(), max_size=3).map(dict),
    min_size=1, max_size=3,
)  # fmt: skip


def check(content: Elements, state: State) -> None:
    """Against the plain model: who is behind each frontend, and how."""
    owner: dict[Frontend, Target] = {}
    seen: dict[Frontend, list[Target]] = {}
    for found in state.values():
        for front, target in found.items():
            seen.setdefault(front, []).append(target)
            owner[front] = target
    behind: dict[Frontend, tuple[set[Backend], set[Backend]]] = {}
    for at, elements_ in content.items():
        if at[1] == "endpoints":
            for key, data in elements_.items():
                inside = bool(elements.said_by(key[-4:]) & INSIDE_SLOT)
                both = behind.setdefault(Frontend.from_key(key[:-4]), (set(), set()))
                both[inside].add(Backend.from_data(data or b""))

    def of(wanted: str) -> dict[Frontend, bytes | None]:
        return {
            Frontend.from_key(k): d
            for (_, name), f in content.items()
            if name == wanted
            for k, d in f.items()
        }

    refused = {name: set(of(name)) for name in ("dropped", "rejected")}
    counts = {front: elements.said_by(d or b"") & COUNT for front, d in of("services").items()}
    assert set(behind) <= set(seen)
    for front, targets in seen.items():
        # Of two Services that claim one frontend either may have it.
        assert any(_holds(front, t, behind, refused, counts, content) for t in targets), front
    assert refused["dropped"] | refused["rejected"] <= set(seen)
    addresses = {b.address for both in behind.values() for group in both for b in group}
    hairpins = {k for at, f in content.items() if at[1] == "hairpin" for k in f}
    assert hairpins == {ipaddress.ip_address(a).packed * 2 for a in addresses}


def _holds(
    front: Frontend, t: Target, behind: dict[Frontend, tuple[set[Backend], set[Backend]]],
    refused: dict[str, set[Frontend]], counts: dict[Frontend, int], content: Elements,
) -> bool:  # fmt: skip
    out, inside = behind.get(front, (set(), set()))
    anybody = bool(t.backends or t.inside)
    sources = set()
    for (family, name), found in content.items():
        if name.startswith("sources-") and family == front.family:
            own = [k for k in found if k.startswith(front.key())]
            sources |= {
                (ipaddress.ip_address(k[len(front.key()) :]), int(name.removeprefix("sources-"))) for k in own
            }
    wanted = {(n.network_address, n.prefixlen) for n in map(ipaddress.ip_network, t.sources)}
    return (
        (out, inside) == (set(t.backends), set(t.inside or ()))
        and (front in refused["dropped"]) == (t.drop and not t.backends)
        and (front in refused["rejected"])
        == ((not t.backends and not t.drop) or (bool(t.backends) and t.inside == ()))
        and (front in counts) == anybody
        and sources == (wanted if anybody else set())
    )


def follow(table: Table, steps: list[State]) -> None:
    rules = Rules(table, LAYOUT)
    rules.start({})
    state: State = {}
    for number, step in enumerate(steps):
        rules.update(step)
        for key, found in step.items():
            state[key] = found
            if not found:
                del state[key]
        check(table.read(), state)
        if number % 3 == 2:
            # As the process that comes after would find it.
            rules = Rules(table, LAYOUT)
            rules.start(state)
            check(table.read(), state)
    assert elements.dump(table.read()) == elements.dump(rules.wanted())
    changed = Rules(table, LAYOUT).start(state)
    claims = Counter(front for found in state.values() for front in found)
    # Who was first of two that claim the same is not remembered over a restart.
    assert changed == 0 or max(claims.values()) > 1


steps = st.lists(changes, min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_changes_in_the_fake(steps: list[State]) -> None:
    follow(FakeTable(), steps)


@pytest.fixture(scope="module")
def net() -> Iterator[Wires]:
    with wires("t-proxy-changes") as made:
        yield made


@pytest.mark.root
@ROOT
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # fmt: skip
@given(steps=steps)
def test_changes_in_the_kernel_and_in_the_fake_are_the_same(net: Wires, steps: list[State]) -> None:
    table, fake = net.table(), FakeTable()
    follow(table, steps)
    follow(fake, steps)
    assert elements.dump(table.read()) == fake.dump()
    table.close()
    net.run("node", "nft", "flush ruleset")


MEDDLING = [
    "delete element ip sampan services { 10.96.0.7 . tcp . 80 }",
    "flush map ip sampan endpoints",
    "flush set ip6 sampan hairpin",
    "flush chain ip sampan serve",
    "flush chain ip sampan affinity-77",
    "flush chain ip sampan restricted",
    "flush table ip6 sampan",
    "flush map ip sampan affinities",
    "flush map ip sampan spread",
    "delete table ip sampan",
    "flush ruleset",
    "insert rule ip sampan prerouting drop",
    "add chain ip sampan foreign { type filter hook input priority 0; policy drop; }",
    "delete table ip sampan; add table ip sampan; add set ip sampan endpoints { type ipv4_addr; }",
    "add element ip sampan rejected { 10.96.0.7 . tcp . 80 }",
]


@pytest.mark.root
@ROOT
async def test_what_others_do_to_the_tables_is_undone_at_once(net: Wires) -> None:
    monitor = net.monitor()
    table = net.table(monitor)
    rules = Rules(table, LAYOUT)
    told: list[str] = []
    changed = asyncio.Event()

    def repair(who: str) -> None:
        told.append(who.split()[0])
        rules.repair()
        changed.set()

    for family in Family.IP, Family.IP6:
        monitor.watch(family, "sampan", repair)
    front, front6 = Frontend("10.96.0.7", "TCP", 80), Frontend("fd00:96::7", "TCP", 80)
    rules.start({"d/web": {
        front: Target("d/web", (Backend("10.244.0.2", 80),), 77, sources=("10.0.0.0/8",)),
        front6: Target("d/web", (Backend("fd00:244::2", 80),)),
    }})  # fmt: skip

    def listed() -> str:
        return net.run("node", "nft", "-s", "list", "ruleset")

    net.run("node", "nft", "flush ruleset")
    rules.repair()
    whole = listed()
    watching = asyncio.create_task(monitor.run())
    async with asyncio.timeout(20):
        await changed.wait()
    for meddling in MEDDLING:
        changed.clear()
        told.clear()
        net.run("node", "nft", meddling)
        async with asyncio.timeout(1):
            await changed.wait()
        await asyncio.sleep(0)
        assert set(told) == {"nft"}
        assert sorted(listed().splitlines()) == sorted(whole.splitlines()), meddling
    watching.cancel()
    net.run("node", "nft", "flush ruleset")


def test_a_change_carries_what_changed_alone() -> None:
    table = FakeTable()
    rules = Rules(table, LAYOUT)
    ten = tuple(Backend(f"10.244.0.{n}", 80) for n in range(2, 12))
    front = Frontend("10.96.0.1", "TCP", 80)
    rules.start({
        "d/x": {front: Target("d/x", ten, 77, inside=ten)},
        **{f"d/{n}": {Frontend(f"10.96.1.{n}", "TCP", 80): Target("d/y", ten)} for n in range(50)},
    })  # fmt: skip
    new = Backend("10.244.1.1", 80)
    rules.update({"d/x": {front: Target("d/x", (*ten[1:], new), 77, inside=ten)}})
    said = [(o.verb, o.set) for o in table.transactions[-1]]
    assert said == [("delete", "endpoints"), ("add", "endpoints"), ("add", "hairpin")]
    assert {o.data for o in table.transactions[-1] if o.set == "endpoints"} == {None, new.data()}
    before = len(table.transactions)
    rules.update({"d/x": {front: Target("d/x", (*ten[1:], new), 77, inside=ten)}})
    assert len(table.transactions) == before, "nothing new: nothing sent"


@pytest.mark.root
@ROOT
def test_messages_carry_what_changed_alone_and_new_time_outs_start_no_program(
    net: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = net.table()
    rules = Rules(table, LAYOUT)
    ten = tuple(Backend(f"10.244.0.{n}", 80) for n in range(2, 12))
    rules.start({
        f"d/{n}": {Frontend(f"10.96.{n >> 8}.{n & 255}", "TCP", 80): Target("d/y", ten)} for n in range(1, 300)
    })  # fmt: skip
    sent: list[int] = []
    whole = table._table._netlink.transaction

    def transaction(subsystem: int, messages: Sequence[Message]) -> None:
        sent.extend(len(m.body) for m in messages)
        whole(subsystem, messages)

    monkeypatch.setattr(table._table._netlink, "transaction", transaction)
    monkeypatch.setenv("PATH", "")
    front = Frontend("10.96.0.7", "TCP", 80)
    rules.update({"d/7": {front: Target("d/y", (*ten[1:], Backend("10.244.1.1", 80)))}})
    assert len(sent) == 3, "the slot taken from one and given to another, and the address of the new one"
    assert sum(sent) < 400
    sent.clear()
    rules.update({"d/7": {front: Target("d/y", ten, 4321, sources=("192.0.2.0/25",))}})
    assert "affinity 10.96.0.7:80/TCP : 4321 s" in elements.dump(table.read())
    monkeypatch.undo()
    assert "goto affinity-4321" in net.run("node", "nft", "list", "map", "ip", "sampan", "affinities")
    table.close()
    net.run("node", "nft", "flush", "ruleset")
