"""The few messages of etcd's gRPC API that the driver uses, to and from protobuf's wire form.

Requests are bytes; answers are small values. The field numbers are those of etcd's `rpc.proto` and `kv.proto`, which only
ever grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

_ALARMS = {1: "NOSPACE", 2: "CORRUPT"}
ALL = (b"\0", b"\0")
"""The range of all keys."""


class KeyValue(NamedTuple):
    key: str
    value: bytes
    revision: int
    """That last wrote it."""
    created: int
    version: int
    """How often it was written since it was made."""
    lease: int


class WatchEvent(NamedTuple):
    """`kv` of a delete has the key and the delete's revision alone; `before` is there if it was asked for and is kept."""

    deleted: bool
    kv: KeyValue
    before: KeyValue | None


@dataclass(frozen=True, slots=True)
class RangeAnswer:
    cluster: int
    revision: int
    """etcd's newest when it answered."""
    kvs: Sequence[KeyValue]
    more: bool
    count: int


@dataclass(frozen=True, slots=True)
class TxnAnswer:
    revision: int
    succeeded: bool
    present: KeyValue | None
    """What the failure branch has read."""

    @property
    def version(self) -> int:
        return self.present.version if self.present is not None else 0


@dataclass(frozen=True, slots=True)
class WatchAnswer:
    canceled: bool
    compacted: int
    """The oldest revision that can be watched, where that is why the watch was cancelled."""
    reason: str
    fragment: bool
    """More of the same revision follows."""
    events: Sequence[WatchEvent]


@dataclass(frozen=True, slots=True)
class HashAnswer:
    hash: int
    """Of all that a member has from `compacted` to the revision that was asked for."""
    compacted: int


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    version: str
    size: int
    """Bytes of the database file."""
    leader: int
    member: int


# ---- requests


def range_request(
    key: bytes,
    end: bytes = b"",
    *,
    limit: int = 0,
    revision: int = 0,
    keys_only: bool = False,
    count_only: bool = False,
) -> bytes:
    return (
        _data(1, key) + _data(2, end) + _number(3, limit) + _number(4, revision)
        + _number(8, keys_only) + _number(9, count_only)
    )  # fmt: skip


def put(key: bytes, value: bytes, lease: int = 0) -> bytes:
    """One operation of a transaction: write a key."""
    return _data(2, _data(1, key) + _data(2, value) + _number(3, lease))


def delete(key: bytes, end: bytes = b"") -> bytes:
    """One operation of a transaction: remove a key, or a range of keys."""
    return _data(3, _data(1, key) + _data(2, end))


def txn_if_revision(
    key: bytes, comparison: Literal["=", ">"], revision: int, operations: Sequence[bytes]
) -> bytes:
    """Do `operations` if the revision that last wrote `key` compares so (0: there is no such key), else read it."""
    # protobuf leaves out what is zero; a comparison without its value would compare with nothing.
    compare = _number(1, comparison == ">") + b"\x10\x02" + _data(3, key) + b"\x30" + _varint(revision)
    return _data(1, compare) + b"".join([_data(2, o) for o in operations]) + _data(3, _data(1, _data(1, key)))


def txn_if_version(key: bytes, version: int, operations: Sequence[bytes]) -> bytes:
    """Do `operations` if `key` was written so many times since it was made (0: there is no such key), else read it."""
    compare = _data(3, key) + b"\x20" + _varint(version)
    return _data(1, compare) + b"".join([_data(2, o) for o in operations]) + _data(3, _data(1, _data(1, key)))


def txn(operations: Sequence[bytes]) -> bytes:
    """Do `operations`, all in one revision."""
    return b"".join([_data(2, o) for o in operations])


def compaction_request(revision: int) -> bytes:
    return _number(1, revision)


def watch_request(key: bytes, end: bytes, start: int, *, previous: bool) -> bytes:
    """Watch a range from revision `start` on; with `previous`, events carry the values before."""
    return _data(
        1, _data(1, key) + _data(2, end) + _number(3, start) + _number(6, previous) + _number(8, True)
    )


def hash_request(revision: int) -> bytes:
    return _number(1, revision)


def lease_grant_request(seconds: int) -> bytes:
    return _number(1, seconds)


# ---- answers


def range_answer(data: bytes) -> RangeAnswer:
    cluster = revision = count = 0
    more = False
    kvs: list[KeyValue] = []
    for number, value, text in _fields(data):
        if number == 2:
            kvs.append(_key_value(text))
        elif number == 1:
            cluster, revision = _header(text)
        elif number == 3:
            more = bool(value)
        elif number == 4:
            count = value
    return RangeAnswer(cluster, revision, kvs, more, count)


