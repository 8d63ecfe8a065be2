"""The connect subresources: what is answered by the pod's node, by a pod, or by an endpoint of a service.

Upstream: `k8s.io/kubernetes/pkg/registry/core/{pod,service,node}/rest` and their `strategy.go`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlencode

from sampan.api.errors import (
    FieldError,
    Object,
    StatusError,
    bad_request,
    forbidden_field,
    internal,
    invalid,
    invalid_value,
    method_not_supported,
    not_found,
    not_supported,
    unavailable,
)
from sampan.api.objects import parse_time
from sampan.api.resources import ENDPOINTS, ENDPOINTSLICES, NODES, PODS, SERVICES
from sampan.apiserver.config import Config
from sampan.apiserver.proxying import Proxy, Target, split_scheme_name_port
from sampan.apiserver.types import ReadCache, RequestInfo, User
from sampan.transport.tls import client_context
from sampan.transport.types import Answer, Request, Response, Stream, StreamingResponse

if TYPE_CHECKING:
    import aiohttp

_SERVICE_NAME = "kubernetes.io/service-name"
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_ON = ("1", "true", "True", "TRUE", "t", "T")


class NodeConnector:
    """Implements `Connector` over what the cache knows of pods, nodes and services."""

    def __init__(self, cache: ReadCache, config: Config) -> None:
        self._cache = cache
        self._config = config
        self._proxy = Proxy()
        self._node_tls: ssl.SSLContext | None = None
        self._node_tls_stamp: tuple[float, ...] = ()
        self._any_tls: ssl.SSLContext | None = None

    async def close(self) -> None:
        await self._proxy.close()

    async def connect(self, request: Request, info: RequestInfo, user: User) -> Answer:
        """Answer a connect subresource. Raises StatusError."""
        match (info.plural, info.subresource):
            case ("pods", "log"):
                return await self._log(request, info)
            case ("pods", "exec" | "attach" as what):
                return await self._command(request, info, what)
            case ("pods", "portforward"):
                pod = self._pod(info)
                ports = [p for name in ("ports", "port") for p in request.params.get(name, ())]
                path = f"/portForward/{info.namespace}/{info.name}"
                query = urlencode([("port", p) for p in ports])
                return await self._tunnel(request, self._node_of(pod), path, query)
            case ("pods", "proxy"):
                return await self._proxy.forward(request, self._pod_target(request, info))
            case ("services", "proxy"):
                return await self._proxy.forward(request, self._service_target(request, info))
            case ("nodes", "proxy"):
                return await self._proxy.forward(request, self._node_target(request, info))
        raise method_not_supported(f"{info.plural}/{info.subresource}", info.verb)

    # Logs and streams: the pod's node answers.

    async def _log(self, request: Request, info: RequestInfo) -> Answer:
        import aiohttp

        if problems := list(log_problems(request)):
            raise invalid("PodLogOptions", info.name, problems)
        pod = self._pod(info)
        container = choose_container(pod, request.param("container"))
        if not pod["spec"].get("nodeName"):
            return Response(200, b"", "text/plain")
        query: list[tuple[str, str]] = []
        for name in ("follow", "previous", "timestamps"):
            if request.param(name) in _ON:
                query.append((name, "true"))
        for name in ("sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"):
            if value := request.param(name):
                query.append((name, value))
        path = f"/containerLogs/{info.namespace}/{info.name}/{container}"
        target = self._on_node(self._node_of(pod), path, urlencode(query))
        try:
            answer = await self._proxy.request(target, "GET", {"Accept-Encoding": "identity"})
        except ConnectionError as failure:
            raise internal(f'Get "{target.url}": {failure}') from failure
        if answer.status != 200:
            raise await _node_error(answer)

        async def send(stream: Stream) -> None:
            async with answer:
                try:
                    async for chunk in answer.content.iter_any():
                        stream.write(chunk)
                        await stream.drain()
                except (aiohttp.ClientError, OSError, TimeoutError) as failure:
                    raise ConnectionError(f"log of {target.path} broke off: {failure}") from failure

        return StreamingResponse(send, content_type="text/plain")

    async def _command(self, request: Request, info: RequestInfo, what: str) -> Answer:
        pod = self._pod(info)
        container = choose_container(pod, request.param("container"))
        by_default = "true" if what == "attach" else ""
        query: list[tuple[str, str]] = []
        for ours, theirs, default in (
            ("stdin", "input", ""),
            ("stdout", "output", by_default),
            ("stderr", "error", by_default),
            ("tty", "tty", ""),
        ):
            if request.param(ours, default) in _ON:
                query.append((theirs, "1"))
        if not query or query == [("tty", "1")]:
            raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
        query += [("command", c) for c in request.params.get("command", ())]
        path = f"/{what}/{info.namespace}/{info.name}/{container}"
        return await self._tunnel(request, self._node_of(pod), path, urlencode(query))

    async def _tunnel(self, request: Request, node: Object, path: str, query: str) -> Answer:
        if "upgrade" not in request.headers:
            raise bad_request("Upgrade request required")
        passed = {
            name: value
            for name, value in request.headers.items()
            if name.startswith("sec-websocket-") or name in ("x-stream-protocol-version", "user-agent")
        }
        return await self._proxy.tunnel(request, self._on_node(node, path, query), passed)

    def _pod(self, info: RequestInfo) -> Object:
        pod = self._cache.get(PODS, info.namespace, info.name)
        if pod is None:
            raise not_found("pods", info.name)
        return pod

    def _node_of(self, pod: Object) -> Object:
        name = pod["spec"].get("nodeName")
        if not name:
            raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        return self._node(name)

    def _node(self, name: str) -> Object:
        node = self._cache.get(NODES, "", name)
        if node is None:
            raise not_found("nodes", name)
        return node

    def _on_node(self, node: Object, path: str, query: str, prefix: str = "") -> Target:
        return Target(_address(node), self._port(node), path, query, prefix, self._client_tls())

    def _port(self, node: Object) -> int:
        endpoints = (node.get("status") or {}).get("daemonEndpoints") or {}
        return int((endpoints.get("kubeletEndpoint") or {}).get("Port") or self._config.node_port)

    def _client_tls(self) -> ssl.SSLContext:
        """What we show nodes; made anew when the certificate has been renewed."""
        certificate, key = self._config.node_client_certificate, self._config.node_client_key
        stamp = tuple(os.stat(f).st_mtime for f in (certificate, key) if f is not None)
        if self._node_tls is None or stamp != self._node_tls_stamp:
            try:
                self._node_tls = client_context(self._config.cluster_ca, certificate, key)
                self._node_tls_stamp = stamp
            except (OSError, ssl.SSLError) as failure:
                if self._node_tls is None:
                    raise internal(f"no certificate to show to nodes: {failure}") from failure
        return self._node_tls

    # Proxies.

    def _pod_target(self, request: Request, info: RequestInfo) -> Target:
        scheme, name, port = _parsed("pod", info.name)
        pod = self._cache.get(PODS, info.namespace, name)
        if pod is None:
            raise not_found("pods", name)
        if not port:
            declared = (p for c in pod["spec"]["containers"] for p in c.get("ports") or ())
            port = str(next((p["containerPort"] for p in declared), ""))
        address = (pod.get("status") or {}).get("podIP", "")
        if not _allowed(address):
            raise bad_request("address not allowed")
        if port and not port.isdigit():
            raise bad_request(f'invalid pod request "{info.name}": port {port} is not a number')
        return self._target(request, info, scheme, address, int(port or (443 if scheme == "https" else 80)))

    def _service_target(self, request: Request, info: RequestInfo) -> Target:
        scheme, name, port = _parsed("service", info.name)
        service = self._cache.get(SERVICES, info.namespace, name)
        if service is None:
            raise not_found("services", name)
        if port.isdigit():
            found = [p for p in service["spec"].get("ports") or () if p["port"] == int(port)]
            if not found:
                raise unavailable(f'no service port {port} found for service "{name}"')
            port = found[0].get("name", "")
        ready = [e for e in self._endpoints(info.namespace, name, port) if _allowed(e[0])]
        if not ready:
            raise unavailable(f'no endpoints available for service "{name}"')
        address, number = random.choice(ready)
        return self._target(request, info, scheme, address, number)

    def _endpoints(self, namespace: str, service: str, port_name: str) -> Iterator[tuple[str, int]]:
        """Addresses and ports of the ready endpoints. A service whose Endpoints were written by hand may have no
        slices."""
        slices = [
            s
            for s in self._cache.list(ENDPOINTSLICES, namespace)
            if (s["metadata"].get("labels") or {}).get(_SERVICE_NAME) == service
        ]
        for piece in slices:
            for port in piece.get("ports") or ():
                if (port.get("name") or "") == port_name and port.get("port"):
                    for endpoint in piece.get("endpoints") or ():
                        if (endpoint.get("conditions") or {}).get("ready") is not False:
                            yield endpoint["addresses"][0], port["port"]
        by_hand = self._cache.get(ENDPOINTS, namespace, service) if not slices else None
        for subset in (by_hand or {}).get("subsets") or ():
            for port in subset.get("ports") or ():
                if (port.get("name") or "") == port_name:
                    for address in subset.get("addresses") or ():
                        yield address["ip"], port["port"]

    def _node_target(self, request: Request, info: RequestInfo) -> Target:
        scheme, name, port = _parsed("node", info.name)
        node = self._node(name)
        # What a node says of itself must not make us ask ourselves. A host name, which could be resolved to anything,
        # will not do.
        if not _allowed(_address(node)):
            raise bad_request("address not allowed")
        own = self._port(node)
        if not port or port == str(own):
            rest, prefix = split_proxy_path(request, info)
            return self._on_node(node, rest, request.query, prefix)
        if not port.isdigit():
            raise bad_request(f'invalid node request "{info.name}"')
        return self._target(request, info, scheme, _address(node), int(port))

    def _target(self, request: Request, info: RequestInfo, scheme: str, address: str, port: int) -> Target:
        rest, prefix = split_proxy_path(request, info)
        tls = None
        if scheme == "https":
            if self._any_tls is None:
                self._any_tls = client_context(
                    None, verify=False
                )  # As upstream: pods have no known authority.
            tls = self._any_tls
        return Target(address, port, rest, request.query, prefix, tls)


def choose_container(pod: Object, container: str) -> str:
    """The container meant: the named one, or the only one. Raises StatusError 400."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    every = [
        c["name"]
        for key in ("initContainers", "containers", "ephemeralContainers")
        for c in spec.get(key) or ()
    ]
    if container:
        if container not in every:
            raise bad_request(f"container {container} is not valid for pod {name}")
        return container
    containers: list[Object] = spec.get("containers") or []
    if len(containers) == 1:
        return cast(str, containers[0]["name"])
    if not containers:
        raise bad_request(f"a container name must be specified for pod {name}")
    listed = " ".join(every)
    raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{listed}]")


