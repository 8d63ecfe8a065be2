"""nf_tables as netlink messages: tables, chains, rules, sets and their elements, each a value until a transaction takes it.

libnftables reads the whole rule set before each transaction (60 ms at 10,000 Services); a message costs what it is about.
Names and numbers are those of `linux/netfilter/nf_tables.h`; what a rule consists of is in `nftables_expressions`.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sampan.network.netlink import F_APPEND, F_CREATE, Message, Netlink, NetlinkError, attr, attributes, nest

SUBSYSTEM = 10
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN, _NEWRULE, _GETRULE, _DELRULE = range(9)
_NEWSET, _GETSET, _DELSET, _NEWSETELEM, _GETSETELEM, _DELSETELEM = range(9, 15)
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEM, _KEY, _DATA, _FLAGS, _USERDATA, _EXPRESSION, _KEY_END = 1, 1, 2, 3, 6, 7, 10
_VALUE, _VERDICT = 1, 2
_PER_MESSAGE = 200
"""Elements a message: a list attribute holds 64 KiB at most."""
_VERDICTS = 0xFFFFFF00
_MAP, _INTERVAL, _CONCATENATED = 0x8, 0x4, 0x80
_TIMEOUT, _WRITTEN = 0x10, 0x20
_INTERVAL_END = 1
_SIZE = struct.Struct("=HH").unpack_from
_WORDS = 120
"""Bytes of a comment: `nft` shows no longer ones."""

DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5


class Family(enum.IntEnum):
    """Of a table. The numbers are the kernel's, for the first two those of the address families as well."""

    IP = socket.AF_INET
    IP6 = socket.AF_INET6
    INET = 1

    # That of Enum is a call of Python's; a family is part of the key of each of thousands of elements.
    __hash__ = int.__hash__


class Hook(enum.IntEnum):
    PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)


class Type(enum.IntEnum):
    """A type as `nft` shows it: what a key or a datum of a set is."""

    IPV4_ADDR = 7
    IPV6_ADDR = 8
    INET_PROTO = 12
    INET_SERVICE = 13
    MARK = 19

    @property
    def length(self) -> int:
        """Bytes of the value itself."""
        return {Type.IPV6_ADDR: 16, Type.INET_PROTO: 1, Type.INET_SERVICE: 2}.get(self, 4)

    @property
    def size(self) -> int:
        """Bytes in a key: each part of one is padded to four."""
        return max(self.length, 4)


@dataclass(frozen=True, slots=True)
class Element:
    """Of a set or map. `key_end` is the last key of a range in a set of several fields; a range in a set of one field is two
    elements, the second of which is the first key behind it (`interval_end`). `data` is that of a data map, `goto` the
    chain of a verdict map; both only matter where an element is added."""

    key: bytes
    data: bytes | None = None
    comment: str = ""
    key_end: bytes | None = None
    interval_end: bool = False
    goto: str = ""
    packets: int = 0
    """How often a packet met it, where the set counts. Only read, never written, as is `bytes`."""
    bytes: int = 0


def table(family: Family, name: str) -> Message:
    """Make a table; one that is there stays as it is."""
    return _message(_NEWTABLE, F_CREATE, family, attr(1, name))


def delete_table(family: Family, name: str) -> Message:
    return _message(_DELTABLE, 0, family, attr(1, name))


def chain(
    family: Family, table: str, name: str, *, type: str = "", hook: Hook = Hook.FORWARD, priority: int = 0
) -> Message:
    """Make a chain; one with a `type` (`filter`, `nat`, ...) is a base chain at `hook`. One that is there stays as it is."""
    body = attr(1, table) + attr(3, name)
    if type:
        body += nest(4, attr(1, struct.pack("!I", hook)), attr(2, struct.pack("!i", priority))) + attr(
            7, type
        )
    return _message(_NEWCHAIN, F_CREATE, family, body)


def delete_chain(family: Family, table: str, name: str) -> Message:
    """Needs that the chain has no rules and that nothing jumps to it."""
    return _message(_DELCHAIN, 0, family, attr(1, table) + attr(3, name))


def rule(
    family: Family, table: str, chain: str, expressions: Sequence[bytes], *, comment: str = ""
) -> Message:
    """Append a rule."""
    body = attr(1, table) + attr(2, chain) + nest(4, *expressions)
    if comment:
        body += attr(7, _words(0, comment))
    return _message(_NEWRULE, F_CREATE | F_APPEND, family, body)


