"""Names outside of the cluster, as Services of type ExternalName give them."""

from __future__ import annotations

from sampan.ingress.external_names import ExternalNames


async def test_a_name_that_is_none_ends_nothing() -> None:
    """A label may have 63 characters; the resolver raises something else than OSError for a longer one."""
    names = ExternalNames(lambda key: None)
    await names._look_up("default/web", f"{'a' * 64}.example.com")
    assert names.addresses("default/web") == ()
