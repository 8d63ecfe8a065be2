"""Tables in memory that behave like the kernel's, for tests; their dump is text to compare with."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from sampan.proxy import elements, skeleton
from sampan.proxy.types import Elements, Layout, Operation


class FakeTable:
    """Refuses what the kernel refuses: adding a key with other data, deleting what is not there."""

    def __init__(self) -> None:
        self.elements: Elements = {}
        self.transactions: list[list[Operation]] = []
        self.layout: Layout | None = None

    def prepare(self, layout: Layout) -> None:
        self.layout = layout
        wanted = skeleton.fixed_sets(layout)
        self.elements = {at: self.elements.get(at, {}) for at in wanted}

    def distrust(self) -> None:
        pass

    def read(self) -> Elements:
        return {at: dict(found) for at, found in self.elements.items()}

    def apply(self, operations: Sequence[Operation]) -> None:
        after = self.read()
        for o in operations:
            present = after.get((o.family, o.set))
            if present is None:
                raise OSError(errno.ENOENT, f"no set {o.set}")
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
        return elements.dump(self.elements)
