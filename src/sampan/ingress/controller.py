"""The control plane's half of the front door: its class and its address, the addresses of Ingresses, and what people are told.

One at a time does this (an elected one). The Service of the front door has no selector: its endpoints are the nodes whose
HAProxy serves (their condition `IngressServing`), and with externalTrafficPolicy Local a client's address is kept.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
from collections.abc import Iterable

from sampan.api.errors import Object
from sampan.api.front_doors import CLASS, EVERY_NODE, Terms, terms_of
from sampan.api.resources import INGRESSES
from sampan.client.events import Recorder
from sampan.client.informer import Informer, key_of
from sampan.client.types import MERGE_PATCH, Client
from sampan.client.workqueue import WorkQueue
from sampan.ingress import certificates, own_objects
from sampan.ingress.door_slices import DoorSlices
from sampan.ingress.following import Following
from sampan.ingress.gateway_controller import GatewayController
from sampan.ingress.gateways import gateway_of
from sampan.ingress.gateways import shown as gateways_shown
from sampan.ingress.missing_classes import class_named, missing
from sampan.ingress.own_objects import NAMESPACE, PORTS, SERVICE
from sampan.ingress.types import Problem

_MANAGER = "sampan-ingress"
_PAUSE = 0.005
_OWN, _DOOR = "classes and Service", "endpoints of the front door"
"""The queue's keys for what the front door has in the API."""
_CLASSLESS = "class of "
"""Before the key of an object whose class is not there."""
_AT_ONCE = 20
"""Problems of an object that are told at a time; the others when something changes and they are there yet. Of many more the recorder
would tell none, and none of other objects' either."""
_CLASS_WITHIN = 3.0
"""Seconds that a class may come after an Ingress of it: both may be in what somebody applies at once."""


