"""Around the handlers: who may be answered now, who waits, who is sent away."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter

from sampan.api.errors import Object
from sampan.api.resources import FLOWSCHEMAS, PRIORITYLEVELCONFIGURATIONS
from sampan.apiserver.flowcontrol.classification import Classifier, Flow
from sampan.apiserver.flowcontrol.levels import PriorityLevel, Queuing, Rejected
from sampan.apiserver.subresources import CONNECT
from sampan.apiserver.types import ReadCache, RequestInfo, User
from sampan.transport.types import Answer, Response, Upgrade

_SCHEMA_HEADER = "X-Kubernetes-PF-FlowSchema-UID"
_LEVEL_HEADER = "X-Kubernetes-PF-PriorityLevel-UID"
_PATIENCE = 15.0
"""Seconds that a request waits for a seat: a quarter of upstream's request timeout."""
_REFUSAL = 0.25
"""Seconds after which a refusal is told. It asks to come back after one."""
_FALLBACK = 1
"""Seats of a level that is named and not there yet (the first moments of a cluster)."""

Run = Callable[[], Answer | Awaitable[Answer]]


class FlowControl:
    """All levels of one server, which share `total` seats by their shares."""

    def __init__(self, cache: ReadCache, total: int) -> None:
        self._cache = cache
        self._total = total
        self.levels: dict[str, PriorityLevel] = {}
        self._classifier = Classifier((), {})
        self._headers: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {}
        for resource in (FLOWSCHEMAS, PRIORITYLEVELCONFIGURATIONS):
            cache.on_change(resource, lambda old, new: self._changed(old, new))
        self._configure()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or old["spec"] != new["spec"]:
            self._configure()

    def _configure(self) -> None:
        """Bring levels and schemas in step with the objects."""
        objects = {o["metadata"]["name"]: o for o in self._cache.list(PRIORITYLEVELCONFIGURATIONS)}
        shares = {name: _shares(o) for name, o in objects.items()}
        for name, obj in objects.items():
            level = self.levels.get(name)
            if level is None or level.uid != obj["metadata"]["uid"]:
                level = self.levels[name] = PriorityLevel(name, obj["metadata"]["uid"])
            _set_up(level, obj["spec"], self._total, shares[name], sum(shares.values()))
        # A level that is gone still serves those whom it let in or let wait.
        self.levels = {name: level for name, level in self.levels.items() if name in objects}
        self._classifier = Classifier(self._cache.list(FLOWSCHEMAS), self.levels)
        self._headers.clear()

    def classify(self, user: User, info: RequestInfo) -> tuple[Flow, PriorityLevel | None]:
        """The flow of a request and its level; no level in the first moments of a cluster."""
        flow = self._classifier.classify(user, info)
        return flow, self.levels.get(flow.level)

    def around(self, user: User, info: RequestInfo, run: Run) -> Answer | Awaitable[Answer]:
        """Have a request answered as soon as its level has a seat for it."""
        flow, level = self.classify(user, info)
        if level is None or info.subresource in CONNECT:
            # These go on for as long as somebody likes.
            return run()
        dispatched = level.counts.dispatched
        if level.exempt:
            dispatched[flow.schema] = dispatched.get(flow.schema, 0) + 1
            answer = run()
            if isinstance(answer, Awaitable):
                return self._marked_later(flow, level, answer)
            return self._marked(flow, level, answer)
        if not level.take(self._spare(level)):
            return self._when_seated(flow, level, run)
        dispatched[flow.schema] = dispatched.get(flow.schema, 0) + 1
        began = perf_counter()
        try:
            answer = run()
        except BaseException:
            level.release()
            raise
        if isinstance(answer, Awaitable):
            return self._seated(flow, level, answer)
        level.hold_for_turn(perf_counter() - began, _size(answer))
        return self._marked(flow, level, answer)

    def _spare(self, level: PriorityLevel) -> int:
        """How many seats others would lend to a level; counted only if its own are taken."""
        if level.executing < level.seats or not level.borrowable:
            return 0
        others = self.levels.values()
        return sum(o.idle for o in others if o is not level) - sum(o.lent for o in others if o is not level)

    async def _when_seated(self, flow: Flow, level: PriorityLevel, run: Run) -> Answer:
        try:
            queue = await level.wait(flow, _PATIENCE)
        except Rejected as e:
            key = flow.schema, e.reason
            level.counts.rejected[key] = level.counts.rejected.get(key, 0) + 1
            # Whoever is refused at once asks again at once: a thousand such connections would keep the loop busy with
            # refusals alone.
            await asyncio.sleep(_REFUSAL)
            return self._marked(flow, level, too_many())
        level.counts.dispatched[flow.schema] = level.counts.dispatched.get(flow.schema, 0) + 1
        began = perf_counter()
        try:
            answer = run()
        except BaseException:
            level.release()
            raise
        if isinstance(answer, Awaitable):
            return await self._seated(flow, level, answer)
        level.hold_for_turn(perf_counter() - began, _size(answer), queue)
        return self._marked(flow, level, answer)

    async def _seated(self, flow: Flow, level: PriorityLevel, later: Awaitable[Answer]) -> Answer:
        try:
            answer = await later
        finally:
            level.release()
        return self._marked(flow, level, answer)

    async def _marked_later(self, flow: Flow, level: PriorityLevel, later: Awaitable[Answer]) -> Answer:
        return self._marked(flow, level, await later)

    def _marked(self, flow: Flow, level: PriorityLevel, answer: Answer) -> Answer:
        """The answer with the headers that say how it was classified."""
        if isinstance(answer, Upgrade):
            return answer
        key = flow.schema_uid, level.uid
        headers = self._headers.get(key)
        if headers is None:
            headers = self._headers[key] = ((_SCHEMA_HEADER, key[0]), (_LEVEL_HEADER, key[1]))
        if isinstance(answer, Response):
            answer.headers = (*answer.headers, *headers) if answer.headers else headers
            return answer
        return dataclasses.replace(answer, headers=(*answer.headers, *headers))


def _size(answer: Answer) -> int:
    if not isinstance(answer, Response):
        return 0
    if isinstance(answer.body, bytes):
        return len(answer.body)
    return answer.size or sum(map(len, answer.body))


def too_many() -> Response:
    """What a request is told that got no seat."""
    body = b"Too many requests, please try again later.\n"
    return Response(429, body, "text/plain; charset=utf-8", (("Retry-After", "1"),))


def _shares(level: Object) -> int:
    spec = level["spec"]
    part = spec.get("limited") or spec.get("exempt") or {}
    return int(part.get("nominalConcurrencyShares") or 0)


def _set_up(
    level: PriorityLevel, spec: Mapping[str, Object], total: int, shares: int, all_shares: int
) -> None:
    level.exempt = str(spec.get("type")) == "Exempt"
    level.seats = math.ceil(total * shares / all_shares) if all_shares else _FALLBACK
    part = spec.get("limited") or spec.get("exempt") or {}
    level.lendable = round(level.seats * int(part.get("lendablePercent") or 0) / 100)
    limit = part.get("borrowingLimitPercent")
    level.borrowable = total if limit is None else round(level.seats * int(limit) / 100)
    if level.exempt:
        return
    queuing = (part.get("limitResponse") or {}).get("queuing") or {}
    level.configure(
        Queuing(
            int(queuing.get("queues") or 0),
            int(queuing.get("handSize") or 0),
            int(queuing.get("queueLengthLimit") or 0),
        )
    )
    level.serve(0)
