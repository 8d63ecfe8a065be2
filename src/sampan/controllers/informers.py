"""The informers that all controllers share: one copy of each resource, with the indexes that keep a reaction's cost small."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from sampan.api import ingress_tls, resources
from sampan.api.errors import Object
from sampan.api.objects import controller_of
from sampan.api.resources import Resource
from sampan.client.informer import IndexFunction, Informer
from sampan.client.types import Client

OWNER, ORPHANS, LABEL, NODE, SELECTOR, SERVICE = "owner", "orphans", "label", "node", "selector", "service"
LOCAL_TLS = "local tls"
"""Names of indexes: by the uid of the controlling owner, the namespace of what has none, one label
(`namespace/key=value`), the node, one term of the selector, the Service of an EndpointSlice, and the Secret of a certificate that
an Ingress has made for it."""

SERVICE_NAME_LABEL = "kubernetes.io/service-name"


def _by_owner(obj: Object) -> Iterator[str]:
    owner = controller_of(obj)
    if owner is not None:
        yield owner["uid"]


def _orphans(obj: Object) -> Iterator[str]:
    if controller_of(obj) is None:
        yield obj["metadata"].get("namespace", "")


def _by_label(obj: Object) -> Iterator[str]:
    meta = obj["metadata"]
    namespace = meta.get("namespace", "")
    for key, value in (meta.get("labels") or {}).items():
        yield f"{namespace}/{key}={value}"


def _by_node(pod: Object) -> Iterator[str]:
    node = pod["spec"].get("nodeName")
    if node:
        yield node


def _by_selector(obj: Object) -> Iterator[str]:
    selector = obj["spec"].get("selector")
    if not selector:
        return
    pairs = selector.get("matchLabels") or {} if obj["kind"] != "Service" else selector
    yield _selector_key(obj["metadata"].get("namespace", ""), pairs)


def _selector_key(namespace: str, pairs: Mapping[str, str]) -> str:
    # One pair is enough: whatever is selected carries it. A selector without pairs must be asked about everything.
    if not pairs:
        return f"{namespace}/"
    key = max(pairs)
    return f"{namespace}/{key}={pairs[key]}"


def _by_service(obj: Object) -> Iterator[str]:
    meta = obj["metadata"]
    service = (meta.get("labels") or {}).get(SERVICE_NAME_LABEL)
    if service:
        yield f"{meta['namespace']}/{service}"


def _by_local_tls(ingress: Object) -> Iterator[str]:
    if ingress_tls.is_local(ingress):
        for _, name in ingress_tls.entries(ingress):
            yield f"{ingress['metadata']['namespace']}/{name}"


_INDEXES: dict[Resource, Mapping[str, IndexFunction]] = {
    resources.PODS: {OWNER: _by_owner, ORPHANS: _orphans, LABEL: _by_label, NODE: _by_node},
    resources.REPLICASETS: {OWNER: _by_owner, ORPHANS: _orphans, SELECTOR: _by_selector},
    resources.DEPLOYMENTS: {SELECTOR: _by_selector},
    resources.SERVICES: {SELECTOR: _by_selector},
    resources.ENDPOINTSLICES: {SERVICE: _by_service},
    resources.INGRESSES: {LOCAL_TLS: _by_local_tls},
}


class Informers:
    """One informer a resource, made when it is first asked for; all of them must be asked for before `run`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._made: dict[Resource, Informer] = {}

    def of(self, resource: Resource) -> Informer:
        informer = self._made.get(resource)
        if informer is None:
            informer = Informer(self._client, resource, indexes=_INDEXES.get(resource))
            self._made[resource] = informer
        return informer

    async def run(self) -> None:
        """Follow the API until cancelled."""
        async with asyncio.TaskGroup() as group:
            for resource, informer in self._made.items():
                group.create_task(informer.run(), name=f"informer {resource.plural}")

    async def synced(self) -> None:
        """Wait until every copy is complete."""
        for informer in self._made.values():
            await informer.synced.wait()


def selecting(informer: Informer, obj: Object) -> Iterator[Object]:
    """The objects of `informer` (indexed by SELECTOR) whose selector may choose `obj`; the caller still has to match."""
    meta = obj["metadata"]
    namespace = meta.get("namespace", "")
    yield from informer.by_index(SELECTOR, f"{namespace}/")
    for key, value in (meta.get("labels") or {}).items():
        yield from informer.by_index(SELECTOR, f"{namespace}/{key}={value}")


def labelled(informer: Informer, namespace: str, pairs: Mapping[str, str]) -> list[Object]:
    """The objects of `informer` (indexed by LABEL) that may carry all of `pairs`, of which there must be one."""
    buckets = (informer.by_index(LABEL, f"{namespace}/{k}={v}") for k, v in pairs.items())
    return min(buckets, key=len)
