"""What the DNS server counts, under CoreDNS' names (https://coredns.io/plugins/metrics/)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from sampan.client.metrics import Histogram
from sampan.dns import wire
from sampan.dns.resolver import Resolver
from sampan.dns.settings import Server
from sampan.dns.wire import Answer, Query

_DURATIONS = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192)  # fmt: skip
_SIZES = (0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16000, 32000, 48000, 64000)
SERVER = "dns://:53"
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Labels:
    """What distinguishes requests."""

    zone: str
    proto: str
    family: str
    type: str
    rcode: str
    plugin: str

    @classmethod
    def of(cls, server: Server, query: Query, answer: Answer, *, tcp: bool, family: int) -> Labels:
        zone = server.zones[0]
        if len(server.zones) > 1:
            zone = max((z for z in server.zones if wire.is_below(query.key, z)), key=len)
        return _labels(zone, tcp, family, query.type, answer.rcode, answer.plugin)


@lru_cache(1024)
def _labels(zone: bytes, tcp: bool, family: int, kind: int, rcode: int, plugin: str) -> Labels:
    return Labels(
        wire.decode_name(zone), "tcp" if tcp else "udp", str(family),
        wire.TYPES.get(kind, "other"), wire.RCODES.get(rcode, str(rcode)), plugin,
    )  # fmt: skip


class Counts:
    """Of one process."""

    def __init__(self) -> None:
        self.panics = 0
        self.requests: Counter[Labels] = Counter()
        self.dnssec: Counter[str] = Counter()
        self.durations: dict[str, Histogram] = {}
        self.request_sizes: dict[tuple[str, str], Histogram] = {}
        self.response_sizes: dict[tuple[str, str], Histogram] = {}
        self.reloads = self.failed_reloads = 0

    def add(self, labels: Labels, sizes: tuple[int, int], seconds: float, *, dnssec: bool) -> None:
        self.requests[labels] += 1
        if dnssec:
            self.dnssec[labels.zone] += 1
        _histogram(self.durations, labels.zone, _DURATIONS).observe(seconds)
        place = (labels.zone, labels.proto)
        _histogram(self.request_sizes, place, _SIZES).observe(sizes[0])
        _histogram(self.response_sizes, place, _SIZES).observe(sizes[1])

    def add_kept(self, labels: Labels, count: int, sizes: tuple[int, int]) -> None:
        """Answers that were given from what was kept: some microseconds each, which nobody measures one by one."""
        if not count:
            return
        self.requests[labels] += count
        place = (labels.zone, labels.proto)
        for histogram, value in (
            (_histogram(self.durations, labels.zone, _DURATIONS), 0.00001),
            (_histogram(self.request_sizes, place, _SIZES), sizes[0]),
            (_histogram(self.response_sizes, place, _SIZES), sizes[1]),
        ):
            histogram.observe(value)
            index = next(i for i, bound in enumerate((*histogram.bounds, float("inf"))) if value <= bound)
            histogram.counts[index] += count - 1
            histogram.total += value * (count - 1)

    def rejected(self, rcode: int, *, tcp: bool) -> None:
        """A packet that came to no server block."""
        proto = "tcp" if tcp else "udp"
        self.requests[Labels("dropped", proto, "1", "other", wire.RCODES[rcode], "")] += 1


def _histogram(table: dict[K, Histogram], key: K, bounds: Iterable[float]) -> Histogram:
    found = table.get(key)
    if found is None:
        found = table[key] = Histogram(tuple(bounds))
    return found


def text(counts: Counts, resolver: Resolver | None, version: str) -> str:
    """All of it in Prometheus' text form."""
    lines = list(_build(version, counts))
    requests: Counter[tuple[tuple[str, str], ...]] = Counter()
    responses: Counter[tuple[tuple[str, str], ...]] = Counter()
    for labels, count in counts.requests.items():
        zone = ("zone", labels.zone)
        requests[zone, ("proto", labels.proto), ("family", labels.family), ("type", labels.type)] += count
        responses[zone, ("rcode", labels.rcode), ("plugin", labels.plugin)] += count
    lines += _family(
        "coredns_dns_requests_total", "Counter of DNS requests made per zone, protocol and family.", requests
    )
    lines += _family("coredns_dns_responses_total", "Counter of response status codes.", responses)
    do: Counter[tuple[tuple[str, str], ...]] = Counter()
    do.update({(("zone", zone),): count for zone, count in counts.dnssec.items()})
    lines += _family("coredns_dns_do_requests_total", "Counter of DNS requests with DO bit set per zone.", do)
    lines += _histograms(
        "coredns_dns_request_duration_seconds",
        {(("zone", zone),): h for zone, h in counts.durations.items()},
    )
    for name, table in (
        ("coredns_dns_request_size_bytes", counts.request_sizes),
        ("coredns_dns_response_size_bytes", counts.response_sizes),
    ):
        lines += _histograms(name, {(("zone", z), ("proto", p)): h for (z, p), h in table.items()})
    if resolver is not None:
        lines += _of_caches(resolver)
        lines += _of_forwarders(resolver)
    return "\n".join([*lines, ""])


