"""The contract, met by the OCI engine and by the fake."""

from __future__ import annotations

import inspect

import pytest

from sampan.node.runtime.fake import FakeRuntime
from sampan.node.runtime.oci import OciRuntime
from sampan.node.runtime.types import RuntimeService, SandboxConfig

from .conftest import Place
from .contract import RuntimeContract


@pytest.mark.root
class TestOci(RuntimeContract):
    @pytest.fixture(params=["crun", "runc"])
    async def runtime(self, place: Place, request: pytest.FixtureRequest) -> RuntimeService:
        return await place.runtime(request.param)

    @pytest.fixture
    def sandbox_config(self, place: Place) -> SandboxConfig:
        return place.sandbox("web", labels={"app": "web"}, annotations={"note": "x"})


class TestFake(RuntimeContract):
    @pytest.fixture
    async def runtime(self) -> RuntimeService:
        runtime = FakeRuntime()
        await runtime.start()
        return runtime

    @pytest.fixture
    def sandbox_config(self) -> SandboxConfig:
        return SandboxConfig(
            namespace="default", name="web", uid="u", log_directory="/nowhere", labels={"app": "web"}
        )


@pytest.mark.parametrize("implementation", [OciRuntime, FakeRuntime])
def test_every_method_is_there(implementation: type) -> None:
    for name, method in inspect.getmembers(RuntimeService, inspect.isfunction):
        if not name.startswith("_"):
            theirs = getattr(implementation, name)
            assert inspect.signature(theirs).parameters.keys() == inspect.signature(method).parameters.keys()
