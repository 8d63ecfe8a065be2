"""Leader election: of several that could do a work, the holder of a Lease does it.

The holder renews the Lease; the others follow it, and one of them takes it over when it was not renewed for its time, or
at once when it was given up. Clocks need not agree: what counts is when a candidate last saw the Lease change.

Upstream: `k8s.io/client-go/tools/leaderelection`, whose times and fields these are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy, now_micro
from sampan.api.resources import LEASES
from sampan.client.informer import Informer
from sampan.client.types import Client, ConnectionLost

log = logging.getLogger(__name__)
NAMESPACE = "kube-system"
LEASE_SECONDS = 15
RENEW_SECONDS = 10.0
RETRY_SECONDS = 2.0
_JITTER = 1.2


def new_identity() -> str:
    """A name that no other candidate has."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"


class LeaderElector:
    """One candidate for the Lease `name`. `lease` seconds after its last renewal it is anybody's; its holder stops when
    it could not renew it for `renew` seconds; `retry` seconds lie between two attempts."""

    def __init__(
        self,
        client: Client,
        name: str,
        identity: str,
        *,
        lease: int = LEASE_SECONDS,
        renew: float = RENEW_SECONDS,
        retry: float = RETRY_SECONDS,
    ) -> None:
        self._client = client
        self._name = name
        self.identity = identity
        self._lease_seconds = lease
        self._renew_seconds = renew
        self._retry_seconds = retry
        self._leases = Informer(client, LEASES, NAMESPACE, field_selector=f"metadata.name={name}")
        self._changed = asyncio.Event()
        self._seen: Object = {}
        """The Lease's spec as last seen."""
        self._seen_at = 0.0
        self.leading = False

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do the work whenever this is the leader, until cancelled; it is cancelled when the Lease is lost and begun anew
        when it is won again. Raises what the work raises. On the way out the Lease is given up."""
        self._leases.add_handler(self._observe)
        following = asyncio.create_task(self._leases.run(), name=f"lease {self._name}")
        standing = asyncio.create_task(self._stand(work), name=f"candidate for {self._name}")
        try:
            done, _ = await asyncio.wait((following, standing), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            following.cancel()
            standing.cancel()
            await asyncio.gather(following, standing, return_exceptions=True)

    async def _stand(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Lead whenever the Lease can be won."""
        while True:
            await self._win()
            await self._lead(work)

    async def _win(self) -> None:
        """Return once the Lease is ours."""
        await self._leases.synced.wait()
        while not await self._try():
            free_in = self._free_at() - self._time()
            self._changed.clear()
            # Woken by a Lease that was given up; else nothing changes before its time is over.
            pause = max(free_in, self._retry_seconds * random.uniform(1, _JITTER))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
        log.info("%s leads as %s", self.identity, self._name)

    async def _lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Work, and renew the Lease, until that fails. Raises what the work raises."""
        self.leading = True
        working = asyncio.create_task(work(), name=f"work of {self._name}")
        renewed = self._time()
        try:
            while True:
                done, _ = await asyncio.wait((working,), timeout=self._retry_seconds)
                if done:
                    await working
                    return
                left = renewed + self._renew_seconds - self._time()
                try:
                    async with asyncio.timeout(max(left, 0.0)):
                        renews = left > 0 and await self._try()
                    if renews:
                        renewed = self._time()
                        continue
                    holder = self._seen.get("holderIdentity")
                    if left > 0 and holder == self.identity:
                        continue  # it could not be written; there is time to try again
                except TimeoutError:
                    pass
                log.warning("%s no longer leads as %s", self.identity, self._name)
                return
        finally:
            self.leading = False
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_seconds):
                    await self._give_up()

    async def _try(self) -> bool:
        """Take or renew the Lease; whether it is ours now."""
        try:
            return await self._take()
        except (StatusError, ConnectionLost) as e:
            conflict = isinstance(e, StatusError) and e.reason in ("Conflict", "AlreadyExists")
            log.log(logging.DEBUG if conflict else logging.WARNING, "lease %s: %s", self._name, e)
            return False

    async def _take(self) -> bool:
        moment = now_micro()
        wanted = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._lease_seconds,
            "acquireTime": moment,
            "renewTime": moment,
            "leaseTransitions": 0,
        }
        present = await self._get()
        if present is None:
            made = await self._client.create(
                LEASES,
                {
                    "apiVersion": LEASES.api_version,
                    "kind": LEASES.kind,
                    "metadata": {"name": self._name, "namespace": NAMESPACE},
                    "spec": wanted,
                },
            )
            self._see(made)
            return True
        self._see(present)
        spec = present.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder == self.identity:
            wanted["acquireTime"] = spec.get("acquireTime") or moment
            wanted["leaseTransitions"] = spec.get("leaseTransitions") or 0
        elif holder and self._free_at() > self._time():
            return False
        else:
            wanted["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + 1
        self._see(await self._client.update(LEASES, {**deep_copy(present), "spec": {**spec, **wanted}}))
        return True

    async def _give_up(self) -> None:
        """Leave the Lease to whoever wants it, if it is ours."""
        try:
            present = await self._get()
            spec = (present or {}).get("spec") or {}
            if present is not None and spec.get("holderIdentity") == self.identity:
                moment = now_micro()
                free = {
                    "holderIdentity": "",
                    "leaseDurationSeconds": 1,
                    "acquireTime": moment,
                    "renewTime": moment,
                }
                await self._client.update(LEASES, {**deep_copy(present), "spec": {**spec, **free}})
        except (StatusError, ConnectionLost) as e:
            log.debug("lease %s was not given up: %s", self._name, e)

    async def _get(self) -> Object | None:
        try:
            return await self._client.get(LEASES, NAMESPACE, self._name)
        except StatusError as e:
            if e.code == 404:
                return None
            raise

    # ---- what is known of the Lease

    def _observe(self, old: Object | None, new: Object | None) -> None:
        self._see(new or {})

    def _see(self, lease: Object) -> None:
        spec = lease.get("spec") or {}
        if spec != self._seen:
            self._seen, self._seen_at = spec, self._time()
            if not spec.get("holderIdentity"):
                self._changed.set()

    def _free_at(self) -> float:
        """When the Lease is anybody's, if nothing is heard of it until then."""
        if not self._seen.get("holderIdentity"):
            return 0.0
        return self._seen_at + float(self._seen.get("leaseDurationSeconds") or self._lease_seconds)

    def _time(self) -> float:
        return asyncio.get_running_loop().time()
