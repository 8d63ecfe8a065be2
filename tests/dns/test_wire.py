"""Messages: what we read and write against dnspython, and bytes that are no messages."""

from __future__ import annotations

import contextlib

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.dns import messages, wire
from sampan.dns.wire import Record

LABEL = st.text("abcdefXYZ0123456789-_", min_size=1, max_size=12)
NAMES = st.lists(LABEL, min_size=1, max_size=6).map(lambda parts: ".".join(parts) + ".")
DATA = st.one_of(
    st.tuples(st.just("A"), st.ip_addresses(v=4).map(str)),
    st.tuples(st.just("AAAA"), st.ip_addresses(v=6).map(str)),
    st.tuples(st.sampled_from(["CNAME", "NS", "PTR"]), NAMES),
    st.tuples(st.just("SRV"), NAMES.map(lambda n: f"0 100 80 {n}")),
    st.tuples(st.just("MX"), NAMES.map(lambda n: f"10 {n}")),
    st.tuples(st.just("TXT"), LABEL.map(lambda t: f'"{t}"')),
    st.tuples(st.just("SOA"), st.tuples(NAMES, NAMES).map(lambda n: f"{n[0]} {n[1]} 1 2 3 4 5")),
)
RECORDS = st.lists(st.tuples(NAMES, st.integers(0, 2**31 - 1), DATA), max_size=8)


def rrset(name: str, ttl: int, data: tuple[str, str]) -> dns.rrset.RRset:
    return dns.rrset.from_text(name, ttl, "IN", *data)


def record(name: str, ttl: int, data: tuple[str, str]) -> Record:
    rdata = dns.rdata.from_text("IN", *data)
    return Record(wire.encode_name(name), int(rdata.rdtype), ttl, rdata.to_wire(origin=dns.name.root))


def query(name: str, kind: str = "A", **more: object) -> dns.message.Message:
    return dns.message.make_query(name, kind, **more)  # type: ignore[arg-type]


def lines(message: dns.message.Message) -> list[list[str]]:
    return [
        sorted(f"{s.name} {s.ttl} {dns.rdatatype.to_text(s.rdtype)} {r}" for s in section for r in s)
        for section in (message.answer, message.authority, message.additional)
    ]


@given(NAMES)
def test_names(name: str) -> None:
    assert wire.encode_name(name) == dns.name.from_text(name).to_wire()
    assert wire.decode_name(wire.encode_name(name)) == name


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".org", ".".join(["a" * 60] * 5)])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError):
        wire.encode_name(name)


@given(NAMES, st.sampled_from(["A", "AAAA", "SRV", "TXT", "PTR"]), st.booleans(), st.booleans())
def test_questions(name: str, kind: str, edns: bool, dnssec: bool) -> None:
    asked = query(name, kind, use_edns=0 if edns or dnssec else -1, want_dnssec=dnssec, payload=1400)
    read = wire.read_query(asked.to_wire())
    assert read.key == dns.name.from_text(name.lower()).to_wire()
    assert read.type == dns.rdatatype.from_text(kind)
    assert read.dnssec == dnssec
    assert read.payload == (1400 if edns or dnssec else 0)


@given(NAMES, RECORDS, RECORDS, RECORDS, st.booleans())
def test_answers_are_what_dnspython_reads(
    name: str, answer: list, authority: list, additional: list, edns: bool
) -> None:
    asked = query(name, use_edns=0 if edns else -1)
    read = wire.read_query(asked.to_wire())
    made = wire.encode(
        read.key, *([record(*r) for r in section] for section in (answer, authority, additional))
    )
    data = wire.respond(read, made, 65535)
    message = dns.message.from_wire(data, one_rr_per_rrset=True)
    expected = dns.message.make_response(asked)
    expected.answer = [rrset(*r) for r in answer]
    expected.authority = [rrset(*r) for r in authority]
    expected.additional = [rrset(*r) for r in additional]
    assert lines(message) == lines(expected)
    assert message.question[0].name.to_text() == name, "its case is as it was asked"
    assert message.id == asked.id
    assert message.edns == (0 if edns else -1)


