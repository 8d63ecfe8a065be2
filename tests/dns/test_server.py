"""The DNS server on a real API server core, with real sockets at loopback addresses; questions and upstreams by dnspython."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import socket
from collections.abc import AsyncIterator

import dns.flags
import dns.message
import dns.rcode
import pytest

from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import (
    CONFIGMAPS,
    ENDPOINTSLICES,
    EVENTS,
    NAMESPACES,
    PODS,
    SERVICEACCOUNTS,
    SERVICES,
)
from sampan.apiserver.app import App
from sampan.client.types import Client
from sampan.dns.server import DnsServer
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config
from tests.controllers.conftest import running
from tests.dns.cluster import service, slice_
from tests.dns.resolver import Upstream, ask, lines

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="port 53 needs root")
_number = itertools.count(1)
WEB = "web.default.svc.cluster.local."
COREFILE = ".:53 {{\n errors\n kubernetes cluster.local {{\n pods insecure\n ttl 30\n }}\n loadbalance\n prometheus :9153\n health\n ready\n{}\n}}\n"


def address() -> str:
    """One of this machine's loopback that nobody else uses."""
    pid = os.getpid()
    return f"127.{80 + next(_number) % 100}.{pid >> 8 & 255}.{pid & 255}"


class Site:
    """A server, the API that it follows, and whom it may ask."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.address = address()
        self.ready = asyncio.Event()
        self.server = DnsServer(client, node_name="n1", addresses=[self.address], ready=self.ready.set)

    async def ask(self, name: str, kind: str = "A", **more: object) -> dns.message.Message:
        return await ask(self.address, name, kind, **more)  # type: ignore[arg-type]

    async def lines(self, name: str, kind: str = "A", **more: object) -> list[str]:
        return lines(await self.ask(name, kind, **more))

    async def until(self, name: str, expected: list[str], kind: str = "A") -> None:
        """The changes of the API arrive by themselves; nothing else is waited for."""
        async with asyncio.timeout(20):
            while await self.lines(name, kind) != expected:
                await asyncio.sleep(0)

    async def configure(self, more: str) -> None:
        """Add to its Corefile, and wait until that is in force."""
        await self.replace(COREFILE.format(more))

    async def replace(self, corefile: str) -> None:
        loads = self.server.loads
        data = {"Corefile": corefile}
        manifest: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"}, "data": data}  # fmt: skip
        present = [
            c
            for c in (await self.client.list(CONFIGMAPS, "kube-system")).items
            if c["metadata"]["name"] == "coredns"
        ]
        if present:
            await self.client.update(CONFIGMAPS, {**deep_copy(present[0]), "data": data})
        else:
            await self.client.create(CONFIGMAPS, manifest)
        async with asyncio.timeout(20):
            while self.server.loads == loads:
                await asyncio.sleep(0)

    async def page(self, path: str, port: int) -> str:
        reader, writer = await asyncio.open_connection(self.address, port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        text = (await reader.read()).decode()
        writer.close()
        return text


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    app = App(MemoryStore(), config())
    await app.start()
    made = Site(app.client())
    await made.client.create(SERVICES, service("web", clusterIP="10.96.0.77"))
    async with running(made.server.run()):
        async with asyncio.timeout(20):
            await made.ready.wait()
        yield made
    await app.close()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    records = (
        "www.example. 300 IN A 192.0.2.1", "www.example. 300 IN A 192.0.2.2", "alias.example. 300 IN CNAME www.example.",
        "v6.example. 300 IN AAAA 2001:db8::1", "short.example. 7 IN A 192.0.2.7",
    )  # fmt: skip
    async with Upstream(address(), *records).running() as made:
        yield made


async def test_udp_tcp_and_any_spelling(site: Site) -> None:
    assert await site.lines(WEB) == ["NOERROR", f"{WEB} 30 IN A 10.96.0.77"]
    assert await site.lines(WEB, tcp=True) == ["NOERROR", f"{WEB} 30 IN A 10.96.0.77"]
    for name in ("WEB.default.SVC.cluster.local.", "wEb.dEfault.svc.cluster.LOCAL."):
        for _ in range(2):
            assert await site.lines(name) == ["NOERROR", f"{name} 30 IN A 10.96.0.77"]


async def test_several_questions_on_one_connection(site: Site) -> None:
    reader, writer = await asyncio.open_connection(site.address, 53)
    asked = [dns.message.make_query(WEB, kind) for kind in ("A", "AAAA", "SRV")]
    data = b"".join(len(m.to_wire()).to_bytes(2, "big") + m.to_wire() for m in asked)
    for at in range(0, len(data), 7):  # in pieces
        writer.write(data[at : at + 7])
    for message in asked:
        size = int.from_bytes(await reader.readexactly(2), "big")
        assert dns.message.from_wire(await reader.readexactly(size)).id == message.id
    writer.close()


async def test_a_change_is_seen_by_the_next_question(site: Site) -> None:
    await site.configure("")
    peers = "peers.default.svc.cluster.local."
    await site.client.create(SERVICES, service("peers", clusterIP="None"))
    await site.until(peers, ["NXDOMAIN"])
    made = await site.client.create(
        ENDPOINTSLICES, slice_("peers", [("10.244.0.5", "pet-0")], ports=[("http", "TCP", 80)])
    )
    await site.until(peers, ["NOERROR", f"{peers} 30 IN A 10.244.0.5"])
    assert await site.lines("5.0.244.10.in-addr.arpa.", "PTR") == ["REFUSED"], "these zones are not ours"
    changed = deep_copy(made)
    changed["endpoints"][0]["hostname"] = "pet-1"
    await site.client.update(ENDPOINTSLICES, changed)
    await site.until(f"pet-1.{peers}", ["NOERROR", f"pet-1.{peers} 30 IN A 10.244.0.5"])
    assert await site.lines(f"pet-0.{peers}") == ["NXDOMAIN"]
    await site.client.delete(ENDPOINTSLICES, "default", "peers-1")
    await site.until(peers, ["NXDOMAIN"])
    await site.client.delete(SERVICES, "default", "web")
    await site.until(WEB, ["NXDOMAIN"])


async def test_reverse_names_follow_changes(site: Site) -> None:
    await site.replace(". {\n kubernetes cluster.local in-addr.arpa\n}\n")
    reverse = "77.0.96.10.in-addr.arpa."
    assert await site.lines(reverse, "PTR") == ["NOERROR", f"{reverse} 5 IN PTR {WEB}"]
    await site.client.delete(SERVICES, "default", "web")
    await site.until(reverse, ["NXDOMAIN"], "PTR")


async def test_namespaces_exist_by_themselves(site: Site) -> None:
    name = "new.svc.cluster.local."
    assert await site.lines(name) == ["NXDOMAIN"]
    assert await site.lines("1-2-3-4.new.pod.cluster.local.") == ["NXDOMAIN"]
    await site.client.create(
        NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}}
    )
    await site.until(name, ["NOERROR"])
    assert (await site.lines("1-2-3-4.new.pod.cluster.local."))[0] == "NOERROR"


async def test_endpoints_take_turns_and_the_rest_comes_by_tcp(site: Site) -> None:
    count = 100
    peers = "many.default.svc.cluster.local."
    await site.client.create(SERVICES, service("many", clusterIP="None"))
    endpoints = [(f"10.244.1.{n}", "") for n in range(1, count + 1)]
    await site.client.create(ENDPOINTSLICES, slice_("many", endpoints, ports=[("http", "TCP", 80)]))
    async with asyncio.timeout(20):
        while (await site.ask(peers)).rcode():
            await asyncio.sleep(0)
    query = dns.message.make_query(peers, "A", use_edns=-1)
    first, seen = set(), set()
    for _ in range(count):
        message = await site.ask(peers, message=query)
        assert message.flags & dns.flags.TC
        assert len(message.to_wire()) <= 512
        first.add(str(message.answer[0]))
        seen.update(str(r) for r in message.answer)
    assert len(first) == len(seen) == count
    whole = await site.ask(peers, tcp=True)
    assert len(whole.answer) == count
    assert not whole.flags & dns.flags.TC


async def test_malformed_packets_are_survived(site: Site) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        for data in (b"", b"x", os.urandom(40), b"\0" * 12, bytes(11) + b"\1", os.urandom(2000)):
            sock.sendto(data, (site.address, 53))
    assert (await site.lines(WEB))[0] == "NOERROR"


async def test_other_names_are_asked_for_elsewhere_and_kept(site: Site, upstream: Upstream) -> None:
    await site.configure(f" forward . {upstream.address}\n cache 30")
    for _ in range(3):
        message = await site.ask("WWW.example.")
        assert sorted(str(r) for r in message.answer) == [
            f"WWW.example. {r.ttl} IN A 192.0.2.{n}" for n, r in enumerate(message.answer, 1)
        ]
        assert 28 <= message.answer[0].ttl <= 30
    assert await site.lines("v6.example.", "AAAA") == ["NOERROR", "v6.example. 30 IN AAAA 2001:db8::1"]
    assert await site.lines("www.example.", "AAAA") == ["NOERROR"]
    for _ in range(2):
        denied = await site.ask("nobody.example.")
        assert (denied.rcode(), str(denied.authority[0])) == (
            dns.rcode.NXDOMAIN,
            "example. 30 IN SOA ns. mail. 1 2 3 4 77",
        )
    assert await site.lines("alias.example.") == ["NOERROR", "alias.example. 30 IN CNAME www.example."]
    assert upstream.asked == ["www.example. A", "v6.example. AAAA", "www.example. AAAA", "nobody.example. A", "alias.example. A"]  # fmt: skip


async def test_numbers_and_ports_of_questions_are_not_to_be_guessed(site: Site, upstream: Upstream) -> None:
    await site.configure(f" forward . {upstream.address}")
    for n in range(30):
        await site.ask(f"n{n}.example.")
    assert len(set(upstream.sources)) > 25
    assert len(set(upstream.ids)) > 25
    assert any(abs(a - b) > 1000 for a, b in itertools.pairwise(upstream.ids))


async def test_answers_that_are_not_to_the_question_are_not_looked_at(site: Site, upstream: Upstream) -> None:
    def forged(query: dns.message.Message) -> dns.message.Message | bytes | None:
        real = upstream.usual(query)
        assert isinstance(real, dns.message.Message)
        wrong = dns.message.from_wire(real.to_wire())
        wrong.id = (query.id + 1) & 0xFFFF
        other = dns.message.make_response(dns.message.make_query("www.other.", "A"))
        other.id = query.id
        assert upstream._transport is not None
        for message in (wrong, other):
            upstream._transport.sendto(message.to_wire(), upstream_peer[0])
        return real

    upstream_peer: list[tuple[str, int]] = []
    received = upstream.datagram_received

    def remember(data: bytes, peer: tuple[str, int]) -> None:
        upstream_peer[:] = [peer]
        received(data, peer)

    upstream.datagram_received = remember  # type: ignore[method-assign]
    upstream.reply = forged
    await site.configure(f" forward . {upstream.address}")
    assert len(await site.lines("www.example.")) == 3


async def test_what_does_not_fit_is_asked_for_by_tcp(site: Site, upstream: Upstream) -> None:
    def cut(query: dns.message.Message) -> dns.message.Message:
        made = dns.message.make_response(query)
        made.flags |= dns.flags.TC
        return made

    upstream.reply = cut
    await site.configure(f" forward . {upstream.address}")
    assert len(await site.lines("www.example.")) == 3
    assert upstream.sources[-1] == 0


async def test_a_server_that_is_silent_is_left_for_another(site: Site, upstream: Upstream) -> None:
    dead = address()  # nobody listens: refused at once
    await site.configure(f" forward . {dead} {upstream.address} {{\n policy sequential\n max_fails 1\n }}")
    for _ in range(3):
        assert len(await site.lines("www.example.")) == 3
    assert "REFUSED" not in str(upstream.asked)
    await site.configure(f" forward . {dead}")
    assert await site.lines("www.example.") == ["SERVFAIL"]


async def test_one_answer_for_all_who_ask_the_same_meanwhile(site: Site, upstream: Upstream) -> None:
    held: list[dns.message.Message] = []
    upstream.reply = lambda query: held.append(query)  # type: ignore[func-returns-value]
    await site.configure(f" forward . {upstream.address}")
    questions = [asyncio.create_task(site.lines("www.example.")) for _ in range(20)]
    async with asyncio.timeout(20):
        while not held:
            await asyncio.sleep(0)
        # All questions are there once one that came after them is answered.
        await site.lines(WEB)
    upstream.reply = upstream.usual
    assert {len(await q) for q in questions} == {3}
    assert len(held) == 1


async def test_stub_domains_hosts_rewrites_and_external_names(site: Site, upstream: Upstream) -> None:
    await site.configure(
        f" forward . {address()}\n hosts {{\n 192.0.2.50 printer.lan\n 2001:db8::50 printer.lan\n fallthrough\n }}\n"
        f" rewrite name shop.example {WEB}\n}}\nexample {{\n forward . {upstream.address}"
    )
    assert await site.lines("printer.lan.") == ["NOERROR", "printer.lan. 3600 IN A 192.0.2.50"]
    assert await site.lines("printer.lan.", "AAAA") == ["NOERROR", "printer.lan. 3600 IN AAAA 2001:db8::50"]
    assert await site.lines("50.2.0.192.in-addr.arpa.", "PTR") == [
        "NOERROR",
        "50.2.0.192.in-addr.arpa. 3600 IN PTR printer.lan.",
    ]
    assert len(await site.lines("www.example.")) == 3
    await site.client.create(
        SERVICES, service("out", type="ExternalName", externalName="alias.example", ports=None)
    )
    out = "out.default.svc.cluster.local."
    await site.until(out, [
        "NOERROR", "alias.example. 300 IN CNAME www.example.", f"{out} 30 IN CNAME alias.example.",
    ])  # fmt: skip
    await site.client.create(
        SERVICES, service("in", type="ExternalName", externalName=WEB.rstrip("."), ports=None)
    )
    inside = "in.default.svc.cluster.local."
    await site.until(inside, ["NOERROR", f"{inside} 30 IN CNAME {WEB}", f"{WEB} 30 IN A 10.96.0.77"])


async def test_a_log_of_queries(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """CoreDNS' line; every question has one, those that were answered before as well."""
    caplog.set_level("INFO", "sampan.dns")
    await site.configure(" log")
    for _ in range(3):
        await site.ask(WEB, message=dns.message.make_query(WEB, "A", id=7, use_edns=-1))
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("127.0.0.1 ")]
    assert len(told) == 3
    assert re.fullmatch(
        r'127\.0\.0\.1 - 7 "A IN web\.default\.svc\.cluster\.local\. udp 47 false 512" NOERROR qr,aa 63 0\.\d+s',
        told[0],
    )


