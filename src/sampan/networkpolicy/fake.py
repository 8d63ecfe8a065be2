"""Tables in memory that behave like the kernel's, for tests."""

from __future__ import annotations

import errno
import os

from sampan.networkpolicy.content import SELF, Content, Item, Match, family_of, packed, service_key
from sampan.networkpolicy.types import Direction


class FakeTable:
    """Refuses what the kernel refuses: what is to go must be there, what is to come must not. `passes` decides about a
    packet as the kernel would."""

    def __init__(self) -> None:
        self.content: Content = {}
        self.transactions: list[tuple[Content, Content]] = []

    def read(self) -> Content:
        return dict(self.content)

    def apply(self, before: Content, after: Content) -> None:
        for item, value in before.items():
            if item not in self.content or (item.kind == "element" and self.content[item] != value):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        for item in after:
            if item.kind == "element" and item in self.content and item not in before:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self.content = {i: v for i, v in self.content.items() if i not in before or i in after} | after
        self._check()
        if before or after:
            self.transactions.append((before, after))

    def rebuild(self, content: Content) -> None:
        self.content = dict(content)
        self._check()

    def passes(self, source: str, destination: str, protocol: str, port: int) -> bool:
        """Whether the first packet of a connection gets through this node."""
        family, own, other = family_of(source), packed(source), packed(destination)
        if Item("element", family, SELF, own + other) in self.content:
            return True
        service = service_key(protocol, port)
        directions: tuple[tuple[Direction, bytes, bytes], ...] = (
            ("egress", own, other),
            ("ingress", other, own),
        )
        for direction, here, peer in directions:
            number = self.content.get(Item("element", family, direction, here))
            if number is None:
                continue
            assert isinstance(number, bytes)
            name = self.content.get(Item("element", family, f"{direction}-chains", number))
            chain = self.content[Item("chain", family, str(name))]
            assert isinstance(chain, tuple)
            if not any(self._matches(m, family_of(source), peer, other, service) for m in chain):
                return False
        return True

    def _matches(self, match: Match, family: int, peer: bytes, destination: bytes, service: bytes) -> bool:
        return (
            (not match.peers or self._holds(family, match.peers, peer))
            and (not match.ports or self._holds(family, match.ports, service))
            and (not match.named or self._holds(family, match.named, destination + service))
        )

    def _holds(self, family: int, name: str, key: bytes) -> bool:
        keys = (i.key for i in self.content if (i.kind, i.family, i.name) == ("element", family, name))
        if name.startswith("block-"):
            return any(k[: len(key)] <= key <= k[len(key) :] for k in keys)
        if name.startswith("ports-"):
            return any(k[0] == key[0] and k[4:6] <= key[4:6] <= k[12:14] for k in keys)
        return key in keys

    def _check(self) -> None:
        """Nothing refers to what is not there."""
        sets = {(i.family, i.name) for i in self.content if i.kind == "set"}
        chains = {(i.family, i.name) for i in self.content if i.kind == "chain"}
        for item, value in self.content.items():
            if item.kind == "chain" and isinstance(value, tuple):
                for match in value:
                    for name in filter(None, (match.peers, match.ports, match.named)):
                        if (item.family, name) not in sets:
                            raise OSError(errno.ENOENT, f"chain {item.name} looks up in {name}")
            elif item.kind == "element":
                made = item.name in (SELF, "ingress", "egress", "ingress-chains", "egress-chains")
                if not made and (item.family, item.name) not in sets:
                    raise OSError(errno.ENOENT, f"no set {item.name}")
                if isinstance(value, str) and (item.family, value) not in chains:
                    raise OSError(errno.ENOENT, f"no chain {value}")
