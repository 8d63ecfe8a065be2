"""Two front doors on one cluster for the benchmarks: Sampan's own and Traefik, with one backend behind both.

Traefik runs as its documentation has it, in a pod in the node's own network, where Sampan's HAProxy is too: neither is nearer to the
pods than the other. Both write an access log in JSON, as Sampan's does from the beginning. Traefik writes no addresses into its Ingresses, which Sampan
does: it would be busy with 1,000 of them for minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.http_load import Site
from bench.processes import memory, parts
from sampan.cluster.config import ClusterConfig
from tests.cluster import traefik

SERVICE = "hello"
_IMAGE = "nginx"
_NGINX = """
cat > /tmp/nginx.conf <<END
worker_processes 1;
error_log /dev/null;
pid /tmp/nginx.pid;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 100000000;
  server { listen 8080; location / { default_type text/plain; return 200 "hello\\n"; } }
}
END
exec nginx -c /tmp/nginx.conf -g 'daemon off;'
"""
_FLAGS = (
    "--entrypoints.websecure.address=:8443",
    "--entrypoints.websecure.http.tls=true",
    "--accesslog=true",
    "--accesslog.format=json",
    "--accesslog.filepath=/tmp/access.log",
)


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """One of the two: its class, and where it listens."""

    name: str
    ingress_class: str
    address: str
    http: int
    https: int

    def site(self, host: str, *, tls: bool = False) -> Site:
        return Site(self.address, self.https if tls else self.http, host, tls)


def both(config: ClusterConfig) -> tuple[FrontDoor, FrontDoor]:
    address = config.node_address(config.nodes[0])
    return (
        FrontDoor("Sampan", "sampan", address, 80, 443),
        FrontDoor("Traefik", "traefik", address, 8000, 8443),
    )


def kubectl(config: ClusterConfig, *arguments: str, stdin: str = "") -> str:
    """What it prints. Raises CalledProcessError."""
    environment = {**os.environ, "KUBECONFIG": str(config.directory / "kubeconfig")}
    return subprocess.run(
        ["kubectl", *arguments], env=environment, input=stdin, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def apply(config: ClusterConfig, objects: Sequence[dict[str, Any]]) -> None:
    made = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl(config, "apply", "-f", "-", stdin=json.dumps(made))


def serve(config: ClusterConfig) -> str:
    """The backend and its Service; returns the pod's address, where it answers at port 8080."""
    container = {
        "name": "nginx",
        "image": _IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", _NGINX],
    }
    labels = {"app": SERVICE}
    ports = [{"port": 80, "targetPort": 8080}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": SERVICE, "labels": labels}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE}}
    apply(
        config,
        [
            pod | {"spec": {"containers": [container], "terminationGracePeriodSeconds": 0}},
            service | {"spec": {"selector": labels, "ports": ports}},
        ],
    )
    kubectl(config, "wait", "pod", SERVICE, "--for=condition=Ready", "--timeout=60s")
    return kubectl(config, "get", "pod", SERVICE, "-o", "jsonpath={.status.podIP}")


def start_traefik(config: ClusterConfig, *flags: str) -> None:
    """In the namespace `default`; one that runs there already is replaced where its flags differ."""
    objects = traefik.controller(
        "default", host_network=True, port=8000, flags=(*_FLAGS, *flags), statuses=False
    )
    deployment = objects[-1]
    deployment["spec"]["strategy"] = {"type": "Recreate"}
    pod = deployment["spec"]["template"]["spec"]
    pod["nodeName"] = config.nodes[0]
    pod["containers"][0] |= {"image": _IMAGE, "imagePullPolicy": "Never"}
    apply(config, [traefik.ingress_class(), *objects])
    kubectl(config, "rollout", "status", "deployment/traefik", "--timeout=60s")


def ingress(
    door: FrontDoor, name: str, host: str, *, secret: str = "", service: str = SERVICE
) -> dict[str, Any]:
    backend = {"service": {"name": service, "port": {"number": 80}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    spec: dict[str, Any] = {"ingressClassName": door.ingress_class, "rules": [rule]}
    if secret:
        spec["tls"] = [{"hosts": [host], "secretName": secret}]
    metadata = {"name": name, "labels": {"bench": "ingress"}}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


async def first_answer(site: Site, right: Callable[[bytes], bool], *, within: float = 120.0) -> float:
    """When the front door first answered as it should, asked over and over on one connection (a new one where that ends). Raises TimeoutError."""
    request = f"GET / HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode()
    deadline = time.perf_counter() + within
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(site.address, site.port)
            try:
                while time.perf_counter() < deadline:
                    writer.write(request)
                    if right(await _answer(reader)):
                        return time.perf_counter()
                    await asyncio.sleep(0.0005)
            finally:
                writer.close()
        await asyncio.sleep(0.001)
    raise TimeoutError(f"{site.host} was not answered within {within:.0f} s")


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Head and body of an answer that tells its length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    return head + await reader.readexactly(length)


def processes(config: ClusterConfig, program: str) -> list[int]:
    """Those of a cluster that run a program, by its name."""
    return [pid for pid, name in parts(config).items() if name == program]


def megabytes(pids: Sequence[int]) -> float:
    """Their PSS."""
    return sum(memory(pid)["Pss"] for pid in pids) / 1e6
