"""Connections of the past: UDP entries that would catch a client's packets for ever.

An entry whose destination is a frontend and whose answers come from somebody who is none of its backends is deleted: a
backend that is gone, or the node itself, from before there was anybody (upstream: `pkg/proxy/conntrack/cleanup.go`). A
frontend without backends keeps its entries, as upstream has it: there is nobody else to send the client to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sampan.network.conntrack import Entry, UdpEntries
from sampan.network.nftables import Family
from sampan.proxy.types import Backend, Frontend

log = logging.getLogger(__name__)
_FEW = 4
"""Frontends that are asked for one by one: the kernel goes through all entries each time, but tells only what was asked for."""


class Conntrack:
    """The connection tracking of the network namespace that the process is in."""

    def __init__(self) -> None:
        self._entries = UdpEntries()

    def close(self) -> None:
        self._entries.close()

    def clean(self, talking: Mapping[Frontend, frozenset[Backend]]) -> int:
        """Delete the entries of UDP frontends that lead to nobody of `talking`; how many it was. The kernel is asked for
        those of each frontend where these are few, for all of UDP otherwise. A failure is logged only."""
        deleted = 0
        for family in Family.IP, Family.IP6:
            wanted = {f: b for f, b in talking.items() if f.family == family and f.protocol == "UDP" and b}
            if not wanted:
                continue
            asked = [(f.address, f.port) for f in wanted] if len(wanted) <= _FEW else [("", 0)]
            try:
                stale = [e for at in asked for e in self._entries.find(family, *at) if _is_stale(e, wanted)]
                deleted += sum(map(self._entries.delete, stale))
            except OSError as e:
                log.warning("UDP clients may keep a backend that is gone: connection tracking: %s", e)
        return deleted


def _is_stale(entry: Entry, wanted: Mapping[Frontend, frozenset[Backend]]) -> bool:
    backends = wanted.get(Frontend(entry.to[0], "UDP", entry.to[1]))
    return backends is not None and Backend(*entry.answers) not in backends