def log_problems(request: Request) -> Iterator[FieldError]:
    """What is wrong with the options of a log request."""
    numbers: dict[str, int] = {}
    for name, least, words in (
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ):
        if not (text := request.param(name)):
            continue
        try:
            numbers[name] = int(text)
        except ValueError:
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
        if numbers[name] < least:
            yield invalid_value(name, numbers[name], words)
    if moment := request.param("sinceTime"):
        if "sinceSeconds" in numbers:
            yield forbidden_field("", "at most one of `sinceTime` or `sinceSeconds` may be specified")
        with suppress(ValueError):
            parse_time(moment)
            moment = ""
        if moment:
            raise bad_request(f'parsing time "{moment}": it is not RFC 3339')
    stream = request.param("stream", "All")
    if stream not in ("All", "Stdout", "Stderr"):
        yield not_supported("stream", stream, ("All", "Stdout", "Stderr"))
    elif stream != "All" and "tailLines" in numbers:
        yield forbidden_field("", "`tailLines` and specific `stream` are mutually exclusive for now")


def split_proxy_path(request: Request, info: RequestInfo) -> tuple[str, str]:
    """What follows `.../proxy` in the URL, and all before it; both still percent-encoded."""
    parts = request.raw_path.split("/")
    count = 8 if info.namespace else 6  # "", api, v1, [namespaces, NS,] plural, NAME, proxy
    if len(parts) < count or parts[count - 1] != "proxy" or unquote(parts[count - 2]) != info.name:
        raise bad_request(f"malformed proxy path {request.raw_path}")
    rest = parts[count:]
    return ("/" + "/".join(rest) if rest else ""), "/".join(parts[:count])


