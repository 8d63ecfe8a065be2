"""One cluster for all tests of the front door, and a namespace of it for each of their modules."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster.front_door import FrontDoor, started
from tests.conftest import namespace_name
from tests.real_cluster import Cluster


@pytest.fixture(scope="session")
def front_door_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("front-door"), f"pytest-door-{os.getpid()}", "--nodes", "2") as made:
        yield made


@pytest.fixture(scope="module")
def front_door(front_door_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[FrontDoor]:
    """The front door with a namespace of the module's own; at the end all in it is gone."""
    name = namespace_name(request.node.name.rpartition("/")[2].removesuffix(".py"))
    front_door_cluster.make_namespace(name)
    yield FrontDoor(front_door_cluster, name)
    front_door_cluster.delete_namespace(name)
    front_door_cluster.wait_gone(name)
