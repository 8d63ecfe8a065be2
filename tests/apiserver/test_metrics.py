"""/metrics under upstream's names, /debug, and the health checks by name."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.apiserver.conftest import Api

MAPS = "/api/v1/namespaces/default/configmaps"


async def scraped(api: Api) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    reply = await api("GET", "/metrics")
    assert reply.status == 200
    assert reply.content_type.startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


def labels(**more: str) -> frozenset[tuple[str, str]]:
    plain = {"dry_run": "", "group": "", "version": "v1", "resource": "configmaps", "subresource": ""}
    return frozenset({**plain, "component": "apiserver", **more}.items())


async def test_requests_are_counted_by_what_they_were_about(api: Api) -> None:
    body = {"metadata": {"name": "c"}}
    stored = "apiserver_storage_objects", frozenset({"resource": "configmaps"}.items())
    before = (await scraped(api))[stored]
    await api("POST", MAPS, body)
    await api("POST", MAPS, body)
    await api("POST", MAPS + "?dryRun=All", {"metadata": {"name": "d"}})
    await api("GET", f"{MAPS}/c")
    await api("GET", "/api/v1/configmaps")
    await api("PATCH", f"{MAPS}/c?fieldManager=m", {"apiVersion": "v1", "kind": "ConfigMap", **body}, content_type="application/apply-patch+yaml")  # fmt: skip
    watching = api.watch(MAPS + "?watch=1")
    found = await scraped(api)
    total = "apiserver_request_total"
    assert found[total, labels(verb="POST", scope="namespace", code="201")] == 1
    assert found[total, labels(verb="POST", scope="namespace", code="409")] == 1
    assert found[total, labels(verb="POST", scope="namespace", code="201", dry_run="All")] == 1
    assert found[total, labels(verb="GET", scope="resource", code="200")] == 1
    assert found[total, labels(verb="LIST", scope="cluster", code="200")] == 1
    assert found[total, labels(verb="APPLY", scope="resource", code="200")] == 1
    assert found["apiserver_request_duration_seconds_count", labels(verb="GET", scope="resource")] == 1
    open_watches = (
        "apiserver_longrunning_requests",
        labels(verb="WATCH", scope="namespace") - {("dry_run", "")},
    )
    assert found[open_watches] == 1
    assert found["apiserver_registered_watchers", frozenset({"group": "", "kind": "ConfigMap"}.items())] >= 1
    await api("PATCH", f"{MAPS}/c", {"data": {"a": "b"}}, content_type="application/merge-patch+json")
    await watching.next()
    watching.close()
    again = await scraped(api)
    assert again[open_watches] == 0
    assert again[stored] == before + 1
    place = frozenset({"group": "", "resource": "configmaps"}.items())
    assert again["apiserver_watch_cache_events_received_total", place] >= 2
    assert again["apiserver_watch_events_total", place] >= 1


async def test_what_is_not_served_makes_no_labels(api: Api) -> None:
    for i in range(50):
        await api("GET", f"/apis/made-up-{i}/v1/things")
        await api("GET", f"/nothing/{i}")
        await api("GET", f"{MAPS}/c", token="wrong")
        await api("GET", f"{MAPS}/c/made-up-{i}")
    found = await scraped(api)
    assert len({key for key in found if key[0] == "apiserver_request_total"}) < 20
    assert not any("made-up" in value for _, pairs in found for _, value in pairs)


async def test_other_parts_are_told_of_too(api: Api) -> None:
    names = {name for name, _ in await scraped(api)}
    assert {
        "process_resident_memory_bytes",
        "apiserver_flowcontrol_nominal_limit_seats",
        "apiserver_flowcontrol_dispatched_requests_total",
        "apiserver_current_inflight_requests",
        "sampan_event_loop_lag_seconds_bucket",
        "kubernetes_build_info",
    } <= names


@pytest.mark.parametrize("path", ["/metrics", "/debug/api_priority_and_fairness/dump_priority_levels"])
async def test_they_are_not_for_everybody(api: Api, path: str) -> None:
    assert (await api("GET", path, token="nobody")).status == 403


async def test_debug(api: Api) -> None:
    levels = (await api("GET", "/debug/api_priority_and_fairness/dump_priority_levels")).body.decode()
    assert levels.startswith("PriorityLevelName, ActiveQueues, IsIdle")
    assert "\nglobal-default, 0, true, false, 0, 0, " in levels
    queues = (await api("GET", "/debug/api_priority_and_fairness/dump_queues")).body.decode()
    assert "\nleader-election, 15, 0\n" in queues
    assert "api-expiry" in (await api("GET", "/debug/pprof/goroutine")).body.decode()
    assert (await api("GET", "/debug/none")).status == 404


async def test_health_by_name(api: Api) -> None:
    assert (await api("GET", "/livez/etcd")).body == b"ok"
    verbose = (await api("GET", "/readyz?verbose")).body.decode()
    assert verbose.splitlines()[:3] == ["[+]ping ok", "[+]log ok", "[+]etcd ok"]
    assert verbose.endswith("readyz check passed\n")
    assert "[+]etcd excluded: ok" in (await api("GET", "/readyz?verbose&exclude=etcd")).body.decode()
