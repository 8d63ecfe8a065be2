"""`sampan node rules` in words, from the kernel, after real connections."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sampan.network.netlink import NETLINK_NETFILTER, Netlink
from sampan.proxy import words
from sampan.proxy.rules import Rules
from sampan.proxy.types import Backend, Frontend, Target
from tests.proxy.wires import LAYOUT, PODS, Wires, wires

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def net() -> Iterator[Wires]:
    with wires("t-proxy-words") as made:
        yield made


def test_a_service_in_words(net: Wires) -> None:
    table = net.table()
    rules = Rules(table, LAYOUT)
    here, far = Backend(PODS["a"][0], 8080), Backend(PODS["far"][0], 8080)
    rules.start({
        "default/web": {
            Frontend("10.96.0.7", "TCP", 80): Target("default/web:http", (here,), 10800),
            Frontend("198.51.100.7", "TCP", 80): Target(
                "default/web:http", (here,), keep_source=True, inside=(here, far), sources=("172.29.0.0/24", "0.0.0.0/32")
            ),
            Frontend("172.29.0.2", "TCP", 30080): Target("default/web:http", (), keep_source=True, inside=(far,), drop=True),
        },
        "default/website": {Frontend("fd00:96::8", "UDP", 53): Target("default/website", ())},
    })  # fmt: skip
    with net.listen("a", 8080) as listener:
        for address in ("10.96.0.7", "10.96.0.7", "198.51.100.7"):
            with net.connect("outsider", address, 80):
                listener.accept()[0].close()
    with pytest.raises(TimeoutError):
        net.connect("outsider", "172.29.0.2", 30080, 0.2)
    netlink = Netlink.inside(net.path("node"), NETLINK_NETFILTER)
    contents = words.read(netlink)
    netlink.close()
    assert words.explain(contents, "default/web") == "\n".join(
        [
            "default/web:http",
            "  10.96.0.7:80/TCP",
            "    to one of 1 backend (2 connections):",
            "      10.244.0.2:8080 100.0%  2 connections",
            "    a client keeps its backend for 10800 s (1 client remembered)",
            "  172.29.0.2:30080/TCP",
            "    from pods and the node to one of 1 backend (0 connections):",
            "      10.244.1.2:8080 100.0%  0 connections",
            "    without backends on this node, though elsewhere: dropped (1 packet)",
            "    the client's address is kept",
            "  198.51.100.7:80/TCP",
            "    pods and the node excepted, to one of 1 backend (1 connection):",
            "      10.244.0.2:8080 100.0%  1 connection",
            "    from pods and the node to one of 2 backends (0 connections):",
            "      10.244.0.2:8080  50.0%  0 connections",
            "      10.244.1.2:8080  50.0%  0 connections",
            "    only from 0.0.0.0/32, 172.29.0.0/24; others are dropped",
            "    the client's address is kept",
        ]
    )
    assert words.explain(contents, "default/website").splitlines()[1:] == [
        "  [fd00:96::8]:53/UDP",
        "    without backends anywhere: rejected (0 packets)",
    ]
    assert words.explain(contents, "default/other") == ""
    assert words.explain(contents).count("/TCP\n") == 3
    table.close()