async def test_rewritten_questions_are_answered_by_their_own_name(site: Site) -> None:
    await site.configure(f" rewrite name shop.example {WEB}")
    assert await site.lines("Shop.example.") == ["NOERROR", "Shop.example. 30 IN A 10.96.0.77"]


async def test_a_bad_corefile_is_told_and_the_last_good_one_stays(site: Site, upstream: Upstream) -> None:
    await site.configure(f" forward . {upstream.address}")
    assert len(await site.lines("www.example.")) == 3
    present = deep_copy(await site.client.get(CONFIGMAPS, "kube-system", "coredns"))
    await site.client.update(CONFIGMAPS, {**present, "data": {"Corefile": ". {\n template\n}\n"}})
    found = await site.client.list(EVENTS, "kube-system")
    events = list(found.items)
    if not events:
        async with asyncio.timeout(20):
            async for event in site.client.watch(
                EVENTS, "kube-system", resource_version=found.resource_version
            ):
                if event.type == "ADDED":
                    events.append(event.object)
                    break
    (event_,) = events
    assert (event_["type"], event_["reason"]) == ("Warning", "CorefileRefused")
    assert event_["message"] == (
        "The Corefile is not used, the last good one stays in force: line 2: template is not supported"
    )
    assert event_["involvedObject"]["name"] == "coredns"
    assert len(await site.lines("www.example.")) == 3
    await site.client.delete(CONFIGMAPS, "kube-system", "coredns")
    await site.until("cluster.local.", ["NOERROR"])


