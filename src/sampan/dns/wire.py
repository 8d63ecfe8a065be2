"""DNS messages as bytes: questions read by hand, answers encoded once (RFC 1035, 2181, 6891).

A name is its wire form, labels with their lengths and a final zero byte; `key` is the same in lower case, by which
everything is looked up. Lengths are below 64 and no letter is, so that `bytes.lower` leaves them alone.

An `Answer` holds what follows the question. Its compression pointers are right behind any question of the same length, that
is, behind any spelling of the name: that is what makes it possible to keep answers as bytes.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, DNAME, OPT, IXFR, AXFR, ANY = (
    1, 2, 5, 6, 12, 15, 16, 28, 33, 39, 41, 251, 252, 255,
)  # fmt: skip
TYPES = {
    A: "A", NS: "NS", CNAME: "CNAME", SOA: "SOA", PTR: "PTR", MX: "MX", TXT: "TXT", AAAA: "AAAA", SRV: "SRV", 43: "DS",
    46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 50: "NSEC3", 65: "HTTPS", IXFR: "IXFR", AXFR: "AXFR", ANY: "ANY",
}  # fmt: skip
"""Types by name, those that CoreDNS' metrics tell apart."""
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 16: "BADVERS"}
IN = 1
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE, RCODE = 0x7800, 0x000F
DO = 0x8000
"""In the flags of an OPT record: the asker wants DNSSEC's records as well."""
SMALLEST, LARGEST = 512, 4096
"""Bytes of an answer by UDP: what everybody must take, and the most that we send whatever the asker would take."""

_HEADER = struct.Struct("!6H")
_FIXED = struct.Struct("!HHIH")
_QUESTION = struct.Struct("!HH")
_POINTER = 0xC000


Group = tuple[str, ...]
"""What an answer hangs on: a namespace and a Service, a namespace, a reverse name."""


class Unanswerable(ValueError):
    """Nothing that could be a query: answering it would only help whoever forges sources."""


class Rejected(ValueError):
    """A query that is answered with an error code alone."""

    def __init__(self, rcode: int, end: int = 12) -> None:
        super().__init__(RCODES[rcode])
        self.rcode = rcode
        self.end = end
        """Where its question ends; 12 where that is not known."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question and what it says of the answer's form."""

    data: bytes
    key: bytes
    type: int
    end: int
    """Where the question ends in `data`."""
    payload: int
    """How long an answer by UDP it takes; 0 where it has no OPT record."""
    dnssec: bool
    checking_disabled: bool


@dataclass(frozen=True, slots=True)
class Record:
    """A resource record of class IN. Names in `data` are not compressed."""

    owner: bytes
    type: int
    ttl: int
    data: bytes


@dataclass(slots=True)
class Answer:
    """What follows a question: an error code, flags, and the records of three sections as bytes."""

    rcode: int
    flags: int
    counts: tuple[int, int, int]
    body: bytes
    ends: tuple[int, ...]
    """Where each record ends in `body`."""
    ttls: tuple[int, ...]
    """Where each record's time to live is in `body`."""
    run: tuple[int, int, int] = (0, 0, 0)
    """The addresses that may change places: from, to, and bytes a record."""
    group: Group | None = None
    """What it hangs on: it is forgotten when this changes. None: it is not to be kept."""
    plugin: str = ""
    """Who made it, for the metrics."""

    def aged(self, seconds: int, most: int) -> bytes:
        """The body after some seconds in a cache, no record of which lasts longer than `most`."""
        out = bytearray(self.body)
        for at in self.ttls:
            (ttl,) = struct.unpack_from("!I", out, at)
            struct.pack_into("!I", out, at, max(0, min(ttl, most) - seconds))
        return bytes(out)


def encode_name(text: str) -> bytes:
    """`www.example.org` or `www.example.org.` as wire. Raises ValueError."""
    text = text.removesuffix(".")
    if not text:
        return b"\0"
    out = bytearray()
    for label in text.split("."):
        raw = label.encode()
        if not 0 < len(raw) < 64:
            raise ValueError(f"{text}: a label has 1 to 63 bytes")
        out.append(len(raw))
        out += raw
    if len(out) > 254:
        raise ValueError(f"{text}: a name has at most 253 characters")
    return bytes(out) + b"\0"


