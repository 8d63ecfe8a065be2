"""A table in memory that behaves like the kernel's, for tests; its dump is text to compare with."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from sampan.proxy import skeleton
from sampan.proxy.types import Backend, Elements, Frontend, Layout, Operation


class FakeTable:
    """Refuses what the kernel refuses: adding a key with other data, deleting what is not there."""

    def __init__(self) -> None:
        self.elements: Elements = {}
        self.transactions: list[list[Operation]] = []
        self.layout: Layout | None = None

    def prepare(self, layout: Layout) -> None:
        self.layout = layout
        for name in skeleton.fixed_sets(layout):
            self.elements.setdefault(name, {})

    def read(self) -> Elements:
        return {name: dict(found) for name, found in self.elements.items()}

    def apply(self, operations: Sequence[Operation]) -> None:
        after = self.read()
        for o in operations:
            if o.set not in after:
                raise OSError(errno.ENOENT, f"no set {o.set}")
            present = after[o.set]
            if o.verb == "add":
                if o.key in present and present[o.key] != o.data:
                    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
                present[o.key] = o.data
            else:
                if o.key not in present:
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                del present[o.key]
        self.elements = after
        if operations:
            self.transactions.append(list(operations))

    def dump(self) -> str:
        """One line an element, sorted."""
        return "\n".join(
            sorted(_line(name, k, d) for name, found in self.elements.items() for k, d in found.items())
        )


def _line(name: str, key: bytes, data: bytes | None) -> str:
    if name == "hairpin":
        return f"hairpin {socket.inet_ntoa(key[:4])}"
    frontend = Frontend.from_key(key[:12])
    if name == "services":
        assert data is not None
        return f"services {frontend} : {int.from_bytes(data, 'little') & 0xFFFFFF} slots"
    if name == "endpoints":
        assert data is not None
        return f"endpoints {frontend} {int.from_bytes(key[12:], 'little')} : {Backend.from_data(data)}"
    return f"{name} {frontend}"
