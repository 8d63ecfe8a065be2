"""The DNS server of one node: follows the cluster's objects and its own configuration, and answers (upstream: CoreDNS)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sampan.api.errors import Object, StatusError
from sampan.api.resources import CONFIGMAPS, ENDPOINTSLICES, NAMESPACES, PODS, SERVICES
from sampan.client.events import Recorder
from sampan.client.informer import Informer, key_of
from sampan.client.types import Client, ConnectionLost
from sampan.dns import corefile, directives, objects, settings, wire
from sampan.dns.answering import Answering
from sampan.dns.kubernetes import changed_names
from sampan.dns.listeners import PORT, Bind, Listeners, bound_socket
from sampan.dns.pages import Pages
from sampan.dns.resolver import Resolver
from sampan.dns.upstreams import SocketMaker, searches

log = logging.getLogger(__name__)
NAMESPACE, NAME = "kube-system", "coredns"
"""The ConfigMap that configures it."""
_FIRST_PAUSE, _MOST_PAUSE = 0.02, 5.0
_RESOLV_CONF = Path("/etc/resolv.conf")


def _plain_socket(family: int, kind: int) -> socket.socket:
    return socket.socket(family, kind)


class DnsServer:
    """`addresses` are where it answers; `bind` and `outside` make its sockets, those towards pods and those towards other name
    servers, where these are in different networks."""

    def __init__(
        self, client: Client, *, node_name: str, addresses: Sequence[str], version: str = "", port: int = PORT,
        bind: Bind = bound_socket, outside: SocketMaker = _plain_socket, ready: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._client = client
        self._node_name = node_name
        self._addresses = addresses
        self._port = port
        self._version = version
        self._bind = bind
        self._outside = outside
        self._ready = ready
        self._services = Informer(
            client, SERVICES, transform=objects.service, indexes={"address": objects.by_address}
        )
        self._slices = Informer(
            client, ENDPOINTSLICES, transform=objects.endpoint_slice,
            indexes={"address": objects.by_address, "service": objects.by_service},
        )  # fmt: skip
        self._namespaces = Informer(client, NAMESPACES, transform=objects.namespace)
        self._config = Informer(client, CONFIGMAPS, NAMESPACE, field_selector=f"metadata.name={NAME}")
        self._pods: Informer | None = None
        self._recorder = Recorder(client, "sampan-dns", node_name)
        self._changed = time.time()
        self.loads = 0
        """How often a configuration came into force."""

    async def run(self) -> None:
        """Until cancelled. Raises OSError where it cannot listen."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._answering = Answering(group)
            self._pages = Pages(self._bind, self._addresses, self._answering, self._version)
            listeners = Listeners(self._answering, self._bind)
            await self._reach_api()
            followed = (self._services, self._slices, self._namespaces, self._config)
            for informer in followed:
                group.create_task(informer.run(), name=informer.resource.plural)
            group.create_task(self._recorder.run(), name="events")
            for informer in followed:
                await informer.synced.wait()
            self._services.add_handler(self._service_changed)
            self._slices.add_handler(self._slice_changed)
            self._namespaces.add_handler(self._namespace_changed)
            self._use(directives.load({"Corefile": corefile.DEFAULT}))
            self._config.add_handler(self._config_changed)
            try:
                await listeners.start(self._addresses, self._port)
                log.info("%d Services; serving at %s", len(self._services.list()), ", ".join(self._addresses))
                self._pages.ready = True
                self._ready()
                await asyncio.Event().wait()
            finally:
                listeners.close()
                self._pages.close()

    async def _reach_api(self) -> None:
        """It starts at the same time: nobody has to wait as long as informers do between their tries."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._client.get(CONFIGMAPS, NAMESPACE, NAME)
            except StatusError:
                return
            except ConnectionLost:
                await asyncio.sleep(pause)
                pause = min(pause * 1.2, _MOST_PAUSE)
            else:
                return

    # ---- the objects, for answers

    def service(self, namespace: str, name: str) -> Object | None:
        return self._services.get(namespace, name)

    def slices(self, namespace: str, name: str) -> Sequence[Object]:
        return self._slices.by_index("service", f"{namespace}/{name}")

    def services_at(self, address: str) -> Sequence[Object]:
        return self._services.by_index("address", address)

    def slices_with(self, address: str) -> Sequence[Object]:
        return self._slices.by_index("address", address)

    def has_namespace(self, name: str) -> bool:
        return self._namespaces.get("", name) is not None

    # ---- changes

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        namespace, _, name = key_of(new or old or {}).partition("/")
        addresses = [objects.by_address(o) if o is not None else () for o in (old, new)]
        self._drop({(namespace, name), *changed_names(*addresses)})

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        groups: set[tuple[str, ...]] = set()
        for obj in (old, new):
            for key in objects.by_service(obj) if obj is not None else ():
                namespace, _, name = key.partition("/")
                groups.add((namespace, name))
        before, after = (obj["endpoints"] if obj is not None else () for obj in (old, new))
        # By endpoint and not by address alone: with another hostname an address has another name.
        ends = {e[0] for e in set(before) ^ set(after)}
        self._drop(groups | changed_names(ends, ()))

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is None:
            self._drop({(key_of(new or old or {}),)})

    def _drop(self, groups: set[tuple[str, ...]]) -> None:
        self._changed = time.time()
        self._answering.forget(groups)

    # ---- configuration

    def _config_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            log.info("ConfigMap %s is gone: the default Corefile is in force", NAME)
            self._use(directives.load({"Corefile": corefile.DEFAULT}))
            return
        try:
            configuration = directives.load(new.get("data") or {})
        except Exception as e:
            if not isinstance(e, corefile.CorefileError):  # a fault of ours: names are answered all the same
                log.exception("the Corefile cannot be read")
            self._answering.counts.failed_reloads += 1
            message = f"The Corefile is not used, the last good one stays in force: {e}"
            log.error("%s", message)
            self._recorder.event(new, "Warning", "CorefileRefused", message)
            return
        for note in configuration.notes:
            log.warning("Corefile, %s", note)
        if configuration.notes:
            self._recorder.event(new, "Normal", "CorefileNotes", "; ".join(configuration.notes))
        self._use(configuration)

    def _use(self, configuration: settings.Settings) -> None:
        if any(s.autopath for s in configuration.servers) and self._pods is None:
            # Whoever asks here is a Pod of this node.
            self._pods = Informer(
                self._client, PODS, field_selector=f"spec.nodeName={self._node_name}",
                transform=objects.pod, indexes={"address": objects.by_address},
            )  # fmt: skip
            self._group.create_task(self._pods.run(), name="pods")
        resolver = Resolver(
            configuration, self, self._outside, own=self._addresses, changed=lambda: self._changed,
            search=self._search, clock=asyncio.get_running_loop().time,
        )  # fmt: skip
        self._answering.use(resolver)
        self.loads += 1
        self._group.create_task(self._pages.use(configuration))

    def _search(self, source: str, zone: bytes) -> Sequence[bytes]:
        """The search path of the Pod at an address; empty where it is not known for certain."""
        pods = self._pods.by_index("address", source) if self._pods is not None else ()
        if len(pods) != 1:
            return ()
        return list(self._path(pods[0]["metadata"]["namespace"], zone))

    def _path(self, namespace: str, zone: bytes) -> Iterator[bytes]:
        yield wire.encode_name(f"{namespace}.svc")[:-1] + zone
        yield b"\3svc" + zone
        yield zone
        for domain in searches(_RESOLV_CONF):
            with contextlib.suppress(ValueError):
                yield wire.encode_name(domain).lower()
        yield b"\0"
