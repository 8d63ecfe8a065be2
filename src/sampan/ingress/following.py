"""The cluster's routing, followed: from Ingresses, their classes, Gateways, Services and EndpointSlices to a RoutingTable.

Both sides stand on this: every node, which has its proxy do what the table says, and the control plane, which tells people
what cannot be done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from sampan.api.errors import Object
from sampan.api.ingress_classes import CONTROLLER, class_of
from sampan.api.ingress_references import annotated
from sampan.api.resources import (
    CONFIGMAPS,
    ENDPOINTSLICES,
    INGRESSCLASSES,
    INGRESSES,
    SECRETS,
    SERVICES,
)
from sampan.client.informer import Informer, key_of
from sampan.client.references import Reference, ReferencedObjects
from sampan.client.types import Client
from sampan.ingress import annotations as wishes
from sampan.ingress import certificates, ingresses
from sampan.ingress.endpoints import endpoints, external_port, service_of
from sampan.ingress.external_names import ExternalNames
from sampan.ingress.gateway_following import GatewayFollowing
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import NOTHING, Contribution, Endpoint, Owner, Problem, ServicePort, Source

log = logging.getLogger(__name__)
INTERNAL_ERROR = "InternalError"
"""Reason of the event for an object that could not be read, though it should be."""
_TURN = 0.005
"""Seconds of work at a time: others have their turn, too."""
_AGAIN = 10.0
"""Seconds after which what could not be taken in is tried again."""
_KNOWN_WITHIN = 3.0
"""Seconds within which it is known what an Ingress names; what is not known then is not there."""


class Following:
    """`changed` is called whenever the table may have changed, from a handler; the owner then calls `update` when it is ready
    for it. With `backends` False the endpoints of Services are left out."""

    def __init__(
        self,
        client: Client,
        changed: Callable[[], None],
        *,
        backends: bool = True,
        ours: str = CONTROLLER,
        own_networks: Sequence[str] = (),
    ) -> None:
        self.table = RoutingTable()
        self._changed = changed
        self._ours = ours
        self.ingresses = Informer(
            client,
            INGRESSES,
            indexes={
                "service": ingresses.services_of,
                "class": lambda i: (class_of(i),),
                "secret": certificates.secrets_of,
            },
        )
        self.classes = Informer(client, INGRESSCLASSES)
        self.services = Informer(client, SERVICES)
        self.secrets = Informer(
            client, SECRETS, field_selector=f"type={certificates.TYPE}", transform=certificates.trimmed
        )
        self.slices = Informer(client, ENDPOINTSLICES, indexes={"service": service_of}) if backends else None
        self.gateways = GatewayFollowing(client, self.services, self.secrets.get, changed)
        self._referenced = ReferencedObjects(client, lambda key: self._mark((key,)))
        self._unknown: dict[str, asyncio.TimerHandle] = {}
        """Ingresses that name an object of which it is not known yet what it is: what they asked for before stays in force."""
        self._overdue: set[str] = set()
        """Ingresses of which that took too long: the API does not answer, or refuses."""
        self._told = asyncio.Event()
        self._external = ExternalNames(self._external_changed, own_networks)
        self._dirty: set[str] = set()
        self._dirty_services: set[str] = set()
        self._ports: dict[str, set[int]] = {}
        """The ports of a Service that routes lead to."""
        self.touched: set[Owner] = set()
        """Owners whose problems or conflicts may be others since this was emptied."""

    async def run(self, started: Callable[[], None]) -> None:
        """Until cancelled. `started` is called once everything that is there has been taken into account."""
        informers = [self.ingresses, self.classes, self.services, self.secrets]
        if self.slices is not None:
            informers.append(self.slices)
        async with asyncio.TaskGroup() as group:
            for informer in informers:
                group.create_task(informer.run(), name=informer.resource.plural)
            for informer in informers:
                await informer.synced.wait()
            self.ingresses.add_handler(self._ingress_changed)
            self.classes.add_handler(self._class_changed)
            self.services.add_handler(self._service_changed)
            self.secrets.add_handler(self._secret_changed)
            if self.slices is not None:
                self.slices.add_handler(self._slice_changed)
            ready = asyncio.Event()
            group.create_task(self.gateways.run(ready.set), name="gateways")
            await ready.wait()
            group.create_task(self._referenced.run(), name="referenced objects")
            await self._catch_up()
            while (
                self._unknown
            ):  # no Ingress may be missing at the beginning; this does not take for ever, see `_await`
                self._told.clear()
                await self._told.wait()
                await self._catch_up()
            started()
            if self.slices is not None:
                group.create_task(self._external.run(), name="external names")

    def ours(self, ingress: Object) -> bool:
        """Whether an Ingress is of a class of ours."""
        found = self.classes.get("", class_of(ingress))
        return found is not None and (found.get("spec") or {}).get("controller") == self._ours

    async def _catch_up(self) -> None:
        self.update()
        while self.behind:
            await asyncio.sleep(0)
            self.update()

    def update(self) -> None:
        """Take changes into the table, for some milliseconds: what is left then is for the next turn, and `changed` is called. An object
        that cannot be taken in is in nobody's way and is tried again."""
        until = time.perf_counter() + _TURN
        services = {k for k in self._dirty_services if k in self._ports}
        self._dirty_services.clear()
        failed: set[str] = set()
        while self._dirty and time.perf_counter() < until:
            key = self._dirty.pop()
            try:
                services |= self._update_ingress(key)
            except Exception:
                log.exception("Ingress %s cannot be taken in", key)
                failed.add(key)
        while not self._dirty and time.perf_counter() < until and (found := self.gateways.update()):
            services |= self._contribute(*found)
        if self.slices is not None:
            for key in services:
                self._update_endpoints(key)
        if failed:
            asyncio.get_running_loop().call_later(_AGAIN, self._mark, failed)
        if self.behind:
            self._changed()

    @property
    def behind(self) -> bool:
        """Whether there is more for `update` to do."""
        return bool(self._dirty) or self.gateways.behind

    def _update_ingress(self, key: str) -> set[str]:
        namespace, _, name = key.partition("/")
        owner: Owner = ("Ingress", namespace, name)
        ingress = self.ingresses.get_by_key(key)
        contribution = NOTHING
        if ingress is not None and self.ours(ingress):
            known = self._referenced.follow(key, _references(ingress))
            if not known and key not in self._overdue:
                self._await(key)
                return set()
            contribution = self._read(ingress)
        else:
            known = True
            self._referenced.release(key)
        if known:
            self._overdue.discard(key)
            if (late := self._unknown.pop(key, None)) is not None:
                late.cancel()
        return self._contribute(owner, contribution)

    def _read(self, ingress: Object) -> Contribution:
        try:
            wanted = wishes.read(ingress, self._secret, self._configmap)
            contribution = ingresses.contribution(ingress, self.services.get, wanted)
            shown, problems = certificates.of_ingress(ingress, self.secrets.get)
            class_ = self.classes.get("", class_of(ingress))
            problems = (*contribution.problems, *problems, *ingresses.class_problems(ingress, class_))
            return replace(contribution, certificates=shown, problems=problems)
        except Exception:
            # Whatever one object has in it, the others are served.
            log.exception("Ingress %s is not understood", key_of(ingress))
            return self._closed(ingress)

    def _closed(self, ingress: Object) -> Contribution:
        """Of an Ingress that should have been understood and is not: nothing of it is served."""
        meta = ingress["metadata"]
        source = Source("Ingress", meta.get("namespace", ""), meta["name"])
        problem = Problem(source, INTERNAL_ERROR, "it is not understood; nobody is let in")
        try:
            closed = ingresses.contribution(ingress, self.services.get, ingresses.Wishes(closed=True))
        except Exception:
            return Contribution(problems=(problem,))
        return replace(closed, problems=(*closed.problems, problem))

    def _await(self, key: str) -> None:
        if key not in self._unknown:
            loop = asyncio.get_running_loop()
            self._unknown[key] = loop.call_later(_KNOWN_WITHIN, self._not_in_time, key)

    def _not_in_time(self, key: str) -> None:
        if self._unknown.pop(key, None) is not None:
            self._overdue.add(key)
            self._mark((key,))

    def _contribute(self, owner: Owner, contribution: Contribution) -> set[str]:
        """Take what an object asks for into the table; returns the Services that it led to or leads to."""
        ports = {b.port for r in self.table.contribution(owner).routes for b in r.backends}
        self.touched.add(owner)
        self.touched |= self.table.update(owner, contribution)
        ports |= {b.port for r in contribution.routes for b in r.backends}
        for port in ports:
            self._count(port)
        return {f"{p.namespace}/{p.service}" for p in ports}

    def _secret(self, namespace: str, name: str) -> Object | None:
        return self._referenced.known(SECRETS, namespace, name)

    def _configmap(self, namespace: str, name: str) -> Object | None:
        return self._referenced.known(CONFIGMAPS, namespace, name)

    def _count(self, port: ServicePort) -> None:
        key = f"{port.namespace}/{port.service}"
        if self.table.in_use(port):
            self._ports.setdefault(key, set()).add(port.port)
        elif key in self._ports:
            self._ports[key].discard(port.port)
            self.table.set_endpoints(port, ())
            if not self._ports[key]:
                del self._ports[key]
                self._external.follow(key, "")

    def _update_endpoints(self, key: str) -> None:
        assert self.slices is not None
        namespace, _, name = key.partition("/")
        service = self.services.get_by_key(key)
        self._external.follow(key, _external_name(service) if key in self._ports else "")
        for port in self._ports.get(key, ()):
            found: tuple[Endpoint, ...] = ()
            if service is not None and (service.get("spec") or {}).get("type") == "ExternalName":
                at = external_port(service, port)
                found = tuple(Endpoint(address, at) for address in self._external.addresses(key))
            elif service is not None:
                found = endpoints(service, port, self.slices.by_index("service", key))
            self.table.set_endpoints(ServicePort(namespace, name, port), found)

    def _external_changed(self, key: str) -> None:
        self._dirty_services.add(key)
        self._changed()

    def _ingress_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _same(old, new):
            return
        self._mark((key_of(new or old or {}),))

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        self._mark(key_of(i) for i in self.ingresses.by_index("class", name))

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {})
        self._dirty_services.add(key)
        self._mark(key_of(i) for i in self.ingresses.by_index("service", key))
        self.gateways.service_changed(key)
        if key in self._ports:
            self._changed()

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {})
        self._mark(key_of(i) for i in self.ingresses.by_index("secret", key))
        self.gateways.secret_changed(key)

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            for key in service_of(obj) if obj is not None else ():
                self._dirty_services.add(key)
                if key in self._ports:
                    self._changed()

    def _mark(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._dirty.add(key)
            self._told.set()
            self._changed()


def _references(ingress: Object) -> Iterator[Reference]:
    namespace = ingress["metadata"].get("namespace", "")
    for plural, name in annotated(ingress):
        yield (SECRETS if plural == "secrets" else CONFIGMAPS), namespace, name


def _external_name(service: Object | None) -> str:
    """The name that an ExternalName Service stands for, "" for any other."""
    spec = (service or {}).get("spec") or {}
    return str(spec.get("externalName") or "") if spec.get("type") == "ExternalName" else ""


def _same(old: Object, new: Object) -> bool:
    """Whether two states of an Ingress ask for the same: its status is our own word."""
    return all(old["metadata"].get(k) == new["metadata"].get(k) for k in ("annotations", "uid")) and old.get(
        "spec"
    ) == new.get("spec")
