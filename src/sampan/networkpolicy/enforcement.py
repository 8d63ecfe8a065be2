"""A node's part in NetworkPolicy: follows policies, namespaces and pods, and has the kernel follow.

While there are no policies nothing else is followed and no table is made. Changes that arrive together are one transaction. A pod
of this node starts only when its addresses are kept as the policies that are known want it (`admit`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from sampan.api.errors import Object
from sampan.api.resources import NAMESPACES, NETWORKPOLICIES, PODS
from sampan.client.informer import Informer, key_of
from sampan.client.types import Client
from sampan.network.nftables_monitor import NftablesMonitor
from sampan.networkpolicy.content import difference
from sampan.networkpolicy.desired import Desired
from sampan.networkpolicy.nftables import FAMILIES, TABLE, NfTables
from sampan.networkpolicy.reading import pod_of, policy_of, trimmed
from sampan.networkpolicy.table import Table

log = logging.getLogger(__name__)
_FIRST_PAUSE, _MOST_PAUSE = 0.1, 30.0


class NetworkPolicies:
    """`table` is the kernel's, in the network namespace of the process, unless another is given; `monitor` tells of changes to
    it that are somebody else's: they are undone."""

    def __init__(
        self,
        client: Client,
        *,
        node_name: str,
        table: Table | None = None,
        monitor: NftablesMonitor | None = None,
    ) -> None:
        self._node_name = node_name
        self._table = table or (NfTables() if monitor is None else NfTables(monitor.own))
        if monitor is not None:
            for family in FAMILIES:
                monitor.watch(family, TABLE, self._meddled)
        self._policies = Informer(client, NETWORKPOLICIES)
        self._namespaces = Informer(client, NAMESPACES)
        self._pods = Informer(client, PODS, field_selector="spec.hostNetwork=false", transform=trimmed)
        self._desired = Desired()
        self._addresses: dict[str, tuple[str, ...]] = {}
        """What the pods of this node have for certain, by uid: their status may be late, or of an earlier sandbox."""
        self._taken_up = asyncio.Event()
        self._wanted = asyncio.Event()
        """There is a policy, or there was."""
        self._ready = asyncio.Event()
        """The tables follow."""
        self._wake = asyncio.Event()
        self._in_doubt = False
        """Whether the tables may hold something else than they were told."""

    # -- told by the node agent

    def taken_up(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        """The pods that run here already, by uid."""
        self._addresses.update(addresses)
        self._taken_up.set()

    async def admit(self, pod: Object, addresses: tuple[str, ...]) -> None:
        """Returns when what is known of policies holds for a pod that is about to start; raises OSError if the kernel
        refuses it."""
        uid = pod["metadata"]["uid"]
        for other, had in list(self._addresses.items()):
            if other != uid and not set(had).isdisjoint(addresses):
                self.released(other)
        self._addresses[uid] = addresses
        await self._policies.synced.wait()
        if not self._wanted.is_set() and not self._policies.list():
            return
        await self._ready.wait()
        known = self._pods.get_by_key(key_of(pod))
        if known is None or known["metadata"]["uid"] != uid:
            known = trimmed(pod)
        self._desired.set_pod(uid, pod_of(known, self._node_name, addresses))
        try:
            self._flush()
        except OSError:
            self._wake.set()  # `run` goes on trying
            raise

    def released(self, uid: str) -> None:
        """A pod of this node has no addresses any more."""
        if self._addresses.pop(uid, None) is not None:
            self._desired.set_pod(uid, None)
            self._wake.set()

    # -- life

    async def run(self) -> None:
        """Until cancelled; the tables stay."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._policies.run(), name="networkpolicies")
            await self._policies.synced.wait()
            if not self._policies.list():
                # What an earlier life may have left holds until now.
                self._in_doubt = True
                await self._repair()
            self._policies.add_handler(self._policy_changed)
            await self._wanted.wait()
            group.create_task(self._namespaces.run(), name="namespaces")
            group.create_task(self._pods.run(), name="pods")
            for synced in (self._namespaces.synced, self._pods.synced, self._taken_up):
                await synced.wait()
            self._namespaces.add_handler(self._namespace_changed)
            self._pods.add_handler(self._pod_changed)
            self._in_doubt = True
            await self._repair()
            log.info(
                "%d NetworkPolicies: %d elements", len(self._policies.list()), len(self._desired.content)
            )
            self._ready.set()
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    self._flush()
                except OSError as e:
                    log.warning("the kernel refuses network policies: %s", e)
                    await self._repair()

    def _flush(self) -> None:
        """Have the tables follow what changed. Raises OSError."""
        before, after = self._desired.take()
        if not self._in_doubt:
            try:
                self._table.apply(before, after)
                return
            except OSError as e:
                log.warning("the kernel refused a change (%s): the whole tables are compared", e)
                self._in_doubt = True
        self._compare()

    def _compare(self) -> None:
        """Bring the tables from whatever they hold to what they should; only what differs is touched. Raises OSError."""
        self._desired.take()
        try:
            gone, come = difference(self._table.read(), self._desired.content)
            self._table.apply(gone, come)
        except OSError as e:
            log.warning("the tables cannot be brought in line (%s): they are made anew", e)
            self._table.rebuild(self._desired.content)
        self._in_doubt = False

    async def _repair(self) -> None:
        """`_compare` until it succeeds."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._compare()
            except OSError as e:
                log.error("network policies are not enforced as they should be: %s", e)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE)

    def _meddled(self, who: str) -> None:
        log.warning("%s changed the tables of network policies: they are brought in line", who)
        self._in_doubt = True
        self._wake.set()

    # -- told by the API

    def _policy_changed(self, old: Object | None, new: Object | None) -> None:
        self._desired.set_policy(key_of(new or old or {}), None if new is None else policy_of(new))
        self._wanted.set()
        self._wake.set()

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        self._desired.set_namespace(meta["name"], None if new is None else meta.get("labels") or {})
        self._wake.set()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        uid = new["metadata"]["uid"] if new is not None else ""
        if old is not None and (gone := old["metadata"]["uid"]) != uid and gone not in self._addresses:
            # What runs here without the API's knowledge (a pod deleted by force) is kept as long as it runs.
            self._desired.set_pod(gone, None)
        if new is not None:
            addresses = self._addresses.get(uid)
            if addresses is None and new["node"] == self._node_name:
                addresses = ()  # Those of its status are free, or another's.
            self._desired.set_pod(uid, pod_of(new, self._node_name, addresses))
        self._wake.set()
