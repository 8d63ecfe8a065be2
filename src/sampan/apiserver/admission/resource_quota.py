"""ResourceQuota: a namespace uses no more than its quotas allow.

What a write will use is added to the quota's status before the object is stored, in a write that succeeds only if the
status is still the one that was looked at: however many servers admit at once, as much is given away as there is. The
quota controller takes back what is no longer used. Requests of a namespace that come at the same time are charged in one
write. Upstream: `k8s.io/apiserver/pkg/admission/plugin/resourcequota`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

from sampan.api import errors, quantity
from sampan.api import quota as counting
from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.pod_resources import Amounts
from sampan.api.quota.evaluator import Evaluator
from sampan.api.resources import PERSISTENTVOLUMECLAIMS, PODS, RESOURCEQUOTAS, SERVICES
from sampan.apiserver.admission.by_namespace import ByNamespace
from sampan.apiserver.admission.plugin import WRITES, Operation, Plugin, refuse
from sampan.apiserver.types import Attributes, ReadCache
from sampan.client.types import Client

_ATTEMPTS = 10
"""How often a charge is tried where others, mostly other servers, were quicker."""
_PATIENCE = 1.0
"""Seconds to wait for what another server has written."""
_CHANGING = frozenset(r.key_stem for r in (PODS, SERVICES, PERSISTENTVOLUMECLAIMS, RESOURCEQUOTAS))
"""Resources of which an update may use more (or is an update of what is used)."""
_charging: ContextVar[bool] = ContextVar("charging", default=False)
"""Whether the quota's status is being written by this plugin itself."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """One request until it has been decided."""

    attributes: Attributes
    evaluator: Evaluator
    decided: bool = False
    refusal: StatusError | None = None
    abandoned: bool = False
    """Whether nobody waits for the decision any more."""
    charged: dict[str, Amounts] = field(default_factory=dict)
    """What each quota was charged, by its name."""


