"""From targets to elements: what one frontend puts into the table, and the difference between two such contents."""

from __future__ import annotations

import struct

from sampan.proxy import skeleton
from sampan.proxy.types import Backend, Elements, Frontend, Operation, Target

Content = dict[tuple[str, bytes], tuple[bytes | None, str]]
"""Elements: (set, key) -> (data, comment)."""


def render(frontend: Frontend, target: Target, assigned: tuple[Backend, ...]) -> Content:
    """The elements of one frontend whose slots are given to the backends `assigned`. None without backends: then the address is refused."""
    if not assigned:
        return {}
    key = frontend.key()
    mark = struct.pack("=I", skeleton.COUNT_MARK | len(assigned) & 0xFFFFFF)
    out: Content = {("services", key): (mark, target.name)}
    for slot, backend in enumerate(assigned):
        out["endpoints", key + struct.pack("=I", slot)] = (backend.data(), target.name)
    if target.affinity:
        out[skeleton.affinity_set(target.affinity), key] = (None, target.name)
    if target.keep_source:
        out["keep-source", key] = (None, target.name)
    return out


def hairpin_key(address: str) -> bytes:
    packed = Backend(address, 0).data()[:4]
    return packed + packed


def known_slots(elements: Elements) -> dict[Frontend, tuple[Backend, ...]]:
    """Who has which slot according to the table, so that a new start gives the same ones."""
    found: dict[Frontend, dict[int, Backend]] = {}
    for key, data in elements.get("endpoints", {}).items():
        if data is not None:
            (slot,) = struct.unpack("=I", key[12:16])
            found.setdefault(Frontend.from_key(key[:12]), {})[slot] = Backend.from_data(data)
    return {
        frontend: tuple(b for _, b in sorted(by_slot.items()))
        for frontend, by_slot in found.items()
        if len(by_slot) == max(by_slot) + 1
    }


def difference(old: Content, new: Content) -> list[Operation]:
    """What to do so that `old` becomes `new`; deletions first, for the kernel refuses to change an element in place.
    Comments alone are no difference."""
    gone, come = [], []
    for (name, key), (data, _) in old.items():
        if (name, key) not in new or new[name, key][0] != data:
            gone.append(Operation("delete", name, key))
    for (name, key), (data, comment) in new.items():
        if (name, key) not in old or old[name, key][0] != data:
            come.append(Operation("add", name, key, data, comment))
    # Together, so that they travel in few messages.
    gone.sort(key=lambda o: o.set)
    come.sort(key=lambda o: o.set)
    return gone + come
