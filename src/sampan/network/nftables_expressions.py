"""What the rules of nf_tables consist of: expressions that load into registers, look up there and decide.

A register here is one of four bytes, counted from 0; what is longer takes several. Each part of a concatenated key begins in a
register of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from sampan.network.netlink import attr, attributes, nest
from sampan.network.nftables import verdict

NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
_MARK, _L4PROTO = 3, 16
_ESTABLISHED_OR_RELATED = 0x2 | 0x4
_FIRST_REGISTER = 8
UPDATE, DELETE = 1, 2
"""What `write` does: add an element or begin its time anew; take it out."""
_NOT_EQUAL = 1


def payload(base: int, offset: int, length: int, register: int) -> bytes:
    """Load `length` bytes of the packet."""
    return _expression(
        "payload", _u32(1, _FIRST_REGISTER + register), _u32(2, base), _u32(3, offset), _u32(4, length)
    )


def protocol(register: int) -> bytes:
    """Load the number of the transport protocol."""
    return _expression("meta", _u32(2, _L4PROTO), _u32(1, _FIRST_REGISTER + register))


def set_mark(register: int) -> bytes:
    """Make a register the packet's mark."""
    return _expression("meta", _u32(2, _MARK), _u32(3, _FIRST_REGISTER + register))


def mark(register: int) -> bytes:
    """Load the packet's mark."""
    return _expression("meta", _u32(2, _MARK), _u32(1, _FIRST_REGISTER + register))


def lookup(set_name: str, register: int, into: int | None = None, *, verdicts: bool = False) -> bytes:
    """Go on where the set holds the key that begins in `register`. What a map has for it is put `into` a register, or with
    `verdicts` done."""
    parts = [attr(1, set_name), _u32(2, _FIRST_REGISTER + register)]
    if verdicts:
        parts.append(_u32(3, 0))
    elif into is not None:
        parts.append(_u32(3, _FIRST_REGISTER + into))
    return _expression("lookup", *parts)


def write(set_name: str, register: int, operation: int, *, data: int | None = None) -> bytes:
    """Have the packet change a set: the element whose key begins in `register`, with what is in the register `data` in a map."""
    parts = [attr(1, set_name), _u32(3, operation), _u32(4, _FIRST_REGISTER + register)]
    if data is not None:
        parts.append(_u32(5, _FIRST_REGISTER + data))
    return _expression("dynset", *parts)


def masked(register: int, mask: bytes) -> bytes:
    """Keep only the bits of `mask`, in as many registers as it takes."""
    where, zero = _FIRST_REGISTER + register, bytes(len(mask))
    return _expression(
        "bitwise", _u32(1, where), _u32(2, where), _u32(3, len(mask)), nest(4, attr(1, mask)), nest(5, attr(1, zero))
    )  # fmt: skip


def established() -> list[bytes]:
    """Go on for what belongs to a connection that is there, or is an error about one."""
    mask, zero = (struct.pack("=I", n) for n in (_ESTABLISHED_OR_RELATED, 0))
    register = _u32(1, _FIRST_REGISTER)
    return [
        _expression("ct", _u32(2, 0), register),
        _expression("bitwise", register, _u32(2, _FIRST_REGISTER), _u32(3, 4), nest(4, attr(1, mask)), nest(5, attr(1, zero))),
        _expression("cmp", register, _u32(2, _NOT_EQUAL), nest(3, attr(1, zero))),
    ]  # fmt: skip


def decide(code: int, chain: str = "") -> bytes:
    """A verdict: ACCEPT, DROP, RETURN, or JUMP and GOTO to a chain."""
    return _expression("immediate", _u32(1, 0), nest(2, verdict(code, chain)))


def looked_up(expressions: Sequence[tuple[str, bytes]]) -> list[str]:
    """The sets that the expressions of a rule, as they are read, look up in."""
    return [
        dict(attributes(parts))[1].rstrip(b"\0").decode() for name, parts in expressions if name == "lookup"
    ]


def decided(expressions: Sequence[tuple[str, bytes]]) -> int | None:
    """The verdict that the last expression of a rule, as it is read, comes to by itself."""
    name, parts = expressions[-1] if expressions else ("", b"")
    if name != "immediate":
        return None
    data = dict(attributes(dict(attributes(parts)).get(2, b"")))
    code = dict(attributes(data.get(2, b""))).get(1)
    return None if code is None else int(struct.unpack("!i", code)[0])


def _expression(name: str, *parts: bytes) -> bytes:
    return nest(1, attr(1, name), nest(2, *parts))


def _u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("!I", value))