async def test_a_pods_whole_search_path_in_one_answer(site: Site, upstream: Upstream) -> None:
    """autopath: only for a Pod whose search path is known."""
    pod = address()
    await site.configure(f" forward . {upstream.address}\n autopath @kubernetes")
    manifest: Object = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    }  # fmt: skip
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "default"},
    }
    await site.client.create(SERVICEACCOUNTS, account)
    made = deep_copy(await site.client.create(PODS, manifest))
    made["status"] = {"phase": "Running", "podIP": pod, "podIPs": [{"ip": pod}]}
    asked = "www.example.default.svc.cluster.local."
    assert await site.lines(asked, source=pod) == ["NXDOMAIN"]
    await site.client.update(PODS, made, subresource="status")
    async with asyncio.timeout(20):
        while (found := await site.lines(asked, source=pod))[0] == "NXDOMAIN":
            await asyncio.sleep(0)
    assert found == [
        "NOERROR", "www.example. 300 IN A 192.0.2.1", "www.example. 300 IN A 192.0.2.2",
        f"{asked} 300 IN CNAME www.example.",
    ]  # fmt: skip
    assert await site.lines(asked, source=address()) == ["NXDOMAIN"], "another who asks the same"
    assert await site.lines("nothing.at.all.default.svc.cluster.local.", source=pod) == ["NXDOMAIN"]
    assert (await site.lines("web.default.default.svc.cluster.local.", source=pod))[1:] == [
        f"web.default.default.svc.cluster.local. 30 IN CNAME {WEB}", f"{WEB} 30 IN A 10.96.0.77",
    ]  # fmt: skip


