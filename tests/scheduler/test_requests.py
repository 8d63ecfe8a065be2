"""What a pod asks for."""

from __future__ import annotations

import pytest

from sampan.api.errors import Object
from sampan.scheduler.requests import UNSTATED, pod_requests


def container(cpu: str = "", **more: str) -> Object:
    return {"name": "c", "resources": {"requests": {"cpu": cpu} if cpu else {}}, **more}


def sidecar(cpu: str) -> Object:
    return container(cpu, restartPolicy="Always")


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [container("100m"), container("1")]}, 1100),
        ({"containers": [container("100m")], "initContainers": [container("2")]}, 2000),
        ({"containers": [container("100m")], "initContainers": [container("50m"), container("60m")]}, 100),
        ({"containers": [container("100m")], "initContainers": [sidecar("200m")]}, 300),
        ({"containers": [container("100m")], "initContainers": [sidecar("200m"), container("1")]}, 1200),
        ({"containers": [container("100m")], "initContainers": [container("1"), sidecar("200m")]}, 1000),
        ({"containers": [container("100m")], "overhead": {"cpu": "10m"}}, 110),
        ({"containers": [container()]}, 0),
    ],
)
def test_requests(spec: Object, cpu: int) -> None:
    assert pod_requests(spec).get("cpu", 0) == cpu


def test_what_is_left_open_counts_for_comparing() -> None:
    assert pod_requests({"containers": [container(), container("1")]}, UNSTATED) == {
        "cpu": 1100,
        "memory": 2 * 200 * 1024 * 1024,
    }