def _build(version: str, counts: Counts) -> Iterator[str]:
    yield "# TYPE coredns_build_info gauge"
    yield f'coredns_build_info{{version="{version}",revision="",goversion=""}} 1'
    for name, value in (
        ("coredns_panics_total", counts.panics),
        ("coredns_reload_failed_total", counts.failed_reloads),
    ):
        yield f"# TYPE {name} counter"
        yield f"{name} {value}"


def _of_caches(resolver: Resolver) -> Iterator[str]:
    entries: Counter[tuple[tuple[str, str], ...]] = Counter()
    hits: Counter[tuple[tuple[str, str], ...]] = Counter()
    evictions: Counter[tuple[tuple[str, str], ...]] = Counter()
    requests: Counter[tuple[tuple[str, str], ...]] = Counter()
    for chain in resolver.chains:
        if chain.cache is None:
            continue
        zones = ("zones", ",".join(wire.decode_name(z) for z in chain.server.zones))
        requests[zones,] += chain.cache.requests
        for kind, shelf in (("success", chain.cache.success), ("denial", chain.cache.denial)):
            key = (("type", kind), zones)
            entries[key] += len(shelf.entries)
            hits[key] += shelf.hits
            evictions[key] += shelf.evictions
    yield from _family("coredns_cache_entries", "The number of elements in the cache.", entries, kind="gauge")
    yield from _family("coredns_cache_hits_total", "The count of cache hits.", hits)
    yield from _family("coredns_cache_requests_total", "The count of cache requests.", requests)
    yield from _family("coredns_cache_evictions_total", "The count of cache evictions.", evictions)


def _of_forwarders(resolver: Resolver) -> Iterator[str]:
    rejects = broken = 0
    table: dict[tuple[tuple[str, str], ...], Histogram] = {}
    for chain in resolver.chains:
        for forwarder in chain.forwarders:
            rejects += forwarder.rejected
            broken += forwarder.upstreams.all_down
            for server in forwarder.upstreams.known:
                for rcode, histogram in server.durations.items():
                    name = wire.RCODES.get(rcode, str(rcode))
                    table[("proxy_name", "forward"), ("to", server.text), ("rcode", name)] = histogram
    for name, value in (
        ("coredns_forward_max_concurrent_rejects_total", rejects),
        ("coredns_forward_healthcheck_broken_total", broken),
    ):
        yield f"# TYPE {name} counter"
        yield f"{name} {value}"
    yield from _histograms("coredns_proxy_request_duration_seconds", table, server=False)


def _text(pairs: Iterable[tuple[str, str]], server: bool = True) -> str:
    every = [("server", SERVER), *pairs, ("view", "")] if server else list(pairs)
    return ",".join(f'{name}="{value}"' for name, value in every)


def _family(
    name: str, words: str, values: Counter[tuple[tuple[str, str], ...]], *, kind: str = "counter"
) -> Iterator[str]:
    if not values:
        return
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
    for pairs, value in values.items():
        yield f"{name}{{{_text(pairs)}}} {value}"


def _histograms(
    name: str, table: dict[tuple[tuple[str, str], ...], Histogram], server: bool = True
) -> Iterator[str]:
    if table:
        yield f"# TYPE {name} histogram"
    for pairs, histogram in table.items():
        common = _text(pairs, server)
        for bound, count in histogram.cumulative():
            yield f'{name}_bucket{{{common},le="{bound}"}} {count}'
        yield f"{name}_sum{{{common}}} {histogram.total}"
        yield f"{name}_count{{{common}}} {histogram.count}"
