"""Node IPAM: a Node without a range for its pods gets one, of each family the cluster has; one in use is never given again.

Nodes that say theirs themselves keep it, and it counts as in use. A range is free again when its Node is gone.
Upstream: `pkg/controller/nodeipam/ipam/range_allocator.go`.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sampan.api.errors import Object, StatusError
from sampan.api.resources import NODES
from sampan.client.types import STRATEGIC_MERGE_PATCH
from sampan.controllers.controller import Context, Controller, deleting

log = logging.getLogger(__name__)
NODE_BITS = {4: 24, 6: 64}
"""How long the prefix of one node's range is; where the cluster's is longer, that."""


@dataclass(frozen=True, slots=True)
class NodeRanges:
    """The ranges of the cluster's pods, one a family, that Nodes get theirs from. Those before the place `first` are given
    only when no other is left: whoever starts nodes with ranges of his own takes these."""

    cluster: tuple[str, ...]
    first: int = 0


class RangeExhausted(Exception):
    """Every range is in use."""


class RangeSet:
    """The equal parts of one network and which are in use; one that is given goes round, so that a freed one rests."""

    def __init__(self, cluster: str, first: int = 0) -> None:
        self.network = ipaddress.ip_network(cluster)
        self._bits = max(NODE_BITS[self.network.version], self.network.prefixlen)
        self._size: int = 1 << (self._bits - self.network.prefixlen)
        self._span: int = 1 << (self.network.max_prefixlen - self._bits)
        self._used: Counter[int] = Counter()
        self._first = first if first < self._size else 0
        self._next = self._first

    def take(self) -> str:
        """The next free part, in use from now on. Raises RangeExhausted."""
        if len(self._used) >= self._size:
            raise RangeExhausted(str(self.network))
        free = self._free(self._first, self._size, self._next)
        if free is None:
            free = self._free(0, self._first, 0)
        if free is None:
            raise RangeExhausted(str(self.network))
        self._used[free] += 1
        self._next = free + 1
        start = int(self.network.network_address) + free * self._span
        return f"{ipaddress.ip_network((start, self._bits))}"

    def _free(self, low: int, high: int, begin: int) -> int | None:
        for step in range(high - low):
            place = low + (begin - low + step) % (high - low)
            if place not in self._used:
                return place
        return None

    def occupy(self, cidr: str) -> None:
        """Count a range as in use once more, whatever its size."""
        for place in self._places(cidr):
            self._used[place] += 1

    def release(self, cidr: str) -> None:
        for place in self._places(cidr):
            self._used[place] -= 1
            if self._used[place] <= 0:
                del self._used[place]

    def _places(self, cidr: str) -> range:
        try:
            wanted = ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            return range(0)
        if wanted.version != self.network.version or not wanted.overlaps(self.network):
            return range(0)
        begin = max(0, int(wanted.network_address) - int(self.network.network_address))
        end = min(
            int(wanted.broadcast_address) - int(self.network.network_address), self._size * self._span - 1
        )
        return range(begin // self._span, end // self._span + 1)


class NodeIpamController(Controller):
    name = "nodeipam"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._events = context.recorder("cidrAllocator")
        ranges = context.node_ranges
        self._sets = [RangeSet(r, ranges.first) for r in ranges.cluster] if ranges else []
        self._waiting: set[str] = set()
        self._promised: dict[str, tuple[str, ...]] = {}
        """What was given and is not yet seen in the Node."""
        self._nodes = context.informers.of(NODES)
        if self._sets:
            self._nodes.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        gone, come = _ranges(old), _ranges(new)
        name = (new or old or {})["metadata"]["name"]
        if gone != come:
            self._occupy(come)
            self._release(gone)
        if come or new is None:
            self._release(self._promised.pop(name, ()))
            self._waiting.discard(name)
        elif new is not None and not deleting(new):
            self.enqueue(new)
        if gone and gone != come:
            for waiting in self._waiting:
                self.queue.add(waiting)

    async def sync(self, key: str) -> None:
        node = self._nodes.get("", key)
        if node is None or deleting(node) or _ranges(node) or key in self._promised:
            return
        taken: list[str] = []
        try:
            for part in self._sets:
                taken.append(part.take())
        except RangeExhausted as e:
            self._release(taken)
            self._waiting.add(key)
            log.warning("node %s gets no pod range: all of %s are in use", key, e)
            self._tell(key)
            return
        self._promised[key] = tuple(taken)
        # Only for this very Node, and only while it has none: what was there before stays.
        patch = {
            "metadata": {"uid": node["metadata"]["uid"], "resourceVersion": node["metadata"]["resourceVersion"]},
            "spec": {"podCIDR": taken[0], "podCIDRs": taken},
        }  # fmt: skip
        try:
            await self._client.patch(NODES, "", key, patch, content_type=STRATEGIC_MERGE_PATCH)
        except BaseException as e:
            self._release(self._promised.pop(key, ()))
            if not isinstance(e, StatusError) or e.code not in (404, 409):
                raise
            # It is gone, or has changed: that change has it looked at again.

    def _tell(self, name: str) -> None:
        # Upstream puts a node's name where the uid goes.
        about = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}}
        reason = "CIDRNotAvailable"
        self._events.event(about, "Normal", reason, f"Node {name} status is now: {reason}")

    def _occupy(self, ranges: Sequence[str]) -> None:
        for cidr in ranges:
            for part in self._sets:
                part.occupy(cidr)

    def _release(self, ranges: Sequence[str]) -> None:
        for cidr in ranges:
            for part in self._sets:
                part.release(cidr)


def _ranges(node: Object | None) -> tuple[str, ...]:
    spec = (node or {}).get("spec") or {}
    return tuple(spec.get("podCIDRs") or filter(None, (spec.get("podCIDR"),)))
