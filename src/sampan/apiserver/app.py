"""The API server put together: store, cache, registry, handlers, clients. Reading `App.start` is reading its anatomy."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.apiserver import (
    admission,
    authentication,
    authorization,
    bootstrap,
    debug,
    discovery,
    expiry,
    reviews,
)
from sampan.apiserver.allocation import ServiceAllocator
from sampan.apiserver.allocation.upkeep import Upkeep
from sampan.apiserver.component_status import Check, ComponentStatuses
from sampan.apiserver.config import Config
from sampan.apiserver.deletion import Deletion
from sampan.apiserver.endpoint_reconciler import EndpointReconciler
from sampan.apiserver.flowcontrol.control import FlowControl
from sampan.apiserver.flowcontrol.dangling import Dangling
from sampan.apiserver.handlers import Handlers
from sampan.apiserver.health import STARTED, Health
from sampan.apiserver.inprocess import InProcessClient
from sampan.apiserver.listing import Lists
from sampan.apiserver.metrics.requests import Requests
from sampan.apiserver.patching import Patching
from sampan.apiserver.registry import Registry
from sampan.apiserver.request_timeout import RequestTimeouts
from sampan.apiserver.subresources import Actions
from sampan.apiserver.tokens import discovery as token_discovery
from sampan.apiserver.types import LOOPBACK, RequestInfo, User
from sampan.apiserver.watchcache import WatchCache
from sampan.client.restarting import again_and_again
from sampan.client.types import Client
from sampan.store.types import Store
from sampan.transport.types import Answer, Request, Response

if TYPE_CHECKING:
    from sampan.apiserver.audit.auditor import Auditor
    from sampan.apiserver.connect import NodeConnector

log = logging.getLogger(__name__)


_GRACE = 5.0
"""Seconds for which the end waits for writes that are under way."""
_FLOWS = "api-priority-and-fairness-config-consumer-v1"
"""The field manager of what priority and fairness writes."""


class App:
    """One API server on one store. `start` before anything else; the store stays the caller's to close."""

    def __init__(self, store: Store, config: Config) -> None:
        self.config = config
        if config.encryption_config is not None:
            from sampan.apiserver import encryption

            store = encryption.encrypted(store, config.encryption_config)
        self.cache = WatchCache(store)
        self._store = store
        self._connector: NodeConnector | None = None
        self._registry = Registry(store, self.cache)
        self._patching = Patching(self._registry)
        self._deletion = Deletion(self._registry)
        self._lists = Lists(store, self.cache)
        self._actions = Actions(self._registry, self._deletion, config)
        self.components: dict[str, Check] = {"etcd-0": self._store_health}
        """What ComponentStatuses tell of; who runs a scheduler or controllers here adds how these are."""
        self._handlers: Handlers | None = None
        self._auditor: Auditor | None = None
        self._ready = False
        self.shutting_down: Check = lambda: ""
        """What /readyz tells of an end that has been asked for; set by whoever is asked."""
        self._timeouts = RequestTimeouts(config.request_timeout)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Fill the cache, build what decides, and put in place what every cluster begins with."""
        await self.cache.start()
        authorizer = authorization.build(self.config, self.cache)
        self._authorizer = authorizer
        self._actions.authorizer = authorizer
        self._allocator = self._registry.allocator = ServiceAllocator(self._registry, self.config)
        self._registry.admission = admission.build(self.config, self.cache, self.client(), authorizer)
        self._authenticator = authentication.build(self.config, self.cache)
        self._auditor = self._make_auditor()
        self._flows = FlowControl(self.cache, self.config.max_requests_inflight)
        self._requests = Requests()
        self._health = self._make_health()
        self._handlers = Handlers(
            config=self.config,
            cache=self.cache,
            registry=self._registry,
            patching=self._patching,
            deletion=self._deletion,
            lists=self._lists,
            actions=self._actions,
            authenticator=self._authenticator,
            authorizer=authorizer,
            connector=self,
            plain=self._plain,
            reviews=self._review,
            components=ComponentStatuses(self.components, self.cache),
            flows=self._flows,
            requests=self._requests,
            timeouts=self._timeouts,
            auditor=self._auditor,
        )
        upkeep = Upkeep(self.client(), self._store, self.cache, self._allocator, self.config)
        await upkeep.start()
        endpoints = self._endpoints = EndpointReconciler(self._store, self.client(), self.config)
        await bootstrap.ensure(self.client(), self.config, await endpoints.addresses())
        self._ready = True
        loop = asyncio.get_running_loop()
        dangling = Dangling(self.cache, self.client(manager=_FLOWS))
        use = self._authenticator.legacy_use
        works: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "allocation": upkeep.run,
            "legacy-token-use": lambda: use.run(self.client()),
            "flow-schemas": dangling.run,
        }
        if not self._store.self_keeping:
            works["expiry"] = lambda: expiry.run(self._store, self.cache)
        if self._store.shared:
            works["endpoints"] = endpoints.run
        if (file := self.config.authentication_config) is not None:
            from sampan.apiserver.authentication import reloading

            works["authentication-config"] = lambda: reloading.follow(file, self._authenticator.configure)
        self._tasks = [
            loop.create_task(again_and_again(f"api-{name}", work), name=f"api-{name}")
            for name, work in works.items()
        ]

    def _make_health(self) -> Health:
        def started() -> str:
            return "" if self._ready else "not finished"

        checks = {"ping": lambda: "", "log": lambda: "", "etcd": self._store_health}
        return Health(
            checks | {f"poststarthook/{hook}": started for hook in STARTED},
            {
                "etcd-readiness": self._store_health,
                "informer-sync": lambda: (
                    "" if not self.cache.followed.done() else "the store is not followed"
                ),
                "shutdown": lambda: self.shutting_down(),
            },
        )

    def _make_auditor(self) -> Auditor | None:
        if self.config.audit_policy_file is None or self.config.audit_log_path is None:
            return None
        from sampan.apiserver.audit import auditor, policy
        from sampan.apiserver.audit.log import AuditLog

        log = AuditLog(self.config.audit_log_path)
        return auditor.Auditor(policy.load(self.config.audit_policy_file), log, self._authorizer)

    async def run(self) -> None:
        """Until the watch cache no longer follows the store; raises why."""
        await asyncio.shield(self.cache.followed)

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer a request: reads at once, the rest later."""
        assert self._handlers is not None, "not started"
        return self._handlers.handle(request)

    def client(self, user: User = LOOPBACK, manager: str = "") -> Client:
        """A client of this process under an identity; `manager` names it in managedFields."""
        return InProcessClient(
            user,
            cache=self.cache,
            registry=self._registry,
            patching=self._patching,
            deletion=self._deletion,
            lists=self._lists,
            actions=self._actions,
            reviews=self._review,
            manager=manager,
        )

    def sign_token(self, account: Object, secret: Object) -> str:
        """The token of a ServiceAccount that is to be kept in `secret`."""
        from sampan.apiserver.tokens import legacy

        return legacy.sign(self.config.service_account_key, account, secret)

    async def connect(self, request: Request, info: RequestInfo, user: User) -> Answer:
        """Answer a connect subresource. What that takes is loaded when it is first needed."""
        if self._connector is None:
            from sampan.apiserver.connect import NodeConnector

            self._connector = NodeConnector(self.cache, self.config)
        return await self._connector.connect(request, info, user)

    async def close(self) -> None:
        """Let writes end, then watches and connections to nodes; the store is left open."""
        await self._timeouts.written(_GRACE)
        self._ready = False
        if self._connector is not None:
            await self._connector.close()
        if self._tasks:
            self._authenticator.close()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._tasks:
            await self._endpoints.close()
        await self._allocator.close()
        self.cache.close()
        if self._auditor is not None:
            self._auditor.close()

    def _plain(self, request: Request, user: User) -> Answer | Awaitable[Answer] | None:
        return (
            self._health.handle(request)
            or discovery.handle(request, self.config.disabled_versions)
            or token_discovery.handle(self.config, request)
            or (self._metrics(request) if request.path == "/metrics" else None)
            or (debug.handle(self._flows, request) if request.path.startswith("/debug/") else None)
        )

    async def _metrics(self, request: Request) -> Answer:
        """Loading the library and making the text take longer than the loop may be held: a thread does both."""
        exposition = await asyncio.to_thread(importlib.import_module, "sampan.apiserver.metrics.exposition")
        sources = exposition.Sources(self._requests, self.cache, self._flows, discovery.GIT_VERSION)
        accept = request.headers.get("accept", "")
        body, media_type = await asyncio.to_thread(exposition.encode, exposition.collect(sources), accept)
        return Response(200, body, media_type)

    def _review(
        self, resource: Resource, namespace: str, obj: Object, user: User
    ) -> Object | Awaitable[Object]:
        return reviews.create(resource, obj, user, self._authorizer, self._authenticator, namespace)

    def _store_health(self) -> str:
        return self._store.trouble()