@given(NAMES, RECORDS, RECORDS, RECORDS)
def test_answers_of_others(name: str, answer: list, authority: list, additional: list) -> None:
    message = dns.message.make_response(query(name))
    message.answer = [rrset(*r) for r in answer]
    message.authority = [rrset(*r) for r in authority]
    message.additional = [rrset(*r) for r in additional]
    read = messages.read_message(message.to_wire(max_size=65535))
    assert read.key == wire.encode_name(name.lower())
    for section, given_ in (
        (read.answer, answer),
        (read.authority, authority),
        (read.additional, additional),
    ):
        wanted = [record(*r) for r in given_]
        assert sorted((r.owner.lower(), r.type, r.ttl, r.data.lower()) for r in section) == sorted(
            (r.owner.lower(), r.type, r.ttl, r.data.lower()) for r in wanted
        )


@given(RECORDS.filter(bool), st.integers(512, 1500))
def test_what_is_too_long_is_cut_between_records_and_said(records: list, limit: int) -> None:
    asked = query("a.example.", use_edns=0, payload=limit)
    read = wire.read_query(asked.to_wire())
    made = wire.encode(read.key, [record(*r) for r in records * 10])
    data = wire.respond(read, made, wire.limit_of(read))
    assert len(data) <= limit
    message = dns.message.from_wire(data, one_rr_per_rrset=True, ignore_trailing=False)
    cut = sum(len(s) for s in message.answer) < len(records) * 10
    assert bool(message.flags & dns.flags.TC) == cut


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    refused = None
    with contextlib.suppress(wire.Unanswerable):
        try:
            wire.read_query(data)
        except wire.Rejected as e:
            refused = e
    if refused is not None:
        assert wire.reject(data, refused)[:2] == data[:2]
    with contextlib.suppress(messages.Malformed):
        messages.read_message(data)


@given(NAMES, RECORDS, st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_damaged_messages(name: str, records: list, at: int, damage: bytes) -> None:
    message = dns.message.make_response(query(name, use_edns=0))
    message.answer = [rrset(*r) for r in records]
    data = bytearray(message.to_wire(max_size=65535))
    at %= len(data)
    data[at : at + len(damage)] = damage
    with contextlib.suppress(messages.Malformed):
        messages.read_message(bytes(data))


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        (lambda m: m.set_opcode(dns.opcode.UPDATE), "NOTIMP"),
        (lambda m: m.question.append(dns.rrset.RRset(dns.name.from_text("b."), 1, 1)), "FORMERR"),
        (lambda m: m.use_edns(edns=1), "BADVERS"),
    ],
)
def test_queries_that_are_refused(change, rcode: str) -> None:  # type: ignore[no-untyped-def]
    asked = query("a.example.")
    change(asked)
    with pytest.raises(wire.Rejected) as e:
        wire.read_query(asked.to_wire())
    message = dns.message.from_wire(wire.reject(asked.to_wire(), e.value))
    assert dns.rcode.to_text(message.rcode()) in (rcode, {"BADVERS": "BADVERS"}.get(rcode, rcode))
    assert message.id == asked.id


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
def test_zones_are_not_given_away(kind: str) -> None:
    with pytest.raises(wire.Rejected) as e:
        wire.read_query(query("cluster.local.", kind).to_wire())
    assert e.value.rcode == wire.REFUSED


def test_other_classes_are_refused() -> None:
    with pytest.raises(wire.Rejected) as e:
        wire.read_query(query("version.bind.", "TXT", rdclass="CH").to_wire())
    assert e.value.rcode == wire.REFUSED


def test_answers_are_never_answered() -> None:
    with pytest.raises(wire.Unanswerable):
        wire.read_query(dns.message.make_response(query("a.")).to_wire())
