"""Fixtures for tests on a whole, real cluster; see tests/real_cluster.py for what they return.

`cluster` is one for the whole run (starting it is a second, loading the images some five more). A test that needs a cluster
of its own, or changes nodes for good, starts it by `tests.real_cluster.started` instead.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import real_cluster
from tests.real_cluster import Cluster, Kubectl

# How quickly examples are made, and run, says more about what else the machine does than about the code.
settings.register_profile("ordinary", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ordinary")

_number = itertools.count(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Ready cluster of one node with the images of images/. Skips where no cluster can run."""
    reason = real_cluster.missing()
    if reason:
        pytest.skip(reason)
    with real_cluster.started(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def namespace_name(test: str) -> str:
    """A name that nobody had before, made of a test's."""
    words = re.sub(r"[^a-z0-9]+", "-", test.removeprefix("test_").lower()).strip("-")
    return f"{words[:40].strip('-')}-{next(_number)}"


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, with its default ServiceAccount; at the end all in it is gone, NodePorts included."""
    name = namespace_name(request.node.name)
    cluster.make_namespace(name)
    yield name
    cluster.delete_namespace(name)
    cluster.wait_gone(name)


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Kubectl:
    """kubectl in the test's namespace."""
    return cluster.kubectl(namespace)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.cluster)
