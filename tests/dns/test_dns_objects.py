"""What the API holds of the cluster's DNS."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from sampan.api.errors import StatusError
from sampan.api.resources import CONFIGMAPS, SERVICES
from sampan.client.types import Client
from sampan.cluster.config import ClusterConfig
from sampan.cluster.dns_objects import keep

CONFIG = ClusterConfig(
    name="x",
    number=1,
    api_port=6443,
    service_cidr="10.97.0.0/16",
    pod_cidr="10.160.0.0/16",
    node_subnet="172.29.1.0/24",
    nodes=("node-1",),
)


class _Api:
    """Objects by kind; an address that a Service has cannot be given to another one, whatever its name, as with the API server."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Any] = {}
        self.both = asyncio.Event()

    async def get(self, resource: Any, namespace: str, name: str) -> Any:
        found = self.objects.get((resource.kind, namespace, name))
        if resource is CONFIGMAPS and found is not None:
            self.both.set()
        if found is None:
            raise StatusError(404, "NotFound", f"{name} not found")
        return found

    async def create(self, resource: Any, wanted: Any) -> None:
        taken = {o["spec"]["clusterIP"] for (kind, *_), o in self.objects.items() if kind == "Service"}
        if resource is SERVICES and wanted["spec"]["clusterIP"] in taken:
            raise StatusError(422, "Invalid", "provided IP is already allocated")
        meta = wanted["metadata"]
        self.objects[(resource.kind, meta["namespace"], meta["name"])] = wanted
        if resource is CONFIGMAPS:
            self.both.set()


async def _kept(api: _Api) -> None:
    api.both.clear()
    task = asyncio.create_task(keep(cast(Client, api), CONFIG))
    async with asyncio.timeout(20):
        await api.both.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_is_there_already_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    api = _Api()
    await _kept(api)
    service = api.objects[("Service", "kube-system", "kube-dns")]
    assert service["spec"]["clusterIP"]
    await _kept(api)
    assert api.objects[("Service", "kube-system", "kube-dns")] is service
    assert caplog.records == []


async def test_another_service_with_its_address_is_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    api = _Api()
    await _kept(api)
    api.objects[("Service", "default", "mine")] = api.objects.pop(("Service", "kube-system", "kube-dns"))
    await _kept(api)
    assert "Service kube-dns is not made: provided IP is already allocated" in caplog.text