def reverse_name(address: str) -> bytes:
    """`4.3.2.1.in-addr.arpa.` of `1.2.3.4`."""
    return encode_name(ipaddress.ip_address(address).reverse_pointer)


def labels(name: bytes) -> list[bytes]:
    """Of a name, without the root."""
    out, at = [], 0
    while size := name[at]:
        out.append(name[at + 1 : at + 1 + size])
        at += size + 1
    return out


def decode_name(name: bytes) -> str:
    """For people: `www.example.org.`."""
    text = "".join(f"{label.decode('ascii', 'backslashreplace')}." for label in labels(name))
    return text or "."


def suffixes(name: bytes) -> Iterator[bytes]:
    """A name and all that it is in, from the longest to the root."""
    at = 0
    while size := name[at]:
        yield name[at:]
        at += size + 1
    yield b"\0"


# ---- questions


def read_query(data: bytes) -> Query:
    """Read a query. Raises Unanswerable, Rejected."""
    if len(data) < 12:
        raise Unanswerable("shorter than a header")
    _, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & QR:
        raise Unanswerable("an answer")
    if flags & OPCODE:
        raise Rejected(NOTIMP)
    if questions != 1 or answers or authorities or additionals > 2:
        raise Rejected(FORMERR)
    at, total = 12, len(data)
    while True:
        if at >= total:
            raise Rejected(FORMERR)
        size = data[at]
        if not size:
            break
        if size > 63:
            raise Rejected(FORMERR)
        at += size + 1
    name_end = at + 1
    end = name_end + 4
    if end > total or name_end - 12 > 255:
        raise Rejected(FORMERR)
    kind, class_ = _QUESTION.unpack_from(data, name_end)
    payload, dnssec = 0, False
    at = end
    for _ in range(additionals):
        try:
            at, payload, dnssec = _read_additional(data, at, payload, dnssec, end)
        except (IndexError, struct.error):
            raise Rejected(FORMERR, end) from None
    if class_ != IN or kind in (AXFR, IXFR):
        raise Rejected(REFUSED, end)
    return Query(data, data[12:name_end].lower(), kind, end, payload, dnssec, bool(flags & CD))


def _read_additional(data: bytes, at: int, payload: int, dnssec: bool, end: int) -> tuple[int, int, bool]:
    while data[at]:
        if data[at] > 63:
            at += 1
            break
        at += data[at] + 1
    at += 1
    kind, size, ttl, length = _FIXED.unpack_from(data, at)
    at += 10 + length
    if at > len(data):
        raise Rejected(FORMERR, end)
    if kind != OPT:
        return at, payload, dnssec
    if payload:
        raise Rejected(FORMERR, end)
    if (ttl >> 16) & 0xFF:
        raise Rejected(BADVERS, end)
    return at, max(size, SMALLEST), bool(ttl & DO)


# ---- answers


def encode(
    key: bytes,
    answer: Sequence[Record],
    authority: Sequence[Record] = (),
    additional: Sequence[Record] = (),
    *,
    rcode: int = NOERROR,
    flags: int = AA,
    group: Group | None = None,
    plugin: str = "",
) -> Answer:
    """The answer to a question about `key`."""
    known: dict[bytes, int] = {}
    at = 12
    for suffix in suffixes(key):
        if len(suffix) > 1:
            known[suffix] = at
            at += suffix[0] + 1
    base = 12 + len(key) + 4
    out = bytearray()
    ends, ttls, sizes = [], [], []
    for record in (*answer, *authority, *additional):
        start = len(out)
        _write_name(out, record.owner, known, base)
        ttls.append(len(out) + 4)
        fixed = len(out)
        out += _FIXED.pack(record.type, IN, record.ttl, 0)
        _write_data(out, record, known, base)
        struct.pack_into("!H", out, fixed + 8, len(out) - fixed - 10)
        ends.append(len(out))
        sizes.append(len(out) - start)
    return Answer(
        rcode, flags, (len(answer), len(authority), len(additional)), bytes(out), tuple(ends), tuple(ttls),
        _run(answer, ends, sizes), group, plugin,
    )  # fmt: skip


