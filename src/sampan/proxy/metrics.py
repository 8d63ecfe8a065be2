"""What the proxy counts about itself, and its text for Prometheus, by kube-proxy's names.

`collect` needs prometheus_client, which is imported when somebody asks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from sampan.client.metrics import Histogram
from sampan.network.nftables import Family

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_SYNC_BOUNDS = tuple(0.001 * 2**n for n in range(15))
_PROGRAMMING_BOUNDS = (0.25, 0.5, *map(float, range(1, 60)), *map(float, range(60, 120, 5)), *map(float, range(120, 301, 30)))  # fmt: skip
_NAMES = {Family.IP: "IPv4", Family.IP6: "IPv6"}


@dataclass(slots=True)
class ProxyMetrics:
    """Counts of one proxy; `families` are those that it has tables for. All of one thread."""

    families: tuple[Family, ...]
    full: Histogram = field(default_factory=lambda: Histogram(_SYNC_BOUNDS))
    """Seconds that it took to compare and bring in line everything."""
    partial: Histogram = field(default_factory=lambda: Histogram(_SYNC_BOUNDS))
    """Seconds that a batch of changes took."""
    programming: Histogram = field(default_factory=lambda: Histogram(_PROGRAMMING_BOUNDS))
    """Seconds from when an endpoint changed until the kernel knew."""
    conntrack: Histogram = field(default_factory=lambda: Histogram(_SYNC_BOUNDS))
    conntrack_deleted: int = 0
    synced_at: float = 0.0
    queued_at: float = 0.0
    failures: int = 0
    """How often the kernel refused a change."""
    changes: Counter[str] = field(default_factory=Counter)
    """Changes seen, by `service` and `endpoint`."""
    pending: Counter[str] = field(default_factory=Counter)
    """Those that are not in the kernel yet."""
    _triggers: list[float] = field(default_factory=list)
    _began: float = field(default_factory=time.time)

    def queued(self, kind: str, trigger_time: str = "") -> None:
        """A `service` or an `endpoint` changed; `trigger_time` is when the controller saw it happen, as the slice says."""
        self.queued_at = time.time()
        self.changes[kind] += 1
        self.pending[kind] += 1
        if trigger_time:
            try:
                then = datetime.fromisoformat(trigger_time).timestamp()
            except ValueError:
                return
            # What happened before there was this proxy says nothing about it.
            if then >= self._began:
                self._triggers.append(then)

    def synced(self, seconds: float, *, whole: bool) -> None:
        """All that was queued is in the kernel."""
        (self.full if whole else self.partial).observe(seconds)
        self.synced_at = time.time()
        self.pending.clear()
        triggers, self._triggers = self._triggers, []
        for then in triggers:
            self.programming.observe(self.synced_at - then)

    def cleaned(self, seconds: float, deleted: int) -> None:
        """Connections of the past were looked at."""
        self.conntrack.observe(seconds)
        self.conntrack_deleted += deleted


def exposition(
    metrics: ProxyMetrics,
    no_local_endpoints: Mapping[tuple[Family, str], int],
    answers: Mapping[tuple[str, int], int],
) -> bytes:
    """The text. `no_local_endpoints` counts by family and policy (`internal`, `external`) the Services' ports with a Local
    policy and nobody on this node; `answers` what /healthz and /livez said, by path and code."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.registry import Collector

    class Picture(Collector):
        def collect(self) -> Iterable[Metric]:
            return _collect(metrics, no_local_endpoints, answers)

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Picture())
    return generate_latest(registry)


def _collect(
    metrics: ProxyMetrics,
    no_local_endpoints: Mapping[tuple[Family, str], int],
    answers: Mapping[tuple[str, int], int],
) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    families = [_NAMES[family] for family in metrics.families]
    by_family = ("ip_family",)
    histograms = {
        "sync_full_proxy_rules_duration_seconds": ((metrics.full,), "SyncProxyRules latency of all rules."),
        "sync_partial_proxy_rules_duration_seconds": ((metrics.partial,), "SyncProxyRules latency of changes."),
        "sync_proxy_rules_duration_seconds": ((metrics.full, metrics.partial), "SyncProxyRules latency."),
        "network_programming_duration_seconds": ((metrics.programming,), "From a change of endpoints to the kernel."),
        "conntrack_reconciler_sync_duration_seconds": ((metrics.conntrack,), "Latency of the clean-up of connections."),
    }  # fmt: skip
    for name, (parts, words) in histograms.items():
        made = HistogramMetricFamily(f"kubeproxy_{name}", words, labels=by_family)
        summed = Histogram(parts[0].bounds)
        summed.counts = [sum(c) for c in zip(*(p.counts for p in parts), strict=True)]
        summed.total = sum(p.total for p in parts)
        for family in families:
            made.add_metric((family,), list(summed.cumulative()), sum_value=summed.total)
        yield made
    gauges = {
        "sync_proxy_rules_last_timestamp_seconds": (metrics.synced_at, "When rules were synced last."),
        "sync_proxy_rules_last_queued_timestamp_seconds": (metrics.queued_at, "When a sync was queued last."),
    }
    for name, (value, words) in gauges.items():
        gauge = GaugeMetricFamily(f"kubeproxy_{name}", words, labels=by_family)
        for family in families:
            gauge.add_metric((family,), value)
        yield gauge
    counters = {
        "sync_proxy_rules_nftables_sync_failures": (metrics.failures, "Transactions that the kernel refused."),
        "sync_proxy_rules_nftables_cleanup_failures": (0, "Clean-ups that the kernel refused."),
        "conntrack_reconciler_deleted_entries": (metrics.conntrack_deleted, "Connections of the past deleted."),
    }  # fmt: skip
    for name, (count, words) in counters.items():
        counter = CounterMetricFamily(f"kubeproxy_{name}", words, labels=by_family)
        for family in families:
            counter.add_metric((family,), count)
        yield counter
    for kind in ("endpoint", "service"):
        stem = f"kubeproxy_sync_proxy_rules_{kind}_changes"
        yield GaugeMetricFamily(f"{stem}_pending", "Changes not in the kernel yet.", metrics.pending[kind])
        yield CounterMetricFamily(stem, "Changes seen.", metrics.changes[kind])
    local = GaugeMetricFamily(
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        "Ports of Services with a Local policy and no endpoint on this node.",
        labels=("ip_family", "traffic_policy"),
    )
    for of in metrics.families:
        for policy in ("internal", "external"):
            local.add_metric((_NAMES[of], policy), no_local_endpoints.get((of, policy), 0))
    yield local
    for path in ("healthz", "livez"):
        told = CounterMetricFamily(f"kubeproxy_proxy_{path}", f"Answers of /{path}.", labels=("code",))
        for (asked, code), count in answers.items():
            if asked == f"/{path}":
                told.add_metric((str(code),), count)
        yield told
