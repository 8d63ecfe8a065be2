"""The cluster's routing, followed: from Ingresses, their classes, Services and EndpointSlices to a RoutingTable.

Both sides stand on this: every node, which has its proxy do what the table says, and the control plane, which tells people
what cannot be done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from sampan.api.errors import Object
from sampan.api.resources import ENDPOINTSLICES, INGRESSCLASSES, INGRESSES, SERVICES
from sampan.client.informer import Informer, key_of
from sampan.client.types import Client
from sampan.ingress import ingresses
from sampan.ingress.endpoints import endpoints, service_of
from sampan.ingress.external_names import ExternalNames
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import NOTHING, Endpoint, Owner, ServicePort


class Following:
    """`changed` is called whenever the table may have changed, from a handler; the owner then calls `update` when it is ready
    for it. With `backends` False the endpoints of Services are left out."""

    def __init__(
        self,
        client: Client,
        changed: Callable[[], None],
        *,
        backends: bool = True,
        ours: str = ingresses.CONTROLLER,
        own_networks: Sequence[str] = (),
    ) -> None:
        self.table = RoutingTable()
        self._changed = changed
        self._ours = ours
        self.ingresses = Informer(
            client,
            INGRESSES,
            indexes={"service": ingresses.services_of, "class": lambda i: (ingresses.class_of(i),)},
        )
        self.classes = Informer(client, INGRESSCLASSES)
        self.services = Informer(client, SERVICES)
        self.slices = Informer(client, ENDPOINTSLICES, indexes={"service": service_of}) if backends else None
        self._external = ExternalNames(self._external_changed, own_networks)
        self._dirty: set[str] = set()
        self._dirty_services: set[str] = set()
        self._ports: dict[str, set[int]] = {}
        """The ports of a Service that routes lead to."""
        self.touched: set[Owner] = set()
        """Owners whose problems or conflicts may be others since this was emptied."""

    async def run(self, started: Callable[[], None]) -> None:
        """Until cancelled. `started` is called once everything that is there has been taken into account."""
        informers = [self.ingresses, self.classes, self.services]
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
            if self.slices is not None:
                self.slices.add_handler(self._slice_changed)
            self.update()
            started()
            if self.slices is not None:
                group.create_task(self._external.run(), name="external names")

    def ours(self, ingress: Object) -> bool:
        """Whether an Ingress is of a class of ours."""
        found = self.classes.get("", ingresses.class_of(ingress))
        return found is not None and (found.get("spec") or {}).get("controller") == self._ours

    def update(self) -> None:
        """Take all changes into the table."""
        services = {k for k in self._dirty_services if k in self._ports}
        self._dirty_services.clear()
        dirty, self._dirty = self._dirty, set()
        for key in dirty:
            services |= self._update_ingress(key)
        if self.slices is not None:
            for key in services:
                self._update_endpoints(key)

    def _update_ingress(self, key: str) -> set[str]:
        namespace, _, name = key.partition("/")
        owner: Owner = ("Ingress", namespace, name)
        ingress = self.ingresses.get_by_key(key)
        contribution = NOTHING
        if ingress is not None and self.ours(ingress):
            contribution = ingresses.contribution(ingress, self.services.get)
        ports = {t.backend.port for r in self.table.contribution(owner).routes for t in r.targets}
        self.touched.add(owner)
        self.touched |= self.table.update(owner, contribution)
        ports |= {t.backend.port for r in contribution.routes for t in r.targets}
        for port in ports:
            self._count(port)
        return {f"{p.namespace}/{p.service}" for p in ports}

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
                found = tuple(Endpoint(address, port) for address in self._external.addresses(key))
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
        if key in self._ports:
            self._changed()

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            for key in service_of(obj) if obj is not None else ():
                self._dirty_services.add(key)
                if key in self._ports:
                    self._changed()

    def _mark(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._dirty.add(key)
            self._changed()


def _external_name(service: Object | None) -> str:
    """The name that an ExternalName Service stands for, "" for any other."""
    spec = (service or {}).get("spec") or {}
    return str(spec.get("externalName") or "") if spec.get("type") == "ExternalName" else ""


def _same(old: Object, new: Object) -> bool:
    """Whether two states of an Ingress ask for the same: its status is our own word."""
    return all(old["metadata"].get(k) == new["metadata"].get(k) for k in ("annotations", "uid")) and old.get(
        "spec"
    ) == new.get("spec")
