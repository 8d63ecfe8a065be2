"""The part of the routing that Gateways and their routes ask for, followed.

Classes and Gateways are followed always; routes, grants and namespaces from the first Gateway of ours on. A change costs what it concerns: a
route is read again when it, its Gateways, a Service, a grant or its namespace's labels changed.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from sampan.api.errors import Object
from sampan.api.resources import GATEWAYCLASSES, GATEWAYS, GRPCROUTES, HTTPROUTES, NAMESPACES, REFERENCEGRANTS
from sampan.client.informer import Informer, key_of
from sampan.client.types import Client
from sampan.ingress import gateway_references, gateway_routes, gateways
from sampan.ingress.certificates import SecretLookup
from sampan.ingress.gateway_routes import RouteState, World
from sampan.ingress.gateways import GatewayState
from sampan.ingress.types import NOTHING, Contribution, Owner

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_AGAIN = 10.0
"""Seconds after which what could not be read is tried again."""
_ROUTES = {"HTTPRoute": HTTPROUTES, "GRPCRoute": GRPCROUTES}


class GatewayFollowing:
    """`changed` is called when `update` has something to do."""

    def __init__(
        self, client: Client, services: Informer, secret: SecretLookup, changed: Callable[[], None]
    ) -> None:
        self._services = services
        self._secret = secret
        self._changed = changed
        self.classes = Informer(client, GATEWAYCLASSES)
        foreign = gateway_references.foreign_namespaces
        self.gateways = Informer(
            client,
            GATEWAYS,
            indexes={
                "class": lambda g: (g["spec"]["gatewayClassName"],),
                "foreign": foreign,
                "secret": gateway_references.secrets,
                "made": lambda g: (
                    f"{g['metadata']['namespace']}/{gateways.service_name(g['metadata']['name'])}",
                ),
            },
        )
        self.routes = {
            kind: Informer(
                client,
                resource,
                indexes={
                    "gateway": gateway_routes.gateways_of,
                    "service": gateway_references.services,
                    "foreign": foreign,
                    "namespace": lambda r: (r["metadata"]["namespace"],),
                },
            )
            for kind, resource in _ROUTES.items()
        }
        self._grants = Informer(
            client, REFERENCEGRANTS, indexes={"namespace": lambda g: (g["metadata"]["namespace"],)}
        )
        self._namespaces = Informer(client, NAMESPACES)
        self._wanted = asyncio.Event()
        self._ready = False
        self._dirty_gateways: set[str] = set()
        self._dirty_routes: set[tuple[str, str]] = set()
        self._counted: set[str] = set()
        """Gateways to which another number of routes is attached."""
        self.states: dict[str, GatewayState] = {}
        """Gateways of ours by `namespace/name`."""
        self.route_states: dict[Owner, RouteState] = {}
        """Routes that have a Gateway of ours as parent."""
        self._attached: dict[str, dict[str, set[Owner]]] = {}

    async def run(self, started: Callable[[], None]) -> None:
        """Until cancelled. `started` is called once all that is there can be read."""
        async with asyncio.TaskGroup() as group:
            for informer in (self.classes, self.gateways):
                group.create_task(informer.run(), name=informer.resource.plural)
            await self.classes.synced.wait()
            await self.gateways.synced.wait()
            self.classes.add_handler(self._class_changed)
            self.gateways.add_handler(self._gateway_changed)
            if not self._wanted.is_set():
                started()
                await self._wanted.wait()
                started = _nothing
            more = (*self.routes.values(), self._grants, self._namespaces)
            for informer in more:
                group.create_task(informer.run(), name=informer.resource.plural)
            for informer in more:
                await informer.synced.wait()
            self._ready = True
            for kind, informer in self.routes.items():
                informer.add_handler(functools.partial(self._route_changed, kind))
            self._grants.add_handler(self._grant_changed)
            self._namespaces.add_handler(self._namespace_changed)
            started()
            self._changed()

    def ours(self, gateway: Object) -> bool:
        """Whether a Gateway is of a class of ours."""
        return self._class_of(gateway) is not None

    def _class_of(self, gateway: Object) -> Object | None:
        """Its class, if that is one of ours."""
        found = self.classes.get("", gateway["spec"]["gatewayClassName"])
        return found if found is not None and found["spec"]["controllerName"] == gateways.CONTROLLER else None

    def attached(self, gateway: str) -> Mapping[str, int]:
        """How many routes are attached to each listener of a Gateway (`namespace/name`) that has any."""
        return {listener: len(owners) for listener, owners in self._attached.get(gateway, {}).items()}

    @property
    def behind(self) -> bool:
        """Whether `update` has something to do."""
        if not self._ready and self._wanted.is_set():
            return False
        return bool(self._dirty_gateways or self._dirty_routes or self._counted)

    def update(self) -> tuple[Owner, Contribution] | None:
        """The next that has another contribution now, or another state; None for no more. One that cannot be read stays as it was, and
        is tried again."""
        while self.behind:
            if self._dirty_gateways:
                key = self._dirty_gateways.pop()
                self._counted.discard(key)
            elif self._dirty_routes:
                kind, key = self._dirty_routes.pop()
                try:
                    owner, contribution, touched = self._update_route(kind, key)
                except Exception:
                    log.exception("%s %s cannot be read", kind, key)
                    self._later(self._dirty_routes, (kind, key))
                    continue
                self._counted |= touched
                return owner, contribution
            else:  # routes are another number: once for all of them
                key = self._counted.pop()
            try:
                return self._update_gateway(key)
            except Exception:
                log.exception("Gateway %s cannot be read", key)
                self._later(self._dirty_gateways, key)
        return None

    def _later(self, dirty: set[_T], what: _T) -> None:
        def mark() -> None:
            dirty.add(what)
            self._changed()

        asyncio.get_running_loop().call_later(_AGAIN, mark)

    def _update_gateway(self, key: str) -> tuple[Owner, Contribution]:
        namespace, _, name = key.partition("/")
        owner: Owner = ("Gateway", namespace, name)
        gateway, before = self.gateways.get_by_key(key), self.states.get(key)
        class_ = self._class_of(gateway) if gateway is not None else None
        if gateway is None or class_ is None:
            self.states.pop(key, None)
            contribution = NOTHING
        else:
            of_class = gateways.class_verdict(class_)
            state = self.states[key] = gateways.read(gateway, self._secret, self._granted, of_class)
            service = self._services.get(namespace, gateways.service_name(name))
            if service is not None and gateways.gateway_of(service) != key:
                service = None  # somebody else's: what it has for node ports is nothing to us
            contribution = gateways.contribution(state, service)
        if self.states.get(key) != before:
            self._mark_routes("gateway", key)
        return owner, contribution

    def _update_route(self, kind: str, key: str) -> tuple[Owner, Contribution, set[str]]:
        namespace, _, name = key.partition("/")
        owner: Owner = (kind, namespace, name)
        route = self.routes[kind].get_by_key(key)
        before = self.route_states.get(owner)
        state = RouteState()
        if route is not None:
            world = World(
                lambda ns, n: self.states.get(f"{ns}/{n}"), self._services.get, self._granted, self._labels
            )
            state = gateway_routes.read(route, world)
        if state.parents:
            self.route_states[owner] = state
        else:
            self.route_states.pop(owner, None)
        old, new = _attachments(before), _attachments(state)
        for gateway, listener in old - new:
            listeners = self._attached[gateway]
            listeners[listener].discard(owner)
            if not listeners[listener]:
                del listeners[listener]
            if not listeners:
                del self._attached[gateway]
        for gateway, listener in new - old:
            self._attached.setdefault(gateway, {}).setdefault(listener, set()).add(owner)
        return owner, state.contribution, {gateway for gateway, _ in old ^ new}

    def _granted(self, kind: str, namespace: str, to_kind: str, to_namespace: str, to_name: str) -> bool:
        grants = self._grants.by_index("namespace", to_namespace)
        return gateway_references.granted(grants, kind, namespace, to_kind, to_name)

    def _labels(self, namespace: str) -> Mapping[str, str] | None:
        found = self._namespaces.get("", namespace)
        return None if found is None else found["metadata"].get("labels") or {}

    # ---- what happens

    def _gateway_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and self.ours(new):
            self._wanted.set()
        if old is None or new is None or not _same(old, new):
            self._mark_gateways((new or old or {},))

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        found = self.gateways.by_index("class", (new or old or {})["metadata"]["name"])
        if any(self.ours(g) for g in found):
            self._wanted.set()
        if old is None or new is None or not _same(old, new):
            self._mark_gateways(found)

    def _route_changed(self, kind: str, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or not _same(old, new):
            self._dirty_routes.add((kind, key_of(new or old or {})))
            self._changed()

    def _grant_changed(self, old: Object | None, new: Object | None) -> None:
        namespace = (new or old or {})["metadata"]["namespace"]
        self._mark_gateways(self.gateways.by_index("foreign", namespace))
        self._mark_routes("foreign", namespace)

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        labels = [(o or {}).get("metadata", {}).get("labels") for o in (old, new)]
        if old is None or new is None or labels[0] != labels[1]:
            self._mark_routes("namespace", (new or old or {})["metadata"]["name"])

    def service_changed(self, key: str) -> None:
        """A Service (`namespace/name`) is another one: routes lead to it, or it has the name of a Gateway's own."""
        self._mark_gateways(self.gateways.by_index("made", key))
        self._mark_routes("service", key)

    def secret_changed(self, key: str) -> None:
        """A Secret (`namespace/name`) is another one."""
        self._mark_gateways(self.gateways.by_index("secret", key))

    def _mark_gateways(self, found: Iterable[Object]) -> None:
        for gateway in found:
            self._dirty_gateways.add(key_of(gateway))
            self._changed()

    def _mark_routes(self, index: str, value: str) -> None:
        for kind, informer in self.routes.items():
            for route in informer.by_index(index, value):
                self._dirty_routes.add((kind, key_of(route)))
                self._changed()


def _attachments(state: RouteState | None) -> set[tuple[str, str]]:
    parents = state.parents if state is not None else ()
    return {(gateway, one.name) for p in parents if p.accepted.status for gateway, one, _ in p.listeners}


def _same(old: Object, new: Object) -> bool:
    """Whether two states of an object ask for the same: its status is our own word."""
    return all(old["metadata"].get(k) == new["metadata"].get(k) for k in ("generation", "uid")) and old.get(
        "spec"
    ) == new.get("spec")


def _nothing() -> None:
    pass