def txn_answer(data: bytes) -> TxnAnswer:
    revision = 0
    succeeded = False
    present: KeyValue | None = None
    for number, value, text in _fields(data):
        if number == 1:
            _, revision = _header(text)
        elif number == 2:
            succeeded = bool(value)
        elif number == 3:
            if succeeded:
                break
            for kind, _, operation in _fields(text):
                if kind == 1:
                    present = next(iter(range_answer(operation).kvs), None)
    return TxnAnswer(revision, succeeded, present)


def watch_answer(data: bytes) -> WatchAnswer:
    compacted = 0
    canceled = fragment = False
    reason = ""
    events: list[WatchEvent] = []
    for number, value, text in _fields(data):
        if number == 11:
            events.append(_event(text))
        elif number == 4:
            canceled = bool(value)
        elif number == 5:
            compacted = value
        elif number == 6:
            reason = text.decode(errors="replace")
        elif number == 7:
            fragment = bool(value)
    return WatchAnswer(canceled, compacted, reason, fragment, events)


def lease_of(data: bytes) -> int:
    """The id of a lease that was granted."""
    return next((value for number, value, _ in _fields(data) if number == 2), 0)


def status_answer(data: bytes) -> StatusAnswer:
    version = ""
    size = leader = member = 0
    for number, value, text in _fields(data):
        if number == 1:
            member = next((v for n, v, _ in _fields(text) if n == 2), 0)
        elif number == 2:
            version = text.decode(errors="replace")
        elif number == 3:
            size = value
        elif number == 4:
            leader = value
    return StatusAnswer(version, size, leader, member)


def hash_answer(data: bytes) -> HashAnswer:
    found = {number: value for number, value, _ in _fields(data)}
    return HashAnswer(found.get(2, 0), found.get(3, 0))


def alarms_of(data: bytes) -> list[tuple[int, str]]:
    """The alarms that are raised, each with its member."""
    alarms = [{n: v for n, v, _ in _fields(text)} for number, _, text in _fields(data) if number == 2]
    return [(a.get(1, 0), _ALARMS.get(a.get(2, 0), "unknown")) for a in alarms]


def _header(data: bytes) -> tuple[int, int]:
    """(cluster, revision)"""
    cluster = revision = 0
    for number, value, _ in _fields(data):
        if number == 1:
            cluster = value
        elif number == 3:
            revision = value
    return cluster, revision


def _event(data: bytes) -> WatchEvent:
    deleted = False
    kv: KeyValue | None = None
    before: KeyValue | None = None
    for number, value, text in _fields(data):
        if number == 1:
            deleted = value == 1
        elif number == 2:
            kv = _key_value(text)
        elif number == 3:
            before = _key_value(text)
    if kv is None:
        raise ValueError("etcd sent an event without a key")
    return WatchEvent(deleted, kv, before)


def _key_value(data: bytes) -> KeyValue:
    key = value = b""
    created = revision = version = lease = 0
    for number, what, text in _fields(data):
        if number == 1:
            key = text
        elif number == 2:
            created = what
        elif number == 3:
            revision = what
        elif number == 4:
            version = what
        elif number == 5:
            value = text
        elif number == 6:
            lease = what
    return KeyValue(key.decode(), value, revision, created, version, lease)


# ---- the wire form


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return bytes((field << 3,)) + _varint(value) if value else b""


def _data(field: int, value: bytes) -> bytes:
    return bytes((field << 3 | 2,)) + _varint(len(value)) + value


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """(field, number, bytes) of each field; what a type has not is 0 or empty. Raises ValueError."""
    found: list[tuple[int, int, bytes]] = []
    position, end = 0, len(data)
    try:
        while position < end:
            tag = data[position]
            position += 1
            if tag > 0x7F:
                shift = 7
                tag &= 0x7F
                while True:
                    byte = data[position]
                    position += 1
                    tag |= (byte & 0x7F) << shift
                    if byte < 0x80:
                        break
                    shift += 7
            kind = tag & 7
            if kind == 1:
                position += 8
                continue
            if kind == 5:
                position += 4
                continue
            if kind not in (0, 2):
                raise ValueError(f"etcd sent a message with wire type {kind}")
            number = data[position]
            position += 1
            if number > 0x7F:
                shift = 7
                number &= 0x7F
                while True:
                    byte = data[position]
                    position += 1
                    number |= (byte & 0x7F) << shift
                    if byte < 0x80:
                        break
                    shift += 7
            if kind == 0:
                found.append((tag >> 3, number, b""))
                continue
            if position + number > end:
                raise ValueError("etcd sent a message that is cut off")
            found.append((tag >> 3, 0, data[position : position + number]))
            position += number
    except IndexError:
        raise ValueError("etcd sent a message that is cut off") from None
    return found
