"""The kernel's nf_tables: the fixed part by `nft -f` once, elements by netlink from then on.

libnftables reads the whole rule set before each transaction (60 ms at 10,000 Services); an element by netlink costs
what the element costs.
"""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from itertools import groupby

from sampan.network.netlink import (
    F_CREATE,
    NETLINK_NETFILTER,
    Message,
    Netlink,
    attr,
    attributes,
    nest,
)
from sampan.proxy import skeleton
from sampan.proxy.types import Elements, Layout, Operation

_SUBSYSTEM = 10
_NEWSETELEM, _GETSETELEM, _DELSETELEM = 12, 13, 14
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEM, _KEY, _DATA, _USERDATA, _VALUE = 1, 1, 2, 6, 1
_PER_MESSAGE = 200
"""Elements a message: a list attribute holds 64 KiB at most."""
_HEADER = struct.pack("=BBH", socket.AF_INET, 0, 0)


class NfTables:
    """Our table in the network namespace that the process is in."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)
        self._layout: Layout | None = None

    def close(self) -> None:
        self._netlink.close()

    def prepare(self, layout: Layout) -> None:
        """Make sets and maps that are missing and all chains anew, in one transaction: connections that are open live
        on, and at no moment is a rule missing."""
        present = self._chains()
        script = [f"flush chain ip {skeleton.TABLE} {name}" for name in sorted(present)]
        script += [skeleton.render(layout)]
        wanted = set(skeleton.chains(layout))
        script += [f"delete chain ip {skeleton.TABLE} {name}" for name in sorted(present - wanted)]
        done = subprocess.run(
            ["nft", "-f", "-"], input="\n".join(script), text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise OSError(0, f"nft -f - failed: {done.stderr.strip()}")
        self._layout = layout

    def read(self) -> Elements:
        assert self._layout is not None, "prepare comes first"
        return {name: dict(self._elements(name)) for name in skeleton.fixed_sets(self._layout)}

    def apply(self, operations: Sequence[Operation]) -> None:
        messages = []
        for (verb, name), group in groupby(operations, key=lambda o: (o.verb, o.set)):
            several = list(group)
            for at in range(0, len(several), _PER_MESSAGE):
                elements = b"".join(map(_element, several[at : at + _PER_MESSAGE]))
                body = _HEADER + attr(_LIST_TABLE, skeleton.TABLE) + attr(_LIST_SET, name)
                body += nest(_LIST_ELEMENTS, elements)
                kind = _NEWSETELEM if verb == "add" else _DELSETELEM
                flags = F_CREATE if verb == "add" else 0
                messages.append(Message(_SUBSYSTEM << 8 | kind, flags, body))
        if messages:
            self._netlink.transaction(_SUBSYSTEM, messages)

    def _chains(self) -> set[str]:
        done = subprocess.run(
            ["nft", "-t", "list", "table", "ip", skeleton.TABLE], text=True, capture_output=True, check=False
        )
        if done.returncode and "No such file or directory" not in done.stderr:
            raise OSError(0, f"nft list table failed: {done.stderr.strip()}")
        lines = (line.split() for line in done.stdout.splitlines())
        return {words[1] for words in lines if len(words) == 3 and words[0] == "chain"}

    def _elements(self, name: str) -> Iterator[tuple[bytes, bytes | None]]:
        body = _HEADER + attr(_LIST_TABLE, skeleton.TABLE) + attr(_LIST_SET, name)
        for _, answer in self._netlink.dump(Message(_SUBSYSTEM << 8 | _GETSETELEM, 0, body)):
            for kind, value in attributes(answer[4:]):
                if kind == _LIST_ELEMENTS:
                    for _, element in attributes(value):
                        parts = dict(attributes(element))
                        data = dict(attributes(parts[_DATA])).get(_VALUE) if _DATA in parts else None
                        yield dict(attributes(parts[_KEY]))[_VALUE], data


def _element(operation: Operation) -> bytes:
    parts = nest(_KEY, attr(_VALUE, operation.key))
    if operation.verb == "add":
        if operation.data is not None:
            parts += nest(_DATA, attr(_VALUE, operation.data))
        if operation.comment:
            words = operation.comment.encode()[:120] + b"\0"
            parts += attr(_USERDATA, struct.pack("=BB", 0, len(words)) + words)
    return nest(_ELEM, parts)