def flush_chain(family: Family, table: str, chain: str) -> Message:
    """Take all rules out of a chain."""
    return _message(_DELRULE, 0, family, attr(1, table) + attr(2, chain))


def set_(
    family: Family,
    table: str,
    name: str,
    key: Sequence[Type],
    *,
    data: Type | None = None,
    verdicts: bool = False,
    ranges: bool = False,
    timeout: int = 0,
    size: int = 0,
    comment: str = "",
) -> Message:
    """Make a set, or a map to `data` or to verdicts; `ranges` says that its elements may be ranges. With a `timeout` (seconds)
    packets write to it, up to `size` elements. One that is there stays as it is."""
    flags, number = 0, 0
    for part in key:
        number = number << 6 | part
    body = _u32(4, number) + _u32(5, sum(part.size for part in key)) + _u32(10, 1)
    if data is not None:
        body += _u32(6, data) + _u32(7, data.size)
    elif verdicts:
        body += _u32(6, _VERDICTS)
    if data is not None or verdicts:
        flags |= _MAP
    if ranges:
        flags |= _INTERVAL
    if ranges and len(key) > 1:
        flags |= _CONCATENATED
        body += nest(9, nest(2, *(nest(1, _u32(1, part.length)) for part in key)))
    if timeout:
        flags |= _TIMEOUT | _WRITTEN
        body += attr(11, struct.pack("!Q", timeout * 1000)) + nest(9, _u32(1, size))
    if comment:
        body += attr(13, _words(7, comment))
    return _message(_NEWSET, F_CREATE, family, attr(1, table) + attr(2, name) + _u32(3, flags) + body)


def delete_set(family: Family, table: str, name: str) -> Message:
    """Its elements go with it."""
    return _message(_DELSET, 0, family, attr(1, table) + attr(2, name))


def add_elements(family: Family, table: str, name: str, elements: Sequence[Element]) -> list[Message]:
    """Adding one that is there with the same data changes nothing; with other data the kernel refuses it."""
    return _elements(_NEWSETELEM, F_CREATE, family, table, name, [_added(e) for e in elements])


def delete_elements(family: Family, table: str, name: str, elements: Sequence[Element]) -> list[Message]:
    """The kernel refuses what is not there."""
    return _elements(_DELSETELEM, 0, family, table, name, [_element(e) for e in elements])


def has_table(netlink: Netlink, family: Family, name: str) -> bool:
    try:
        netlink.get(_message(_GETTABLE, 0, family, attr(1, name)))
    except NetlinkError as e:
        if e.errno == errno.ENOENT:
            return False
        raise
    return True


def chain_names(netlink: Netlink, family: Family, table: str) -> list[str]:
    return [n for t, n in _names(netlink, _message(_GETCHAIN, 0, family), 1, 3) if t == table]


def set_names(netlink: Netlink, family: Family, table: str) -> list[str]:
    return [n for _, n in _names(netlink, _message(_GETSET, 0, family, attr(1, table)), 1, 2)]


