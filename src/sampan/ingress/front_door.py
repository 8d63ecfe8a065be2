"""The front door of one node: follows the cluster's routing and has the node's HAProxy do it."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sampan.api.errors import StatusError
from sampan.client.types import Client, ConnectionLost
from sampan.ingress import access_log, serving
from sampan.ingress.following import Following
from sampan.ingress.haproxy.driver import HaproxyDriver
from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import Process
from sampan.ingress.metrics import MetricsServer
from sampan.ingress.types import INGRESS_SCOPE, Listener

log = logging.getLogger(__name__)
HTTP = Listener("http", 80, INGRESS_SCOPE)
HTTPS = Listener("https", 443, INGRESS_SCOPE, tls=True)
_SEARCH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def program() -> str | None:
    """Where HAProxy is."""
    return shutil.which("haproxy", path=_SEARCH)


class FrontDoor:
    """`own_networks` are those of the cluster, where no ExternalName may lead; metrics are told at the first of `addresses`, if nothing else is said. `directory` (made) is for the proxy's files and goes with the node's other run-time files."""

    def __init__(
        self,
        client: Client,
        *,
        node_name: str,
        addresses: Sequence[str],
        directory: Path,
        access_log_file: Path,
        own_networks: Sequence[str] = (),
        listeners: Sequence[Listener] = (HTTP, HTTPS),
        proxy_protocol: bool = False,
        metrics_address: str = "",
        haproxy: str | None = None,
    ) -> None:
        self._client = client
        self._node_name = node_name
        self._access_log = access_log_file
        self._wake = asyncio.Event()
        self._following = Following(client, self._wake.set, own_networks=own_networks)
        self._following.table.set_listeners(replace(one, proxy_protocol=proxy_protocol) for one in listeners)
        files = Files(directory, tuple(addresses))
        self._process = Process(files, haproxy or program() or "haproxy", access_log_file)
        self._driver = HaproxyDriver(files, self._process, self._set_serving)
        self._metrics_address = metrics_address or addresses[0]
        self._metrics = MetricsServer(files)
        self._serving: tuple[bool, str] | None = None
        self._serving_changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; the proxy goes on."""
        try:
            await self._metrics.start(self._metrics_address)
        except OSError as e:
            log.warning("metrics of ingress are not served: %s", e)
        try:
            await self._run()
        finally:
            await self._metrics.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            started = asyncio.Event()
            group.create_task(self._following.run(started.set), name="routing")
            await started.wait()
            self._flush()
            group.create_task(self._driver.run(), name="haproxy")
            group.create_task(self._tell(), name="condition")
            group.create_task(access_log.keep_small(self._access_log), name="access log")
            group.create_task(access_log.keep_small(self._process.said), name="haproxy's log")
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._following.update()
                self._flush()
                await asyncio.sleep(0)  # where there is more to do, others have their turn first

    def _flush(self) -> None:
        table = self._following.table
        self._following.touched.clear()
        self._driver.apply(table.routing, table.take_change())

    def _set_serving(self, on: bool, why: str) -> None:
        if self._serving != (on, why):
            self._serving = on, why
            self._serving_changed.set()

    async def _tell(self) -> None:
        """Keep the Node's condition true."""
        pause = 0.1
        while True:
            await self._serving_changed.wait()
            self._serving_changed.clear()
            assert self._serving is not None
            try:
                await serving.tell(self._client, self._node_name, *self._serving)
                pause = 0.1
            except Exception as e:
                if isinstance(e, StatusError | ConnectionLost):  # the Node may not be there yet
                    log.debug("condition %s: %s", serving.CONDITION, e)
                else:
                    log.exception("condition %s", serving.CONDITION)
                self._serving_changed.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)