async def test_counts_by_corednss_names_health_and_readiness(site: Site, upstream: Upstream) -> None:
    await site.configure(f" forward . {upstream.address}\n cache")
    for _ in range(5):
        await site.ask(WEB, message=dns.message.make_query(WEB, "A", id=7))
    await site.ask("www.example.")
    await site.ask("www.example.", tcp=True)
    text = await site.page("/metrics", 9153)
    wanted = {
        'coredns_dns_requests_total{server="dns://:53",zone=".",proto="udp",family="1",type="A",view=""}': 6,
        'coredns_dns_requests_total{server="dns://:53",zone=".",proto="tcp",family="1",type="A",view=""}': 1,
        'coredns_dns_responses_total{server="dns://:53",zone=".",rcode="NOERROR",plugin="kubernetes",view=""}': 5,
        'coredns_dns_request_duration_seconds_count{server="dns://:53",zone=".",view=""}': 7,
        'coredns_dns_request_size_bytes_count{server="dns://:53",zone=".",proto="udp",view=""}': 6,
        'coredns_cache_hits_total{server="dns://:53",type="success",zones=".",view=""}': 1,
        f'coredns_proxy_request_duration_seconds_count{{proxy_name="forward",to="{upstream.address}:53",rcode="NOERROR"}}': 1,
    }
    found = dict(re.findall(r"^([^#\s]\S*) (\S+)$", text, re.M))
    assert {k: float(found.get(k, "nan")) for k in wanted} == wanted
    assert (await site.page("/health", 8080)).endswith("OK")
    assert (await site.page("/ready", 8181)).endswith("OK")
    assert (await site.page("/other", 9153)).startswith("HTTP/1.1 404")
    await site.replace(". {\n kubernetes cluster.local\n}\n")
    async with asyncio.timeout(20):
        while True:
            try:
                await site.page("/health", 8080)
            except ConnectionError:
                break
            await asyncio.sleep(0)


