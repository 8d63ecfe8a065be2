"""Stands around the handlers: tells of each request that the policy wants told, when it came and when it was answered."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sampan.api.errors import Object, StatusError
from sampan.apiserver import requestinfo
from sampan.apiserver.audit import events
from sampan.apiserver.audit.annotations import gathered
from sampan.apiserver.audit.log import AuditLog
from sampan.apiserver.audit.policy import Decision, Level, Policy, Stage
from sampan.apiserver.impersonation import impersonate
from sampan.apiserver.types import Authorizer, RequestInfo, User
from sampan.transport.types import Answer, Request, Response, Stream, StreamingResponse, Upgrade

_LONGEST_ID = 64
_BODY_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class Auditor:
    """One a server. What it says of a request it takes from the request and the answer alone."""

    def __init__(self, policy: Policy, log: AuditLog, authorizer: Authorizer) -> None:
        self._policy = policy
        self._log = log
        self._authorizer = authorizer

    def around(
        self, request: Request, user: User, answer: Callable[[Request, User], Answer | Awaitable[Answer]]
    ) -> Answer | Awaitable[Answer]:
        """Have a request answered, and tell of it."""
        info = requestinfo.parse(request)
        decision = self._policy.decide(user, info)
        if decision.level is Level.NONE:
            return answer(request, user)
        told = _Told(self._log, request, info, user, decision)
        told.annotate(self._authorizer, request, user)
        told.tell(Stage.REQUEST_RECEIVED)
        try:
            made = answer(request, user)
        except Exception:
            told.tell(Stage.PANIC)
            raise
        if isinstance(made, Awaitable):
            return self._later(told, made)
        return told.finish(made)

    async def _later(self, told: _Told, later: Awaitable[Answer]) -> Answer:
        try:
            with gathered(told.annotations):
                made = await later
        except asyncio.CancelledError:
            # The sender has gone; what he asked for may well have been done.
            told.closed_early()
            raise
        except Exception:
            told.tell(Stage.PANIC)
            raise
        return told.finish(made)

    def unauthenticated(self, request: Request, answer: Response) -> Response:
        """Tell of a request whose sender could not prove who he is."""
        info = requestinfo.parse(request)
        decision = self._policy.decide(User(""), info)
        if decision.level is Level.NONE:
            return answer
        told = _Told(self._log, request, info, None, decision)
        told.event["responseStatus"] = {
            "metadata": {},
            "status": "Failure",
            "message": "Authentication failed, attempted: x509, bearer",
            "code": answer.status,
        }
        told.tell(Stage.RESPONSE_STARTED)
        return answer

    def close(self) -> None:
        self._log.close()


class _Told:
    """One request on its way."""

    def __init__(
        self, log: AuditLog, request: Request, info: RequestInfo, user: User | None, decision: Decision
    ) -> None:
        self._log = log
        self._decision = decision
        self.id = request.headers.get("audit-id", "")[:_LONGEST_ID] or str(uuid.uuid4())
        self.event = events.begun(request, self.id, info, user, decision)
        self.annotations: dict[str, str] = {}
        self._body: Any = None
        if decision.level >= Level.REQUEST and info.is_resource and info.verb in _BODY_VERBS:
            self._body = _object(request.body)

    def annotate(self, authorizer: Authorizer, request: Request, user: User) -> None:
        """Say who is acted as, and what authorization said."""
        info = requestinfo.parse(request)
        if "impersonate-user" in request.headers:
            try:
                user = impersonate(request, user, authorizer)
            except StatusError:
                return
            self.event["impersonatedUser"] = events.shown_user(user)
        verdict = authorizer.authorize(user, info)
        self.annotations |= {
            "authorization.k8s.io/decision": "allow" if verdict.allowed else "forbid",
            "authorization.k8s.io/reason": verdict.reason,
        }

    def tell(self, stage: Stage) -> None:
        if stage in self._decision.omitted:
            return
        event = {**self.event, "stage": stage.value, "stageTimestamp": events.microseconds()}
        if stage is Stage.REQUEST_RECEIVED:
            event["stageTimestamp"] = event["requestReceivedTimestamp"]
        else:
            if self._body is not None:
                event["requestObject"] = self._shown(self._body)
            if self.annotations:
                event["annotations"] = self.annotations
        self._log.write(event)

    def closed_early(self) -> None:
        """Tell of the end of a request whose answer nobody waited for. The code is upstream's."""
        message = "Connection closed early"
        self.event["responseStatus"] = {"metadata": {}, "status": "Success", "message": message, "code": 200}
        self.tell(Stage.RESPONSE_COMPLETE)

    def finish(self, answer: Answer) -> Answer:
        """Tell of the answer, now or, if it goes on, when it has ended."""
        if isinstance(answer, Response):
            self.event["responseStatus"] = _status(answer)
            whole = self._decision.level is Level.REQUEST_RESPONSE
            if whole and (found := _object(_joined(answer))) is not None:
                self.event["responseObject"] = self._shown(found)
            self.tell(Stage.RESPONSE_COMPLETE)
            return dataclasses.replace(answer, headers=(*answer.headers, ("Audit-Id", self.id)))
        code = answer.status if isinstance(answer, StreamingResponse) else 101
        self.event["responseStatus"] = {"metadata": {}, "code": code}
        self.tell(Stage.RESPONSE_STARTED)
        if isinstance(answer, StreamingResponse):
            return dataclasses.replace(
                answer, headers=(*answer.headers, ("Audit-Id", self.id)), start=self._stream(answer)
            )
        return dataclasses.replace(answer, run=self._upgraded(answer))

    def _stream(self, answer: StreamingResponse) -> Callable[[Stream], Awaitable[None] | None]:
        def start(stream: Stream) -> Awaitable[None] | None:
            stream.on_closed(lambda: self.tell(Stage.RESPONSE_COMPLETE))
            return answer.start(stream)

        return start

    def _upgraded(self, answer: Upgrade) -> Callable[..., Awaitable[None]]:
        async def run(*ends: Any) -> None:
            try:
                await answer.run(*ends)
            finally:
                self.tell(Stage.RESPONSE_COMPLETE)

        return run

    def _shown(self, obj: Any) -> Any:
        return events.without_managed_fields(obj) if self._decision.omit_managed_fields else obj


def _status(answer: Response) -> Object:
    status: Object = {"metadata": {}, "code": answer.status}
    if answer.status >= 400 and isinstance(found := _object(_joined(answer)), dict):
        status |= {k: found[k] for k in ("status", "message", "reason", "details") if k in found}
    return status


def _joined(answer: Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)


def _object(body: bytes) -> Any:
    """The JSON in a body; None where it is something else."""
    try:
        return msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        return None
