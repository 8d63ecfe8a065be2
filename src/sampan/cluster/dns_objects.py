"""What the API holds of the cluster's DNS: its Service and the ConfigMap that configures it, by upstream's names.

They are made when they are missing; what an administrator wrote into them stays.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sampan.api.errors import Object, StatusError
from sampan.api.resources import CONFIGMAPS, SERVICES, Resource
from sampan.cluster.config import ClusterConfig

if TYPE_CHECKING:
    from sampan.client.types import Client

log = logging.getLogger(__name__)
SERVICE = "kube-dns"
PROXY_NAME = "sampan-dns"
"""Whose the Service's address is: a DNS server on each node, not one that the Service proxy would lead to."""


async def keep(client: Client, config: ClusterConfig) -> None:
    """Make both, then rest until cancelled. Raises ConnectionLost."""
    from sampan.dns import corefile, server

    config_map: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": server.NAME, "namespace": server.NAMESPACE},
        "data": {"Corefile": corefile.DEFAULT},
    }
    wanted: Object
    for resource, wanted in ((SERVICES, _service(config)), (CONFIGMAPS, config_map)):
        try:
            # Asked for first: of a Service that is there its address would be said to be taken.
            if not await _there(client, resource, wanted):
                await client.create(resource, wanted)
        except StatusError as e:
            if e.reason == "AlreadyExists":
                continue
            # Names are answered all the same: the address is each node's own.
            log.warning("%s %s is not made: %s", wanted["kind"], wanted["metadata"]["name"], e.message)
    await asyncio.Event().wait()


async def _there(client: Client, resource: Resource, wanted: Object) -> bool:
    try:
        await client.get(resource, wanted["metadata"]["namespace"], wanted["metadata"]["name"])
    except StatusError as e:
        if e.code != 404:
            raise
        return False
    return True


def _service(config: ClusterConfig) -> Object:
    addresses = list(config.dns_addresses)
    ports = (("dns", "UDP", 53), ("dns-tcp", "TCP", 53), ("metrics", "TCP", 9153))
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": SERVICE,
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
                "service.kubernetes.io/service-proxy-name": PROXY_NAME,
            },
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
        },
        "spec": {
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilies": list(config.families),
            "ipFamilyPolicy": "SingleStack" if len(addresses) == 1 else "RequireDualStack",
            "ports": [
                {"name": name, "protocol": protocol, "port": port, "targetPort": port}
                for name, protocol, port in ports
            ],
        },
    }
