"""Where NodePorts are open: what is taken, and which of a node's addresses it means."""

from __future__ import annotations

import pytest

from sampan.cluster import nodeport_addresses
from sampan.cluster.wishes import Wishes


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["x"], "--nodeport-addresses x: expected primary or ranges such as 172.29.0.0/16 or 2001:db8::/64"),
        (["127.0.0.0/8"], "--nodeport-addresses 127.0.0.0/8: NodePorts are not open on loopback"),
        (["::1/128"], "--nodeport-addresses ::1/128: NodePorts are not open on loopback"),
        (["primary,10.0.0.0/8"], "--nodeport-addresses primary: stands alone, without ranges"),
    ],
)
def test_what_is_not_taken(given: list[str], problem: str) -> None:
    assert nodeport_addresses.problems(Wishes(name="t", nodeport_addresses=given)) == [problem]


def test_what_is_taken() -> None:
    wishes = Wishes(name="t", nodeport_addresses=["10.0.0.0/8, 2001:db8::/64", "172.29.0.0/16"])
    assert nodeport_addresses.problems(wishes) == []
    assert nodeport_addresses.wished(wishes) == {
        "nodeport_addresses": ("10.0.0.0/8", "2001:db8::/64", "172.29.0.0/16")
    }
    assert nodeport_addresses.wished(Wishes(name="t")) == {}


def test_which_addresses_it_means() -> None:
    primary = ("172.29.0.2", "fd00:29::2")
    present = (*primary, "10.1.2.3", "10.1.2.3", "127.0.0.2", "2001:db8::7")
    assert (
        nodeport_addresses.resolve((), primary)
        == nodeport_addresses.resolve(("primary",), primary)
        == primary
    )
    assert nodeport_addresses.chosen(("10.0.0.0/8", "2001:db8::/64"), present) == ("10.1.2.3", "2001:db8::7")
    assert nodeport_addresses.chosen(("0.0.0.0/0",), present) == ("172.29.0.2", "10.1.2.3")
