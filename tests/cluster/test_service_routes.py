"""The host's routes to further ranges of Service addresses, in a namespace of the test's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from sampan.api.errors import Object
from sampan.cluster.host_routes import HostRoutes
from sampan.cluster.pool_routes import PoolRoutes
from sampan.cluster.service_routes import ServiceRoutes
from sampan.network.netlink import Netlink

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
NODE = "172.28.251.2"


def ip(netns: str, *arguments: str) -> str:
    command = ["ip", "-n", netns, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def cidr(name: str, *ranges: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"cidrs": list(ranges)}}


class Host:
    def __init__(self, netns: str) -> None:
        self.netns = netns
        self.netlink = Netlink.inside(f"/run/netns/{netns}")
        self.routes: HostRoutes = ServiceRoutes(None, "br0", [NODE], ["10.96.0.0/16"])  # type: ignore[arg-type]
        self.told: list[str] = []
        self.routes._recorder.event = lambda obj, kind, reason, message: self.told.append(message)  # type: ignore[assignment,misc]  # fmt: skip

    def change(self, old: Object | None, new: Object | None) -> None:
        objects = self.routes._objects._objects
        if new is None:
            assert old is not None
            del objects[old["metadata"]["name"]]
        else:
            objects[new["metadata"]["name"]] = new
        self.routes._changed(self.netlink, old, new)

    def to(self, destination: str) -> str:
        return ip(self.netns, "route", "show", destination).strip()


@pytest.fixture
def host() -> Iterator[Host]:
    name = f"t-svcroutes-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        ip(name, "link", "add", "br0", "type", "bridge")
        ip(name, "address", "add", "172.28.251.1/24", "dev", "br0")
        ip(name, "link", "set", "br0", "up")
        made = Host(name)
        yield made
        made.netlink.close()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_range_is_routed_as_long_as_it_is_there(host: Host) -> None:
    one, two = cidr("one", "10.200.0.0/24", "fd00::/64"), cidr("two", "10.200.0.0/24")
    host.change(None, one)
    host.change(None, two)
    assert f"via {NODE} dev br0" in host.to("10.200.0.0/24")
    host.change(one, None)
    assert host.to("10.200.0.0/24"), "another ServiceCIDR has it"
    host.change(two, None)
    assert host.to("10.200.0.0/24") == ""
    host.change(None, cidr("kubernetes", "10.96.0.0/16"))
    assert host.to("10.96.0.0/16") == "", "that one is the cluster's own"
    assert host.told == []


def test_what_is_reached_another_way_stays_so(host: Host) -> None:
    ip(host.netns, "route", "add", "10.201.0.0/16", "via", "172.28.251.9")
    host.change(None, cidr("clash", "10.201.3.0/24"))
    assert host.to("10.201.3.0/24") == ""
    assert host.told == [
        "This machine gets no route to 10.201.3.0/24: its addresses overlap with 10.201.0.0/16, which is reached "
        "another way. Pods and nodes reach its Services all the same."
    ]
    host.change(cidr("clash", "10.201.3.0/24"), None)
    assert "via 172.28.251.9" in host.to("10.201.0.0/16")


def test_a_restart_takes_over_its_routes(host: Host) -> None:
    ip(host.netns, "route", "add", "10.200.0.0/24", "via", NODE, "proto", "static")
    host.change(None, cidr("one", "10.200.0.0/24"))
    assert host.told == []
    host.change(cidr("one", "10.200.0.0/24"), None)
    assert host.to("10.200.0.0/24") == ""


def test_pools_beyond_the_bridge_are_neighbours_there(host: Host) -> None:
    host.routes = PoolRoutes(None, "br0", ["172.28.251.0/24"])  # type: ignore[arg-type]

    def pool(*addresses: str) -> Object:
        return {"metadata": {"name": "p"}, "spec": {"addresses": list(addresses)}}

    own, more = "172.28.251.200-172.28.251.250", "192.0.2.4-192.0.2.8"
    before = pool(own, more, "2001:db8::/64")
    host.change(None, before)
    shown = ip(host.netns, "route", "show").split("\n")
    assert [r.split(" proto")[0].strip() for r in shown if "192.0.2" in r] == [
        "192.0.2.4/30 dev br0",
        "192.0.2.8 dev br0",
    ]
    assert not any("172.28.251.2" in r for r in shown if "/24" not in r)
    host.change(before, pool(own))
    assert "192.0.2" not in ip(host.netns, "route", "show")
    assert host.told == []


def test_the_second_family_goes_to_the_nodes_address_of_it(host: Host) -> None:
    ip(host.netns, "address", "add", "fd00:251::1/64", "dev", "br0", "nodad")
    both = cidr("both", "10.200.0.0/24", "fd00:252::/112")
    host.change(None, both)
    assert "fd00:252" not in ip(host.netns, "-6", "route"), "a cluster of IPv4 alone has no way there"
    host.routes._gateways = {4: NODE, 6: "fd00:251::2"}
    host.change(None, both)
    assert "fd00:252::/112 via fd00:251::2 dev br0" in ip(host.netns, "-6", "route")
    host.change(both, None)
    assert "fd00:252" not in ip(host.netns, "-6", "route")