def _parsed(kind: str, text: str) -> tuple[str, str, str]:
    found = split_scheme_name_port(text)
    if found is None:
        raise bad_request(f'invalid {kind} request "{text}"')
    return found


def _allowed(address: str) -> bool:
    """Whether it is an address that a pod may have: ours are not reached through us (loopback, link-local, ...)."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.version == 6 and ip.ipv4_mapped is not None:  # ::ffff:127.0.0.1 is loopback too
        ip = ip.ipv4_mapped
    return not (
        ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip == _BROADCAST
    )


def _address(node: Object) -> str:
    addresses = (node.get("status") or {}).get("addresses") or ()
    for kind in ("InternalIP", "ExternalIP", "Hostname"):
        for address in addresses:
            if address.get("type") == kind:
                return cast(str, address["address"])
    raise internal(f"no preferred addresses found; known addresses: {list(addresses)}")


async def _node_error(answer: aiohttp.ClientResponse) -> StatusError:
    """The error that a node's answer stands for."""
    async with answer:
        text = (await answer.content.read(64 * 1024)).decode("utf-8", "replace")
    with suppress(ValueError):
        status: Mapping[str, Any] | Any = json.loads(text)
        if isinstance(status, dict) and status.get("kind") == "Status":
            return StatusError.from_status(status)
    return internal(text) if answer.status == 500 else StatusError(answer.status, "", text)