class ResourceQuota(Plugin):
    resources = frozenset(counting.EVALUATORS)
    operations = WRITES

    @classmethod
    def cares(cls, operation: Operation, stem: str) -> bool:
        return super().cares(operation, stem) and (operation == "CREATE" or stem in _CHANGING)

    def __init__(self, cache: ReadCache, client: Client) -> None:
        self._client = client
        self._quotas = ByNamespace(cache, RESOURCEQUOTAS)
        self._waiting: dict[str, list[_Waiting]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._news: dict[str, asyncio.Event] = {}
        """Set when a quota of a namespace changes that a charge waits for."""
        self._under_way: Counter[tuple[str, str]] = Counter()
        """By namespace and name of a quota: charges whose objects are not stored yet."""
        cache.on_change(RESOURCEQUOTAS, self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        quota = new if new is not None else old
        assert quota is not None
        if (news := self._news.get(quota["metadata"]["namespace"])) is not None:
            news.set()

    async def validate(self, attributes: Attributes) -> None:
        namespace = attributes.namespace
        if namespace not in self._quotas:
            return
        obj, resource = attributes.obj, attributes.resource
        if resource is RESOURCEQUOTAS and attributes.subresource == "status":
            self._check_lowering(attributes)
            return
        evaluator = counting.evaluator(resource)
        if obj is None or evaluator is None:
            return
        if not evaluator.handles(attributes.operation, attributes.subresource, obj, attributes.old):
            return
        if not self._concerned(namespace, evaluator, obj):
            return
        await self._decide(namespace, _Waiting(attributes, evaluator))

    def _concerned(self, namespace: str, evaluator: Evaluator, obj: Object) -> bool:
        quotas = self._quotas.of(namespace).values()
        return any(evaluator.matches(q, _hard(q), obj) for q in quotas)

    def _check_lowering(self, attributes: Attributes) -> None:
        """Whoever counts what is there does not see what has been charged and is not stored yet. Raises StatusError 409
        if that is so: they must count again."""
        if _charging.get() or not self._under_way[attributes.namespace, attributes.name]:
            return
        before, after = _used(attributes.old or {}), _used(attributes.obj or {})
        if any(quantity.compare(after.get(n, 0), amount) < 0 for n, amount in before.items()):
            name = attributes.resource.plural
            raise errors.conflict(name, attributes.name, errors.MODIFIED)

    # ---- deciding

    async def _decide(self, namespace: str, mine: _Waiting) -> None:
        """Have a request decided together with those that wait. Raises StatusError."""
        waiting = self._waiting.setdefault(namespace, [])
        waiting.append(mine)
        lock = self._locks.setdefault(namespace, asyncio.Lock())
        try:
            async with lock:
                # Somebody else may have decided this one along with theirs.
                if not mine.decided:
                    await self._decide_all(namespace, list(waiting))
        except BaseException:
            mine.abandoned = True
            await self._give_back(namespace, mine)
            raise
        finally:
            waiting.remove(mine)
            if not waiting:
                self._waiting.pop(namespace, None)
                self._locks.pop(namespace, None)
        if mine.refusal is not None:
            raise mine.refusal
        if mine.charged:
            mine.attributes.settle.append(lambda stored: self._settle(namespace, mine, stored))

    async def _decide_all(self, namespace: str, all_: Sequence[_Waiting]) -> None:
        names: set[str] | None = None
        for _ in range(_ATTEMPTS):
            news = self._news[namespace] = asyncio.Event()
            quotas = self._quotas.of(namespace)
            tried = {n: q for n, q in quotas.items() if names is None or n in names}
            lost = await self._charge(namespace, tried, [w for w in all_ if not w.decided])
            if not lost:
                break
            # What was charged to the other quotas stays charged; only these are looked at again.
            names = lost
            if any(quotas.get(n) is tried[n] for n in lost):
                # Another server was quicker, and we have yet to hear of it.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE):
                        await news.wait()
        self._news.pop(namespace, None)
        for waiting in all_:
            if waiting.decided:
                continue
            await self._give_back(namespace, waiting)
            waiting.decided = True
            waiting.refusal = errors.conflict(RESOURCEQUOTAS.plural, min(names or {""}), errors.MODIFIED)

    async def _charge(
        self, namespace: str, quotas: dict[str, Object], undecided: Sequence[_Waiting]
    ) -> set[str]:
        """Decide by these quotas, and write what they are charged. Returns the names of those that somebody else
        changed meanwhile: by these nothing is decided."""
        used = {name: dict(_used(quota)) for name, quota in quotas.items()}
        charged: dict[str, list[tuple[_Waiting, Amounts]]] = {}
        admitted: list[_Waiting] = []
        for waiting in undecided:
            # Some may have been charged already by somebody who broke off before the others were.
            left = {n: q for n, q in quotas.items() if n not in waiting.charged}
            try:
                shares = _shares(waiting, left, used)
            except StatusError as e:
                await self._give_back(namespace, waiting)
                waiting.decided, waiting.refusal = True, e
                continue
            admitted.append(waiting)
            if waiting.attributes.dry_run:
                continue
            for name, share in shares.items():
                charged.setdefault(name, []).append((waiting, share))
                used[name] = _sum(used[name], share)
        lost: set[str] = set()
        for name, parts in charged.items():
            if not await self._write(namespace, quotas[name], used[name], parts):
                lost.add(name)
        touched = {id(w) for name in lost for w, _ in charged[name]}
        for waiting in admitted:
            if id(waiting) not in touched:
                waiting.decided = True
        return lost

    async def _write(
        self,
        namespace: str,
        quota: Object,
        used: Amounts,
        parts: Sequence[tuple[_Waiting, Amounts]],
    ) -> bool:
        """Store a quota's new usage if the quota is still the one that was looked at."""
        name = quota["metadata"]["name"]
        # Noted first: from the moment on at which others can see the charge, they must know that it is not stored yet.
        self._under_way[namespace, name] += len(parts)
        try:
            await self._put(quota, used)
        except BaseException as e:
            self._over(namespace, name, len(parts))
            if isinstance(e, StatusError) and e.code in (404, 409):
                return False
            raise
        for waiting, share in parts:
            waiting.charged[name] = share
            if waiting.abandoned:
                await self._give_back(namespace, waiting)
        return True

    async def _put(self, quota: Object, used: Amounts) -> None:
        changed = deep_copy(quota)
        changed.setdefault("status", {})["used"] = used
        token = _charging.set(True)
        try:
            await self._client.update(RESOURCEQUOTAS, changed, subresource="status")
        finally:
            _charging.reset(token)

    # ---- afterwards

    async def _settle(self, namespace: str, waiting: _Waiting, stored: bool) -> None:
        if not stored:
            await self._give_back(namespace, waiting)
            return
        for name in waiting.charged:
            self._over(namespace, name, 1)

    async def _give_back(self, namespace: str, waiting: _Waiting) -> None:
        """Take the charges of a write that came to nothing off the quotas again."""
        charged, waiting.charged = waiting.charged, {}
        for name, share in charged.items():
            try:
                await self._take_off(namespace, name, share)
            finally:
                self._over(namespace, name, 1)

    async def _take_off(self, namespace: str, name: str, share: Amounts) -> None:
        for _ in range(_ATTEMPTS):
            quota = self._quotas.of(namespace).get(name)
            if quota is None:
                return
            used = {n: quantity.subtract(a, share.get(n, 0)) for n, a in _used(quota).items()}
            try:
                await self._put(quota, {n: a if quantity.parse(a) > 0 else "0" for n, a in used.items()})
                return
            except StatusError as e:
                if e.code not in (404, 409):
                    raise
        # The controller counts anew some seconds after a charge anyhow.

    def _over(self, namespace: str, name: str, count: int) -> None:
        key = (namespace, name)
        self._under_way[key] -= count
        if self._under_way[key] <= 0:
            del self._under_way[key]


def _hard(quota: Object) -> Amounts:
    """The limits that count: those that usage has been measured for."""
    return (quota.get("status") or {}).get("hard") or {}


def _used(quota: Object) -> Amounts:
    return (quota.get("status") or {}).get("used") or {}


def _sum(a: Amounts, b: Amounts) -> Amounts:
    return {**a, **{n: quantity.add(a.get(n, 0), amount) for n, amount in b.items()}}


def _shares(
    waiting: _Waiting, quotas: dict[str, Object], used: dict[str, Amounts]
) -> dict[str, Amounts]:  # fmt: skip
    """What each quota must be charged for a request, by name. Raises StatusError 403 if one cannot spare it."""
    attributes, evaluator = waiting.attributes, waiting.evaluator
    obj, old = attributes.obj, attributes.old
    assert obj is not None
    concerned = {n: q for n, q in quotas.items() if evaluator.matches(q, _hard(q), obj)}
    for name, quota in concerned.items():
        restricted = evaluator.named(_hard(quota))
        missing = evaluator.missing(restricted, obj)
        if missing:
            raise refuse(attributes, f"failed quota: {name}: {missing}")
        if any(n not in used[name] for n in restricted):
            listed = ",".join(sorted(restricted))
            raise refuse(attributes, f"status unknown for quota: {name}, resources: {listed}")
    usage = evaluator.usage(obj)
    negative = sorted(n for n, amount in usage.items() if quantity.parse(amount) < 0)
    if negative:
        raise refuse(attributes, f"quota usage is negative for resource(s): {','.join(negative)}")
    more = usage
    if attributes.operation == "UPDATE" and old is not None:
        before = evaluator.usage(old)
        more = {n: quantity.subtract(a, before.get(n, 0)) for n, a in usage.items()}
    shares = {}
    for name, quota in concerned.items():
        counted = more if old is not None and evaluator.matches(quota, _hard(quota), old) else usage
        hard = _hard(quota)
        share = {n: a for n, a in counted.items() if n in hard and quantity.parse(a) > 0}
        if not share:
            continue
        after = _sum(used[name], share)
        if attributes.subresource != "status":
            exceeded = [n for n in share if quantity.compare(after[n], hard[n]) > 0]
            if exceeded:
                told = (_listed(part, exceeded) for part in (share, used[name], hard))
                requested, spent, limited = told
                why = f"exceeded quota: {name}, requested: {requested}, used: {spent}, limited: {limited}"
                raise refuse(attributes, why)
        shares[name] = share
    return shares


def _listed(amounts: Amounts, names: Iterable[str]) -> str:
    return ",".join(f"{n}={quantity.format(amounts[n])}" for n in sorted(names))
