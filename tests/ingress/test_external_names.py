"""Names outside of the cluster, as Services of type ExternalName give them."""

from __future__ import annotations

import asyncio

import pytest

from sampan.ingress.external_names import ExternalNames


async def test_a_name_that_is_none_ends_nothing() -> None:
    """A label may have 63 characters; the resolver raises something else than OSError for a longer one."""
    names = ExternalNames(lambda key: None)
    await names._look_up("default/web", f"{'a' * 64}.example.com")
    assert names.addresses("default/web") == ()


@pytest.mark.parametrize("steps", range(6))
async def test_it_ends_when_told_though_there_is_a_new_name(
    monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Whatever the moment between the two."""

    async def known(names: ExternalNames, key: str, name: str) -> None:
        pass

    monkeypatch.setattr(ExternalNames, "_look_up", known)
    names = ExternalNames(lambda key: None)
    names.follow("a/s", "one.test")
    task = asyncio.create_task(names.run())
    for _ in range(12):  # it has looked it up, and waits
        await asyncio.sleep(0)
    names.follow("a/s", "two.test")
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    ended, _ = await asyncio.wait([task], timeout=20)
    task.cancel()
    assert ended
