"""Messages that are read record by record: what other name servers say, and the questions to them (RFC 1035, 3597)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sampan.dns.wire import (
    CD,
    CNAME,
    DNAME,
    DO,
    IN,
    MX,
    NS,
    OPT,
    PTR,
    QR,
    RCODE,
    RD,
    SOA,
    SRV,
    Answer,
    Record,
)  # fmt: skip

_HEADER = struct.Struct("!6H")
_FIXED = struct.Struct("!HHIH")
_QUESTION = struct.Struct("!HH")
_LAYOUTS = {
    NS: "n", CNAME: "n", SOA: "nn", 7: "n", 8: "n", 9: "n", PTR: "n", 14: "nn", MX: "2n", 17: "nn", 18: "2n", 21: "2n",
    SRV: "6n", 36: "2n", DNAME: "n",
}  # fmt: skip
"""Where names are in the data of types that may have them compressed (RFC 3597): n is a name, a digit so many bytes."""


class Malformed(ValueError):
    """A message of a server that cannot be read."""


@dataclass(frozen=True, slots=True)
class Message:
    """An answer of another server, its OPT record left out."""

    id: int
    flags: int
    key: bytes
    type: int
    answer: list[Record]
    authority: list[Record]
    additional: list[Record]

    @property
    def rcode(self) -> int:
        return self.flags & RCODE


def make_query(number: int, name: bytes, kind: int, *, dnssec: bool = False, checking_disabled: bool = False) -> bytes:  # fmt: skip
    """A question to another server."""
    flags = RD | (CD if checking_disabled else 0)
    options = b"\0" + _FIXED.pack(OPT, 1232, DO if dnssec else 0, 0)
    return _HEADER.pack(number, flags, 1, 0, 0, 1) + name + _QUESTION.pack(kind, IN) + options


def read_message(data: bytes) -> Message:
    """Read an answer. Raises Malformed."""
    try:
        number, flags, questions, *counts = _HEADER.unpack_from(data)
        if not flags & QR or questions != 1:
            raise Malformed("no answer to one question")
        name, at = _read_name(data, 12)
        kind, class_ = _QUESTION.unpack_from(data, at)
        at += 4
        sections: list[list[Record]] = []
        for count in counts:
            found: list[Record] = []
            for _ in range(count):
                record, record_class, at = _read_record(data, at)
                if record.type != OPT and record_class == IN:
                    found.append(record)
            sections.append(found)
        if class_ != IN:
            raise Malformed("another class")
    except (IndexError, struct.error) as e:
        raise Malformed(str(e)) from None
    return Message(number, flags, name.lower(), kind, *sections)


def records_of(key: bytes, answer: Answer) -> Message:
    """An answer of ours as records again."""
    head = _HEADER.pack(0, QR | answer.flags | (answer.rcode & RCODE), 1, *answer.counts)
    return read_message(head + key + _QUESTION.pack(0, IN) + answer.body)


def _read_record(data: bytes, at: int) -> tuple[Record, int, int]:
    owner, at = _read_name(data, at)
    kind, class_, ttl, length = _FIXED.unpack_from(data, at)
    at += 10
    end = at + length
    if end > len(data):
        raise Malformed("a record ends behind the message")
    return Record(owner, kind, ttl if ttl < 1 << 31 else 0, _read_data(data, at, end, kind)), class_, end


def _read_data(data: bytes, at: int, end: int, kind: int) -> bytes:
    layout = _LAYOUTS.get(kind)
    if layout is None:
        return data[at:end]
    out = bytearray()
    for part in layout:
        if part == "n":
            name, at = _read_name(data, at)
            out += name
        else:
            out += data[at : at + int(part)]
            at += int(part)
    if at > end:
        raise Malformed("a name ends behind its record")
    return bytes(out + data[at:end])


def _read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """A name and where it ends. A pointer leads back: whoever follows them comes to an end."""
    out = bytearray()
    end, earliest = 0, at
    while True:
        size = data[at]
        if size >= 0xC0:
            target = (size & 0x3F) << 8 | data[at + 1]
            end = end or at + 2
            if target >= earliest:
                raise Malformed("a pointer does not lead back")
            at = earliest = target
            continue
        if size > 63:
            raise Malformed("a label of unknown kind")
        label = data[at : at + size + 1]
        if len(label) <= size:
            raise Malformed("a label ends behind the message")
        out += label
        at += size + 1
        if len(out) > 255:
            raise Malformed("a name is too long")
        if not size:
            return bytes(out), end or at
