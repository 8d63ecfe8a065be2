"""nf_tables by netlink, held against what `nft` shows of it."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from sampan.network import nftables
from sampan.network import nftables_expressions as expressions
from sampan.network.netlink import NETLINK_NETFILTER, Netlink
from sampan.network.nftables import SUBSYSTEM, Element, Family, Hook, Type

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
FAMILY, TABLE = Family.IP, "t-table"


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"t-nft-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def netlink(netns: str) -> Iterator[Netlink]:
    made = Netlink.inside(f"/run/netns/{netns}", NETLINK_NETFILTER)
    yield made
    made.close()


def listed(netns: str) -> list[str]:
    done = subprocess.run(
        ["ip", "netns", "exec", netns, "nft", "list", "ruleset"], check=True, capture_output=True, text=True
    )
    return [line.strip() for line in done.stdout.splitlines() if line.strip(" \t}")]


def service(protocol: int, port: int) -> bytes:
    return struct.pack("!BxxxHxx", protocol, port)


def test_nft_shows_what_was_made(netns: str, netlink: Netlink) -> None:
    address = socket.inet_aton("10.244.0.9")
    mark = struct.pack("=I", 7)
    netlink.transaction(
        SUBSYSTEM,
        [
            nftables.table(FAMILY, TABLE),
            nftables.chain(FAMILY, TABLE, "way", type="filter", hook=Hook.FORWARD, priority=0),
            nftables.chain(FAMILY, TABLE, "end"),
            nftables.set_(FAMILY, TABLE, "marks", [Type.IPV4_ADDR], data=Type.MARK),
            nftables.set_(FAMILY, TABLE, "ends", [Type.MARK], verdicts=True),
            nftables.set_(FAMILY, TABLE, "some", [Type.IPV4_ADDR], ranges=True, comment="of a policy"),
            nftables.set_(FAMILY, TABLE, "ports", [Type.INET_PROTO, Type.INET_SERVICE], ranges=True),
            *nftables.add_elements(FAMILY, TABLE, "marks", [Element(address, data=mark, comment="a pod")]),
            *nftables.add_elements(FAMILY, TABLE, "ends", [Element(mark, goto="end")]),
            *nftables.add_elements(
                FAMILY, TABLE, "some", [Element(address), Element(socket.inet_aton("10.244.1.0"), interval_end=True)]
            ),
            *nftables.add_elements(FAMILY, TABLE, "ports", [Element(service(6, 80), key_end=service(6, 90))]),
            nftables.rule(FAMILY, TABLE, "way", [*expressions.established(), expressions.decide(nftables.ACCEPT)]),
            nftables.rule(
                FAMILY, TABLE, "way",
                [
                    expressions.payload(expressions.NETWORK_HEADER, 16, 4, 0), expressions.lookup("marks", 0, 0),
                    expressions.set_mark(0), expressions.decide(nftables.JUMP, "end"),
                ],
            ),
            nftables.rule(
                FAMILY, TABLE, "end",
                [
                    expressions.payload(expressions.NETWORK_HEADER, 12, 4, 0), expressions.lookup("some", 0),
                    expressions.protocol(0), expressions.payload(expressions.TRANSPORT_HEADER, 2, 2, 1),
                    expressions.lookup("ports", 0), expressions.decide(nftables.RETURN),
                ],
                comment="why",
            ),
        ],
    )  # fmt: skip
    shown = listed(netns)
    for line in (
        "type filter hook forward priority filter; policy accept;",
        "ct state established,related accept",
        "meta mark set ip daddr map @marks jump end",
        'ip saddr @some meta l4proto . th dport @ports return comment "why"',
        "elements = { 10.244.0.9-10.244.0.255 }",
        "elements = { tcp . 80-90 }",
        'comment "of a policy"',
    ):
        assert line in shown, f"{line} is not in {shown}"
    assert any('10.244.0.9 comment "a pod"' in line for line in shown)
    assert any("goto end" in line for line in shown)


def test_what_was_made_is_read_back_and_taken_away(netlink: Netlink) -> None:
    assert not nftables.has_table(netlink, FAMILY, TABLE)
    several = [Element(struct.pack("!I", n)) for n in range(1000)]
    netlink.transaction(
        SUBSYSTEM,
        [
            nftables.table(FAMILY, TABLE),
            nftables.chain(FAMILY, TABLE, "end"),
            nftables.rule(FAMILY, TABLE, "end", [expressions.decide(nftables.DROP)]),
            nftables.set_(FAMILY, TABLE, "several", [Type.IPV4_ADDR]),
            *nftables.add_elements(FAMILY, TABLE, "several", several),
        ],
    )
    assert nftables.has_table(netlink, FAMILY, TABLE)
    assert nftables.chain_names(netlink, FAMILY, TABLE) == ["end"]
    assert nftables.set_names(netlink, FAMILY, TABLE) == ["several"]
    assert [(c, [name for name, _ in e]) for c, e in nftables.read_rules(netlink, FAMILY, TABLE)] == [
        ("end", ["immediate"])
    ]
    found = nftables.read_elements(netlink, FAMILY, TABLE, "several")
    assert {e.key for e in found} == {e.key for e in several}
    netlink.transaction(
        SUBSYSTEM,
        [
            *nftables.delete_elements(FAMILY, TABLE, "several", several[1:]),
            nftables.delete_chain(FAMILY, TABLE, "end"),
        ],
    )
    assert [e.key for e in nftables.read_elements(netlink, FAMILY, TABLE, "several")] == [several[0].key]
    netlink.transaction(SUBSYSTEM, [nftables.delete_set(FAMILY, TABLE, "several")])
    netlink.transaction(SUBSYSTEM, [nftables.delete_table(FAMILY, TABLE)])
    assert not nftables.has_table(netlink, FAMILY, TABLE)
