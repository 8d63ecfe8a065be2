"""The node's desired state, kept up change by change: what policies, pods and namespaces together mean for its tables.

A change costs what it is about: a pod's that of the sets it comes into or leaves, a policy's that of the pods here that it selects.
Only sets that a chain of this node uses are kept at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sampan.network.nftables import Family
from sampan.networkpolicy.content import (
    SELF,
    Content,
    Item,
    Source,
    Value,
    family_of,
    fixed_elements,
    number_of,
    packed,
    render,
    service_key,
    words,
)
from sampan.networkpolicy.selection import Selections
from sampan.networkpolicy.types import DIRECTIONS, Direction, NamedPort, Pod, PodSelection, Policy


@dataclass(slots=True)
class _Kept:
    """A chain or set that is there because `users` need it, and what it needs."""

    sources: dict[str, Source]
    users: int = 0


class _Placed(NamedTuple):
    """That an address of a pod here is kept, in one direction, by a chain."""

    address: str
    direction: Direction
    chain: str


class Desired:
    """`content` is the whole of it; `take` gives what changed since it was asked last."""

    def __init__(self) -> None:
        self.content: Content = {}
        self._touched: Content = {}
        """Items that changed, as they were."""
        self._came: set[Item] = set()
        """Those of `touched` that were not there."""
        self._policies: dict[str, Policy] = {}
        self._by_subject: dict[PodSelection, dict[str, Policy]] = {}
        self._selections = Selections()
        self._pods: dict[str, Pod] = {}
        self._local: dict[str, tuple[_Placed, ...]] = {}
        """The pods of this node, and what keeps them."""
        self._chains: dict[tuple[Family, str], _Kept] = {}
        self._sets: dict[tuple[Family, str], _Kept] = {}
        self._peers: dict[PodSelection, str] = {}
        self._named: dict[NamedPort, str] = {}
        """The sets in use by what fills them."""
        self._having: dict[NamedPort, set[str]] = {}
        """The pods that have a port of a name."""
        self._counts: dict[Item, int] = {}
        self._claims: dict[Item, dict[str, bytes]] = {}
        """Who says what about an address in a map; the last one counts."""

    def take(self) -> tuple[Content, Content]:
        """What changed: as it was and as it is."""
        before = {item: value for item, value in self._touched.items() if item not in self._came}
        after = {item: self.content[item] for item in self._touched if item in self.content}
        self._touched, self._came = {}, set()
        return before, after

    def set_policy(self, key: str, policy: Policy | None) -> None:
        """None: it is gone."""
        old = self._policies.pop(key, None)
        if old == policy:
            if policy is not None:
                self._policies[key] = policy
            return
        affected: set[str] = set()
        if policy is not None:
            self._policies[key] = policy
            self._by_subject.setdefault(policy.subject, {})[key] = policy
            self._selections.add(policy.subject)
            affected |= self._selected_here(policy.subject)
        if old is not None:
            affected |= self._selected_here(old.subject)
            if policy is None or policy.subject != old.subject:
                del self._by_subject[old.subject][key]
                if not self._by_subject[old.subject]:
                    del self._by_subject[old.subject]
        for uid in affected:
            self._place(uid)
        if old is not None:
            self._selections.remove(old.subject)

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """None: it is gone."""
        if self._selections.set_namespace(name, labels):
            for uid in self._selections.pods_in(name):
                self.set_pod(uid, self._pods[uid])

    def set_pod(self, uid: str, pod: Pod | None) -> None:
        """None: it is gone, or nothing of it runs any more."""
        old = self._pods.get(uid)
        selected_before = self._selections.of(uid)
        if pod is not None:
            self._pods[uid] = pod
            self._selections.set_pod(uid, pod.namespace, pod.labels)
        elif old is not None:
            del self._pods[uid]
            self._selections.remove_pod(uid)
        else:
            return
        selected = self._selections.of(uid)
        before, after = (p.addresses if p is not None else () for p in (old, pod))
        for selection in selected | selected_before:
            name = self._peers.get(selection)
            if name is not None:
                was = before if selection in selected_before else ()
                self._move(name, was, after if selection in selected else ())
        self._move_ports(uid, old, pod)
        if pod is not None and pod.local:
            self._place(uid)
        elif uid in self._local:
            self._replace(uid, ())
            del self._local[uid]

    # -- pods of this node

    def _selected_here(self, selection: PodSelection) -> set[str]:
        return {uid for uid in self._local if selection in self._selections.of(uid)}

    def _place(self, uid: str) -> None:
        """Have a pod of this node kept by the policies that select it."""
        found = {
            p.key: p
            for s in self._selections.of(uid)
            if s in self._by_subject
            for p in self._by_subject[s].values()
        }
        policies = [found[key] for key in sorted(found)]
        addresses = self._pods[uid].addresses
        wanted = []
        for direction in DIRECTIONS:
            group = [p for p in policies if p.rules(direction) is not None]
            for address in addresses if group else ():
                chain = self._acquire_chain(family_of(address), direction, group)
                wanted.append(_Placed(address, direction, chain))
        self._replace(uid, tuple(wanted))

    def _replace(self, uid: str, wanted: tuple[_Placed, ...]) -> None:
        """`wanted` use their chains already."""
        before = self._local.get(uid, ())
        self._local[uid] = wanted
        for placed in wanted:
            self._claim(_in_map(placed), uid, number_of(placed.chain))
            self._count(_own(placed.address), +1)
        kept = {(placed.address, placed.direction) for placed in wanted}
        for placed in before:
            if (placed.address, placed.direction) not in kept:
                self._claim(_in_map(placed), uid, None)
            self._count(_own(placed.address), -1)
            self._release_chain(family_of(placed.address), placed.direction, placed.chain)

    # -- chains and the sets that they use

    def _acquire_chain(self, family: Family, direction: Direction, policies: list[Policy]) -> str:
        """The name of the chain for `policies`, with one more user."""
        salt = 0
        while True:
            name, chain, sources = render(family, direction, policies, salt)
            number = Item("element", family, f"{direction}-chains", number_of(name))
            if self.content.get(number, name) == name:
                break
            salt += 1  # another chain has the number
        kept = self._chains.get((family, name))
        if kept is None:
            kept = self._chains[family, name] = _Kept(sources)
            for set_name, source in sources.items():
                self._acquire_set(family, set_name, source)
            self._set(Item("chain", family, name), chain)
            self._set(number, name)
        kept.users += 1
        return name

    def _release_chain(self, family: Family, direction: Direction, name: str) -> None:
        kept = self._chains[family, name]
        kept.users -= 1
        if kept.users:
            return
        del self._chains[family, name]
        self._unset(Item("element", family, f"{direction}-chains", number_of(name)))
        self._unset(Item("chain", family, name))
        for set_name in kept.sources:
            self._release_set(family, set_name)

    def _acquire_set(self, family: Family, name: str, source: Source) -> None:
        kept = self._sets.get((family, name))
        if kept is None:
            kept = self._sets[family, name] = _Kept({name: source})
            self._set(Item("set", family, name), words(source))
            for key in fixed_elements(family, source):
                self._set(Item("element", family, name, key), None)
            if isinstance(source, PodSelection):
                self._peers[source] = name
                for uid in self._selections.add(source):
                    for address in self._pods[uid].addresses:
                        if family_of(address) is family:
                            self._count(Item("element", family, name, packed(address)), +1)
            elif isinstance(source, NamedPort):
                self._named[source] = name
                for uid in self._having.get(source, ()):
                    for key in _port_keys(self._pods[uid], source, family):
                        self._count(Item("element", family, name, key), +1)
        kept.users += 1

    def _release_set(self, family: Family, name: str) -> None:
        kept = self._sets[family, name]
        kept.users -= 1
        if kept.users:
            return
        del self._sets[family, name]
        source = kept.sources[name]
        keys: list[bytes] = fixed_elements(family, source)
        elsewhere = any((other, name) in self._sets for other in Family)
        if isinstance(source, PodSelection):
            members = self._selections.members(source)
            keys = [packed(a) for u in members for a in self._pods[u].addresses if family_of(a) is family]
            self._selections.remove(source)
            if not elsewhere:
                del self._peers[source]
        elif isinstance(source, NamedPort):
            having = self._having.get(source, ())
            keys = [key for u in having for key in _port_keys(self._pods[u], source, family)]
            if not elsewhere:
                del self._named[source]
        for key in keys:
            item = Item("element", family, name, key)
            self._counts.pop(item, None)
            self._unset(item)
        self._unset(Item("set", family, name))

    # -- elements of sets that pods fill

    def _move(self, name: str, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        for addresses, by in ((after, +1), (before, -1)):
            for address in addresses:
                family = family_of(address)
                if (family, name) in self._sets:
                    self._count(Item("element", family, name, packed(address)), by)

    def _move_ports(self, uid: str, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and (old.ports, old.addresses) == (new.ports, new.addresses):
            return
        for pod, by in ((new, +1), (old, -1)):
            for port in {NamedPort(protocol, name) for protocol, name, _ in (pod.ports if pod else ())}:
                if by > 0:
                    self._having.setdefault(port, set()).add(uid)
                elif new is None or all((port.protocol, port.name) != p[:2] for p in new.ports):
                    self._having[port].discard(uid)
                    if not self._having[port]:
                        del self._having[port]
                name = self._named.get(port)
                for family in Family if name is not None else ():
                    if (family, name) in self._sets:
                        for key in _port_keys(pod, port, family):
                            self._count(Item("element", family, name or "", key), by)

    def _count(self, item: Item, by: int) -> None:
        left = self._counts.get(item, 0) + by
        if left:
            self._counts[item] = left
            self._set(item, None)
        else:
            self._counts.pop(item, None)
            self._unset(item)

    def _claim(self, item: Item, uid: str, number: bytes | None) -> None:
        claims = self._claims.setdefault(item, {})
        if number is None:
            claims.pop(uid, None)
        else:
            claims[uid] = number
        if claims:
            self._set(item, next(reversed(claims.values())))
        else:
            del self._claims[item]
            self._unset(item)

    def _set(self, item: Item, value: Value) -> None:
        if item not in self.content:
            if item not in self._touched:
                self._came.add(item)
                self._touched[item] = None
        elif self.content[item] != value:
            self._touched.setdefault(item, self.content[item])
        self.content[item] = value

    def _unset(self, item: Item) -> None:
        if item in self.content:
            self._touched.setdefault(item, self.content[item])
            del self.content[item]


def _in_map(placed: _Placed) -> Item:
    return Item("element", family_of(placed.address), placed.direction, packed(placed.address))


def _own(address: str) -> Item:
    return Item("element", family_of(address), SELF, packed(address) * 2)


def _port_keys(pod: Pod | None, port: NamedPort, family: Family) -> list[bytes]:
    """The elements of a set of named ports that a pod has. Two of its containers may have the same."""
    if pod is None:
        return []
    numbers = sorted(
        {number for protocol, name, number in pod.ports if (protocol, name) == (port.protocol, port.name)}
    )
    return [
        packed(address) + service_key(port.protocol, number)
        for address in pod.addresses
        if family_of(address) is family
        for number in numbers
    ]  # fmt: skip
