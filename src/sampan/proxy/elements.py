"""From targets to elements: what one frontend puts into the tables, the difference between two such contents, and a content
as text."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sampan.network.nftables import Family
from sampan.proxy import skeleton
from sampan.proxy.types import Backend, Elements, Frontend, Operation, Target, family_of, packed, unpacked

Key = tuple[Family, str, bytes]
Content = dict[Key, tuple[bytes | None, str]]
"""Elements: (family, set, key) -> (data, comment)."""
Slots = tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class Assigned:
    """Who has which slot of a frontend: for everybody, and for pods and the node (None: the same)."""

    outside: Slots = ()
    inside: Slots | None = None

    def backends(self) -> set[Backend]:
        return {*self.outside, *(self.inside or ())}


def render(frontend: Frontend, target: Target, assigned: Assigned, unlike: Assigned = Assigned()) -> Content:
    """The elements of one frontend whose slots are given away, without those of slots that `unlike` has the same: of a
    thousand endpoints the change of one is told by few of thousands of slots."""
    out: Content = {}
    family, key = frontend.family, frontend.key()

    def put(name: str, key: bytes, data: bytes | None = None) -> None:
        out[family, name, key] = (data, target.name)

    if not assigned.outside and target.drop:
        put("dropped", key)
    elif not assigned.outside or assigned.inside == ():
        put("rejected", key)
    if not assigned.backends():
        return out
    said = len(assigned.outside)
    if target.keep_source:
        said |= skeleton.KEEP_SOURCE
    if assigned.inside is not None:
        said |= skeleton.INSIDE
        put("services-inside", key, _number(len(assigned.inside)))
    if target.affinity:
        said |= skeleton.AFFINITY
        put("affinity", key, _number(target.affinity))
    if target.sources:
        said |= skeleton.RESTRICTED
        for source in target.sources:
            network = ipaddress.ip_network(source, strict=False)
            if family_of(source) == family:
                put(skeleton.sources_set(network.prefixlen), key + network.network_address.packed)
    put("services", key, _number(said))
    for slot, backend in _others(assigned.outside, unlike.outside):
        put("endpoints", key + _number(slot), backend.data())
    for slot, backend in _others(assigned.inside or (), unlike.inside or ()):
        put("endpoints", key + _number(slot | skeleton.INSIDE_SLOT), backend.data())
    return out


def _others(now: Slots, before: Slots) -> Iterator[tuple[int, Backend]]:
    """The slots that have another backend than before, by number."""
    for slot, backend in enumerate(now):
        if slot >= len(before) or not (before[slot] is backend or before[slot] == backend):
            yield slot, backend


def hairpin_key(address: str) -> bytes:
    return packed(address) * 2


def known_slots(elements: Elements) -> dict[Frontend, Assigned]:
    """Who has which slot according to the tables, so that a new start gives the same ones."""
    found: dict[Frontend, tuple[dict[int, Backend], dict[int, Backend]]] = {}
    for (_, name), content in elements.items():
        if name != "endpoints":
            continue
        for key, data in content.items():
            if data is not None:
                (slot,) = struct.unpack("=I", key[-4:])
                inside = bool(slot & skeleton.INSIDE_SLOT)
                by_slot = found.setdefault(Frontend.from_key(key[:-4]), ({}, {}))[inside]
                by_slot[slot & ~skeleton.INSIDE_SLOT] = Backend.from_data(data)
    return {f: Assigned(_whole(outside), _whole(inside) or None) for f, (outside, inside) in found.items()}


def _whole(by_slot: Mapping[int, Backend]) -> Slots:
    if not by_slot or len(by_slot) != max(by_slot) + 1:
        return ()
    return tuple(b for _, b in sorted(by_slot.items()))


def difference(old: Content, new: Content) -> list[Operation]:
    """What to do so that `old` becomes `new`; deletions first, for the kernel refuses to change an element in place.
    Comments alone are no difference."""
    gone, come = [], []
    for (family, name, key), (data, _) in old.items():
        there = new.get((family, name, key))
        if there is None or there[0] != data:
            gone.append(Operation("delete", family, name, key))
    for (family, name, key), (data, comment) in new.items():
        there = old.get((family, name, key))
        if there is None or there[0] != data:
            come.append(Operation("add", family, name, key, data, comment))
    # Together, so that they travel in few messages.
    gone.sort(key=lambda o: (o.family, o.set))
    come.sort(key=lambda o: (o.family, o.set))
    return gone + come


def dump(elements: Elements) -> str:
    """A content as text: one line an element, sorted; the same for the kernel's and for a fake's."""
    return "\n".join(
        sorted(_line(name, k, d) for (_, name), found in elements.items() for k, d in found.items())
    )


def said_by(data: bytes) -> int:
    """The mark that an element of `services` or `services-inside` holds."""
    return int(struct.unpack("=I", data)[0])


def _line(name: str, key: bytes, data: bytes | None) -> str:
    if name == "hairpin":
        return f"hairpin {unpacked(key[: len(key) // 2])}"
    if name.startswith("sources-"):
        size = (len(key) - 8) // 2
        return f"sources {Frontend.from_key(key[:-size])} {unpacked(key[-size:])}/{name.removeprefix('sources-')}"
    if name == "endpoints":
        slot = said_by(key[-4:])
        who = " inside" if slot & skeleton.INSIDE_SLOT else ""
        backend = Backend.from_data(data or b"")
        return f"endpoints {Frontend.from_key(key[:-4])}{who} {slot & ~skeleton.INSIDE_SLOT} : {backend}"
    line = f"{name} {Frontend.from_key(key)}"
    if data is None:
        return line
    number = said_by(data)
    if name == "affinity":
        return f"{line} : {number} s"
    flags = {
        skeleton.KEEP_SOURCE: "keeps source",
        skeleton.RESTRICTED: "restricted",
        skeleton.INSIDE: "others inside",
        skeleton.AFFINITY: "affinity",
    }
    words = [f"{number & skeleton.COUNT} slots", *(text for bit, text in flags.items() if number & bit)]
    return f"{line} : {', '.join(words)}"


def _number(value: int) -> bytes:
    return struct.pack("=I", value)
