"""The table of host ports: nf_tables' own in the network namespace that the process is in, and one in memory for tests.

There is no table before the first mapping: most nodes have none.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import subprocess
from collections.abc import Callable, Sequence

from sampan.network import nftables as nft
from sampan.network.conntrack import UdpEntries
from sampan.network.host_ports import Forward
from sampan.network.netlink import NETLINK_NETFILTER, Netlink
from sampan.network.nftables import Element, Family

TABLE = "sampan-hostports"
_AT_ADDRESS, _ANYWHERE, _HAIRPIN = "at-address", "anywhere", "hairpin"
_FAMILIES = {4: Family.IP, 6: Family.IP6}
_WORDS = {4: ("ip", "ipv4_addr", "127.0.0.0/8"), 6: ("ip6", "ipv6_addr", "::1")}


class KernelTable:
    """A `Table` for the network namespace that the process is in when it is made. `own` is told who makes our transactions, by
    netlink port, for whoever watches for foreign ones."""

    def __init__(self, own: Callable[[int], None] = lambda port: None) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)
        own(self._netlink.port)
        self._entries = UdpEntries()
        self._prepared: set[int] = set()

    def close(self) -> None:
        self._netlink.close()
        self._entries.close()

    def read(self) -> set[Forward]:
        found = set()
        for version, family in _FAMILIES.items():
            if nft.has_table(self._netlink, family, TABLE):
                for name in (_AT_ADDRESS, _ANYWHERE):
                    for element in nft.read_elements(self._netlink, family, TABLE, name):
                        if element.data is not None:
                            found.add(Forward.of(element.key, element.data))
            else:
                self._prepared.discard(version)
        return found

    def apply(self, gone: Sequence[Forward], come: Sequence[Forward]) -> None:
        for version, family in _FAMILIES.items():
            ours_gone = [f for f in gone if f.family == version]
            ours_come = [f for f in come if f.family == version]
            if ours_come and version not in self._prepared:
                _prepare(version)
                self._prepared.add(version)
            messages = []
            for name, elements in _elements(ours_gone).items():
                messages += nft.delete_elements(family, TABLE, name, elements)
            for pod in {f.pod for f in ours_gone}:
                messages += nft.delete_elements(family, TABLE, _HAIRPIN, [_hairpin(pod)])
            for name, elements in _elements(ours_come).items():
                messages += nft.add_elements(family, TABLE, name, elements)
            for pod in {f.pod for f in ours_come}:
                messages += nft.add_elements(family, TABLE, _HAIRPIN, [_hairpin(pod)])
            if messages:
                self._netlink.transaction(nft.SUBSYSTEM, messages)
            self._forget(family, ours_come)

    def _forget(self, family: Family, come: Sequence[Forward]) -> None:
        """Let UDP clients go that were led elsewhere until now: to a pod before this one, or to nobody."""
        for one in come:
            if one.protocol == "UDP":
                for entry in list(self._entries.find(family, one.address, one.port)):
                    if entry.answers != (one.pod, one.pod_port):
                        self._entries.delete(entry)


def _prepare(version: int) -> None:
    """Make the fixed part anew; elements that are there stay. Raises OSError."""
    done = subprocess.run(
        ["nft", "-f", "-"], input=render(version), text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise OSError(0, f"nft -f - failed: {done.stderr.strip()}")


def render(version: int) -> str:
    """The script for `nft -f`. Services come first where both want a packet: this is behind their chains."""
    ip, address, loopback = _WORDS[version]
    return f"""
table {ip} {TABLE} {{
  map {_AT_ADDRESS} {{ type {address} . inet_proto . inet_service : {address} . inet_service; }}
  map {_ANYWHERE} {{ type inet_proto . inet_service : {address} . inet_service; }}
  set {_HAIRPIN} {{ type {address} . {address}; }}
  chain ports {{ }}
  chain prerouting {{ type nat hook prerouting priority dstnat + 10; }}
  chain output {{ type nat hook output priority -90; }}
  chain postrouting {{ type nat hook postrouting priority srcnat + 10; }}
}}
flush chain {ip} {TABLE} ports
flush chain {ip} {TABLE} prerouting
flush chain {ip} {TABLE} output
flush chain {ip} {TABLE} postrouting
table {ip} {TABLE} {{
  chain ports {{
    meta l4proto != {{ tcp, udp, sctp }} return
    {ip} daddr {loopback} return
    dnat {ip} to {ip} daddr . meta l4proto . th dport map @{_AT_ADDRESS}
    fib daddr type local dnat {ip} to meta l4proto . th dport map @{_ANYWHERE}
  }}
  chain prerouting {{ goto ports; }}
  chain output {{ goto ports; }}
  chain postrouting {{ ct status dnat {ip} saddr . {ip} daddr @{_HAIRPIN} masquerade; }}
}}
"""


def _elements(forwards: Sequence[Forward]) -> dict[str, list[Element]]:
    found: dict[str, list[Element]] = {}
    for one in forwards:
        name = _AT_ADDRESS if one.address else _ANYWHERE
        found.setdefault(name, []).append(Element(one.key(), one.data()))
    return found


def _hairpin(pod: str) -> Element:
    packed = ipaddress.ip_address(pod).packed
    return Element(packed + packed)


class FakeTable:
    """Refuses what the kernel refuses; its dump is text to compare with."""

    def __init__(self) -> None:
        self.forwards: set[Forward] = set()
        self.transactions = 0

    def read(self) -> set[Forward]:
        return set(self.forwards)

    def apply(self, gone: Sequence[Forward], come: Sequence[Forward]) -> None:
        after = set(self.forwards)
        for one in gone:
            if one not in after:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            after.discard(one)
        for one in come:
            if any((f.key(), f.family) == (one.key(), one.family) for f in after):
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            after.add(one)
        self.forwards = after
        self.transactions += 1

    def dump(self) -> str:
        return "\n".join(map(str, sorted(self.forwards)))
