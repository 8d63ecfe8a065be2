"""What the proxy says to Prometheus has kube-proxy's names."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from sampan.network.nftables import Family
from sampan.proxy.fake import FakeTable
from sampan.proxy.metrics import ProxyMetrics, exposition
from sampan.proxy.rules import Rules
from sampan.proxy.types import Backend, Frontend, Target
from tests.proxy.wires import LAYOUT


def test_names_and_values() -> None:
    metrics = ProxyMetrics((Family.IP, Family.IP6))
    metrics.queued("endpoint", datetime.now(UTC).isoformat())
    metrics.queued("endpoint", "1990-01-01T00:00:00Z")
    metrics.queued("endpoint", "nonsense")
    metrics.queued("service")
    pending = _values(metrics)
    assert pending["kubeproxy_sync_proxy_rules_endpoint_changes_pending", ()] == 3
    metrics.synced(0.003, whole=False)
    metrics.synced(0.3, whole=True)
    metrics.cleaned(0.001, 4)
    found = _values(metrics)
    for name, value in {
        "kubeproxy_sync_proxy_rules_duration_seconds_count": 2,
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count": 1,
        "kubeproxy_sync_partial_proxy_rules_duration_seconds_count": 1,
        "kubeproxy_network_programming_duration_seconds_count": 1,
        "kubeproxy_conntrack_reconciler_deleted_entries_total": 4,
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total": 0,
        "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total": 0,
    }.items():
        for family in ("IPv4", "IPv6"):
            assert found[name, (("ip_family", family),)] == value, name
    assert found["kubeproxy_sync_proxy_rules_endpoint_changes_total", ()] == 3
    assert found["kubeproxy_sync_proxy_rules_service_changes_total", ()] == 1
    assert found["kubeproxy_sync_proxy_rules_endpoint_changes_pending", ()] == 0
    assert found["kubeproxy_sync_proxy_rules_last_timestamp_seconds", (("ip_family", "IPv4"),)] > 1e9
    assert found["kubeproxy_proxy_healthz_total", (("code", "200"),)] == 5
    labels = (("ip_family", "IPv4"), ("traffic_policy", "external"))
    assert found["kubeproxy_sync_proxy_rules_no_local_endpoints_total", labels] == 1


def test_ports_without_a_local_endpoint_are_counted_once() -> None:
    rules = Rules(FakeTable(), LAYOUT)
    here = (Backend("10.244.0.2", 80),)
    rules.start({
        "d/a": {
            Frontend("198.51.100.7", "TCP", 80): Target("d/a", (), keep_source=True, inside=here, drop=True),
            Frontend("172.29.0.2", "TCP", 30080): Target("d/a", (), keep_source=True, inside=here, drop=True),
            Frontend("10.96.0.7", "TCP", 80): Target("d/a", (), drop=True),
        },
        "d/b": {Frontend("10.96.0.8", "TCP", 80): Target("d/b", here)},
    })  # fmt: skip
    assert rules.without_local() == {(Family.IP, "external"): 1, (Family.IP, "internal"): 1}


def _values(metrics: ProxyMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = exposition(metrics, {(Family.IP, "external"): 1}, {("/healthz", 200): 5}).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