async def test_a_flood_from_one_address_leaves_the_others_their_queue(site: Site) -> None:
    """The kernel puts packets in a queue by their source, so that the one that floods fills its own."""
    flooder, other = "127.0.0.2", "127.0.0.3"
    data = dns.message.make_query(WEB, "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((flooder, 0))
        # All at once, in this thread: the server sees none of it before its queue is full.
        for _ in range(20000):
            sock.sendto(data, (site.address, 53))
        assert await site.lines(WEB, source=other, timeout=2) == ["NOERROR", f"{WEB} 30 IN A 10.96.0.77"]


async def test_waiting_questions_of_one_address_are_limited(site: Site, upstream: Upstream) -> None:
    upstream.reply = lambda query: None
    await site.configure(f" forward . {upstream.address}")
    source = "127.0.0.2"
    waiting = [
        asyncio.create_task(site.lines(f"n{n}.example.", source=source, timeout=30)) for n in range(100)
    ]
    async with asyncio.timeout(20):
        while len(upstream.asked) < 100:
            await asyncio.sleep(0)
    assert await site.lines("one.more.example.", source=source) == ["REFUSED"]
    assert (await site.lines(WEB, source=source))[0] == "NOERROR"
    upstream.reply = upstream.usual
    assert (await site.lines("nobody.example.", source="127.0.0.3"))[0] == "NXDOMAIN"
    for task in waiting:
        task.cancel()


async def test_connections_of_one_address_are_limited(site: Site) -> None:
    opened = [await asyncio.open_connection(site.address, 53) for _ in range(40)]
    closed = [reader for reader, _ in opened]
    async with asyncio.timeout(20):
        ends = await asyncio.wait(
            [asyncio.ensure_future(r.read(1)) for r in closed], return_when="FIRST_COMPLETED"
        )
        assert ends[0]
    assert (await site.lines(WEB, tcp=True, source="127.0.0.3"))[0] == "NOERROR"
    for _, writer in opened:
        writer.close()
    for task in ends[1]:
        task.cancel()
