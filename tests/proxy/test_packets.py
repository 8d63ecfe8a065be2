"""The rules as packets meet them, in both families: who is served by whom, who is seen as whom, who is refused and how."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from sampan.proxy.rules import Rules
from sampan.proxy.types import Backend, Frontend, Target
from tests.proxy.wires import LAYOUT, NODE, NODE6, OUTSIDER, OUTSIDER6, PODS, Wires, wires

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

CLUSTER_IP = {4: "10.96.0.7", 6: "fd00:96::7"}
LB = {4: "198.51.100.7", 6: "fd00:51::7"}
NODES = {4: NODE, 6: NODE6}
OUT = {4: OUTSIDER, 6: OUTSIDER6}
both = pytest.mark.parametrize("v", [4, 6], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def net() -> Iterator[Wires]:
    with wires("t-proxy") as made:
        yield made


@pytest.fixture
def rules(net: Wires) -> Iterator[Rules]:
    table = net.table()
    made = Rules(table, LAYOUT)
    made.start({})
    yield made
    net.run("node", "nft", "flush ruleset")
    table.close()


def pod(who: str, v: int, port: int = 8080) -> Backend:
    return Backend(PODS[who][v == 6], port)


def seen(net: Wires, client: str, address: str, server: str, port: int = 80) -> str:
    """Whom the server sees when a client connects."""
    with net.listen(server, 8080) as listener, net.connect(client, address, port) as c:
        connection, (peer, *_) = listener.accept()
        with connection:
            connection.sendall(b"x")
            assert c.recv(1) == b"x"
    return str(peer).removeprefix("::ffff:")


@both
def test_every_kind_of_client_reaches_a_cluster_ip(net: Wires, rules: Rules, v: int) -> None:
    rules.update({"d/web": {Frontend(CLUSTER_IP[v], "TCP", 80): Target("d/web", (pod("a", v),))}})
    assert seen(net, "b", CLUSTER_IP[v], "a") == pod("b", v).address, "a pod keeps its address"
    assert seen(net, "outsider", CLUSTER_IP[v], "a") not in (OUT[v], pod("b", v).address), "masqueraded"
    seen(net, "node", CLUSTER_IP[v], "a")
    assert seen(net, "a", CLUSTER_IP[v], "a") != pod("a", v).address, "hairpin: through the node and back"


@both
def test_a_node_port_masquerades_and_policy_local_does_not(net: Wires, rules: Rules, v: int) -> None:
    port = Frontend(NODES[v], "TCP", 30080)
    rules.update({"d/web": {port: Target("d/web", (pod("a", v),))}})
    assert seen(net, "outsider", NODES[v], "a", 30080) != OUT[v]
    rules.update({"d/web": {port: Target("d/web", (pod("a", v),), keep_source=True)}})
    assert seen(net, "outsider", NODES[v], "a", 30080) == OUT[v]


@both
def test_pods_and_the_node_have_others_than_everybody_else(net: Wires, rules: Rules, v: int) -> None:
    front = Frontend(LB[v], "TCP", 80)
    local = Target("d/web", (), keep_source=True, inside=(pod("a", v),), drop=True)
    rules.update({"d/web": {front: local}})
    assert seen(net, "b", LB[v], "a") == pod("b", v).address
    seen(net, "node", LB[v], "a")
    with pytest.raises(TimeoutError):
        net.connect("outsider", LB[v], 80, 0.3)
    rules.update({"d/web": {front: Target("d/web", (pod("b", v),), keep_source=True, inside=(pod("a", v),))}})
    assert seen(net, "outsider", LB[v], "b") == OUT[v]
    assert seen(net, "b", LB[v], "a") == pod("b", v).address


@both
def test_without_backends_a_connection_is_rejected_or_dropped(net: Wires, rules: Rules, v: int) -> None:
    fronts = (
        Frontend(CLUSTER_IP[v], "TCP", 80),
        Frontend(LB[v], "TCP", 80),
        Frontend(NODES[v], "TCP", 30080),
    )
    rules.update({"d/web": {f: Target("d/web", ()) for f in fronts}})
    for who in ("a", "node", "outsider"):
        for f in fronts:
            with pytest.raises(ConnectionRefusedError):
                net.connect(who, f.address, f.port)
    # Nobody has the next address of the range.
    with pytest.raises(ConnectionRefusedError):
        net.connect("a", CLUSTER_IP[v][:-1] + "9", 80)
    with net.udp("a", CLUSTER_IP[v], 53) as s:
        s.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            s.recv(10)
    rules.update({"d/web": {f: Target("d/web", (), drop=True) for f in fronts}})
    for f in fronts:
        with pytest.raises(TimeoutError):
            net.connect("outsider", f.address, f.port, 0.2)


@both
def test_only_networks_that_may_connect_do(net: Wires, rules: Rules, v: int) -> None:
    front = Frontend(LB[v], "TCP", 80)

    def restrict(*sources: str) -> None:
        rules.update({"d/web": {front: Target("d/web", (pod("a", v),), keep_source=True, sources=sources)}})

    long, all_bits = ("/24", "/32") if v == 4 else ("/64", "/128")
    restrict("192.0.2.0/24" if v == 4 else "2001:db8::/64")
    with pytest.raises(TimeoutError):
        net.connect("outsider", LB[v], 80, 0.2)
    restrict(OUT[v] + long)
    assert seen(net, "outsider", LB[v], "a") == OUT[v]
    with pytest.raises(TimeoutError):
        net.connect("b", LB[v], 80, 0.2)
    restrict(pod("b", v).address + all_bits, "0.0.0.0/32" if v == 4 else "::/127")
    seen(net, "b", LB[v], "a")
    with pytest.raises(TimeoutError):
        net.connect("outsider", LB[v], 80, 0.2)
    restrict("0.0.0.0/0" if v == 4 else "::/0")
    seen(net, "outsider", LB[v], "a")


@both
def test_a_client_is_remembered_and_a_slot_that_is_gone_forgotten(net: Wires, rules: Rules, v: int) -> None:
    front = Frontend(CLUSTER_IP[v], "TCP", 80)
    two = (pod("a", v, 8080), pod("b", v, 8080))
    rules.update({"d/web": {front: Target("d/web", two, 77)}})
    with net.listen("a", 8080) as a, net.listen("b", 8080) as b:
        servers = {"a": a, "b": b}

        def served() -> str:
            with net.connect("outsider", CLUSTER_IP[v], 80):
                for name, listener in servers.items():
                    listener.settimeout(0.05)
                    try:
                        listener.accept()[0].close()
                    except TimeoutError:
                        continue
                    return name
            pytest.fail("nobody was asked")

        mine = served()
        assert {served() for _ in range(8)} == {mine}
        other = "b" if mine == "a" else "a"
        rules.update({"d/web": {front: Target("d/web", (pod(other, v),), 77)}})
        assert served() == other
        # Gone altogether and there again with fewer slots than were remembered: another is drawn.
        rules.update({"d/web": {}})
        rules.update({"d/web": {front: Target("d/web", (pod(mine, v),), 77)}})
        assert {served() for _ in range(3)} == {mine}


def test_sctp_is_translated(net: Wires, rules: Rules) -> None:
    """Without sockets of that kind: an INIT goes in, and comes out at the backend."""
    rules.update({"d/s": {Frontend("10.96.0.7", "SCTP", 80): Target("d/s", (pod("a", 4),))}})

    def raw() -> socket.socket:
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
        s.settimeout(2)
        return s

    with net.inside("a", raw) as server, net.inside("outsider", raw) as client:
        init = struct.pack("!BBHIIHHI", 1, 0, 20, 0x1234, 65535, 1, 1, 1)
        header = struct.pack("!HHII", 40000, 80, 0, 0)
        packet = header[:8] + struct.pack("<I", _crc32c(header + init)) + init
        client.sendto(packet, ("10.96.0.7", 0))
        got = server.recv(1000)
    assert struct.unpack_from("!HH", got, 20)[1] == 8080


def test_counters_tell_who_was_asked(net: Wires, rules: Rules) -> None:
    front = Frontend(CLUSTER_IP[4], "TCP", 80)
    rules.update({"d/web": {front: Target("d/web", (pod("a", 4),))}})
    for _ in range(3):
        seen(net, "b", CLUSTER_IP[4], "a")
    listed = net.run("node", "nft", "list", "map", "ip", "sampan", "endpoints")
    assert "counter packets 3" in listed
    assert 'comment "d/web"' in listed


@both
def test_udp_clients_leave_a_backend_that_is_gone(net: Wires, rules: Rules, v: int) -> None:
    front, front2 = Frontend(CLUSTER_IP[v], "UDP", 53), Frontend(NODES[v], "UDP", 30053)
    conntrack = net.conntrack()

    def serve(*who: str, lingering: tuple[Backend, ...] = ()) -> int:
        target = Target("d/dns", tuple(pod(w, v) for w in who), lingering=lingering)
        return conntrack.clean(rules.update({"d/dns": {front: target, front2: target}}))

    def asked(s: socket.socket, *servers: socket.socket) -> int:
        s.send(b"?")
        for number, one in enumerate(servers):
            one.settimeout(0.1)
            try:
                one.recv(10)
            except TimeoutError:
                continue
            return number
        return -1

    kinds = socket.SOCK_DGRAM
    with net.listen("a", 8080, kinds) as a, net.listen("b", 8080, kinds) as b:
        with net.udp("outsider", NODES[v], 30053) as early:
            early.send(b"before there was a Service")
            with pytest.raises(ConnectionRefusedError):
                early.recv(10)
            serve("a")
            assert asked(early, a, b) == 0, "an entry that leads to the node itself is gone"
        with net.udp("outsider", CLUSTER_IP[v], 53) as one, net.udp("outsider", NODES[v], 30053) as two:
            for s in (one, two):
                assert asked(s, a, b) == 0
            assert serve("b", lingering=(pod("a", v),)) == 0
            assert asked(one, a, b) == 0, "it still serves those who talk to it"
            assert serve("b") >= 2
            assert [asked(s, a, b) for s in (one, two)] == [1, 1]
            assert serve() == 0, "nobody to send them to: they stay"
            assert serve("a") == 2
            assert conntrack.clean(rules.talking()) == 0
    conntrack.close()


def test_open_connections_live_through_a_restart_and_a_flush(net: Wires, rules: Rules) -> None:
    front = Frontend(CLUSTER_IP[4], "TCP", 80)
    state = {"d/web": {front: Target("d/web", (pod("a", 4),), 33)}}
    rules.update(state)
    with net.listen("a", 8080) as listener, net.connect("outsider", CLUSTER_IP[4], 80) as c:
        connection, _ = listener.accept()
        with connection:
            table = net.table()
            assert Rules(table, LAYOUT).start(state) == 0
            connection.sendall(b"1")
            assert c.recv(1) == b"1"
            net.run("node", "nft", "flush ruleset")
            rules.repair()
            connection.sendall(b"2")
            assert c.recv(1) == b"2"
            c.sendall(b"3")
            assert connection.recv(1) == b"3"
            table.close()
    seen(net, "b", CLUSTER_IP[4], "a")


def test_other_tables_are_not_touched(net: Wires, rules: Rules) -> None:
    net.run(
        "node", "nft", "-f", "-", stdin="table ip theirs { chain c { accept\n}\n}\ntable ip6 sampan-like { }"
    )
    before = net.run("node", "nft", "list", "table", "ip", "theirs")
    rules.update({"d/web": {Frontend("10.96.0.7", "TCP", 80): Target("d/web", (pod("a", 4),), 5)}})
    rules.repair()
    Rules(net.table(), LAYOUT).start({})
    assert net.run("node", "nft", "list", "table", "ip", "theirs") == before
    assert "sampan-like" in net.run("node", "nft", "list", "tables")


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
