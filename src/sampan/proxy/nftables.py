"""The kernel's nf_tables: what all Services share by `nft -f` once, the rest by netlink from then on.

libnftables reads the whole rule set before each transaction (60 ms at 10,000 Services); an element by netlink costs
what the element costs.
"""

from __future__ import annotations

import dataclasses
import logging
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby

from sampan.network import nftables
from sampan.network.netlink import NETLINK_NETFILTER, Message, Netlink
from sampan.network.nftables import Element, Family
from sampan.network.nftables_monitor import NftablesMonitor
from sampan.proxy import classes, requirements, skeleton
from sampan.proxy.types import Elements, Layout, Operation

log = logging.getLogger(__name__)
_OWN_CLASSES = ("affinity-", "remember-")


class NfTables:
    """Our tables in the network namespace that the process is in. `monitor` is told which changes are ours."""

    def __init__(self, monitor: NftablesMonitor | None = None) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)
        self._layout: Layout | None = None
        self._monitor = monitor
        if monitor is not None:
            monitor.own(self._netlink.port)

    def close(self) -> None:
        self._netlink.close()

    def prepare(self, layout: Layout) -> None:
        """Make sets and maps that are missing and all chains anew, in one transaction: connections that are open live
        on, and at no moment is a rule missing. Tables that cannot be brought to that are replaced whole."""
        before = self._layout
        if before is not None and before == dataclasses.replace(
            layout, affinities=before.affinities, source_lengths=before.source_lengths
        ):
            if before != layout:
                self._netlink.transaction(nftables.SUBSYSTEM, list(self._classes(layout, before)))
                self._layout = layout
            return
        try:
            self._make(layout)
        except OSError as e:
            requirements.explain(e)
            if not self._delete():
                raise
            log.warning("the tables of the proxy cannot be brought in line (%s): they are made anew", e)
            self._make(layout)
        self._layout = layout

    def distrust(self) -> None:
        self._layout = None

    def read(self) -> Elements:
        assert self._layout is not None, "prepare comes first"
        return {
            (family, name): nftables.read_content(self._netlink, family, skeleton.TABLE, name)
            for family, name in skeleton.fixed_sets(self._layout)
        }

    def apply(self, operations: Sequence[Operation]) -> None:
        messages: list[Message] = []
        for (verb, family, name), group in groupby(operations, key=lambda o: (o.verb, o.family, o.set)):
            several = [Element(o.key, o.data, o.comment) for o in group]
            change = nftables.add_elements if verb == "add" else nftables.delete_elements
            messages += change(family, skeleton.TABLE, name, several)
        if messages:
            self._netlink.transaction(nftables.SUBSYSTEM, messages)

    def _make(self, layout: Layout) -> None:
        script = []
        for family in layout.families:
            ip = family.name.lower()
            present = set(nftables.chain_names(self._netlink, family, skeleton.TABLE))
            wanted = {*skeleton.chains(), *(c for c in present if c.startswith(_OWN_CLASSES))}
            flushed = sorted(present - {c for c in wanted if _is_class(c)})
            script += [f"flush chain {ip} {skeleton.TABLE} {name}" for name in flushed]
            script += [skeleton.render(layout, family)]
            script += [f"delete chain {ip} {skeleton.TABLE} {name}" for name in sorted(present - wanted)]
        self._nft("\n".join(script))
        self._netlink.transaction(nftables.SUBSYSTEM, list(self._classes(layout, None)))

    def _classes(self, layout: Layout, before: Layout | None) -> Iterator[Message]:
        """What some Services need of the chains, as far as it is not as it was `before` (None: all of it)."""
        for family in layout.families:
            if before is None:
                names = nftables.chain_names(self._netlink, family, skeleton.TABLE)
                there = {int(n.removeprefix("affinity-")) for n in names if n.startswith("affinity-")}
                new = list(layout.affinities)
            else:
                there = set(before.affinities)
                new = [s for s in layout.affinities if s not in there]
            for seconds in sorted(there - set(layout.affinities)):
                yield from classes.without_affinity(family, seconds)
            for seconds in new:
                yield from classes.of_affinity(family, seconds)
            if before is None or before.source_lengths != layout.source_lengths:
                lengths = [length for f, length in layout.source_lengths if f == family]
                yield from classes.of_sources(family, lengths)

    def _delete(self) -> bool:
        """Take our tables away; False where there are none."""
        there = [f for f in (Family.IP, Family.IP6) if nftables.has_table(self._netlink, f, skeleton.TABLE)]
        messages = [nftables.delete_table(f, skeleton.TABLE) for f in there]
        if messages:
            self._netlink.transaction(nftables.SUBSYSTEM, messages)
        return bool(messages)

    def _nft(self, script: str) -> None:
        try:
            process = subprocess.Popen(
                ["nft", "-f", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )  # fmt: skip
        except FileNotFoundError as e:
            raise OSError(e.errno, "the program nft is missing: apt-get install nftables") from None
        expected = self._monitor.expecting(process.pid) if self._monitor is not None else nullcontext()
        with expected, process:
            _, said = process.communicate(script)
        if process.returncode:
            raise OSError(0, f"nft -f - failed: {said.strip()}")


def _is_class(chain: str) -> bool:
    """Whether a chain is filled by `classes`."""
    return chain == skeleton.RESTRICTED_CHAIN or chain.startswith(_OWN_CLASSES)
