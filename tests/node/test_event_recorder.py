"""The recorder: counting, combining and limiting, as client-go's correlator does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sampan.api.resources import EVENTS
from sampan.client.events import Recorder
from tests.node.fakes import FakeClient

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "7"},
}


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def recorder() -> AsyncIterator[tuple[FakeClient, Recorder, Clock]]:
    client, clock = FakeClient(), Clock()
    recorder = Recorder(client, "kubelet", "node-1", clock=clock)
    task = asyncio.create_task(recorder.run())
    yield client, recorder, clock
    task.cancel()


async def test_an_event_names_its_object_and_source(recorder: tuple[FakeClient, Recorder, Clock]) -> None:
    client, events, _ = recorder
    events.event(POD, "Normal", "Started", "Container started", field_path="spec.containers{c}")
    await events.flush()
    (event,) = client.objects[EVENTS.key_stem].values()
    assert event["involvedObject"] == {
        "kind": "Pod",
        "namespace": "default",
        "name": "web",
        "uid": "u1",
        "apiVersion": "v1",
        "resourceVersion": "7",
        "fieldPath": "spec.containers{c}",
    }
    assert event["source"] == {"component": "kubelet", "host": "node-1"}
    assert (event["count"], event["type"], event["reason"]) == (1, "Normal", "Started")
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2023-11-14T22:13:20Z"


async def test_the_same_event_is_counted(recorder: tuple[FakeClient, Recorder, Clock]) -> None:
    client, events, clock = recorder
    for _ in range(3):
        events.event(POD, "Warning", "BackOff", "Back-off")
        clock.now += 1
    await events.flush()
    (event,) = client.objects[EVENTS.key_stem].values()
    assert event["count"] == 3
    assert event["lastTimestamp"] == "2023-11-14T22:13:22Z"


async def test_an_expired_event_is_written_anew(recorder: tuple[FakeClient, Recorder, Clock]) -> None:
    client, events, _ = recorder
    events.event(POD, "Warning", "BackOff", "Back-off")
    await events.flush()
    client.objects[EVENTS.key_stem].clear()
    events.event(POD, "Warning", "BackOff", "Back-off")
    await events.flush()
    (event,) = client.objects[EVENTS.key_stem].values()
    assert event["count"] == 1


async def test_many_alike_are_combined(recorder: tuple[FakeClient, Recorder, Clock]) -> None:
    client, events, _ = recorder
    for n in range(13):
        events.event(POD, "Warning", "Unhealthy", f"failure {n}")
    await events.flush()
    messages = sorted(e["message"] for e in client.objects[EVENTS.key_stem].values())
    assert len(messages) == 11
    assert messages[0] == "(combined from similar events): failure 12"


async def test_one_object_cannot_flood(recorder: tuple[FakeClient, Recorder, Clock]) -> None:
    client, events, clock = recorder
    for n in range(40):
        events.event(POD, "Normal", f"Reason{n}", "x")
    await events.flush()
    assert len(client.objects[EVENTS.key_stem]) == 25
    clock.now += 301
    events.event(POD, "Normal", "Later", "x")
    await events.flush()
    assert len(client.objects[EVENTS.key_stem]) == 26
