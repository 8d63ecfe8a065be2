"""From a request to its answer: authentication, authorization, then the verb.

Reads are answered in the call itself, from the watch cache: no task is made and nothing is awaited. Upstream:
`k8s.io/apiserver/pkg/endpoints/handlers`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from sampan.api import decoding, errors, schema
from sampan.api.errors import Object, StatusError
from sampan.api.resources import BINDINGS, COMPONENTSTATUSES, NAMESPACES, READ, Resource
from sampan.apiserver import (
    authorization,
    bodies,
    deletion,
    list_options,
    negotiation,
    preparation,
    requestinfo,
)
from sampan.apiserver.authentication import KeysWanted
from sampan.apiserver.component_status import ComponentStatuses
from sampan.apiserver.config import Config
from sampan.apiserver.deletion import Deletion
from sampan.apiserver.impersonation import impersonate
from sampan.apiserver.listing import Lists
from sampan.apiserver.metrics import requests as metrics
from sampan.apiserver.patching import Patching
from sampan.apiserver.reads import Reads, selection
from sampan.apiserver.records import Record
from sampan.apiserver.registry import Registry, translated
from sampan.apiserver.rendering import Rendering
from sampan.apiserver.request_timeout import RequestTimeouts
from sampan.apiserver.subresources import CONNECT, SCALES, Actions, view_of
from sampan.apiserver.types import Authenticator, Authorizer, Connector, RequestInfo, User
from sampan.apiserver.watchcache import WatchCache
from sampan.transport.types import Answer, Request, Response

if TYPE_CHECKING:
    from sampan.apiserver.audit.auditor import Auditor
    from sampan.apiserver.flowcontrol.control import FlowControl

_RUNNING = frozenset({"exec", "attach", "portforward"})
"""Subresources by which something is done inside a pod."""

Plain = Callable[[Request, User], Answer | Awaitable[Answer] | None]
"""Answers paths that are no resource; None for one that it does not know."""


class Handlers:
    """Everything that a request can reach."""

    def __init__(
        self,
        *,
        config: Config,
        cache: WatchCache,
        registry: Registry,
        patching: Patching,
        deletion: Deletion,
        lists: Lists,
        actions: Actions,
        authenticator: Authenticator,
        authorizer: Authorizer,
        connector: Connector,
        plain: Plain,
        reviews: Callable[[Resource, str, Object, User], Object | Awaitable[Object]],
        components: ComponentStatuses,
        flows: FlowControl,
        requests: metrics.Requests,
        timeouts: RequestTimeouts,
        auditor: Auditor | None = None,
    ) -> None:
        self._config = config
        self._cache = cache
        self._registry = registry
        self._patching = patching
        self._deletion = deletion
        self._store = lists.store
        self._reads = Reads(cache, lists)
        self._actions = actions
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._connector = connector
        self._plain = plain
        self._reviews = reviews
        self._flows = flows
        self._requests = requests
        self._timeouts = timeouts
        self._auditor = auditor
        self._components = components
        self._writers: dict[str, Callable[[Request, RequestInfo, Resource, User], Awaitable[Answer]]] = {
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer a request. Failures become Status answers here; only bugs are raised."""
        self._cache.lag.arm()
        try:
            if request.target.startswith("/api/v1/proxy/"):
                request.target = requestinfo.modern_target(request.target)
            user = self._authenticator.authenticate(request)
        except StatusError as e:
            return self._unauthenticated(request, e)
        except KeysWanted as wanted:
            return self._when_known(request, wanted)
        return self._audited(request, user)

    async def _when_known(self, request: Request, wanted: KeysWanted) -> Answer:
        """Answer a request whose sender is known only after a look elsewhere."""
        try:
            user = await self._authenticator.authenticate_later(request, wanted)
        except StatusError as e:
            return self._unauthenticated(request, e)
        answer = self._audited(request, user)
        return await answer if isinstance(answer, Awaitable) else answer

    def _unauthenticated(self, request: Request, problem: StatusError) -> Response:
        answer = failure(request, problem)
        self._requests.answered(
            self._requests.key(request, requestinfo.parse(request)), answer, perf_counter()
        )
        return answer if self._auditor is None else self._auditor.unauthenticated(request, answer)

    def _audited(self, request: Request, user: User) -> Answer | Awaitable[Answer]:
        if self._auditor is None:
            return self._handle(request, user)
        return self._auditor.around(request, user, self._handle)

    def _handle(self, request: Request, user: User) -> Answer | Awaitable[Answer]:
        try:
            info = requestinfo.parse(request)
            if any(h.startswith("impersonate-") for h in request.headers):
                user = impersonate(request, user, self._authorizer, info)
            seconds = self._timeouts.allotted(request, info)
        except StatusError as e:
            return failure(request, e)
        began = perf_counter()
        key = self._requests.key(request, info)
        answer = self._flows.around(user, info, lambda: self._permitted(request, info, user))
        if isinstance(answer, Awaitable):
            if seconds is not None:
                answer = self._timeouts.within(seconds, request, info, answer)
            return self._counted(request, info, key, began, answer)
        self._requests.answered(key, answer, began)
        return answer

    async def _counted(
        self, request: Request, info: RequestInfo, key: metrics.Key, began: float, later: Awaitable[Answer]
    ) -> Answer:
        inflight, kind = self._requests.inflight, self._requests.kind(info)
        inflight[kind] += 1
        try:
            answer = await later
        except StatusError as e:
            answer = failure(request, e)
        finally:
            inflight[kind] -= 1
        self._requests.answered(key, answer, began)
        return answer

    def _permitted(self, request: Request, info: RequestInfo, user: User) -> Answer | Awaitable[Answer]:
        try:
            decision = self._authorizer.authorize(user, info)
            if not decision.allowed:
                raise authorization.forbidden(user, info, decision.reason)
            answer: Answer | Awaitable[Answer]
            if self._store.shared and info.is_resource and (info.verb not in READ or info.subresource):
                answer = self._after_others(request, info, user)
            else:
                answer = self._dispatch(request, info, user)
        except StatusError as e:
            return failure(request, e)
        if isinstance(answer, Awaitable):
            return self._later(request, info, answer)
        return _with_deprecation(answer, info.resource)

    async def _later(self, request: Request, info: RequestInfo, later: Awaitable[Answer]) -> Answer:
        try:
            answer = await later
        except StatusError as e:
            return failure(request, e)
        return _with_deprecation(answer, info.resource)

    async def _after_others(self, request: Request, info: RequestInfo, user: User) -> Answer:
        """Where others write to the store too: write on top of all that was acknowledged to anybody before.

        Whether there is such an object yet is the store's own word, so that a creation first tries with what is known
        here, as upstream's does; a refusal counts only if it stands with all that is known anywhere."""
        if info.verb == "create" and not info.subresource and "dryRun" not in request.target:
            before = self._cache.revision
            try:
                answer = self._dispatch(request, info, user)
                return await answer if isinstance(answer, Awaitable) else answer
            except StatusError as e:
                if e.code not in (403, 404, 422):
                    raise
                with translated():
                    await self._store.catch_up()
                if self._cache.revision == before:
                    raise
        else:
            with translated():
                await self._store.catch_up()
        answer = self._dispatch(request, info, user)
        return await answer if isinstance(answer, Awaitable) else answer

    def _dispatch(self, request: Request, info: RequestInfo, user: User) -> Answer | Awaitable[Answer]:
        if not info.is_resource:
            found = self._plain(request, user)
            if found is None:
                raise errors.page_not_found()
            return found
        resource = info.resource
        if resource is None or (info.namespace and not resource.namespaced and resource is not NAMESPACES):
            raise errors.page_not_found()
        if resource.deprecated and resource.api_version in self._config.disabled_versions:
            raise errors.page_not_found()
        if info.subresource:
            return self._below(request, info, resource, user)
        verb = info.verb
        if resource is COMPONENTSTATUSES and verb in resource.verbs:
            return self._components.answer(request, info)
        if verb == "get":
            if resource.namespaced and not info.namespace:
                raise errors.page_not_found()
            self._check_verb(resource, verb)
            return self._reads.get(request, info, resource)
        if verb == "list":
            self._check_verb(resource, verb)
            return self._reads.list(request, info, resource)
        if verb == "watch":
            self._check_verb(resource, verb)
            if request.method not in ("GET", "HEAD"):
                raise _method_not_allowed()
            return self._reads.watch(request, info, resource)
        writer = self._writers.get(verb)
        if writer is None or (verb in ("update", "patch", "delete") and not info.name):
            raise _method_not_allowed()
        if resource.namespaced and not info.namespace:
            raise _method_not_allowed()
        if verb == "create" and info.name:
            raise _method_not_allowed()
        self._check_verb(resource, verb)
        return writer(request, info, resource, user)

    def _check_verb(self, resource: Resource, verb: str) -> None:
        if verb not in resource.verbs:
            raise _method_not_allowed()

    # -- subresources

    def _below(
        self, request: Request, info: RequestInfo, resource: Resource, user: User
    ) -> Answer | Awaitable[Answer]:
        subresource = resource.subresource(info.subresource)
        if subresource is None or (resource.namespaced and not info.namespace):
            raise errors.page_not_found()
        if info.subresource in CONNECT:
            if info.subresource in _RUNNING and info.verb == "get":
                # A WebSocket begins with a GET; to read is less than to run
                # (AuthorizePodWebsocketUpgradeCreatePermission, on by default since v1.35).
                self._authorize_create(info, user)
            return self._connector.connect(request, info, user)
        if info.verb not in subresource.verbs:
            raise _method_not_allowed()
        if info.verb == "create":
            return self._act(request, info, resource, user)
        if info.verb == "get":
            view = view_of(resource, subresource)
            record = self._reads.record(request, info, resource)
            if view.kind == resource.kind:
                rendering = negotiation.negotiate(resource, request)
                return Response(200, rendering.one(record), rendering.content_type)
            rendering = negotiation.negotiate(SCALES, request)
            return Response(200, rendering.view(view.read(record.obj)), rendering.content_type)
        return self._writers[info.verb](request, info, resource, user)

    async def _act(self, request: Request, info: RequestInfo, resource: Resource, user: User) -> Answer:
        writing = bodies.writing(request, user)
        body, duplicates = await bodies.read(request, writing.field_validation != "Ignore")
        if duplicates and writing.field_validation == "Strict":
            raise decoding.strict_error(body, duplicates)
        writing.warnings += duplicates
        out = await self._actions.create(resource, info.namespace, info.name, info.subresource, body, writing)
        return _plain(request, out, 201, writing.warnings)

    # -- writes

    async def _create(self, request: Request, info: RequestInfo, resource: Resource, user: User) -> Answer:
        rendering = negotiation.negotiate(resource, request)
        writing = bodies.writing(request, user)
        obj, duplicates = await bodies.read(request, writing.field_validation != "Ignore")
        if resource is BINDINGS:
            bound = await self._actions.bind(info.namespace, "", obj, writing)
            return _plain(request, bound, 201, writing.warnings)
        preparation.check_resource(resource, obj, writing, duplicates)
        if not resource.stored:
            made = self._reviews(resource, info.namespace, obj, user)
            if isinstance(made, Awaitable):
                made = await made
            return _plain(request, made, 201, writing.warnings)
        namespace = info.namespace if resource.namespaced else ""
        record = await self._registry.create(resource, namespace, obj, writing)
        return _object(rendering, record, 201, writing.warnings)

    async def _update(self, request: Request, info: RequestInfo, resource: Resource, user: User) -> Answer:
        rendering = negotiation.negotiate(resource, request)
        view = view_of(resource, resource.subresource(info.subresource) if info.subresource else None)
        writing = bodies.writing(request, user)
        face, duplicates = await bodies.read(request, writing.field_validation != "Ignore")
        preparation.check_type(view.definition, view.api_version, view.kind, face, writing, duplicates)
        writing.authorize_create = lambda: self._authorize_create(info, user)
        namespace = info.namespace if resource.namespaced else ""
        record, created = await self._registry.update(resource, namespace, info.name, view, face, writing)
        if view.kind != resource.kind:
            return _plain(request, view.read(record.obj), 200, writing.warnings)
        return _object(rendering, record, 201 if created else 200, writing.warnings)

    async def _patch(self, request: Request, info: RequestInfo, resource: Resource, user: User) -> Answer:
        rendering = negotiation.negotiate(resource, request)
        view = view_of(resource, resource.subresource(info.subresource) if info.subresource else None)
        writing = bodies.writing(request, user)
        patch, duplicates, media = await bodies.read_patch(request)
        writing.authorize_create = lambda: self._authorize_create(info, user)
        namespace = info.namespace if resource.namespaced else ""
        record, created = await self._patching.patch(
            resource, namespace, info.name, view, patch, media, writing, duplicates
        )
        if view.kind != resource.kind:
            return _plain(request, view.read(record.obj), 200, writing.warnings)
        return _object(rendering, record, 201 if created else 200, writing.warnings)

    def _authorize_create(self, info: RequestInfo, user: User) -> None:
        """An update or apply of what is not there is a create. Raises StatusError 403."""
        creating = replace(info, verb="create")
        decision = self._authorizer.authorize(user, creating)
        if not decision.allowed:
            raise authorization.forbidden(user, creating, decision.reason)

    async def _delete(self, request: Request, info: RequestInfo, resource: Resource, user: User) -> Answer:
        rendering = negotiation.negotiate(resource, request)
        options = await self._delete_options(request)
        writing = bodies.writing(request, user)
        namespace = info.namespace if resource.namespaced else ""
        record, gone = await self._deletion.delete(resource, namespace, info.name, options, writing)
        status = deletion.answer(resource, record, gone)
        if status is not None:
            return _plain(request, status, 200, writing.warnings)
        return _object(rendering, record, 200, writing.warnings)

    async def _delete_collection(
        self, request: Request, info: RequestInfo, resource: Resource, user: User
    ) -> Answer:
        rendering = negotiation.negotiate(resource, request, "list")
        limit = list_options.read(request.params).limit
        options = await self._delete_options(request)
        writing = bodies.writing(request, user)
        gone = await self._deletion.delete_collection(
            resource, selection(info, resource), options, writing, limit
        )
        body, size = await rendering.list_in_turns(self._cache.turns, gone, self._cache.revision)
        headers = bodies.warning_headers(writing.warnings)
        return Response(200, body, rendering.content_type, headers, size=size)

    async def _delete_options(self, request: Request) -> deletion.DeleteOptions:
        body: Object | None = None
        if request.body.strip():
            body, _ = await bodies.read(request, duplicates=False)
            decoding.check(schema.node(deletion.DEFINITION), body)
        return deletion.options_from(body, request.params)


def failure(request: Request, error: StatusError) -> Response:
    """An error as its Status."""
    body, content_type = negotiation.plain(error.status(), request)
    headers = []
    retry = (error.details or {}).get("retryAfterSeconds")
    if retry:
        headers.append(("Retry-After", str(retry)))
    if error.code == 401:
        headers.append(("WWW-Authenticate", 'Bearer realm="kubernetes"'))
    return Response(error.code, body, content_type, headers)


def _with_deprecation(answer: Answer, resource: Resource | None) -> Answer:
    if resource is not None and resource.deprecated:
        answer.headers = (*answer.headers, *bodies.warning_headers(resource.deprecated))
    return answer


def _method_not_allowed() -> StatusError:
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, {})


def _object(rendering: Rendering, record: Record, status: int, warnings: list[str]) -> Response:
    headers = bodies.warning_headers(warnings) if warnings else ()
    return Response(status, rendering.one(record), rendering.content_type, headers)


def _plain(request: Request, value: Object, status: int, warnings: list[str] | None = None) -> Response:
    body, content_type = negotiation.plain(value, request)
    headers = bodies.warning_headers(warnings) if warnings else ()
    return Response(status, body, content_type, headers)