def read_rules(netlink: Netlink, family: Family, table: str) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Every rule as (chain, expressions), an expression as (name, attributes)."""
    for _, body in netlink.dump(_message(_GETRULE, 0, family, attr(1, table))):
        found = dict(attributes(body[4:]))
        expressions = []
        for _, one in attributes(found.get(4, b"")):
            parts = dict(attributes(one))
            expressions.append((_text(parts[1]), parts.get(2, b"")))
        yield _text(found[2]), expressions


def read_elements(netlink: Netlink, family: Family, table: str, name: str) -> Iterator[Element]:
    """What a set or map holds."""
    body = attr(_LIST_TABLE, table) + attr(_LIST_SET, name)
    for _, answer in netlink.dump(_message(_GETSETELEM, 0, family, body)):
        for kind, value in attributes(answer[4:]):
            for _, element in attributes(value) if kind == _LIST_ELEMENTS else ():
                parts = dict(attributes(element))
                data = dict(attributes(parts.get(_DATA, b"")))
                verdict = dict(attributes(data.get(_VERDICT, b"")))
                counted = _counted(parts.get(_EXPRESSION, b""))
                yield Element(
                    dict(attributes(parts[_KEY]))[_VALUE],
                    data.get(_VALUE),
                    key_end=dict(attributes(parts[_KEY_END]))[_VALUE] if _KEY_END in parts else None,
                    interval_end=bool(int.from_bytes(parts.get(_FLAGS, b"")) & _INTERVAL_END),
                    goto=_text(verdict.get(2, b"")),
                    comment=_comment(parts.get(_USERDATA, b"")),
                    packets=counted[0],
                    bytes=counted[1],
                )


def read_content(netlink: Netlink, family: Family, table: str, name: str) -> dict[bytes, bytes | None]:
    """What a set or data map holds, key -> data, without the rest: of tens of thousands of elements, at a third of the time."""
    found: dict[bytes, bytes | None] = {}
    body = attr(_LIST_TABLE, table) + attr(_LIST_SET, name)
    for _, answer in netlink.dump(_message(_GETSETELEM, 0, family, body)):
        for kind, value in attributes(answer[4:]):
            if kind != _LIST_ELEMENTS:
                continue
            at, end = 0, len(value)
            while at < end:
                # Each element begins with its key, and its datum is next if it has one; both are wrapped once.
                size = _SIZE(value, at)[0]
                key = at + 4
                key_size, key_kind = _SIZE(value, key)
                datum = key + (key_size + 3 & ~3)
                data = None
                if datum < at + size:
                    data_size, data_kind = _SIZE(value, datum)
                    if data_kind & 0x3FFF == _DATA:
                        data = value[datum + 8 : datum + data_size]
                assert key_kind & 0x3FFF == _KEY
                found[value[key + 8 : key + key_size]] = data
                at += size + 3 & ~3
    return found


def _elements(
    kind: int, flags: int, family: Family, table: str, name: str, elements: Sequence[bytes]
) -> list[Message]:
    head = attr(_LIST_TABLE, table) + attr(_LIST_SET, name)
    parts = (elements[at : at + _PER_MESSAGE] for at in range(0, len(elements), _PER_MESSAGE))
    return [_message(kind, flags, family, head + nest(_LIST_ELEMENTS, b"".join(part))) for part in parts]


def _element(element: Element, more: bytes = b"") -> bytes:
    parts = nest(_KEY, attr(_VALUE, element.key))
    if element.key_end is not None:
        parts += nest(_KEY_END, attr(_VALUE, element.key_end))
    if element.interval_end:
        parts += _u32(_FLAGS, _INTERVAL_END)
    return nest(_ELEM, parts + more)


def _added(element: Element) -> bytes:
    more = b""
    if element.data is not None:
        more += nest(_DATA, attr(_VALUE, element.data))
    elif element.goto:
        more += nest(_DATA, verdict(GOTO, element.goto))
    if element.comment:
        more += attr(_USERDATA, _words(0, element.comment))
    return _element(element, more)


def verdict(code: int, chain: str = "") -> bytes:
    """A verdict as a datum: of an element, or of an `immediate` expression."""
    return nest(_VERDICT, attr(1, struct.pack("!i", code)) + (attr(2, chain) if chain else b""))


def _message(kind: int, flags: int, family: Family, body: bytes = b"") -> Message:
    return Message(SUBSYSTEM << 8 | kind, flags, struct.pack("=BBH", family, 0, 0) + body)


def _names(netlink: Netlink, message: Message, table: int, name: int) -> Iterator[tuple[str, str]]:
    for _, body in netlink.dump(message):
        found = dict(attributes(body[4:]))
        yield _text(found[table]), _text(found[name])


def _u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("!I", value))


def _words(kind: int, text: str) -> bytes:
    """A comment as `nft` keeps it in user data."""
    words = text.encode()[:_WORDS] + b"\0"
    return struct.pack("=BB", kind, len(words)) + words


def _comment(user_data: bytes) -> str:
    """The comment that `_words` made."""
    return _text(user_data[2 : 2 + user_data[1]]) if len(user_data) > 2 and user_data[0] == 0 else ""


def _counted(expression: bytes) -> tuple[int, int]:
    """(packets, bytes) of a counter; zeros for anything else."""
    parts = dict(attributes(expression))
    if parts.get(1) != b"counter\0":
        return 0, 0
    values = dict(attributes(parts[2]))
    return int.from_bytes(values[2]), int.from_bytes(values[1])


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode()
