"""Which ranges a cluster gets, and what is said of those that cannot be had."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

import pytest

from sampan.cluster import config as configuration
from sampan.cluster import ports, ranges, wishes
from sampan.cluster.config import ClusterConfig
from sampan.cluster.errors import ClusterError
from sampan.cluster.wishes import Wishes
from sampan.network import host


@pytest.fixture
def routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A host with these routes, and no cluster."""
    found: list[str] = []

    def overlapping(cidrs: Sequence[str], *, bridge: str = "") -> dict[str, str]:
        return {
            c: r for c in cidrs for r in found
            if (":" in c and ":" in r and ipaddress.IPv6Network(c).overlaps(ipaddress.IPv6Network(r)))
            or (":" not in c and ":" not in r and ipaddress.IPv4Network(c).overlaps(ipaddress.IPv4Network(r)))
        }  # fmt: skip

    monkeypatch.setattr(host, "overlapping", overlapping)
    monkeypatch.setattr(host, "link_exists", lambda name: False)
    monkeypatch.setattr(ports, "problem", lambda address, port: "")
    monkeypatch.setattr(configuration, "STATE", tmp_path)
    for name, content in (("IF_INET6", ""), ("DISABLE_IPV6", "0\n")):
        (tmp_path / name).write_text(content)
        monkeypatch.setattr(ranges, name, tmp_path / name)
    return found


def chosen(**given: str) -> ClusterConfig:
    return wishes.resolve(Wishes(name="t", **given))[0]  # type: ignore[arg-type]


def test_one_family_is_the_default(routes: list[str]) -> None:
    config = chosen()
    assert config.families == ("IPv4",)
    assert (config.service_cidr, config.pod_cidr) == ("10.96.0.0/16", "10.244.0.0/16")
    assert config.pod_cidrs == ("10.244.0.0/16",)


def test_two_by_flag_or_by_range(routes: list[str]) -> None:
    config = chosen(ip_families="IPv4,IPv6")
    assert config.service_cidrs == ("10.96.0.0/16", "fd00:10:96::/112")
    assert config.node_pod_cidrs("node-2") == ("10.244.1.0/24", "fd00:10:244:1::/64")
    assert config.node_addresses("node-1") == ("172.29.0.2", "fd00:172:29::2")
    by_range = chosen(pod_cidr="10.50.0.0/16,fd00:50::/56")
    assert by_range.pod_cidrs == ("10.50.0.0/16", "fd00:50::/56")
    assert by_range.families == ("IPv4", "IPv6")


def test_defaults_that_a_route_overlaps_are_passed_over(routes: list[str]) -> None:
    routes.append("fd00:10:244::/48")
    assert chosen().number == 0, "of another family"
    assert chosen(ip_families="IPv4,IPv6").pod_cidrs == ("10.160.0.0/16", "fd00:10:160::/56")


def test_given_ones_that_overlap_are_named_with_free_ones(routes: list[str]) -> None:
    routes += ["10.244.0.0/16", "fd00:10::/32"]
    with pytest.raises(ClusterError) as e:
        chosen(pod_cidr="10.244.0.0/16", service_cidr="10.8.0.0/16", node_subnet="10.8.4.0/24")
    assert str(e.value).split("; --")[0] == (
        "--pod-cidr 10.244.0.0/16 overlaps the route 10.244.0.0/16 of this host; free is: --pod-cidr 10.160.0.0/16"
    )
    assert (
        "--node-subnet 10.8.4.0/24 overlaps --service-cidr 10.8.0.0/16; free is: --node-subnet 172.29."
        in str(e.value)
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ip_families": "IPv6"}, "--ip-families 'IPv6': allowed are IPv4 and IPv4,IPv6"),
        ({"ip_families": "IPv4", "pod_cidr": "fd00:1::/56"}, "--pod-cidr has an IPv6 network, but --ip-families is IPv4 alone"),
        ({"pod_cidr": "10.1.2/3"}, "--pod-cidr '10.1.2/3' is not an IPv4 network such as"),
        ({"pod_cidr": "10.1.0.0/16,10.2.0.0/16"}, "one network of each family"),
        ({"service_cidr": "10.1.0.0/25"}, "--service-cidr 10.1.0.0/25 is too small: at least a /24"),
        ({"service_cidr": "fd00:1::/120"}, "--service-cidr fd00:1::/120 is too small: at least a /112"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(routes: list[str], given: dict[str, str], said: str) -> None:
    with pytest.raises(ClusterError) as e:
        chosen(**given)
    assert said in str(e.value)


def test_every_node_needs_a_range(routes: list[str]) -> None:
    with pytest.raises(
        ClusterError, match=r"10\.1\.0\.0/23 is too small for 3 nodes, a /24 each: at least a /22"
    ):
        wishes.resolve(Wishes(name="t", nodes=3, pod_cidr="10.1.0.0/23"))


def test_a_host_without_ipv6_is_told_what_to_do(routes: list[str]) -> None:
    ranges.DISABLE_IPV6.write_text("1\n")
    with pytest.raises(
        ClusterError, match=r"switched off on this host: `sysctl -w net.ipv6.conf.all.disable_ipv6=0`"
    ):
        chosen(ip_families="IPv4,IPv6")
    ranges.IF_INET6.unlink()
    with pytest.raises(ClusterError, match="this host has no IPv6"):
        chosen(ip_families="IPv4,IPv6")


def test_a_route_that_came_since_is_named_when_the_cluster_is_resumed(routes: list[str]) -> None:
    config = chosen()
    routes.append("10.244.3.0/24")
    assert ranges.taken_since(config) == [
        "10.244.0.0/16, a range of this cluster, overlaps the route 10.244.3.0/24 of this host: remove that route, or"
        " delete the cluster"
    ]
