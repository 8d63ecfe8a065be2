"""All counts of the process in Prometheus' text form.

Names and labels are upstream's (https://kubernetes.io/docs/reference/instrumentation/metrics/); what upstream has no name
for begins with `sampan_`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sampan.apiserver.flowcontrol.control import FlowControl
from sampan.apiserver.metrics.requests import Requests
from sampan.apiserver.watchcache import WatchCache
from sampan.client.metrics import Histogram
from sampan.client.workqueue import WorkQueue

_REQUEST = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component")
_LONG = ("verb", "group", "version", "resource", "subresource", "scope", "component")
_FLOW = ("priority_level", "flow_schema")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the counts are."""

    requests: Requests
    cache: WatchCache
    flows: FlowControl
    version: str


def collect(sources: Sources) -> list[Metric]:
    """A picture of all counts; in the loop's thread, where they change."""
    build = GaugeMetricFamily("kubernetes_build_info", "The version that is served.", labels=("git_version",))
    build.add_metric((sources.version,), 1)
    return [
        *_of_requests(sources.requests),
        *_of_cache(sources.cache),
        *_of_flows(sources.flows),
        *_of_queues(sorted(WorkQueue.everyone, key=lambda q: q.name)),
        build,
    ]


def encode(metrics: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """The text of a picture, and of the process itself, and its media type, as the client accepts it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Picture(metrics))
    encoder, media_type = choose_encoder(accept)
    return encoder(registry), media_type


class _Picture(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _of_requests(requests: Requests) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "apiserver_request",
        "Requests by what they were about and the code of the answer.",
        labels=(*_REQUEST, "code"),
    )
    for key, codes in requests.codes.items():
        for code, count in codes.items():
            total.add_metric((*key, "apiserver", str(code)), count)
    yield total
    durations = HistogramMetricFamily(
        "apiserver_request_duration_seconds",
        "How long answers took, without those that go on.",
        labels=_REQUEST,
    )
    for key, histogram in requests.durations.items():
        _add(durations, (*key, "apiserver"), histogram)
    yield durations
    running = GaugeMetricFamily(
        "apiserver_longrunning_requests", "Watches and connections now.", labels=_LONG
    )
    for key, count in requests.long_running.items():
        running.add_metric((key[0], *key[2:], "apiserver"), count)
    yield running
    inflight = GaugeMetricFamily(
        "apiserver_current_inflight_requests", "Requests being answered now.", labels=("request_kind",)
    )
    for kind, count in requests.inflight.items():
        inflight.add_metric((kind,), count)
    yield inflight


def _of_cache(cache: WatchCache) -> Iterator[Metric]:
    stored = GaugeMetricFamily("apiserver_storage_objects", "Objects by resource.", labels=("resource",))
    same = GaugeMetricFamily(
        "apiserver_resource_objects", "Objects by resource.", labels=("group", "resource")
    )
    watchers = GaugeMetricFamily(
        "apiserver_registered_watchers", "Watches by kind.", labels=("group", "kind")
    )
    place = ("group", "resource")
    received = CounterMetricFamily(
        "apiserver_watch_cache_events_received", "Changes that the watch cache took up.", labels=place
    )
    sent = CounterMetricFamily("apiserver_watch_events", "Events that watchers were told.", labels=place)
    for shelf in cache.shelves():
        resource = shelf.resource
        if shelf.received:
            received.add_metric((resource.group, resource.plural), shelf.received)
        if shelf.sent:
            sent.add_metric((resource.group, resource.plural), shelf.sent)
        stored.add_metric((resource.key_stem,), len(shelf.rows))
        same.add_metric((resource.group, resource.plural), len(shelf.rows))
        if count := sum(len(group.watchers) for group in shelf.groups.values()):
            watchers.add_metric((resource.group, resource.kind), count)
    yield from (stored, same, watchers, received, sent)
    lag = HistogramMetricFamily(
        "sampan_event_loop_lag_seconds", "How long work that was ready had to wait for the event loop."
    )
    _add(lag, (), cache.lag)
    yield lag
    yield GaugeMetricFamily(
        "sampan_event_loop_lag_longest_seconds", "The longest so far.", value=cache.lag.longest
    )


def _of_flows(flows: FlowControl) -> Iterator[Metric]:
    begin = "apiserver_flowcontrol_"
    dispatched = CounterMetricFamily(f"{begin}dispatched_requests", "Requests that got a seat.", labels=_FLOW)
    rejected = CounterMetricFamily(
        f"{begin}rejected_requests", "Requests that got none.", labels=(*_FLOW, "reason")
    )
    seats = GaugeMetricFamily(f"{begin}nominal_limit_seats", "Seats of a level's own.", labels=_FLOW[:1])
    executing = GaugeMetricFamily(f"{begin}current_executing_seats", "Seats taken now.", labels=_FLOW[:1])
    waiting = GaugeMetricFamily(f"{begin}current_inqueue_seats", "Seats waited for now.", labels=_FLOW[:1])
    waits = HistogramMetricFamily(
        f"{begin}request_wait_duration_seconds",
        "How long requests waited for a seat.",
        labels=(*_FLOW[:1], "execute"),
    )
    for level in flows.levels.values():
        label = (level.name,)
        for schema, count in level.counts.dispatched.items():
            dispatched.add_metric((level.name, schema), count)
        for (schema, reason), count in level.counts.rejected.items():
            rejected.add_metric((level.name, schema, reason), count)
        if not level.exempt:
            seats.add_metric(label, level.seats)
            executing.add_metric(label, level.executing)
            waiting.add_metric(label, level.waiting)
            _add(waits, (level.name, "true"), level.counts.waits)
    yield from (dispatched, rejected, seats, executing, waiting, waits)


def _of_queues(queues: Iterable[WorkQueue]) -> Iterator[Metric]:
    label = ("name",)
    depth = GaugeMetricFamily("workqueue_depth", "Keys that wait.", labels=label)
    adds = CounterMetricFamily("workqueue_adds", "Keys that were added.", labels=label)
    retries = CounterMetricFamily("workqueue_retries", "Keys that came back after a failure.", labels=label)
    waits = HistogramMetricFamily("workqueue_queue_duration_seconds", "How long keys waited.", labels=label)
    works = HistogramMetricFamily(
        "workqueue_work_duration_seconds", "How long keys were worked on.", labels=label
    )
    oldest = GaugeMetricFamily(
        "workqueue_longest_running_processor_seconds",
        "How long the oldest work has been going on.",
        labels=label,
    )
    for queue in queues:
        name = (queue.name,)
        depth.add_metric(name, len(queue))
        adds.add_metric(name, queue.adds)
        retries.add_metric(name, queue.retries)
        _add(waits, name, queue.waits)
        _add(works, name, queue.works)
        oldest.add_metric(name, queue.oldest_work)
    yield from (depth, adds, retries, waits, works, oldest)


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    family.add_metric(labels, list(histogram.cumulative()), histogram.total)
