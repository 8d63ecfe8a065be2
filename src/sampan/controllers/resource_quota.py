"""ResourceQuota controller: fills a quota's status with what is used, and takes off it what no longer is.

Admission adds to the status what writes will use; this controller counts what there is: when a quota is made or changed,
when something that it counts is gone or uses less, and some seconds after a charge, for a server may have died between
the charge and the write that it was for. It counts by lists, which show all that is stored, and stores what it found only
if the quota is still the one it began with. Upstream: `pkg/controller/resourcequota`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable

from sampan.api import quantity, quota
from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.pod_resources import Amounts
from sampan.api.quota import scopes
from sampan.api.quota.evaluator import Evaluator
from sampan.api.quota.pods import expected_end
from sampan.api.resources import PODS, RESOURCEQUOTAS
from sampan.client.informer import Handler, key_of
from sampan.controllers.controller import Context, Controller, deleting, split_key

_PAGE = 300
"""Objects that are measured at one go."""
_SETTLING = 5.0
"""Seconds after a charge until it is checked."""


class ResourceQuotaController(Controller):
    name = "resourcequota"
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._quotas = context.informers.of(RESOURCEQUOTAS)
        self._of_namespace: dict[str, set[str]] = {}
        """The keys of each namespace's quotas."""
        self._written: dict[str, str] = {}
        """The resourceVersion of our own last write of each quota."""
        self._quotas.add_handler(self._quota_changed)
        for evaluator in quota.EVALUATORS.values():
            context.informers.of(evaluator.resource).add_handler(self._handler(evaluator))

    def _quota_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        key, namespace = key_of(obj), obj["metadata"]["namespace"]
        if new is None:
            self._written.pop(key, None)
            there = self._of_namespace.get(namespace, set())
            there.discard(key)
            if not there:
                self._of_namespace.pop(namespace, None)
            return
        self._of_namespace.setdefault(namespace, set()).add(key)
        if _hard(new) != (new.get("status") or {}).get("hard"):
            self.queue.add(key)
        elif old is None or new["metadata"]["resourceVersion"] != self._written.get(key):
            # At the start: what happened while nobody counted?
            self.queue.add_after(key, 0.0 if old is None else _SETTLING)

    def _handler(self, evaluator: Evaluator) -> Handler:
        pods = evaluator.resource is PODS

        def changed(old: Object | None, new: Object | None) -> None:
            if old is None or not self._of_namespace:
                return
            keys = self._of_namespace.get(old["metadata"]["namespace"])
            if not keys:
                return
            if pods and new is not None and deleting(new) and not deleting(old):
                for key in keys:
                    self._look_again(key, new)
            if new is None or evaluator.released(old, new):
                for key in keys:
                    self.queue.add(key)

        return changed

    def _look_again(self, key: str, pod: Object) -> None:
        """Count anew when a pod should be gone: its node may never say that it is."""
        end = expected_end(pod)
        left = end - time.time() if end is not None else -1.0
        if left > 0:
            self.queue.add_after(key, left + 0.1)

    async def sync(self, key: str) -> None:
        namespace, name = split_key(key)
        if key not in self._of_namespace.get(namespace, ()):
            return
        try:
            present = await self._client.get(RESOURCEQUOTAS, namespace, name)
        except StatusError as e:
            if e.code == 404:
                return
            raise
        hard = _hard(present)
        status = present.get("status") or {}
        measured = await self._measure(key, present, hard)
        used = {**(status.get("used") or {}), **measured}
        used = {n: amount for n, amount in used.items() if n in hard}
        if status.get("hard") == hard and _same(status.get("used") or {}, used):
            return
        changed = deep_copy(present)
        changed["status"] = {"hard": hard, "used": used}
        try:
            written = await self._client.update(RESOURCEQUOTAS, changed, subresource="status")
        except StatusError as e:
            if e.code == 404:
                return
            raise  # 409: somebody was charged meanwhile, it is counted again
        self._written[key] = written["metadata"]["resourceVersion"]
        if status.get("hard") != hard:
            # What was admitted before these limits were there may be stored only now.
            self.queue.add_after(key, _SETTLING)

    async def _measure(self, key: str, present: Object, hard: Amounts) -> Amounts:
        """What is used of all that the quota limits."""
        used: Amounts = {}
        for evaluator in quota.EVALUATORS.values():
            names = evaluator.named(hard)
            if names:
                used |= await self._used(key, present, evaluator, names)
        return used

    async def _used(self, key: str, present: Object, evaluator: Evaluator, names: Iterable[str]) -> Amounts:
        namespace, _ = split_key(key)
        total = dict.fromkeys(names, "0")
        if evaluator.counts_only:
            if not scopes.of(present):
                page = await self._client.list(evaluator.resource, namespace, limit=1)
                total = dict.fromkeys(names, str(len(page.items) + page.remaining))
            return total
        # Most objects use the same as others: each share is added once, as often as it was met.
        shares: Counter[frozenset[tuple[str, str]]] = Counter()
        continue_ = ""
        while True:
            page = await self._client.list(evaluator.resource, namespace, limit=_PAGE, continue_=continue_)
            for obj in page.items:
                if evaluator.matches(present, total, obj):
                    shares[frozenset(evaluator.usage(obj).items())] += 1
                if evaluator.resource is PODS and deleting(obj):
                    self._look_again(key, obj)
            continue_ = page.continue_
            if not continue_:
                break
            await asyncio.sleep(0)
        for share, count in shares.items():
            for name, amount in share:
                if name in total:
                    total[name] = quantity.add(total[name], quantity.times(amount, count))
        return total


def _hard(obj: Object) -> Amounts:
    return {n: quantity.format(a) for n, a in ((obj.get("spec") or {}).get("hard") or {}).items()}


def _same(a: Amounts, b: Amounts) -> bool:
    return a.keys() == b.keys() and all(quantity.compare(a[n], b[n]) == 0 for n in a)