def _run(answer: Sequence[Record], ends: Sequence[int], sizes: Sequence[int]) -> tuple[int, int, int]:
    """The last of an answer's records, as far as they are addresses of one name that are equally long."""
    last = len(answer) - 1
    first = last
    while first >= 0 and answer[first].type in (A, AAAA) and sizes[first] == sizes[last] and answer[first].owner == answer[last].owner:  # fmt: skip
        first -= 1
    if last - first < 2:
        return (0, 0, 0)
    return ends[first] if first >= 0 else 0, ends[last], sizes[last]


def _write_name(out: bytearray, name: bytes, known: dict[bytes, int], base: int) -> None:
    at = 0
    while size := name[at]:
        suffix = name[at:].lower()
        place = known.get(suffix)
        if place is not None:
            out += struct.pack("!H", _POINTER | place)
            return
        if base + len(out) < _POINTER >> 2:
            known[suffix] = base + len(out)
        out += name[at : at + size + 1]
        at += size + 1
    out.append(0)


def _write_data(out: bytearray, record: Record, known: dict[bytes, int], base: int) -> None:
    """Names are compressed in the types of RFC 1035 that everybody knows."""
    if record.type in (NS, CNAME, PTR):
        _write_name(out, record.data, known, base)
    elif record.type == SOA:
        first = _name_end(record.data, 0)
        second = _name_end(record.data, first)
        _write_name(out, record.data[:first], known, base)
        _write_name(out, record.data[first:second], known, base)
        out += record.data[second:]
    else:
        out += record.data


def _name_end(data: bytes, at: int) -> int:
    while size := data[at]:
        at += size + 1
    return at + 1


def respond(query: Query, answer: Answer, limit: int, body: bytes | None = None) -> bytes:
    """The whole message, at most `limit` bytes long: what does not fit is left out, and that is said unless it is only in the
    additional section. `body` stands for the answer's own where given (it is equally long)."""
    head, kept, tail = frame(query, answer, limit)
    return head + (answer.body if body is None else body)[:kept] + tail


def frame(query: Query, answer: Answer, limit: int) -> tuple[bytes, int, bytes]:
    """What is before the records, how many bytes of these there are, and what is behind them."""
    options = _options(query, answer.rcode)
    question = query.data[12 : query.end]
    room = limit - 12 - len(question) - len(options)
    flags = QR | RA | answer.flags | (_flags(query.data) & (RD | CD)) | (answer.rcode & RCODE)
    counts, kept = answer.counts, len(answer.body)
    if kept > room:
        fit = sum(end <= room for end in answer.ends)
        kept = answer.ends[fit - 1] if fit else 0
        cut, left = [], fit
        for count in counts:
            cut.append(min(count, left))
            left -= cut[-1]
        if cut[:2] != list(counts[:2]):
            flags |= TC
        counts = (cut[0], cut[1], cut[2])
    head = _HEADER.pack(_id(query.data), flags, 1, counts[0], counts[1], counts[2] + (1 if options else 0))
    return head + question, kept, options


def limit_of(query: Query) -> int:
    """How long an answer to it by UDP may be."""
    return min(query.payload or SMALLEST, LARGEST)


def reject(data: bytes, rejected: Rejected) -> bytes:
    """The answer to a query that cannot be answered."""
    flags = QR | (_flags(data) & (OPCODE | RD)) | (rejected.rcode & RCODE)
    questions = 1 if rejected.end > 12 else 0
    options = _option(rejected.rcode >> 4, 0) if rejected.rcode > RCODE else b""
    return _HEADER.pack(_id(data), flags, questions, 0, 0, 1 if options else 0) + data[12 : rejected.end] + options  # fmt: skip


def _options(query: Query, rcode: int) -> bytes:
    return _option(rcode >> 4, DO if query.dnssec else 0) if query.payload else b""


def _option(extended_rcode: int, flags: int) -> bytes:
    return b"\0" + _FIXED.pack(OPT, LARGEST, extended_rcode << 24 | flags, 0)


def _flags(data: bytes) -> int:
    return data[2] << 8 | data[3]


def _id(data: bytes) -> int:
    return data[0] << 8 | data[1]


def is_below(key: bytes, zone: bytes) -> bool:
    """Whether a name is in a zone (or is its top)."""
    return key.endswith(zone) and (len(key) == len(zone) or zone in suffixes(key))


def minimum_ttl(records: Iterable[Record], otherwise: int) -> int:
    return min((r.ttl for r in records), default=otherwise)
