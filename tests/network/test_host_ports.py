"""Host ports: what leads where, by the fake table; and by the real one, with packets between real namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from sampan.network.host_port_table import TABLE, FakeTable, KernelTable
from sampan.network.host_ports import Forward, HostPorts
from sampan.network.netlink import in_namespace
from sampan.network.nftables import Family
from sampan.network.nftables_monitor import NftablesMonitor
from sampan.network.types import NetworkError, PortMapping
from tests.controllers.conftest import running
from tests.network.test_node_network import Nodes, _attach, nodes

__all__ = ["nodes"]
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


async def test_mappings_are_elements_by_address_and_family() -> None:
    table = FakeTable()
    ports = HostPorts(table)
    both = ("10.0.0.2", "2001:db8::2")
    await ports.add("a", both, [PortMapping(80, 8080), PortMapping(53, 53, "UDP", "192.0.2.1")])
    await ports.add("b", both[:1], [PortMapping(81, 8080, "UDP"), PortMapping(80, 80, host_ip="0.0.0.0")])
    await ports.add("c", both, [PortMapping(82, 8080, host_ip="2001:db8::1")])
    assert table.dump().splitlines() == [
        "*:80/TCP -> 10.0.0.2:80",
        "*:8080/TCP -> 10.0.0.2:80",
        "*:8080/TCP -> [2001:db8::2]:80",
        "*:8080/UDP -> 10.0.0.2:81",
        "192.0.2.1:53/UDP -> 10.0.0.2:53",
        "[2001:db8::1]:8080/TCP -> [2001:db8::2]:82",
    ]
    transactions = table.transactions
    await ports.add("none", both, [])
    await ports.remove("none")
    assert table.transactions == transactions
    for name in "abc":
        await ports.remove(name)
    assert table.dump() == ""


async def test_a_port_of_another_pod_is_refused_by_name() -> None:
    ports = HostPorts(FakeTable())
    await ports.add("a", ["10.0.0.2"], [PortMapping(80, 8080)])
    await ports.add("dns", ["10.0.0.3"], [PortMapping(53, 53, "UDP")])
    taken = r"^host port 8080/TCP is in use: \*:8080/TCP -> 10.0.0.2:80; host port 53/UDP is in use: \*:53/UDP -> 10.0.0.3:53$"
    with pytest.raises(NetworkError, match=taken):  # all of them, and always so
        await ports.add(
            "all", ["10.0.0.4"], [PortMapping(8, 8080), PortMapping(9, 53, "UDP"), PortMapping(7, 7)]
        )
    with pytest.raises(NetworkError, match=r"host port 8080/TCP is in use: \*:8080/TCP -> 10.0.0.2:80"):
        await ports.add("b", ["10.0.0.3"], [PortMapping(80, 80), PortMapping(80, 8080)])
    await ports.add("b", ["10.0.0.3"], [PortMapping(80, 80)])
    await ports.remove("a")
    await ports.add("c", ["10.0.0.4"], [PortMapping(80, 8080)])


async def test_a_new_start_changes_only_what_differs() -> None:
    table = FakeTable()
    before = HostPorts(table)
    await before.add("stays", ["10.0.0.2"], [PortMapping(80, 8080)])
    await before.add("went", ["10.0.0.3"], [PortMapping(80, 8081), PortMapping(80, 8082)])
    after = HostPorts(table)
    await after.start(
        {"stays": (["10.0.0.2"], [PortMapping(80, 8080)]), "came": (["10.0.0.4"], [PortMapping(80, 8082)])}
    )
    assert table.dump() == "*:8080/TCP -> 10.0.0.2:80\n*:8082/TCP -> 10.0.0.4:80"
    transactions = table.transactions
    await HostPorts(table).start(
        {"s": (["10.0.0.2"], [PortMapping(80, 8080)]), "c": (["10.0.0.4"], [PortMapping(80, 8082)])}
    )
    assert table.transactions == transactions, "nothing differs"
    # Somebody changes the table: it is whole again with the next change.
    table.forwards.clear()
    await after.remove("came")
    assert table.dump() == "*:8080/TCP -> 10.0.0.2:80"


class Inside:
    """The kernel's table of another namespace than the test's."""

    def __init__(self, netns: str) -> None:
        self._netns = netns
        self._table = in_namespace(netns, KernelTable)

    def read(self) -> set[Forward]:
        return in_namespace(self._netns, self._table.read)

    def apply(self, gone: Sequence[Forward], come: Sequence[Forward]) -> None:
        in_namespace(self._netns, lambda: self._table.apply(gone, come))


@contextlib.contextmanager
def served(netns: str, address: str, name: str = "") -> Iterator[None]:
    """A pod that says by TCP and UDP, at port 9000, whose address it saw, or its name."""

    def make() -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, 9000))
        return socket.create_server((address, 9000)), udp

    tcp, udp = in_namespace(netns, make)

    def by_tcp() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = tcp.accept()
                with connection:
                    connection.sendall((name or peer[0]).encode())

    def by_udp() -> None:
        with contextlib.suppress(OSError):
            while True:
                message, peer = udp.recvfrom(100)
                if not message:
                    return
                udp.sendto((name or peer[0]).encode(), peer)

    threads = [threading.Thread(target=t, daemon=True) for t in (by_tcp, by_udp)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for sock in (tcp, udp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def ask(address: str, port: int) -> str:
    with socket.create_connection((address, port), 5) as s:
        return s.recv(100).decode()


def ask_udp(address: str, port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect((address, port))
        s.send(b"who")
        return s.recv(100).decode()


@root
@pytest.mark.root
async def test_packets_go_from_the_nodes_port_to_the_pod(nodes: Nodes) -> None:
    first, second = nodes.add(1), nodes.add(2)
    server, client, away = nodes.pod("a"), nodes.pod("b"), nodes.pod("c")
    pod = await _attach(first, nodes.root / "leases1", "a", server)
    other = await _attach(first, nodes.root / "leases1", "b", client)
    far = await _attach(second, nodes.root / "leases2", "c", away)
    node, home = first.addresses[0], str(first.netns)
    # What NodeRoutes does in a cluster.
    subprocess.run(
        ["ip", "-n", second.netns.name, "route", "add", first.pod_cidrs[0], "via", node], check=True
    )
    subprocess.run(
        ["ip", "-n", first.netns.name, "route", "add", second.pod_cidrs[0], "via", second.addresses[0]],
        check=True,
    )
    ports = HostPorts(Inside(home))
    mappings = [
        PortMapping(9000, 80),
        PortMapping(9000, 53, "UDP"),
        PortMapping(9000, 81, host_ip="192.0.2.1"),
    ]
    with served(server, pod):
        await ports.add("a", [pod], mappings)
        host = ask(node, 80)
        assert host == str(first.addresses[0].rpartition(".")[0]) + ".1", "the source stays"
        assert ask_udp(node, 53) == host
        assert in_namespace(client, lambda: ask(node, 80)) == other
        assert in_namespace(away, lambda: ask(node, 80)) == far
        assert in_namespace(home, lambda: ask(node, 80)) == node
        hairpin = in_namespace(server, lambda: ask(node, 80))
        assert hairpin != pod, "the way back leads through the node as well"
        for address, port in (("127.0.0.1", 80), (node, 81)):
            with pytest.raises(ConnectionRefusedError):
                in_namespace(home, lambda a=address, p=port: ask(a, p))  # type: ignore[misc]
        in_namespace(home, lambda: subprocess.run(["nft", "flush", "ruleset"], check=True))
        await HostPorts(Inside(home)).start({"a": ([pod], mappings)})
        assert ask(node, 80) == host
        await ports.remove("a")
        with pytest.raises(ConnectionRefusedError):
            ask(node, 80)
    assert Inside(home).read() == set()


@root
@pytest.mark.root
async def test_a_udp_client_that_goes_on_reaches_the_pod_that_comes(nodes: Nodes) -> None:
    node = nodes.add(1)
    pods = {name: nodes.pod(name) for name in "ab"}
    ips = {name: await _attach(node, nodes.root / "leases", name, netns) for name, netns in pods.items()}
    ports = HostPorts(Inside(str(node.netns)))
    mapping = [PortMapping(9000, 53, "UDP")]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((node.addresses[0], 53))
        with contextlib.suppress(ConnectionRefusedError):
            client.send(b"who")
            client.recv(100)  # From before there was anybody.
        with served(pods["a"], ips["a"], "a"):
            await ports.add("a", [ips["a"]], mapping)
            client.send(b"who")
            assert client.recv(100) == b"a"
            await ports.remove("a")
            with served(pods["b"], ips["b"], "b"):
                await ports.add("b", [ips["b"]], mapping)
                client.send(b"who")
                assert client.recv(100) == b"b"


@root
@pytest.mark.root
async def test_what_the_kernel_holds_is_what_it_was_told(nodes: Nodes) -> None:
    home = str(nodes.add(1).netns)
    table = Inside(home)
    assert table.read() == set()
    ports = HostPorts(table)
    await ports.add(
        "a", ["10.0.0.2", "2001:db8::2"], [PortMapping(80, 80, p) for p in ("TCP", "UDP", "SCTP")]
    )
    await ports.add("b", ["2001:db8::3"], [PortMapping(80, 81, host_ip="2001:db8::1"), PortMapping(80, 82)])
    assert {str(f) for f in table.read()} == {
        *(f"*:80/{p} -> {a}:80" for p in ("TCP", "UDP", "SCTP") for a in ("10.0.0.2", "[2001:db8::2]")),
        "[2001:db8::1]:81/TCP -> [2001:db8::3]:80",
        "*:82/TCP -> [2001:db8::3]:80",
    }
    assert Inside(home).read() == table.read()
    await ports.remove("a")
    await ports.remove("b")
    assert table.read() == set()


@root
async def test_what_somebody_flushes_is_put_back(nodes: Nodes) -> None:
    node = nodes.add(1)
    monitor = in_namespace(str(node.netns), NftablesMonitor)
    table = in_namespace(str(node.netns), lambda: KernelTable(monitor.own))

    class Inside:
        """`nft` is started in the namespace of the calling thread."""

        def read(self) -> set[Forward]:
            return table.read()

        def apply(self, gone: Sequence[Forward], come: Sequence[Forward]) -> None:
            in_namespace(str(node.netns), lambda: table.apply(gone, come))

    ports = HostPorts(Inside())
    for family in (Family.IP, Family.IP6):
        monitor.watch(family, TABLE, ports.meddled)
    async with running(monitor.run()), running(ports.keep()):
        await ports.add("a", ("10.0.0.2", "2001:db8::2"), [PortMapping(80, 8080)])
        whole, took = table.read(), []
        for what in ("flush ruleset", f"flush map ip {TABLE} anywhere", f"delete table ip6 {TABLE}"):
            subprocess.run(["ip", "netns", "exec", node.netns.name, "nft", what], check=True)
            began = time.monotonic()
            async with asyncio.timeout(20):
                while table.read() != whole:
                    await asyncio.sleep(0)
            took.append(time.monotonic() - began)
        # The machine may stand still for a moment, and not each time.
        assert min(took) < 1
    table.close()
