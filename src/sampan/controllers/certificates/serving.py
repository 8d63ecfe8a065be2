"""Serving certificates of nodes: one that asks for its own names and addresses, and for no others, is approved.

Upstream leaves these to the cluster's administrator or a controller of his. A node's own are its name and the addresses that
its Node says. Since a node writes that itself, it does not count for what others are trusted by: the names and addresses of the
API server, names of Services, loopback; and an address that a second Node claims too is nobody's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from sampan.api import certificate_requests
from sampan.api.certificate_requests import KUBELET_SERVING, Request
from sampan.api.errors import Object
from sampan.api.resources import CERTIFICATESIGNINGREQUESTS, NODES
from sampan.controllers.certificates.approving import approve, undecided
from sampan.controllers.controller import Context, Controller

_NODES = "system:nodes"
_PREFIX = "system:node:"
_IP_TYPES = ("InternalIP", "ExternalIP")
MESSAGE = "Auto approving kubelet serving certificate: its names and addresses are the node's own."


class KubeletServingApprovingController(Controller):
    name = "kubelet-serving-approving"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._authority = context.authority
        self._holders: dict[str, set[str]] = {}
        """Which Nodes claim an address."""
        self._requests = context.informers.of(CERTIFICATESIGNINGREQUESTS)
        self._nodes = context.informers.of(NODES)
        self._nodes.add_handler(self._node_changed)
        self._requests.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and undecided(new, KUBELET_SERVING):
            self.enqueue(new)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        gone, come = set(_of(old, _IP_TYPES)), set(_of(new, _IP_TYPES))
        if gone == come and old is not None and new is not None:
            return
        for address in gone - come:
            self._holders.get(address, set()).discard(name)
            if not self._holders.get(address):
                self._holders.pop(address, None)
        for address in come:
            self._holders.setdefault(address, set()).add(name)
        for csr in self._requests.list():
            if undecided(csr, KUBELET_SERVING):
                self.enqueue(csr)

    async def sync(self, key: str) -> None:
        csr = self._requests.get("", key)
        if csr is None or not undecided(csr, KUBELET_SERVING):
            return
        spec = csr["spec"]
        request = certificate_requests.of(csr)
        if certificate_requests.kubelet_serving_problem(request, spec.get("usages") or ()):
            return
        if spec.get("username") != request.common_name or _NODES not in (spec.get("groups") or ()):
            return
        served = self._authority.server_names() if self._authority is not None else frozenset()
        if self._asks_for_its_own(request, served):
            await approve(self._client, csr, MESSAGE)

    def _asks_for_its_own(self, request: Request, served: frozenset[str]) -> bool:
        """`served` is what the API server is known by."""
        name = request.common_name.removeprefix(_PREFIX)
        if self._nodes.get("", name) is None or not set(request.dns_names) <= {name}:
            return False
        if request.dns_names and (name in served or _is_of_services(name)):
            return False
        addresses = [_plain(a) for a in request.addresses]
        if any(a in served or ipaddress.ip_address(a).is_loopback for a in addresses):
            return False
        return all(self._holders.get(a) == {name} for a in addresses)


def _of(node: Object | None, types: tuple[str, ...]) -> Iterator[str]:
    """The addresses of these types that a Node says it has."""
    for address in ((node or {}).get("status") or {}).get("addresses") or ():
        if address.get("type") in types:
            yield _plain(address["address"])


def _is_of_services(name: str) -> bool:
    """Whether a name is, or can be taken for, one that the cluster's DNS gives to Services."""
    return name in ("localhost", "kubernetes", "kubernetes.default") or "svc" in name.split(".")[1:]


def _plain(address: str) -> str:
    """An address in the one form that two can be compared in."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