class IngressController:
    """Writes through `client`, under a name of its own. `terms` are the cluster's owner's; the class tells them to nodes on other machines."""

    def __init__(self, client: Client, terms: Terms = EVERY_NODE) -> None:
        self._client = client
        self._terms = terms
        self._recorder = Recorder(client, _MANAGER)
        self._queue = WorkQueue("ingress")
        self._wake = asyncio.Event()
        self._following = Following(client, self._wake.set, backends=False)
        self._slices = DoorSlices(client, self._nodes_changed, self._slice_changed, terms)
        self._gateways = GatewayController(
            client, self._following.gateways, self._following.services, self._slices
        )
        self._told: dict[str, tuple[str, frozenset[Problem]]] = {}
        """What an object (its uid) was told; another one of its name was told nothing yet."""

    async def run(self) -> None:
        """Until cancelled. A failure to do one thing is logged and tried again, never raised."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(), name="events of ingress")
            self._queue.add(_OWN)
            group.create_task(self._queue.run(self._sync, 4), name="ingress")
            started, known = asyncio.Event(), asyncio.Event()
            group.create_task(self._following.run(started.set), name="routing")
            group.create_task(self._slices.run(known.set), name="endpoints of front doors")
            await started.wait()
            await known.wait()
            self._following.services.add_handler(self._service_changed)
            self._following.ingresses.add_handler(self._ingress_changed)
            self._following.classes.add_handler(self._class_changed)
            self._following.gateways.classes.add_handler(self._gateway_class_changed)
            self._following.gateways.gateways.add_handler(self._gateway_changed)
            for kind, routes in self._following.gateways.routes.items():
                routes.add_handler(functools.partial(self._route_changed, kind))
            self._queue.add(_OWN)  # again, for what went away before it could be noticed
            self._queue.add(_DOOR)
            group.create_task(self._follow(), name="problems")

    async def _follow(self) -> None:
        following = self._following
        while True:
            following.update()
            following.table.take_change()
            # Halfway through, those that share a Secret would be told that they differ.
            if not following.behind:
                touched, following.touched = following.touched, set()
                for kind, namespace, name in touched:
                    self._queue.add(_key(kind, f"{namespace}/{name}"))
            # The API's requests, in the same process, go before our words.
            await asyncio.sleep(_PAUSE)
            await self._wake.wait()
            self._wake.clear()

    # ---- what happens

    def _nodes_changed(self) -> None:
        self._queue.add(_DOOR)
        for key in self._following.gateways.states:
            self._queue.add(f"Gateway|{key}")

    def _slice_changed(self, service: str) -> None:
        if service == f"{NAMESPACE}/{SERVICE}":
            self._queue.add(_DOOR)
        made = self._following.services.get_by_key(service)
        if made is not None and (gateway := gateway_of(made)):
            self._queue.add(f"Gateway|{gateway}")

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        if (new or old or {})["metadata"]["name"] == CLASS and (new is None or terms_of(new) != self._terms):
            self._queue.add(_OWN)

    def _gateway_class_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None and old["metadata"]["name"] == CLASS:
            self._queue.add(_OWN)
        self._queue.add(f"GatewayClass|/{(new or old or {})['metadata']['name']}")

    def _gateway_changed(self, old: Object | None, new: Object | None) -> None:
        classes = {obj and obj["spec"]["gatewayClassName"] for obj in (old, new)}
        if len(classes) > 1:  # another class is in use now, or no more
            for name in filter(None, classes):
                self._queue.add(f"GatewayClass|/{name}")
        if new is not None and key_of(new) in self._following.gateways.states and _told_otherwise(old, new):
            self._queue.add(_key("Gateway", key_of(new)))

    def _route_changed(self, kind: str, old: Object | None, new: Object | None) -> None:
        if new is None or not _told_otherwise(old, new):
            return
        meta = new["metadata"]
        if (kind, meta["namespace"], meta["name"]) in self._following.gateways.route_states:
            self._queue.add(_key(kind, key_of(new)))

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        if obj is None or key_of(obj) != f"{NAMESPACE}/{SERVICE}":
            return
        self._queue.add(_DOOR)
        if old is None or new is None or old.get("status") != new.get("status"):
            for ingress in self._following.ingresses.list():
                self._queue.add(key_of(ingress))

    def _ingress_changed(self, old: Object | None, new: Object | None) -> None:
        self._queue.add(key_of(new or old or {}))

    # ---- what is done

    async def _sync(self, key: str) -> None:
        if key == _OWN:
            await own_objects.ensure(self._client, self._terms)
            return
        if key == _DOOR:
            service = self._following.services.get(NAMESPACE, SERVICE)
            if service is None:
                self._queue.add(_OWN)
            else:
                await self._slices.sync(service, PORTS, _MANAGER)
            return
        kind, _, name = key.rpartition("|")
        namespace, _, name = name.partition("/")
        if kind.startswith(_CLASSLESS):
            self._tell_of_class(kind.removeprefix(_CLASSLESS), namespace, name)
            return
        if kind:
            await self._gateways.sync((kind, namespace, name))
            if kind == "Gateway":
                self._tell_of_gateway(key, namespace, name)
            return
        ingress = self._following.ingresses.get(namespace, name)
        if ingress is None or ingress["metadata"].get("deletionTimestamp"):
            self._told.pop(key, None)
            self._queue.not_later(key)
            return
        if not self._following.ours(ingress):
            self._expect_class("Ingress", ingress, self._following.classes)
            if _addresses_of(ingress) == self._addresses():
                await self._have_addresses(ingress, [])  # it was ours; what another controller says stays
            return
        self._tell(key, ingress)
        await self._have_addresses(ingress, self._addresses())

    async def _have_addresses(self, ingress: Object, wanted: list[Object]) -> None:
        if _addresses_of(ingress) == wanted:
            return
        meta = ingress["metadata"]
        await self._client.patch(
            INGRESSES,
            meta["namespace"],
            meta["name"],
            {
                "metadata": {"resourceVersion": meta["resourceVersion"]},  # of no state that nobody looked at
                "status": {"loadBalancer": {"ingress": wanted or None}},
            },
            content_type=MERGE_PATCH,
            subresource="status",
            field_manager=_MANAGER,
        )

    def _tell(self, key: str, ingress: Object) -> None:
        """Events for what is new among an Ingress's problems; and that it is in force when it first is: one that has our address was so
        before this process was. (Without an address nothing remembers it: it is told after each start.)"""
        namespace, _, name = key.partition("/")
        owner = ("Ingress", namespace, name)
        table = self._following.table
        problems = dict.fromkeys(
            (*table.contribution(owner).problems, *table.conflicts(owner), *self._doubts(key, ingress))
        )
        before = self._said(key, ingress)
        self._warn(key, ingress, problems)
        first = before is None and _addresses_of(ingress) != (self._addresses() or None)
        if first or (before and not problems):
            self._recorder.event(ingress, "Normal", "Sync", "Scheduled for sync")

    def _expect_class(self, kind: str, obj: Object, classes: Informer) -> None:
        """An object that is not ours: somebody else's, or one whose class is still to come."""
        name = class_named(kind, obj)
        if name and classes.get("", name) is None:
            self._queue.add_after(f"{_CLASSLESS}{kind}|{key_of(obj)}", _CLASS_WITHIN)
        else:
            self._told.pop(_key(kind, key_of(obj)), None)

    def _tell_of_class(self, kind: str, namespace: str, name: str) -> None:
        """Of an object whose class has not come: nobody is going to serve it, and nothing else would say so."""
        objects, classes = self._following.ingresses, self._following.classes
        if kind == "Gateway":
            objects, classes = self._following.gateways.gateways, self._following.gateways.classes
        obj = objects.get(namespace, name)
        if obj is None:
            return
        problem = missing(kind, obj, [c["metadata"]["name"] for c in classes.list()])
        if problem is not None:
            self._warn(_key(kind, f"{namespace}/{name}"), obj, [problem])

    def _tell_of_gateway(self, key: str, namespace: str, name: str) -> None:
        """Events for what is wrong with certificates that a Gateway shows all the same; what is not shown its conditions tell."""
        gateways = self._following.gateways
        obj, state = gateways.gateways.get(namespace, name), gateways.states.get(f"{namespace}/{name}")
        if obj is None:
            self._told.pop(key, None)
            self._queue.not_later(key)
            return
        if state is None:
            self._expect_class("Gateway", obj, gateways.classes)
            return
        now, shown = datetime.datetime.now(datetime.UTC), list(gateways_shown(state))
        self._look_again(key, certificates.next_date_of((c.chain for c, _ in shown), now), now)
        self._warn(
            key,
            obj,
            [
                problem
                for one, host in shown
                for problem in certificates.chain_doubts(
                    one.chain, (host,) if host else (), one.source, "the certificate", now
                )
            ],
        )

    def _warn(self, key: str, obj: Object, problems: Iterable[Problem]) -> None:
        found = dict.fromkeys(problems)
        before = self._said(key, obj) or frozenset()
        news = [problem for problem in found if problem not in before][:_AT_ONCE]
        for problem in news:
            self._recorder.event(obj, "Warning", problem.reason, problem.message)
        self._told[key] = (obj["metadata"]["uid"], frozenset(p for p in found if p in before or p in news))

    def _said(self, key: str, obj: Object) -> frozenset[Problem] | None:
        uid, said = self._told.get(key, ("", frozenset()))
        return said if uid == obj["metadata"]["uid"] else None

    def _look_again(self, key: str, date: datetime.datetime | None, now: datetime.datetime) -> None:
        if date is not None:
            self._queue.add_after(key, (date - now).total_seconds() + 1)

    def _doubts(self, key: str, ingress: Object) -> list[Problem]:
        """What is wrong with an Ingress's certificates today; it is looked at again when one of them begins or ends."""
        if not any(certificates.secrets_of(ingress)):
            return []
        now, secret = datetime.datetime.now(datetime.UTC), self._following.secrets.get
        self._look_again(key, certificates.next_date(ingress, secret, now), now)
        return list(certificates.doubts(ingress, secret, now))

    def _addresses(self) -> list[Object]:
        service = self._following.services.get(NAMESPACE, SERVICE) or {}
        found = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        return [{k: i[k] for k in ("ip", "hostname") if i.get(k)} for i in found]


def _told_otherwise(old: Object | None, new: Object) -> bool:
    """Whether an object that was there says something else of itself: it may be that somebody took away what we say."""
    return old is not None and old.get("status") != new.get("status")


def _addresses_of(ingress: Object) -> list[Object]:
    return ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []


def _key(kind: str, name: str) -> str:
    """What the queue calls an object (`namespace/name`)."""
    return name if kind == "Ingress" else f"{kind}|{name}"
