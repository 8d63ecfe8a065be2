"""Who changes a table: told by the kernel, in a throw-away network namespace."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator

import pytest

from sampan.network import nftables
from sampan.network.netlink import NETLINK_NETFILTER, Netlink, in_namespace
from sampan.network.nftables import Element, Family, Type
from sampan.network.nftables_monitor import NftablesMonitor

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class Place:
    def __init__(self, name: str) -> None:
        self.path = f"/run/netns/{name}"
        self.name = name
        self.told: list[tuple[str, str]] = []
        self.called = asyncio.Event()
        self.monitor = in_namespace(self.path, NftablesMonitor)
        self.netlink = in_namespace(self.path, lambda: Netlink(NETLINK_NETFILTER))
        for table in ("one", "two"):
            self.monitor.watch(Family.IP, table, lambda who, table=table: self.tell(table, who))

    def tell(self, table: str, who: str) -> None:
        self.told.append((table, who.split()[0]))
        self.called.set()

    def nft(self, script: str) -> None:
        command = ["ip", "netns", "exec", self.name, "nft", "-f", "-"]
        subprocess.run(command, input=script, text=True, check=True)

    async def until_told(self) -> list[tuple[str, str]]:
        async with asyncio.timeout(20):
            await self.called.wait()
        self.called.clear()
        told, self.told = self.told, []
        return told


@pytest.fixture
def place() -> Iterator[Place]:
    name = f"t-proxy-monitor-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Place(name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


async def test_changes_of_others_are_told_by_table_and_by_whom(place: Place) -> None:
    watching = asyncio.create_task(place.monitor.run())
    place.nft("table ip one { set s { type ipv4_addr; }\n chain c { }\n}\ntable ip three { }")
    assert await place.until_told() == [("one", "nft")]
    for script in (
        "add element ip one s { 10.0.0.1 }",
        "add rule ip one c accept",
        "flush chain ip one c",
        "delete element ip one s { 10.0.0.1 }",
    ):
        place.nft(script)
        assert await place.until_told() == [("one", "nft")], script
    place.nft("table ip two { }")
    assert await place.until_told() == [("two", "nft")]
    place.nft("table ip6 one { }\nadd element ip one s { 10.0.0.1 }\ntable ip three { chain d { }\n}")
    assert await place.until_told() == [("one", "nft")], "not for another family, and another's table"
    place.nft("flush ruleset")
    assert sorted(await place.until_told()) == [("one", "nft"), ("two", "nft")]
    watching.cancel()


async def test_own_changes_are_not_told(place: Place) -> None:
    place.monitor.own(12345)
    place.monitor.own(place.netlink.port)
    watching = asyncio.create_task(place.monitor.run())
    several = [Element(bytes([10, 0, i >> 8, i & 255])) for i in range(20_000)]
    place.netlink.transaction(
        nftables.SUBSYSTEM,
        [
            nftables.table(Family.IP, "one"),
            nftables.set_(Family.IP, "one", "s", [Type.IPV4_ADDR]),
            *nftables.add_elements(Family.IP, "one", "s", several),
        ],
    )
    nft = subprocess.Popen(
        ["ip", "netns", "exec", place.name, "nft", "-f", "-"], stdin=subprocess.PIPE, text=True
    )
    with place.monitor.expecting(nft.pid):
        nft.communicate("table ip one { chain c { }\n}")
    place.nft("table ip two { }")
    assert await place.until_told() == [("two", "nft")], "the only one that was another's"
    watching.cancel()


async def test_more_than_the_kernel_can_keep_is_told_of_every_table(place: Place) -> None:
    place.nft("table ip one { set s { type ipv4_addr; }\n}\ntable ip two { }")
    watching = asyncio.create_task(place.monitor.run())
    await place.until_told()
    many = ", ".join(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(120_000))
    place.nft(f"add element ip one s {{ {many} }}")
    told = await place.until_told()
    assert {("one", "somebody"), ("two", "somebody")} <= set(told)
    watching.cancel()
